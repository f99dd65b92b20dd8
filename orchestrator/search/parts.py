"""The parts of a search: it begins as one experiment of Ray Tune's, and each time it is given more trials adds one."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ray import tune
from ray.tune.experiment import Trial

from orchestrator.core.errors import RunConflictError
from orchestrator.core.records import DIVERGED_LOSS, TrialRecord
from orchestrator.core.text import counted


class Part(NamedTuple):
    """The trials from the `first`, counted from 1, to the `last`."""

    first: int
    last: int

    @property
    def num_trials(self) -> int:
        """Trials of this part alone."""
        return self.last - self.first + 1

    def folder(self, storage: Path) -> Path:
        """Where Tune keeps the experiment."""
        return storage / f"tune-{self.first}-{self.last}"

    def can_resume(self, storage: Path) -> bool:
        """Whether Tune has recorded a trial of it."""
        folder = self.folder(storage)
        return tune.Tuner.can_restore(str(folder)) and any(folder.glob("experiment_state-*.json"))

    def analysis(self, storage: Path) -> tune.ExperimentAnalysis:
        """What Tune recorded, read from disk."""
        return tune.ExperimentAnalysis(str(self.folder(storage)))

    def ended(self, storage: Path) -> list[Trial]:
        """Its trials that ended."""
        if not self.can_resume(storage):
            return []
        return [trial for trial in self.analysis(storage).trials if trial.is_finished()]


def parts_of(storage: Path, num_trials: int | None, *, turn: int | None = None) -> list[Part]:
    """The parts of a search of `num_trials` trials in all, in order: those that were begun, and the rest.

    None, which is with a budget, gives those that were begun.

    With turns of so many trials, none of the rest is of two turns.

    Raises:
        RunConflictError: If it was begun with more trials, or by a version that had no parts.
    """
    old = next(iter(sorted(storage.parent.glob("search-*/tune"))), None)
    if old is not None:
        raise RunConflictError(
            "this search was made by an earlier version and cannot go on",
            where=str(old.parent),
            fix="Give this run another name (--set name=...), or remove that folder to search anew",
        )
    begun = sorted(Part(*map(int, folder.name.split("-")[1:])) for folder in storage.glob("tune-*-*"))
    so_far = begun[-1].last if begun else 0
    num_trials = so_far if num_trials is None else num_trials
    if num_trials < so_far:
        raise RunConflictError(
            f"the search has {counted(so_far, 'trial')} and can be given more, but not fewer ({num_trials})",
            where=str(storage),
            fix=f"Set search.num_trials to at least {so_far}; nothing was changed",
        )
    while so_far < num_trials:
        last = num_trials if turn is None else min(num_trials, (so_far // turn + 1) * turn)
        begun.append(Part(so_far + 1, last))
        so_far = last
    return begun


def is_done(part: Part, trials: Sequence[Trial]) -> bool:
    """Whether a part whose ended trials these are has nothing left to do."""
    return len(trials) == part.num_trials


def losses_of(record: TrialRecord) -> list[tuple[int, float]]:
    """Step and eval loss of each of a trial's evaluations, as Tune was told of them."""
    losses = [(point.step, point.eval_loss) for point in record.curve if math.isfinite(point.eval_loss)]
    if record.status == "diverged" and record.steps:
        losses.append((record.steps, DIVERGED_LOSS))
    return losses
