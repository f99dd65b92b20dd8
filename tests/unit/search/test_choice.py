"""What a rung judges where replies have a say."""

import json
import math
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path

from ray.tune.experiment import Trial

from orchestrator.models.adapters import SavedTrial, Told
from orchestrator.multi_lora.checkpoint import SLOT, step_folder
from orchestrator.search.choice import RungJudge, finalists_of
from orchestrator.search.early_stopping import SuccessiveHalving
from orchestrator.search.heard import Heard
from orchestrator.search.names import HYPERPARAMETERS
from orchestrator.search.rungs import Rungs

SPEC = {"rank": 8, "alpha": 16, "learning_rate": 1e-3}


class Says:
    """Says that some trials are behind, and notes what it is asked."""

    def __init__(self, *behind: str) -> None:
        self.found, self.asked, self.stopped = frozenset(behind), list[list[SavedTrial]](), set[str]()

    def behind(self, there: Sequence[SavedTrial]) -> frozenset[str]:
        self.asked.append(list(there))
        return self.found

    def told(self, trial: str, step: int) -> Told | None:  # noqa: ARG002  # the interface of `Chooser`
        return None

    def dropped(self, trials: Iterable[str]) -> None:
        self.stopped |= set(trials)

    def kept(self, finalists: Sequence[SavedTrial], *, keep: int) -> list[str]:
        return [one.trial for one in finalists[:keep]]


def saved_at(trials: Path, step: int, *names: str) -> None:
    for name in names:
        folder = step_folder(trials / f"{name}.abc123", step)
        folder.mkdir(parents=True)
        (folder / SLOT).write_text(json.dumps({"step": step, "spec": SPEC}))


def goes_on(judge: RungJudge | None, losses: dict[str, float], step: int) -> dict[str, bool]:
    """Who continues of three trials of a group, by name."""
    said: dict[str, bool] = {}

    def answer(trial: Trial, rung: int, goes_on: bool) -> None:  # the scheduler's interface
        assert rung == step
        said[str(trial)] = goes_on

    rungs = Rungs([step], reduction_factor=3, group=len(losses), num_trials=len(losses))
    halving = SuccessiveHalving(Heard(), rungs, answer, judge)
    halving.set_search_properties("eval_loss", "min")
    for name, loss in losses.items():
        trial = Trial("stub", stub=True, trial_name_creator=lambda _, name=name: name)
        trial.set_config({HYPERPARAMETERS: {}})
        halving.on_trial_add(None, trial)
        halving.on_trial_result(None, trial, {"step": step, "eval_loss": loss})
    return said


LOSSES = {"trial-1": 0.1, "trial-2": 0.2, "trial-3": 0.3}


def test_a_trial_that_is_shown_to_be_worse_is_stopped_before_those_with_a_higher_loss(tmp_path: Path) -> None:
    saved_at(tmp_path, 4, *LOSSES)
    says = Says("trial-1")
    judge = RungJudge(says, tmp_path)
    assert goes_on(judge, LOSSES, 4) == {"trial-1": False, "trial-2": True, "trial-3": False}
    assert says.stopped == {"trial-1", "trial-3"}
    (asked,) = says.asked
    assert [(one.trial, one.step, one.eval_loss) for one in asked] == [(name, 4, loss) for name, loss in LOSSES.items()]
    assert asked[0].record.hyperparameters == {"r": 8, "alpha": 16, "learning_rate": 1e-3}


def test_without_scores_a_rung_judges_by_eval_loss(tmp_path: Path) -> None:
    for judge in (RungJudge(), RungJudge(Says("trial-1"), tmp_path), None):  # the second finds no checkpoint
        assert goes_on(judge, LOSSES, 4) == {"trial-1": True, "trial-2": False, "trial-3": False}


def test_a_loss_that_is_not_finite_never_goes_on_and_is_not_asked_about(tmp_path: Path) -> None:
    saved_at(tmp_path, 4, "trial-1", "trial-2")
    says = Says("trial-2")
    judge = RungJudge(says, tmp_path)
    losses = {"trial-1": 0.5, "trial-2": 0.1, "trial-3": math.inf}
    assert goes_on(judge, losses, 4) == {"trial-1": True, "trial-2": False, "trial-3": False}
    assert [one.trial for one in says.asked[0]] == ["trial-1", "trial-2"]


def test_a_judge_that_is_stored_with_the_experiment_asks_nobody(tmp_path: Path) -> None:
    saved_at(tmp_path, 4, *LOSSES)
    judge = pickle.loads(pickle.dumps(RungJudge(Says("trial-1"), tmp_path)))
    assert judge.values(4, LOSSES) == LOSSES


def test_the_finalists_are_those_of_lowest_loss(tmp_path: Path) -> None:
    saved_at(tmp_path, 4, *[f"trial-{number}" for number in range(1, 13)])
    says = Says()
    RungJudge(says, tmp_path).values(4, {f"trial-{number}": 1.0 / number for number in range(1, 13)})
    there = says.asked[0]
    assert [one.trial for one in finalists_of(there, keep=1)] == [f"trial-{number}" for number in range(12, 4, -1)]
    assert len(finalists_of(there, keep=3)) == 9
