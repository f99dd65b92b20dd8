"""Scores in a search: who makes them, and what of a search they are asked about.

The layers above hand in a `Chooser`, which has adapters' checkpoints reply to cases. At a rung of the multi-LoRA
engines it is asked about the trials recorded there, after the training about the best of all. Without one, eval loss
decides.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from orchestrator.core.records import TrialRecord
from orchestrator.models.adapters import SavedTrial, Told
from orchestrator.multi_lora.checkpoint import SLOT, step_folder
from orchestrator.search.names import in_order

LEAST_FINALISTS, FINALISTS_PER_KEPT = 8, 3
"""Trials that are scored after the training: as many for each adapter that is kept, and no fewer than these."""


class Chooser(Protocol):
    """Judges adapters by what they reply."""

    def behind(self, there: Sequence[SavedTrial]) -> frozenset[str]:
        """The trials of a rung that are shown to be worse than the best there; raises nothing where it cannot tell."""

    def told(self, trial: str, step: int) -> Told | None:
        """What the trial's checkpoint of this step was seen to do; None where it was not asked, or not in time."""

    def dropped(self, trials: Iterable[str]) -> None:
        """These trials were stopped and need no more scores."""

    def kept(self, finalists: Sequence[SavedTrial], *, keep: int) -> list[str]:
        """The trials whose adapters are kept, best first: `keep`, and any to be held against them."""


class RungJudge:
    """Who lags behind at a rung by its replies. Stored with an experiment of Tune's, it remembers nobody to ask."""

    def __init__(self, chooser: Chooser | None = None, trials: Path = Path()) -> None:
        self._chooser, self._trials = chooser, trials

    def __reduce__(self) -> tuple[Callable[[], "RungJudge"], tuple[()]]:
        return RungJudge, ()

    def values(self, rung: int, losses: Mapping[str, float]) -> dict[str, float]:
        """What a rung judges, lower is better: eval loss, and behind all others whoever is shown to be worse."""
        if self._chooser is None:
            return dict(losses)
        there = [found for name, loss in losses.items() if (found := self._checkpoint(name, rung, loss))]
        behind = self._chooser.behind(there) if len(there) > 1 else frozenset[str]()
        after = 1.0 + max(losses.values()) - min(losses.values())
        return {name: loss + after if name in behind else loss for name, loss in losses.items()}

    def told(self, name: str, rungs: Sequence[int]) -> Told | None:
        """What the trial was seen to do at the first of the rungs; None where that is not known."""
        return self._chooser.told(name, rungs[0]) if self._chooser is not None and rungs else None

    def dropped(self, trials: Iterable[str]) -> None:
        """See `Chooser`."""
        if self._chooser is not None:
            self._chooser.dropped(trials)

    def _checkpoint(self, name: str, step: int, loss: float) -> SavedTrial | None:
        """A trial's checkpoint at a rung; None for one that diverged there and has none."""
        folders = sorted(self._trials.glob(f"{name}.*"), key=lambda folder: folder.stat().st_mtime)
        found = [place for folder in folders if (place := step_folder(folder, step)).is_dir()]
        if not found:
            return None
        spec = json.loads((found[-1] / SLOT).read_text(encoding="utf-8"))["spec"]
        chosen = {"r": spec["rank"], "alpha": spec["alpha"], "learning_rate": spec["learning_rate"]}
        record = TrialRecord(
            trial_id=name, status="completed", hyperparameters=chosen, curve=(), best_eval_loss=loss, best_step=step
        )
        return SavedTrial(record, found[-1])


def finalists_of(there: Sequence[SavedTrial], *, keep: int) -> list[SavedTrial]:
    """The trials of lowest eval loss, so many as are scored after the training."""
    most = max(LEAST_FINALISTS, FINALISTS_PER_KEPT * keep)
    return sorted(there, key=lambda one: (one.eval_loss, in_order(one.trial)))[:most]
