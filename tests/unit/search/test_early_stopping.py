import math
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from orchestrator.core.errors import ConfigError
from orchestrator.search.early_stopping import SuccessiveHalving, survivors

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
RUNGS = (6, 18)

losses = st.floats() | st.integers(0, 3).map(float)  # also NaN, infinity and ties
cohorts = st.lists(losses, min_size=1, max_size=9)
factors = st.integers(2, 5)


def halving(factor: int = 3, *, rungs: tuple[int, ...] = RUNGS, mode: str = "min") -> SuccessiveHalving:
    scheduler = SuccessiveHalving(rungs, reduction_factor=factor)
    assert scheduler.set_search_properties("eval_loss", mode)
    return scheduler


def stub_trial(trial_id: str) -> Trial:
    return Trial("stub", stub=True, trial_name_creator=lambda _: trial_id)


def report(scheduler: SuccessiveHalving, trial_id: str, *, step: int, eval_loss: float, **fields: list[Any]) -> str:
    result = {"step": step, "eval_loss": eval_loss, **fields}
    return str(scheduler.on_trial_result(None, stub_trial(trial_id), result))


def named(eval_losses: list[float], prefix: str = "t") -> dict[str, float]:
    """Trial id -> loss."""
    return {f"{prefix}{number:02}": loss for number, loss in enumerate(eval_losses)}


def report_together(
    scheduler: SuccessiveHalving, cohort: dict[str, float], order: list[str] | None = None, *, step: int = 6
) -> dict[str, str]:
    """What each trial of one engine step is told, when their reports arrive in `order`."""
    peers = [[trial_id, step, loss] for trial_id, loss in cohort.items()]
    return {
        trial_id: report(scheduler, trial_id, step=step, eval_loss=cohort[trial_id], peers=peers)
        for trial_id in order or cohort
    }


def went_on(decisions: dict[str, str]) -> set[str]:
    return {trial_id for trial_id, decision in decisions.items() if decision == CONTINUE}


@given(cohorts, factors)
def test_of_those_recorded_together_the_best_share_rounded_up_goes_on(eval_losses: list[float], factor: int) -> None:
    cohort = named(eval_losses)
    on = went_on(report_together(halving(factor), cohort))
    finite = {trial_id for trial_id, loss in cohort.items() if math.isfinite(loss)}
    assert len(on) == min(math.ceil(len(cohort) / factor), len(finite))
    assert on <= finite
    assert all(cohort[kept] <= cohort[stopped] for kept in on for stopped in finite - on)
    assert on == survivors(cohort, factor)


@given(st.data(), cohorts, cohorts, factors)
def test_the_order_in_which_a_cohort_s_reports_arrive_changes_no_decision(
    data: st.DataObject, first: list[float], second: list[float], factor: int
) -> None:
    """Also when those of another device arrive between them."""
    here, there = named(first, "a"), named(second, "b")
    in_order = halving(factor)
    expected = report_together(in_order, here) | report_together(in_order, there)

    leader = data.draw(st.sampled_from(sorted(here)))
    rest = data.draw(st.permutations([trial_id for trial_id in (*here, *there) if trial_id != leader]))
    shuffled = halving(factor)
    told: dict[str, str] = {}
    for trial_id in (leader, *rest):
        told |= report_together(shuffled, here if trial_id in here else there, [trial_id])
    assert told == expected


@given(st.lists(cohorts, min_size=1, max_size=4), factors)
def test_a_report_that_comes_again_gets_the_same_answer(rounds: list[list[float]], factor: int) -> None:
    scheduler = halving(factor)
    cohort_of = [named(eval_losses, f"c{number}-") for number, eval_losses in enumerate(rounds)]
    told = [report_together(scheduler, cohort) for cohort in cohort_of]
    assert [report_together(scheduler, cohort) for cohort in cohort_of] == told


@given(cohorts, cohorts, factors)
def test_a_stored_scheduler_decides_as_the_one_that_was_stored(
    first: list[float], second: list[float], factor: int
) -> None:
    scheduler = halving(factor)
    told = report_together(scheduler, named(first, "a"))
    stored = pickle.loads(pickle.dumps(scheduler))
    assert report_together(stored, named(first, "a")) == told
    assert report_together(stored, named(second, "b")) == report_together(scheduler, named(second, "b"))
    assert stored.debug_string() == scheduler.debug_string()


@given(cohorts, st.integers(1, 5))
def test_nothing_is_stopped_before_the_first_rung(eval_losses: list[float], step: int) -> None:
    assert set(report_together(halving(), named(eval_losses), step=step).values()) == {CONTINUE}


@given(cohorts, factors)
def test_max_keeps_the_highest_as_min_keeps_the_lowest(eval_losses: list[float], factor: int) -> None:
    lowest = report_together(halving(factor, mode="min"), named(eval_losses))
    highest = report_together(halving(factor, mode="max"), named([-loss for loss in eval_losses]))
    assert lowest == highest


def test_equal_losses_are_told_apart_by_trial_id() -> None:
    assert survivors({"b": 1.0, "c": 1.0, "a": 1.0, "d": 2.0}, 2) == {"a", "b"}


@given(st.lists(cohorts, min_size=1, max_size=5), factors, st.integers(1, 5))
def test_no_fewer_go_on_than_the_search_keeps(rounds: list[list[float]], factor: int, keep: int) -> None:
    cohort_of = [named(eval_losses, f"c{number}-") for number, eval_losses in enumerate(rounds)]
    num_trials = sum(len(cohort) for cohort in cohort_of)
    scheduler = SuccessiveHalving(RUNGS, reduction_factor=factor, keep=keep, num_trials=num_trials)
    assert scheduler.set_search_properties("eval_loss", "min")
    for cohort in cohort_of[:-1]:
        report_together(scheduler, cohort)
    passed = [went_on(report_together(scheduler, cohort)) for cohort in cohort_of]  # told again, it decides the same
    last_finite = sum(math.isfinite(loss) for loss in cohort_of[-1].values())
    others = sum(len(on) for on in passed[:-1])
    assert others + len(passed[-1]) >= min(keep, others + last_finite)
    for cohort, on in zip(cohort_of, passed, strict=True):
        assert all(
            cohort[kept] <= cohort[cut] for kept in on for cut in cohort.keys() - on if math.isfinite(cohort[cut])
        )


def test_two_that_come_first_in_a_search_of_many_are_not_both_let_on() -> None:
    scheduler = SuccessiveHalving(RUNGS, reduction_factor=3, keep=2, num_trials=6)
    assert scheduler.set_search_properties("eval_loss", "min")
    assert went_on(report_together(scheduler, {"a": 1.0, "b": 2.0})) == {"a"}
    assert went_on(report_together(scheduler, {"c": 3.0, "d": 4.0, "e": 5.0, "f": 6.0})) == {"c"}  # nobody is to come
    assert went_on(report_together(scheduler, {"a": 1.0}, step=RUNGS[1])) == {"a"}
    assert went_on(report_together(scheduler, {"c": 3.0}, step=RUNGS[1])) == {"c"}


def test_the_scheduler_lets_as_many_go_on_as_the_search_keeps() -> None:
    scheduler = SuccessiveHalving([6], reduction_factor=3, keep=2)
    assert scheduler.set_search_properties("eval_loss", "min")
    assert report_together(scheduler, {"a": 1.0, "b": 2.0, "c": 3.0}) == {"a": CONTINUE, "b": CONTINUE, "c": STOP}


def test_trials_that_come_later_are_held_against_all_that_were_there_before() -> None:
    scheduler = halving()
    assert went_on(report_together(scheduler, {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0})) == {"a", "b"}
    assert went_on(report_together(scheduler, {"e": 2.5, "f": 5.0})) == set()  # the best 2 of 6 are a and b
    assert went_on(report_together(scheduler, {"g": 0.5, "h": 1.5, "i": 1.6})) == {"g", "h"}  # the best 3 of 9: g, a, h
    assert went_on(report_together(scheduler, {"a": 9.0, "b": 8.0}, step=12)) == {"a", "b"}  # and a and b go on


def test_without_peers_each_is_held_against_those_before_it() -> None:
    scheduler = halving()
    told = [report(scheduler, trial_id, step=6, eval_loss=loss) for trial_id, loss in named([1, 2, 3, 0.5]).items()]
    assert told == [CONTINUE, STOP, STOP, CONTINUE]


def test_peers_in_other_slots_are_recorded_at_their_own_steps() -> None:
    scheduler = halving()
    peers = [["old", 18, 0.1], ["new", 6, 3.0], ["newer", 6, 2.0], ["between", 12, 1.0]]
    assert report(scheduler, "newer", step=6, eval_loss=2.0, peers=peers) == CONTINUE
    assert report(scheduler, "new", step=6, eval_loss=3.0, peers=peers) == STOP
    assert report(scheduler, "old", step=18, eval_loss=0.1, peers=peers) == CONTINUE
    assert report(scheduler, "between", step=12, eval_loss=1.0, peers=peers) == CONTINUE


def test_a_loss_that_was_never_heard_is_recorded_from_the_curve() -> None:
    scheduler = halving()
    report_together(scheduler, {"a": 1.0, "b": 2.0})
    curve = [{"step": 6, "eval_loss": 1.5}, {"step": 12, "eval_loss": 1.4}]
    assert report(scheduler, "late", step=12, eval_loss=1.4, curve=curve) == STOP
    curve[0]["eval_loss"] = 0.5
    assert report(scheduler, "better", step=12, eval_loss=1.4, curve=curve) == CONTINUE


def test_a_trial_counts_once_at_a_rung_with_what_was_heard_first() -> None:
    scheduler = halving()
    assert went_on(report_together(scheduler, {"a": 1.0, "b": 2.0, "c": 3.0})) == {"a"}
    assert report(scheduler, "c", step=6, eval_loss=0.1) == STOP
    assert report(scheduler, "d", step=6, eval_loss=1.5) == CONTINUE  # the best 2 of 4 are a and d
    assert scheduler.debug_string() == (
        "Successive halving: 2 of 4 trials went on past step 6, 0 of 0 trials went on past step 18."
    )


def test_what_peers_tell_of_a_later_rung_waits_until_the_trial_gets_there() -> None:
    scheduler = halving()
    assert went_on(report_together(scheduler, {"a": 2.0, "b": 1.0}, ["b"], step=18)) == {"b"}
    assert report(scheduler, "a", step=12, eval_loss=2.5) == CONTINUE
    assert report(scheduler, "a", step=18, eval_loss=2.0) == STOP


def test_trials_that_ended_still_count() -> None:
    scheduler = halving()
    report_together(scheduler, {"a": 1.0, "b": 2.0})
    scheduler.on_trial_complete(None, stub_trial("a"), {"step": 6, "eval_loss": 1.0})
    scheduler.on_trial_error(None, stub_trial("b"))
    scheduler.on_trial_remove(None, stub_trial("b"))
    assert report(scheduler, "c", step=6, eval_loss=1.5) == STOP


def test_a_report_without_the_metric_or_the_step_decides_nothing() -> None:
    scheduler = halving()
    assert scheduler.on_trial_result(None, stub_trial("a"), {"step": 6}) == CONTINUE
    assert scheduler.on_trial_result(None, stub_trial("a"), {"eval_loss": 1.0}) == CONTINUE
    assert report(scheduler, "a", step=6, eval_loss=math.nan) == STOP


def as_tune_restores(trial: Trial, status: str) -> Trial:
    """The trial as Tune writes it to disk, reads it back and sets its status after the driver's death."""
    trial.create_placement_group_factory()
    settings, progress = trial.get_json_state()
    restored = Trial.from_json_state(settings, stub=True)
    restored.restore_run_metadata(progress)
    restored.set_status(status)
    return restored


def heard(trial_id: str, *curve: tuple[int, float]) -> Trial:
    """A trial whose last report told of `curve`."""
    trial = stub_trial(trial_id)
    points = [{"step": step, "eval_loss": loss} for step, loss in curve]
    trial.update_last_result({**points[-1], "curve": points})
    return trial


def test_after_the_driver_s_death_the_records_are_those_of_the_restored_trials() -> None:
    scheduler = halving()
    scheduler.on_trial_add(None, as_tune_restores(heard("stopped", (6, 2.0)), Trial.TERMINATED))
    scheduler.on_trial_add(None, as_tune_restores(heard("finished", (6, 1.0), (18, 0.9), (24, 0.8)), Trial.TERMINATED))
    scheduler.on_trial_add(None, as_tune_restores(stub_trial("waiting"), Trial.PENDING))
    assert report(scheduler, "waiting", step=6, eval_loss=1.5) == STOP
    assert report(scheduler, "better", step=6, eval_loss=0.9) == CONTINUE
    assert report(scheduler, "better", step=18, eval_loss=0.95) == STOP


def test_after_the_driver_s_death_an_unfinished_trial_has_passed_the_rungs_it_was_heard_at() -> None:
    scheduler = halving()
    for trial_id, loss in named([0.1, 0.2, 0.3]).items():
        scheduler.on_trial_add(None, as_tune_restores(heard(trial_id, (6, loss)), Trial.TERMINATED))
    scheduler.on_trial_add(None, as_tune_restores(heard("under-way", (6, 1.0), (12, 0.9)), Trial.PENDING))
    assert report(scheduler, "under-way", step=12, eval_loss=0.9) == CONTINUE
    assert report(scheduler, "under-way", step=18, eval_loss=0.8) == CONTINUE
    assert report(scheduler, "newcomer", step=6, eval_loss=1.0) == STOP


def test_trials_start_in_the_order_in_which_they_were_added() -> None:
    trials = [stub_trial("running"), stub_trial("first"), stub_trial("second")]
    trials[0].set_status(Trial.RUNNING)
    assert halving().choose_trial_to_run(SimpleNamespace(get_trials=lambda: trials)) is trials[1]


def test_without_rungs_every_trial_runs_to_its_end() -> None:
    scheduler = halving(rungs=())
    assert set(report_together(scheduler, named([1, 2, 3]), step=60).values()) == {CONTINUE}
    assert scheduler.debug_string() == "Successive halving: there is no rung, so every trial runs to its end."


def test_metric_and_mode_are_taken_once_and_must_say_what_is_better() -> None:
    assert not halving().set_search_properties("eval_loss", "min")
    with pytest.raises(ConfigError, match=r"tune.TuneConfig: mode None .* Allowed: min, max"):
        SuccessiveHalving(RUNGS, reduction_factor=3).set_search_properties("eval_loss", None)
