"""`selection/selection.json`: by what rule a search chose its adapters, what it saw of each, and what loss would take.

Produced by `evals/selection`, read by the report and by whoever needs the best adapter before it is scored. Written
with the rule and the cases alone before the first reply, so before any held-out case is scored.
"""

from collections.abc import Sequence

from pydantic import Field

from evals.records import Metric
from evals.stats.objective import Aim, Gap
from evals.stats.selection import Asked
from orchestrator.core.files import parse_line
from orchestrator.core.records import MetricName, Record, SampleKind, TrialRecord
from orchestrator.run.paths import RunDir


class CheckpointScore(Record):
    """A trial's adapter after `step` optimizer steps, as it did on `num_cases` validation cases.

    `objective` is None where that is the eval loss or the adapter gave no replies. `missed` is by how much it misses
    each constraint that it misses. `is_behind`: it was shown to be worse than the best beside it.
    """

    trial_id: str
    step: int
    eval_loss: float
    num_cases: int
    objective: float | None
    figures: dict[MetricName, Metric]
    missed: dict[MetricName, float]
    is_behind: bool


class Selection(Record):
    """How the adapters of a search were chosen.

    `cases` counts the validation cases by kind, of which a rung and the first look ask `num_first`; `shared_prompts` of
    the samples that they are made from repeat a prompt of training (the data card's audit). `rungs` are checkpoints in
    the order in which they were scored, `finalists` those after the training, best first, and `kept` the adapters that
    go on. `by_loss` is what eval loss alone would have kept; its first is kept too, as `held_against`, where it is not
    among `kept`, and can win nothing. `front` are the finalists on the Pareto front of several objectives. `gaps` are
    against the best finalist, `against_loss` is the first kept against the first by loss. `is_met` is None until the
    end, or without constraints; `nearest` is the adapter that misses least where every one misses one. `scoring_s` is
    what the engine spent on all of it, in seconds, its start not counted; `notes` say why scores are missing.
    """

    objective: str
    weights: dict[MetricName, float]
    constraints: tuple[str, ...]
    rule: str
    seed: int
    cases: dict[SampleKind, int]
    num_first: int
    shared_prompts: int | None = None
    rungs: tuple[CheckpointScore, ...] = ()
    finalists: tuple[CheckpointScore, ...] = ()
    kept: tuple[str, ...] = ()
    by_loss: tuple[str, ...] = ()
    held_against: str | None = None
    gaps: tuple[Gap, ...] = ()
    against_loss: Gap | None = None
    is_met: bool | None = None
    nearest: str | None = None
    front: tuple[str, ...] = Field(default=(), exclude_if=lambda front: not front)
    notes: tuple[str, ...] = ()
    scoring_s: float = 0.0

    @property
    def unmet(self) -> str | None:
        """In a sentence, that no adapter meets the constraints and which is nearest; None where one does."""
        if self.is_met is not False or self.nearest is None:
            return None
        near = next(one for one in self.finalists if one.trial_id == self.nearest)
        misses = ", ".join(f"{name} {_value(near.figures[name])}" for name in near.missed)
        return (
            f"No adapter meets search.constraints ({', '.join(self.constraints)}) on the validation cases; "
            f"the nearest is {self.nearest}, with {misses}."
        )


def _value(metric: Metric) -> str:
    return "not scored" if metric.value is None else f"{metric.value:.3g}"


def score_of(aim: Aim, one: Asked, *, step: int, is_behind: bool) -> CheckpointScore:
    """The record of an adapter that was asked."""
    scores = one.scores
    return CheckpointScore(
        trial_id=one.id,
        step=step,
        eval_loss=one.eval_loss,
        num_cases=scores.num_cases - scores.num_unscored if scores else 0,
        objective=aim.value(scores) if scores else None,
        figures={name: scores.metrics[name] for name in aim.metrics} if scores else {},
        missed=aim.missed(scores) if scores else {},
        is_behind=is_behind,
    )


def read_selection(run: RunDir) -> Selection | None:
    """How the run's adapters were chosen; None where by eval loss alone.

    Raises:
        DataError: If the file is broken.
    """
    path = run.selected
    return parse_line(path.read_text(encoding="utf-8"), Selection, where=str(path)) if path.is_file() else None


def selection_of(run: RunDir, trials: Sequence[TrialRecord]) -> Selection | None:
    """How these trials' adapters were chosen; None where by eval loss alone, or where it is not known yet."""
    selection, kept = read_selection(run), {trial.adapter_id for trial in trials}
    return selection if selection is not None and selection.kept and kept.issuperset(selection.kept) else None
