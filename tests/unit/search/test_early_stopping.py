"""What Tune's scheduler and searcher make of a search: the same whoever comes first and however many train at once."""

import math
import pickle
import random
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from builders import make_plan
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from orchestrator.config.schema import RangeConfig, SearchConfig, SpaceConfig
from orchestrator.core.records import EvalPoint, JsonObject, TrialRecord
from orchestrator.search.early_stopping import SuccessiveHalving, held_at, make_scheduler
from orchestrator.search.heard import Heard
from orchestrator.search.names import HYPERPARAMETERS, number_of
from orchestrator.search.proposals import NumberedSearch, Pace
from orchestrator.search.space import BaseShape, ResolvedSpace, resolve_space

MAX_STEPS, EVAL_STEPS = 60, 6
RUNGS = (6, 18)
PLAN = make_plan(max_steps=MAX_STEPS, eval_steps=EVAL_STEPS)
SPACE = SpaceConfig(r=(4, 8), alpha=(16,), learning_rate=RangeConfig(min=1e-5, max=1e-2))


def search_of(num_trials: int, **settings: Any) -> SearchConfig:
    return SearchConfig.model_validate({"num_trials": num_trials, "space": SPACE, **settings})


def resolved(search: SearchConfig) -> ResolvedSpace:
    return resolve_space(search.space, BaseShape(1024, "qwen3"), 8)


def stub(number: int, hyperparameters: JsonObject | None = None) -> Trial:
    trial = Trial("stub", stub=True, trial_name_creator=lambda _: f"trial-{number}")
    trial.set_config({HYPERPARAMETERS: hyperparameters or {}})
    return trial


class Outcome(NamedTuple):
    """What became of a search: the points of its trials, where each ended, and the best."""

    points: dict[int, JsonObject]
    ended_at: dict[int, int]
    winner: int


def loss_of(point: JsonObject, step: int) -> float:
    """A made-up curve: it falls, to what depends on the point, and curves cross."""
    rate = float(point["learning_rate"])
    final = 1 + (math.log10(rate) + 3.3) ** 2 + 0.01 * int(point["r"])
    return float(final + rate**0.1 / step)


class Driver:
    """Stands for Tune and the engines: trains up to `slots` trials at once, in an order that `rng` draws."""

    def __init__(self, search: SearchConfig, *, slots: int, group: int, rng: random.Random) -> None:
        self._search, self._slots, self._group, self._rng = search, slots, group, rng
        self._said: dict[tuple[int, int], bool] = {}
        self.trials: dict[int, Trial] = {}
        self.curves: dict[int, dict[int, float]] = {}
        self._start(Heard())

    def _start(self, heard: Heard) -> None:
        self._heard = heard
        scheduler = make_scheduler(
            self._search, PLAN, heard, num_trials=self._search.num_trials, group=self._group, answer=self._answer
        )
        assert isinstance(scheduler, SuccessiveHalving)
        assert scheduler.set_search_properties("eval_loss", "min")
        self._scheduler = scheduler
        pace = Pace(self._slots, rungs=held_at(self._search, PLAN), is_held=scheduler.is_held)
        self._search_alg = NumberedSearch(
            self._search, resolved(self._search), heard, last=self._search.num_trials, pace=pace
        )

    def _answer(self, trial: Trial, rung: int, goes_on: bool) -> None:
        assert self._said.setdefault((number_of(str(trial)), rung), goes_on) is goes_on

    def driver_dies(self) -> None:
        """Another process goes on: it has the trials that were stored, as far as they were."""
        stored = len(self.trials) - self._rng.randint(0, min(2, sum(not curve for curve in self.curves.values())))
        while len(self.trials) > stored and not self.curves[len(self.trials)]:
            number = len(self.trials)
            del self.trials[number], self.curves[number]
        self._start(Heard())
        for number in sorted(self.trials, key=lambda _: self._rng.random()):
            trial = self.trials[number]
            if trial.status != Trial.TERMINATED:
                trial.set_status(Trial.PENDING)
            self._scheduler.on_trial_add(None, trial)

    def run(self, *, deaths: int = 0) -> Outcome:
        for turn in range(100_000):
            while not self._search_alg.is_finished() and (point := self._search_alg._next_point()) is not None:
                number = len(self.trials) + 1
                self.trials[number], self.curves[number] = stub(number, point), {}
                self._scheduler.on_trial_add(None, self.trials[number])
            ready = [number for number in self.trials if self._can_train(number)]
            if not ready:
                break
            self._train(self._rng.choice(ready))
            if deaths and turn % 7 == 6:
                deaths -= 1
                self.driver_dies()
        assert self._search_alg.is_finished()
        assert all(trial.status == Trial.TERMINATED for trial in self.trials.values())
        best = min(self.curves, key=lambda number: (min(self.curves[number].values()), number))
        points = {number: trial.config[HYPERPARAMETERS] for number, trial in self.trials.items()}
        return Outcome(points, {number: max(curve) for number, curve in self.curves.items()}, best)

    def _can_train(self, number: int) -> bool:
        at = max(self.curves[number], default=0)
        held = at in RUNGS and (number, at) not in self._said
        return self.trials[number].status != Trial.TERMINATED and not held

    def _train(self, number: int) -> None:
        trial, curve = self.trials[number], self.curves[number]
        trial.set_status(Trial.RUNNING)
        at = max(curve, default=0)
        if self._said.get((number, at)) is False:
            self._end(trial, trial.run_metadata.last_result)
            return
        curve[at + EVAL_STEPS] = loss_of(trial.config[HYPERPARAMETERS], at + EVAL_STEPS)
        points = [{"step": step, "eval_loss": loss} for step, loss in curve.items()]
        result = {**points[-1], "curve": points}
        if at + EVAL_STEPS >= MAX_STEPS:
            self._end(trial, result)
        else:
            assert self._scheduler.on_trial_result(None, trial, result) == TrialScheduler.CONTINUE
            trial.update_last_result(result)

    def _end(self, trial: Trial, result: JsonObject) -> None:
        self._scheduler.on_trial_complete(None, trial, result)
        trial.update_last_result(result)
        trial.set_status(Trial.TERMINATED)


searches = st.builds(
    search_of,
    st.integers(1, 30),
    searcher=st.sampled_from(["random", "optuna"]),
    keep=st.integers(1, 3),
    seed=st.integers(0, 3),
)


@given(searches, st.sampled_from([1, 8]), st.integers(1, 20), st.randoms(use_true_random=False), st.integers(0, 3))
def test_a_search_ends_the_same_in_any_order_on_any_number_of_devices_and_after_any_death(
    search: SearchConfig, group: int, slots: int, rng: random.Random, deaths: int
) -> None:
    in_order = Driver(search, slots=1, group=group, rng=random.Random(0)).run()
    assert Driver(search, slots=slots, group=group, rng=rng).run(deaths=deaths) == in_order
    assert len(in_order.points) == search.num_trials


def test_laggards_are_stopped_at_the_rungs_and_the_best_trains_to_the_end() -> None:
    outcome = Driver(search_of(16), slots=4, group=8, rng=random.Random(1)).run()
    assert set(outcome.ended_at.values()) == {*RUNGS, MAX_STEPS}
    assert outcome.ended_at[outcome.winner] == MAX_STEPS
    assert sum(outcome.ended_at.values()) < 0.5 * 16 * MAX_STEPS
    best = min(outcome.points, key=lambda number: loss_of(outcome.points[number], MAX_STEPS))
    assert outcome.winner == best


def halving(num_trials: int = 4, group: int = 4, earlier: list[TrialRecord] | None = None) -> SuccessiveHalving:
    heard = Heard(earlier or ())
    said: dict[tuple[int, int], bool] = {}

    def answer(trial: Trial, rung: int, goes_on: bool) -> None:
        said[number_of(str(trial)), rung] = goes_on

    search = search_of(num_trials, keep=1)
    scheduler = make_scheduler(search, PLAN, heard, num_trials=num_trials, group=group, answer=answer)
    assert isinstance(scheduler, SuccessiveHalving)
    assert scheduler.set_search_properties("eval_loss", "min")
    scheduler.said = said
    return scheduler


def report(scheduler: SuccessiveHalving, trial: Trial, *, step: int, eval_loss: float, **fields: Any) -> None:
    result = {"step": step, "eval_loss": eval_loss, **fields}
    assert scheduler.on_trial_result(None, trial, result) == TrialScheduler.CONTINUE


def added(scheduler: SuccessiveHalving, number: int) -> list[Trial]:
    trials = [stub(each) for each in range(1, number + 1)]
    for trial in trials:
        scheduler.on_trial_add(None, trial)
    return trials


def test_steps_count_and_not_the_reports_that_start_again_after_a_restart() -> None:
    scheduler = halving(2)
    good, bad = added(scheduler, 2)
    report(scheduler, good, step=6, eval_loss=0.1, training_iteration=3)
    report(scheduler, bad, step=6, eval_loss=9.0, training_iteration=1)
    assert scheduler.said == {(1, 6): True, (2, 6): False}


def test_a_loss_that_was_never_heard_is_read_from_the_curve() -> None:
    scheduler = halving(2)
    first, late = added(scheduler, 2)
    report(scheduler, first, step=6, eval_loss=1.0)
    report(scheduler, late, step=12, eval_loss=0.4, curve=[{"step": 6, "eval_loss": 1.5}])
    assert scheduler.said == {(1, 6): True, (2, 6): False}


def test_a_trial_that_fails_for_good_is_not_waited_for_and_one_that_is_tried_again_is() -> None:
    scheduler = halving(2)
    first, second = added(scheduler, 2)
    report(scheduler, second, step=6, eval_loss=1.0)
    first.set_status(Trial.ERROR)  # as Tune marks one that it tries again
    scheduler.on_trial_error(None, first)
    first.set_status(Trial.PENDING)
    scheduler.on_trial_add(None, first)
    assert scheduler.said == {}
    first.set_status(Trial.RUNNING)
    scheduler.on_trial_error(None, first)
    assert scheduler.said == {(2, 6): True}


def test_trials_start_in_the_order_of_their_numbers_even_if_one_was_put_last() -> None:
    trials = [stub(3), stub(10), stub(2)]
    trials[0].set_status(Trial.RUNNING)
    controller = SimpleNamespace(get_trials=lambda: trials)
    assert halving().choose_trial_to_run(controller) is trials[2]
    assert halving().choose_trial_to_run(SimpleNamespace(get_trials=list)) is None


def record_of(number: int, *curve: tuple[int, float], **fields: Any) -> TrialRecord:
    points = tuple(EvalPoint(step=step, eval_loss=loss) for step, loss in curve)
    return TrialRecord(trial_id=f"trial-{number}", status="completed", hyperparameters={}, curve=points, **fields)


def test_trials_of_an_earlier_part_count_at_the_rungs_they_reached() -> None:
    """Alone, the later trial would be the best at its rung and go on."""
    earlier = [record_of(1, (6, 1.0), (60, 0.5)), record_of(2, (6, 2.0)), record_of(3, (6, 3.0))]
    scheduler = halving(4, earlier=earlier)
    assert scheduler.debug_string().startswith("Successive halving: ")
    trial = stub(4)
    scheduler.on_trial_add(None, trial)
    report(scheduler, trial, step=6, eval_loss=2.5)
    assert scheduler.said == {(4, 6): False}


def as_tune_restores(trial: Trial, status: str) -> Trial:
    """The trial as Tune writes it to disk, reads it back and sets its status after the driver's death."""
    trial.create_placement_group_factory()
    settings, progress = trial.get_json_state()
    restored = Trial.from_json_state(settings, stub=True)
    restored.restore_run_metadata(progress)
    restored.set_status(status)
    return restored


def heard_of(number: int, *curve: tuple[int, float]) -> Trial:
    """A trial whose last report told of `curve`."""
    trial = stub(number)
    points = [{"step": step, "eval_loss": loss} for step, loss in curve]
    trial.update_last_result({**points[-1], "curve": points})
    return trial


def test_after_the_driver_s_death_everything_is_read_back_from_the_trials() -> None:
    scheduler = halving(3, group=1)
    scheduler.on_trial_add(None, as_tune_restores(heard_of(1, (6, 1.0), (12, 0.9)), Trial.PENDING))
    scheduler.on_trial_add(None, as_tune_restores(heard_of(2, (6, 2.0)), Trial.TERMINATED))
    trial = stub(3)
    scheduler.on_trial_add(None, trial)
    report(scheduler, trial, step=6, eval_loss=1.5)
    assert scheduler.said == {(2, 6): False, (3, 6): False}
    assert scheduler.debug_string() == (
        "Successive halving: 1 of 3 trials went on past step 6, 0 of 0 trials went on past step 18."
    )


def test_a_scheduler_can_be_stored() -> None:
    search = search_of(2)
    stored = pickle.loads(pickle.dumps(make_scheduler(search, PLAN, Heard(), num_trials=2, group=2, answer=_nobody)))
    assert stored.debug_string().startswith("Successive halving")


def _nobody(trial: Trial, rung: int, goes_on: bool) -> None:
    """Answers nobody."""


@pytest.mark.parametrize("plan", [make_plan(max_steps=1, eval_steps=1)])
def test_without_rungs_every_trial_runs_to_its_end(plan: Any) -> None:
    scheduler = make_scheduler(search_of(2), plan, Heard(), num_trials=2, group=2, answer=_nobody)
    assert scheduler.debug_string() == "Successive halving: there is no rung, so every trial runs to its end."
