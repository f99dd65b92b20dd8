"""Pictures of what a search spent and of what its scores say beside eval loss."""

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.tri import Triangulation
from numpy.typing import NDArray

from evals.report.charts import Picture, scale_settings, trial_tip
from evals.report.svg import INKS, Ink, drawing, label, new_figure, tip, to_svg
from evals.report.text import loss_text
from evals.stats.selected import CheckpointScore, Selection
from orchestrator.core.records import TrialRecord
from orchestrator.core.text import duration_text


def objective_picture(checkpoints: Sequence[CheckpointScore], selection: Selection) -> Picture | None:
    """The objective over eval loss, one dot a checkpoint; None for fewer than two."""
    known = [(one, one.objective) for one in checkpoints if one.objective is not None]
    if len(known) < 2:
        return None
    with drawing():
        figure = new_figure(260)
        axes = figure.subplots()
        tips = []
        for one, value in known:
            tips.append(f"{one.trial_id} after step {one.step}: eval loss {loss_text(one.eval_loss)}, {value:.3g}")
            ink = _ink(one, selection)
            size = 11 if ink == "accent" else 8
            (dot,) = axes.plot(
                [one.eval_loss], [value], "o", color=INKS[ink], markersize=size, markeredgecolor=INKS["card"]
            )
            dot.set_gid(tip(tips[-1]))
        axes.set_xlabel("eval loss")
        axes.set_ylabel("objective")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        title, note = "Objective over eval loss", "one dot a checkpoint; up and to the left is better"
        description = f"{note}. " + "; ".join(tips[:40]) + "."
        return Picture(title, note, to_svg(figure, name="objective", title=title, description=description))


def front_picture(selection: Selection) -> Picture | None:
    """The finalists in the first two objectives, the Pareto front joined by a line; None where there is no front."""
    first, second = (*list(selection.weights)[:2], "", "")[:2]
    known = [
        (one, x, y)
        for one in selection.finalists
        if (x := _value(one, first)) is not None and (y := _value(one, second)) is not None
    ]
    if not selection.front or len(known) < 2:
        return None
    with drawing():
        figure = new_figure(260)
        axes = figure.subplots()
        ends = sorted((x, y) for one, x, y in known if one.trial_id in selection.front)
        axes.plot(*zip(*ends, strict=True), color=INKS["kept"], linewidth=1.5, linestyle="--")
        tips = []
        for one, x, y in known:
            tips.append(f"{one.trial_id} after step {one.step}: {first} {x:.3g}, {second} {y:.3g}")
            ink: Ink = "accent" if one.trial_id == selection.kept[0] else "other"
            ink = "kept" if ink == "other" and one.trial_id in selection.front else ink
            (dot,) = axes.plot([x], [y], "o", color=INKS[ink], markersize=10, markeredgecolor=INKS["card"])
            dot.set_gid(tip(tips[-1]))
        axes.set_xlabel(first)
        axes.set_ylabel(second)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        title, note = "Pareto front", "the finalists on validation cases; the line joins those that no other beats"
        description = f"{note}. " + "; ".join(tips) + "."
        return Picture(title, note, to_svg(figure, name="front", title=title, description=description))


def _value(one: CheckpointScore, name: str) -> float | None:
    return next((metric.value for key, metric in one.figures.items() if key == name), None)


def _ink(one: CheckpointScore, selection: Selection) -> Ink:
    if one not in selection.finalists:
        return "other"
    if one.trial_id == selection.kept[0]:
        return "accent"
    return "bad" if one.trial_id == selection.by_loss[0] else "kept"


def contour_picture(trials: Sequence[TrialRecord], across: str, up: str) -> Picture | None:
    """Lines of equal best eval loss over two settings, one dot a trial; None where trials do not span an area."""
    known = [trial for trial in trials if trial.best_eval_loss is not None and math.isfinite(trial.best_eval_loss)]
    lowest: dict[tuple[float, float], tuple[float, str]] = {}
    for trial in sorted(known, key=lambda trial: -(trial.best_eval_loss or 0.0)):
        place = float(trial.hyperparameters[across]), float(trial.hyperparameters[up])
        lowest[place] = trial.best_eval_loss or 0.0, trial_tip(trial)
    x, y = (np.array([place[axis] for place in lowest]) for axis in (0, 1))
    try:
        triangles = Triangulation(_evenly(x), _evenly(y)).triangles
    except (RuntimeError, ValueError):  # too few points, or all on a line
        return None
    losses = np.array([loss for loss, _ in lowest.values()])
    with drawing():
        figure = new_figure(260)
        axes = figure.subplots()
        lines = axes.tricontour(Triangulation(x, y, triangles), losses, levels=6, colors=INKS["kept"], linewidths=1.2)
        axes.clabel(lines, fmt=lambda value: f"{value:.3g}", fontsize=9, colors=INKS["ink"])
        best = min(lowest.values())
        for (across_value, up_value), (loss, told) in lowest.items():
            is_best = (loss, told) == best
            (dot,) = axes.plot(
                [across_value], [up_value], "o", color=INKS["accent" if is_best else "other"],
                markersize=10 if is_best else 7, markeredgecolor=INKS["card"],
            )  # fmt: skip
            dot.set_gid(tip(told))
        scale_settings(axes, sorted(set(x.tolist())))
        scale_settings(axes, sorted(set(y.tolist())), of_y=True)
        axes.set_xlabel(label(across.replace("_", " ")))
        axes.set_ylabel(label(up.replace("_", " ")))
        title = "Eval loss over the two settings that explain most"
        note = "lines of equal best eval loss, one dot a trial; one that was stopped has the loss it reached"
        description = "; ".join(told for _, told in list(lowest.values())[:40]) + "."
        return Picture(title, note, to_svg(figure, name="contour", title=title, description=description))


def _evenly(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values between 0 and 1 as their axis spreads them."""
    spread = np.log(values) if values.min() > 0 and values.max() / values.min() >= 3 else values
    return np.asarray((spread - spread.min()) / (np.ptp(spread) or 1.0))


def best_so_far_picture(trials: Sequence[TrialRecord]) -> Picture | None:
    """The lowest eval loss over the device time of the trials so far, as they were made; None without device times."""
    known = [(t.device_s, t.best_eval_loss) for t in trials if t.device_s is not None and t.best_eval_loss is not None]
    if len(known) < 2:
        return None
    spent = list(accumulate(seconds for seconds, _ in known))
    best = list(accumulate((loss for _, loss in known), min))
    with drawing():
        figure = new_figure(220)
        axes = figure.subplots()
        (line,) = axes.step(spent, best, where="post", color=INKS["accent"], linewidth=2, marker="o", markersize=5)
        line.set_gid(tip(f"from {loss_text(best[0])} to {loss_text(best[-1])}"))
        axes.set_xlabel("device time")
        axes.set_ylabel("lowest eval loss so far")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: duration_text(value) if value else "0"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        title = "Best so far over device time"
        ends = ((best[0], spent[0]), (best[-1], spent[-1]))
        description = ", ".join(f"{loss_text(loss)} after {duration_text(seconds)}" for loss, seconds in ends) + "."
        note = "trials in the order in which they were made"
        return Picture(title, note, to_svg(figure, name="spent", title=title, description=description))
