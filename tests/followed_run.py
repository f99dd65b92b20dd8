"""A small search as trackers hear of it: two trials, one interrupted and resumed, then scores and a report."""

import math
from collections.abc import Sequence
from pathlib import Path

from orchestrator.config.schema import RunConfig, TrackerName
from orchestrator.run.paths import RunDir
from orchestrator.tracking.events import Reported, Scored
from orchestrator.tracking.follow import publish
from orchestrator.tracking.tracker import RunInfo
from orchestrator.training.trackers import tracked

CURVE = [(10, 1.5), (20, 1.25), (30, 1.125)]
"""Eval losses of `trial-1`, which is interrupted after the second."""


def follow_run(root: Path, names: Sequence[TrackerName], *, resumes_at: int = 20) -> RunDir:
    """Train, go on, and report, each by trackers of its own."""
    train_and_interrupt(root, names)
    go_on(root, names, at=resumes_at)
    return report(root, names)


def train_and_interrupt(root: Path, names: Sequence[TrackerName]) -> RunDir:
    root.mkdir(parents=True)
    run = RunDir(root)
    run.config.write_text(RunConfig(name=root.name).model_dump_json(), encoding="utf-8")
    with tracked(RunInfo(root, 2, 40), names) as trackers:
        trackers.trial_started("trial-1", {"r": 8, "learning_rate": 1e-3}, 0)
        trackers.trial_started("trial-2", {"r": 16, "learning_rate": 2e-3}, 0)
        for step, loss in CURVE[:2]:
            trackers.metrics("trial-1", step, {"eval_loss": loss, "train_loss": loss + 0.5})
        trackers.metrics("trial-2", 10, {"eval_loss": 1.4})
        trackers.metrics("trial-2", 20, {"eval_loss": math.nan})
        trackers.trial_ended("trial-2", "diverged")
    return run


def go_on(root: Path, names: Sequence[TrackerName], *, at: int = 20) -> None:
    with tracked(RunInfo(root, 2, 40, 1), names) as trackers:
        trackers.trial_started("trial-1", {"r": 8, "learning_rate": 1e-3}, at)
        step, loss = CURVE[2]
        trackers.metrics("trial-1", step, {"eval_loss": loss, "train_loss": loss + 0.5})
        trackers.trial_ended("trial-1", "finished")


def report(root: Path, names: Sequence[TrackerName]) -> RunDir:
    run = RunDir(root)
    run.report.mkdir()
    text = run.report / "report.md"
    text.write_text("# The report\n", encoding="utf-8")
    scores = [
        Scored(trial="base", step=0, values={"case_accuracy": 0.25}),
        Scored(trial="trial-1", step=30, values={"case_accuracy": 0.75}),
    ]
    publish(run, names, [*scores, Reported(files=(str(text),))])
    return run
