"""The report's pictures, drawn by matplotlib: figures with their intervals, the search, and differences to the base.

Each function returns a `Picture` whose SVG is safe in the page (see `report.svg`), or None where there is nothing to
draw. Whoever wants the numbers finds them as text beside each picture, and in a table.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from evals.records import AdapterSummary, Comparison, Metric
from evals.report.svg import INKS, Ink, drawing, label, new_figure, tip, to_svg
from evals.report.text import (
    chance_word,
    difference_text,
    ending_text,
    loss_text,
    metric_text,
    number_text,
    signed_text,
    unscored_text,
)
from evals.stats.metrics import METRICS
from orchestrator.core.records import MetricName, TrialRecord
from orchestrator.core.text import duration_text, unit_text

ROW_HEIGHT, ROW_MARGIN = 23.0, 34.0
"""Height of one row of a picture of intervals, and of its axis, in SVG units."""
MAX_PARAMETERS = 4
"""Most settings of the search that are drawn against an outcome."""

Emphasis = Literal["accent", "kept", "other", "bad"]
"""How strongly a trial or adapter is drawn; the ink's name."""
_ORDER: tuple[Ink, ...] = ("bad", "other", "kept", "accent")
"""In which trials are drawn, so that the strongest is on top."""


_BY_WORD: dict[str, tuple[Ink, str]] = {"better": ("good", "o"), "worse": ("bad", "X")}
"""Colour and shape of a difference that is shown."""


class Picture(NamedTuple):
    """A picture with its caption; `note` says how to read it."""

    title: str
    note: str
    svg: Markup


class Row(NamedTuple):
    """One figure: a dot at `value`, a line from `low` to `high`, `text` beside it; `value` is None when unscored.

    `marker` is matplotlib's code for another shape than a dot.
    """

    label: str
    ink: Ink
    value: float | None
    low: float | None
    high: float | None
    text: str
    tip: str
    marker: str = "o"


def adapter_rows(adapters: Sequence[AdapterSummary], shares: Sequence[Metric | None], focus: str | None) -> list[Row]:
    """One row an adapter."""
    pairs = zip(adapters, shares, strict=True)
    return [share_row("base" if a.is_base else _short(a.id), metric, _ink(a, focus)) for a, metric in pairs]


def share_row(title: str, metric: Metric | None, ink: Ink) -> Row:
    """A share with its interval as a row."""
    if metric is None or metric.value is None:
        return Row(title, ink, None, None, None, "not scored", f"{title}: {unscored_text(metric)}")
    text = f"{unit_text(metric.value)}  n={metric.n}"
    return Row(
        title, ink, metric.value, metric.low, metric.high, text, f"{title}: {metric_text('case_accuracy', metric)}"
    )


def interval_picture(name: str, title: str, note: str, rows: Sequence[Row]) -> Picture | None:
    """Shares on an axis from 0 to 1; None when none is scored."""
    if all(row.value is None for row in rows):
        return None
    with drawing():
        figure = new_figure(ROW_HEIGHT * len(rows) + ROW_MARGIN)
        axes = figure.subplots()
        _draw_rows(axes, rows)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
        description = f"{title}, {note}. " + "; ".join(row.tip for row in rows) + "."
        return Picture(title, note, to_svg(figure, name=name, title=title, description=description))


def metric_picture(adapters: Sequence[AdapterSummary], metric: MetricName, focus: str | None) -> Picture | None:
    """One metric of all adapters; None when none of them is scored on it."""
    meaning = METRICS[metric]
    note = "higher is better" if meaning.higher_is_better else "lower is better"
    rows = adapter_rows(adapters, [adapter.metrics.get(metric) for adapter in adapters], focus)
    return interval_picture(f"m-{metric}", meaning.label, note, rows)


def difference_picture(comparisons: Sequence[Comparison]) -> Picture | None:
    """Paired differences of one adapter (left) to another, and a line where there is none; None without one."""
    known = [(entry, entry.difference) for entry in comparisons if entry.difference is not None]
    if not known:
        return None
    rows = [_difference_row(comparison, difference) for comparison, difference in known]
    left, right = _short(known[0][0].left), _short(known[0][0].right)
    title = f"{left} against {right}, case by case"
    note = "difference with its 95 % interval; green dot: better, red cross: worse, grey: may be chance"
    bounds = [bound for row in rows for bound in (row.value, row.low, row.high) if bound is not None]
    low, high = min(0.0, *bounds), max(0.0, *bounds)
    margin = max(0.02, (high - low) * 0.06)
    with drawing():
        figure = new_figure(ROW_HEIGHT * len(rows) + ROW_MARGIN)
        axes = figure.subplots()
        axes.axvline(0, color=INKS["muted"], linewidth=1.2)
        _draw_rows(axes, rows, label_limit=30, bold=None)
        axes.set_xlim(low - margin, high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
        description = "; ".join(row.tip for row in rows) + "."
        return Picture(title, note, to_svg(figure, name="differences", title=title, description=description))


def _difference_row(comparison: Comparison, difference: float) -> Row:
    word, label = chance_word(comparison), METRICS[comparison.metric].label
    ink, marker = _BY_WORD.get(word, ("other", "o"))
    text = f"{signed_text(difference)} {word}" if word in _BY_WORD else signed_text(difference)
    tip = f"{label}: {difference_text(comparison)}, {word}"
    return Row(label, ink, difference, comparison.low, comparison.high, text, tip, marker)


def _draw_rows(axes: Axes, rows: Sequence[Row], *, label_limit: int = 24, bold: Ink | None = "accent") -> None:
    for y, row in enumerate(rows):
        ink = INKS[row.ink]
        if row.low is not None and row.high is not None:
            (whisker,) = axes.plot(
                [row.low, row.high], [y, y], color=ink, linewidth=3, alpha=0.5, solid_capstyle="round"
            )
            whisker.set_gid(tip(row.tip))
        if row.value is not None:
            (dot,) = axes.plot([row.value], [y], row.marker, color=ink, markersize=8, clip_on=False)
            dot.set_gid(tip(row.tip))
        colour = INKS["ink"] if row.value is not None else INKS["muted"]
        axes.text(1.03, y, row.text, transform=axes.get_yaxis_transform(), verticalalignment="center", color=colour)
    axes.set_yticks(range(len(rows)), [label(row.label, label_limit) for row in rows])
    for text, row in zip(axes.get_yticklabels(), rows, strict=True):
        text.set_color(INKS["ink"])
        text.set_fontweight("bold" if row.ink == bold else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines[["left", "bottom"]].set_visible(False)


def emphasis_of(trial: TrialRecord, kept: frozenset[str], focus: str | None) -> Emphasis:
    """How strongly a trial is drawn."""
    if focus is not None and trial.adapter_id == focus:
        return "accent"
    if trial.status in ("diverged", "failed"):
        return "bad"
    return "kept" if trial.adapter_id in kept else "other"


def curve_picture(trials: Sequence[TrialRecord], kept: frozenset[str], focus: str | None) -> Picture | None:
    """Loss curves, the strongest drawn last; None when no trial has a finite eval loss."""
    series = {t.trial_id: [p for p in t.curve if math.isfinite(p.eval_loss)] for t in trials}
    losses = [point.eval_loss for curve in series.values() for point in curve]
    if not losses:
        return None
    with drawing():
        figure = new_figure(360)
        axes = figure.subplots()
        for trial in sorted(trials, key=lambda t: _ORDER.index(emphasis_of(t, kept, focus))):
            curve, emphasis = series[trial.trial_id], emphasis_of(trial, kept, focus)
            if not curve:
                continue
            steps, values = [point.step for point in curve], [point.eval_loss for point in curve]
            (line,) = axes.plot(
                steps,
                values,
                color=INKS[emphasis],
                linewidth=3 if emphasis == "accent" else 1.5,
                linestyle=(0, (4, 3)) if emphasis == "bad" else "solid",
                marker="o",
                markevery=[-1],
                markersize=6 if emphasis == "accent" else 4,
            )
            line.set_gid(tip(trial_tip(trial)))
        axes.set_xlabel("optimizer step")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        note = "one line a trial" + (", log scale" if _scale_losses(axes, losses) else "")
        title = "Eval loss over optimizer steps"
        description = f"Loss curves of {len(trials)} trials; eval losses from {min(losses):.4g} to {max(losses):.4g}."
        return Picture(title, note, to_svg(figure, name="curves", title=title, description=description))


def _scale_losses(axes: Axes, losses: Sequence[float]) -> bool:
    """Make the axis logarithmic where the losses span orders of magnitude: else the good ones lie on each other."""
    is_log = min(losses) > 0 and max(losses) / min(losses) > 10
    if is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    return is_log


class Tried(NamedTuple):
    """One trial or scored adapter: its settings, and what came of it."""

    settings: dict[str, float | int]
    outcome: float
    ink: Ink
    tip: str


def tried_trials(trials: Sequence[TrialRecord], kept: frozenset[str], focus: str | None) -> list[Tried]:
    """Trials with their best eval loss, as far as it is known; the strongest last, so that it is drawn on top."""
    found = [
        Tried(trial.hyperparameters, trial.best_eval_loss, emphasis_of(trial, kept, focus), trial_tip(trial))
        for trial in trials
        if trial.best_eval_loss is not None and math.isfinite(trial.best_eval_loss)
    ]
    return sorted(found, key=lambda tried: _ORDER.index(tried.ink))


def tried_adapters(adapters: Sequence[AdapterSummary], metric: MetricName, focus: str | None) -> list[Tried]:
    """Scored adapters with one of their metrics."""
    found = []
    for adapter in adapters:
        figure = adapter.metrics.get(metric)
        if not adapter.is_base and figure is not None and figure.value is not None:
            hint = f"{adapter.id}: {metric_text(metric, figure)}"
            found.append(Tried(adapter.hyperparameters, figure.value, _ink(adapter, focus), hint))
    return sorted(found, key=lambda tried: tried.ink == "accent")


def loss_settings_picture(tried: Sequence[Tried]) -> Picture | None:
    """Best eval loss of the trials against every setting that varied; None when none varied."""
    return _settings_picture("losses", "Best eval loss", "one dot a trial; lower is better", tried, is_loss=True)


def metric_settings_picture(metric: MetricName, tried: Sequence[Tried]) -> Picture | None:
    """One metric of the scored adapters against every setting that varied; None when none varied."""
    note = "one dot a scored adapter; higher is better"
    return _settings_picture("by-setting", METRICS[metric].label, note, tried, is_loss=False)


def _settings_picture(name: str, outcome: str, note: str, tried: Sequence[Tried], *, is_loss: bool) -> Picture | None:
    keys = varied_settings([entry.settings for entry in tried])[:MAX_PARAMETERS]
    if not keys:
        return None
    with drawing():
        figure = new_figure(190)
        panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
        for axes, key in zip(panels, keys, strict=True):
            shown = [entry for entry in tried if key in entry.settings]
            for entry in shown:
                (dot,) = axes.plot(
                    [entry.settings[key]], [entry.outcome], "o", color=INKS[entry.ink],
                    markersize=11 if entry.ink == "accent" else 8, markeredgecolor=INKS["card"],
                )  # fmt: skip
                dot.set_gid(tip(entry.tip))
            scale_settings(axes, sorted({float(entry.settings[key]) for entry in shown}))
            axes.set_xlabel(label(key.replace("_", " ")))
        panels[0].set_ylabel(outcome)
        if is_loss:
            _scale_losses(panels[0], [entry.outcome for entry in tried])
        else:
            panels[0].yaxis.set_major_locator(MaxNLocator(5))
            panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        title = f"{outcome} by setting"
        description = "; ".join(entry.tip for entry in tried[:40]) + "."
        return Picture(title, note, to_svg(figure, name=name, title=title, description=description))


def varied_settings(settings: Sequence[dict[str, float | int]]) -> list[str]:
    """Names of the settings with more than one value, in the order they first occur; `step` is a result."""
    keys = dict.fromkeys(key for entry in settings for key in entry if key != "step")
    return [key for key in keys if len({entry[key] for entry in settings if key in entry}) > 1]


def scale_settings(axes: Axes, values: Sequence[float], *, of_y: bool = False) -> None:
    """Settings that span a factor of three or more get a logarithmic axis; few plain values are ticks themselves."""
    is_log = values[0] > 0 and values[-1] / values[0] >= 3
    axis = axes.yaxis if of_y else axes.xaxis
    if is_log:
        axes.set(**{f"{axis.axis_name}scale": "log"})
        span = (values[-1] / values[0]) ** 0.12
        axes.set(**{f"{axis.axis_name}lim": (values[0] / span, values[-1] * span)})
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())
    else:
        axes.margins(*((None, 0.15) if of_y else (0.15, None)))
    if len(values) <= 4 and all(len(number_text(value)) <= 4 for value in values) and _far_apart(values, is_log=is_log):
        axis.set_ticks(values)
    elif is_log:
        axis.set_ticks(_round_marks(values[0], values[-1]))
    else:
        axis.set_major_locator(MaxNLocator(3))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number_text(value)))


def _far_apart(values: Sequence[float], *, is_log: bool) -> bool:
    """Whether labels at all of these leave room for each other."""
    places = [math.log(value) for value in values] if is_log else list(values)
    room = (places[-1] - places[0]) / 5
    return all(after - before >= room for before, after in pairwise(places))


def _round_marks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        marks = [mark for decade in decades for factor in factors if low <= (mark := factor * 10.0**decade) <= high]
        if 2 <= len(marks) <= 3:
            return marks
    return [low, high]


def trial_tip(trial: TrialRecord) -> str:
    """One line about a trial."""
    settings = ", ".join(f"{name} {number_text(value)}" for name, value in trial.hyperparameters.items())
    after = "" if trial.duration_s is None else f" after {duration_text(trial.duration_s)}"
    best = loss_text(trial.best_eval_loss)
    return f"{trial.trial_id}: {settings}; best eval loss {best}; {ending_text(trial)}{after}"


def _ink(adapter: AdapterSummary, focus: str | None) -> Ink:
    return "accent" if adapter.id == focus else "other" if adapter.is_base else "kept"


def _short(adapter_id: str) -> str:
    return adapter_id[:10]
