"""Geometry of the report's pictures: pure functions from records to positions, drawn by `templates/charts.html.j2`.

Positions are SVG units of a WIDTH x height picture, origin at the top left. No script and no picture library: the
pictures print, scale to a phone and follow the page's light or dark colours.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evals.records import AdapterSummary
from evals.report_text import METRICS, SHARES, duration_text, loss_text, metric_text, number_text, unit_text
from orchestrator.records import TrialRecord

WIDTH, PLOT_HEIGHT = 440.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 426.0, 14.0, 254.0
"""Edges of the plot area of the two pictures of the search."""
BAR_LEFT, BAR_RIGHT, BAR_TOP, BAR_STEP = 132.0, 366.0, 12.0, 24.0
"""Edges of an interval picture, its first row, and the distance between rows."""

Emphasis = Literal["winner", "kept", "other", "bad"]


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis from `first` to `last` (data) at `start` to `end` (positions)."""

    first: float
    last: float
    start: float
    end: float
    is_log: bool
    ticks: tuple[Tick, ...] = ()

    def at(self, value: float) -> float:
        """Position of a data value."""
        first, last, value = (math.log(v) if self.is_log else v for v in (self.first, self.last, value))
        return round(self.start + (value - first) / (last - first) * (self.end - self.start), 2)


@dataclass(frozen=True)
class IntervalRow:
    """One adapter's figure: a dot on a line from `low` to `high`; the three are None when it was not scored."""

    label: str
    emphasis: Emphasis
    y: float
    at: float | None
    low: float | None
    high: float | None
    value: str
    tooltip: str


@dataclass(frozen=True)
class IntervalPicture:
    """One metric over all adapters, on an axis from 0 to 1."""

    title: str
    note: str
    height: float
    rows: tuple[IntervalRow, ...]


@dataclass(frozen=True)
class Curve:
    """One trial's eval losses: positions, the last one, and the point drawn for it."""

    points: str
    end_x: float
    end_y: float
    emphasis: Emphasis
    tooltip: str


@dataclass(frozen=True)
class Dot:
    """One trial in the scatter; `colour` numbers its rank from 0 (smallest)."""

    x: float
    y: float
    colour: int
    rank: str
    is_winner: bool
    tooltip: str


@dataclass(frozen=True)
class CurvePicture:
    """Eval loss over optimizer steps."""

    x: Axis
    y: Axis
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class ScatterPicture:
    """Best eval loss over learning rate."""

    x: Axis
    y: Axis
    dots: tuple[Dot, ...]
    ranks: tuple[str, ...]


def make_axis(values: Sequence[float], start: float, end: float, *, log: bool) -> Axis:
    """An axis around `values` (at least one; positive when `log`) with a margin and round ticks."""
    low, high = min(values), max(values)
    if log:
        margin = max((high / low) ** 0.06, 1.05)
        low, high = low / margin, high * margin
    else:
        margin = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        low, high = low - margin, high + margin
    bare = Axis(low, high, start, end, log)
    marks = _log_marks(low, high) if log else _linear_marks(low, high)
    ticks = zip(marks, _tick_labels(marks), strict=True)
    return Axis(low, high, start, end, log, tuple(Tick(bare.at(mark), label) for mark, label in ticks))


def _tick_labels(marks: Sequence[float]) -> list[str]:
    # Ticks of a narrow range differ only in later digits.
    choices = ([f"{mark:.{digits}g}".replace("e-0", "e-") for mark in marks] for digits in range(3, 9))
    return next((labels for labels in choices if len(set(labels)) == len(marks)), [f"{mark:g}" for mark in marks])


def _linear_marks(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    return [step * index for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_marks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    choices = [
        [mark for decade in decades for factor in factors if low <= (mark := factor * 10.0**decade) <= high]
        for factors in ((1, 2, 5), (1, 3), (1,))
    ]
    marks = next((choice for choice in choices if len(choice) <= 6), choices[-1])
    return marks if len(marks) >= 2 else _linear_marks(low, high)


def interval_pictures(adapters: Sequence[AdapterSummary], winner: str | None) -> list[IntervalPicture]:
    """One picture for each share that at least one adapter is scored on."""
    pictures = []
    for name in SHARES:
        metrics = [adapter.metrics.get(name) for adapter in adapters]
        if not any(metric and metric.value is not None for metric in metrics):
            continue
        rows = []
        for index, (adapter, metric) in enumerate(zip(adapters, metrics, strict=True)):
            scored = metric if metric and metric.value is not None else None
            rows.append(
                IntervalRow(
                    label="base" if adapter.is_base else adapter.id[:10],
                    emphasis="winner" if adapter.id == winner else "other" if adapter.is_base else "kept",
                    y=BAR_TOP + BAR_STEP * index,
                    at=_bar(scored.value) if scored else None,
                    low=_bar(scored.low) if scored else None,
                    high=_bar(scored.high) if scored else None,
                    value=unit_text(scored.value) if scored and scored.value is not None else "not scored",
                    tooltip=f"{adapter.id}: {metric_text(name, scored) if scored else 'not scored'}",
                )
            )
        meaning = METRICS[name]
        note = "higher is better" if meaning.higher_is_better else "lower is better"
        pictures.append(IntervalPicture(meaning.label, note, BAR_TOP + BAR_STEP * len(rows) + 14, tuple(rows)))
    return pictures


def _bar(share: float | None) -> float | None:
    return None if share is None else round(BAR_LEFT + share * (BAR_RIGHT - BAR_LEFT), 2)


def emphasis_of(trial: TrialRecord, kept: frozenset[str], winner: str | None) -> Emphasis:
    """How strongly a trial is drawn."""
    if winner is not None and trial.adapter_id == winner:
        return "winner"
    if trial.status in ("diverged", "failed"):
        return "bad"
    return "kept" if trial.adapter_id in kept else "other"


def curve_picture(trials: Sequence[TrialRecord], kept: frozenset[str], winner: str | None) -> CurvePicture | None:
    """Loss curves, the strongest drawn last; None when no trial has a finite eval loss."""
    series = {t.trial_id: [p for p in t.curve if math.isfinite(p.eval_loss)] for t in trials}
    points = [point for curve in series.values() for point in curve]
    if not points:
        return None
    x = make_axis([0.0, *(float(point.step) for point in points)], LEFT, RIGHT, log=False)
    y = _loss_axis([point.eval_loss for point in points])
    order: list[Emphasis] = ["bad", "other", "kept", "winner"]
    curves = []
    for trial in sorted(trials, key=lambda t: order.index(emphasis_of(t, kept, winner))):
        at = [(x.at(point.step), y.at(point.eval_loss)) for point in series[trial.trial_id]]
        if at:
            line = " ".join(f"{px:g},{py:g}" for px, py in at)
            curves.append(Curve(line, *at[-1], emphasis_of(trial, kept, winner), trial_tooltip(trial)))
    return CurvePicture(x, y, tuple(curves))


def scatter_picture(trials: Sequence[TrialRecord], winner: str | None) -> ScatterPicture | None:
    """Learning rate against best eval loss, coloured by rank; None when no trial has both."""
    known = [
        (float(trial.hyperparameters["learning_rate"]), trial.best_eval_loss, trial)
        for trial in trials
        if trial.best_eval_loss is not None
        and math.isfinite(trial.best_eval_loss)
        and trial.hyperparameters.get("learning_rate", 0) > 0
    ]
    if not known:
        return None
    x = make_axis([rate for rate, _, _ in known], LEFT, RIGHT, log=True)
    y = _loss_axis([loss for _, loss, _ in known])
    ranks = sorted({trial.hyperparameters["r"] for _, _, trial in known if "r" in trial.hyperparameters})
    dots = []
    for rate, loss, trial in known:
        rank = trial.hyperparameters.get("r")
        dots.append(
            Dot(
                x=x.at(rate),
                y=y.at(loss),
                colour=ranks.index(rank) if rank is not None else 0,
                rank="" if rank is None else number_text(rank),
                is_winner=winner is not None and trial.adapter_id == winner,
                tooltip=trial_tooltip(trial),
            )
        )
    return ScatterPicture(x, y, tuple(dots), tuple(number_text(rank) for rank in ranks))


def _loss_axis(losses: Sequence[float]) -> Axis:
    # Losses of one search often span orders of magnitude; a linear axis would flatten the good ones together.
    is_log = min(losses) > 0 and max(losses) / min(losses) > 10
    return make_axis(losses, BOTTOM, TOP, log=is_log)


def trial_tooltip(trial: TrialRecord) -> str:
    """One line about a trial."""
    settings = ", ".join(f"{name} {number_text(value)}" for name, value in trial.hyperparameters.items())
    status = trial.status.replace("_", " ")
    best = loss_text(trial.best_eval_loss)
    after = "" if trial.duration_s is None else f" after {duration_text(trial.duration_s)}"
    return f"{trial.trial_id}: {settings}; best eval loss {best}; {status}{after}"
