"""SlotScheduler in the slots of a real engine: who trains when, what is told, what is counted. No Ray."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from multi_lora_runs import (
    EVAL_STEPS,
    Losses,
    advance_until_idle,
    at_work,
    follow,
    follow_all,
    hear,
    losses_of,
    make_engine,
    make_spec,
    make_trials,
    near,
    points_of,
)

from orchestrator.core.errors import TrainingError
from orchestrator.core.records import DIVERGED_LOSS
from orchestrator.multi_lora.batch import samples_of_step
from orchestrator.multi_lora.checkpoint import read_progress
from orchestrator.multi_lora.engine import MultiLoraEngine
from orchestrator.multi_lora.messages import Evaluation
from orchestrator.multi_lora.scheduler import AHEAD, SlotScheduler
from orchestrator.multi_lora.spec import SlotSpec

SPECS = {
    f"t{number}": make_spec(rank=(4, 8, 20)[number % 3], learning_rate=10.0 ** -(1 + number % 2), seed=number)
    for number in range(6)
}
"""SlotScheduler of several ranks in two stacks."""


@pytest.fixture
def engine(model_folder: Path) -> MultiLoraEngine:
    return make_engine(model_folder)


def alone(engine: MultiLoraEngine, spec: SlotSpec) -> Losses:
    """Step and eval loss when a trial trains without company, and without `SlotScheduler`."""
    engine.admit("alone", spec)
    points: Losses = []
    for step in range(1, spec.max_steps + 1):
        engine.train_step()
        if step % EVAL_STEPS == 0 or step == spec.max_steps:
            points.append((step, engine.eval_loss(["alone"])["alone"]))
    engine.evict("alone")
    return points


def test_clients_hear_of_every_evaluation_of_the_losses_that_training_alone_gives(
    engine: MultiLoraEngine, tmp_path: Path
) -> None:
    wanted = {name: alone(engine, spec) for name, spec in SPECS.items()}
    heard = follow_all(make_trials(engine, tmp_path, slots=4), SPECS)
    for name, evaluations in heard.items():
        assert [evaluation.step for evaluation in evaluations] == [2, 4, 6]
        assert [evaluation.stop_reason for evaluation in evaluations] == [None, None, "finished"]
        for evaluation in evaluations:
            points = points_of(evaluation.curve)
            assert points == near(wanted[name][: len(points)])
            assert points[-1] == (evaluation.step, evaluation.eval_loss)
    assert engine.slots == []


def test_the_last_step_is_evaluated_whatever_the_cadence(engine: MultiLoraEngine, tmp_path: Path) -> None:
    heard = follow_all(make_trials(engine, tmp_path), {"odd": make_spec(max_steps=5), "short": make_spec(max_steps=1)})
    assert [evaluation.step for evaluation in heard["odd"]] == [2, 4, 5]
    assert [evaluation.step for evaluation in heard["short"]] == [1]


def test_a_slot_that_falls_free_is_filled_before_the_next_step(engine: MultiLoraEngine, tmp_path: Path) -> None:
    trials = make_trials(engine, tmp_path, slots=2)
    for name in ("a", "b", "c"):
        trials.attach(name, make_spec())
    assert trials.advance()
    assert engine.slots == ["a", "b"]
    trials.detach("a")
    assert trials.advance()
    assert sorted(engine.slots) == ["b", "c"]
    assert [read_progress(tmp_path / name).step for name in ("a", "b", "c")] == [1, 2, 0]
    with pytest.raises(TrainingError, match="a: the trial was detached"):
        hear(trials, "a", 0)
    assert hear(trials, "b", 0).step == 2


def test_who_waits_longest_is_next(engine: MultiLoraEngine, tmp_path: Path) -> None:
    trials = make_trials(engine, tmp_path, slots=1)
    for name in ("a", "b", "c"):
        trials.attach(name, make_spec(max_steps=1))
    order = []
    while trials.advance():
        order += [name for name in ("a", "b", "c") if read_progress(tmp_path / name).step and name not in order]
    assert order == ["a", "b", "c"]


def test_a_trial_whose_client_is_silent_is_parked_and_taken_up_again_with_the_same_losses(
    engine: MultiLoraEngine, tmp_path: Path
) -> None:
    spec = make_spec(max_steps=12, seed=3)
    wanted = alone(engine, spec)
    trials = make_trials(engine, tmp_path)
    trials.attach("a", spec)
    assert advance_until_idle(trials) == EVAL_STEPS * (AHEAD + 1)
    assert engine.slots == []
    heard: list[Evaluation] = []
    for step in range(2, 13, 2):
        heard.append(hear(trials, "a", step - 2))
        assert heard[-1].step == step
        advance_until_idle(trials)
        trained = read_progress(tmp_path / "a").step
        assert trained == min(12, step + EVAL_STEPS * (AHEAD + 1))
    assert losses_of(heard) == near(wanted)


def test_the_first_step_waits_until_the_slots_are_full(engine: MultiLoraEngine, tmp_path: Path) -> None:
    trials = make_trials(engine, tmp_path, slots=2, gather_s=600)
    assert not trials.advance()
    trials.attach("a", make_spec())
    started = time.monotonic()
    trials.wait_for_work(0.05)
    assert time.monotonic() - started >= 0.05  # it is no work yet
    assert not trials.advance()
    trials.attach("b", make_spec())
    assert trials.advance()
    assert engine.slots == ["a", "b"]
    trials.detach("b")
    assert trials.advance()  # only the first step waits
    assert engine.slots == ["a"]


def test_the_first_step_waits_no_longer_when_nobody_comes(
    engine: MultiLoraEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(
        "orchestrator.multi_lora.scheduler.time", clock
    )  # two seconds of a busy machine are not to be told
    trials = make_trials(engine, tmp_path, slots=4, gather_s=2)
    trials.attach("a", make_spec())
    clock.now = 1.5
    trials.attach("b", make_spec())
    clock.now = 3.0
    assert not trials.advance()
    clock.now = 3.6
    assert trials.advance()
    assert engine.slots == ["a", "b"]


def test_a_client_whose_trial_gets_no_slot_is_told_so_and_may_go_on_waiting(
    engine: MultiLoraEngine, tmp_path: Path
) -> None:
    trials = make_trials(engine, tmp_path, slots=1)
    for name in ("a", "b"):
        trials.attach(name, make_spec())
    for _ in range(EVAL_STEPS):
        assert trials.advance()
    assert trials.evaluation_after("b", 0, patience_s=0.05) is None
    evaluation = trials.evaluation_after("a", 0, patience_s=0.0)  # what is known is told at once
    assert evaluation is not None
    with at_work(trials):
        assert trials.evaluation_after("a", EVAL_STEPS, patience_s=0.0) is not None  # in a slot there is no hurry
        trials.detach("a")
        assert hear(trials, "b", 0).step == EVAL_STEPS


def test_a_parked_trial_leaves_its_slot_to_another_and_is_the_next_to_get_one(
    engine: MultiLoraEngine, tmp_path: Path
) -> None:
    trials = make_trials(engine, tmp_path, slots=1)
    for name in ("silent", "b", "c"):
        trials.attach(name, make_spec())
    for _ in range(EVAL_STEPS * (AHEAD + 1) + 1):
        assert trials.advance()
    assert engine.slots == ["b"]
    hear(trials, "silent", 0)
    hear(trials, "silent", 2)
    trials.detach("b")
    assert trials.advance()
    assert engine.slots == ["silent"]


def test_a_trial_is_held_at_a_rung_until_its_client_asks_past_it(engine: MultiLoraEngine, tmp_path: Path) -> None:
    trials = make_trials(engine, tmp_path, slots=1, rungs=(4,))
    spec = make_spec(max_steps=8)
    trials.attach("held", spec)
    advance_until_idle(trials)
    assert [hear(trials, "held", step).step for step in (0, 2)] == [2, 4]
    trials.attach("other", make_spec(max_steps=2, seed=1))
    advance_until_idle(trials)
    assert read_progress(tmp_path / "held").step == 4
    assert hear(trials, "other", 0).step == 2  # it has the slot meanwhile
    trials.detach("held")
    trials.advance()
    trials.attach("held", spec)  # another client begins anew, and hears of the rung again
    assert hear(trials, "held", 0).step == 4
    advance_until_idle(trials)
    assert read_progress(tmp_path / "held").step == 4
    with at_work(trials):
        assert [evaluation.step for evaluation in follow(trials, "held", spec)] == [4, 6, 8]


def test_a_trial_that_gets_no_better_stops_by_its_patience(engine: MultiLoraEngine, tmp_path: Path) -> None:
    heard = follow_all(
        make_trials(engine, tmp_path, patience=2), {"a": make_spec(learning_rate=1.0, max_steps=40), "b": make_spec()}
    )
    assert heard["a"][-1].stop_reason == "no_improvement"
    losses = [point.eval_loss for point in heard["a"][-1].curve]
    assert len(losses) - 1 - losses.index(min(losses)) == 2
    assert read_progress(tmp_path / "a").best_step == heard["a"][losses.index(min(losses))].step
    assert heard["b"][-1].stop_reason == "finished"


def test_a_trial_that_diverges_stops_at_once_and_harms_no_other(engine: MultiLoraEngine, tmp_path: Path) -> None:
    peaceful = {name: spec for name, spec in SPECS.items() if name != "t1"}
    wanted = {name: alone(engine, spec) for name, spec in peaceful.items()}
    wild = make_spec(learning_rate=1e30, seed=1, warmup_steps=0)
    heard = follow_all(make_trials(engine, tmp_path, slots=3), {"wild": wild, **peaceful})
    (end,) = heard.pop("wild")
    assert (end.stop_reason, end.eval_loss, end.curve) == ("diverged", DIVERGED_LOSS, ())
    assert end.step <= EVAL_STEPS
    assert read_progress(tmp_path / "wild").stop_reason == "diverged"
    assert not list((tmp_path / "wild").glob("step-*"))
    for name, evaluations in heard.items():
        assert losses_of(evaluations) == near(wanted[name])


def test_a_trial_that_diverges_late_keeps_its_finite_curve(engine: MultiLoraEngine, tmp_path: Path) -> None:
    # At this rate squares overflow float32, in which the base computes its norms, after a few steps.
    wild = make_spec(learning_rate=1e19, warmup_steps=10)
    heard = follow_all(make_trials(engine, tmp_path), {"wild": wild})["wild"]
    assert heard[-1].stop_reason == "diverged"
    assert heard[-1].eval_loss == DIVERGED_LOSS
    assert len(heard[-1].curve) == len(heard) - 1 > 0
    assert heard[-1].step > heard[-2].step


def test_a_client_that_comes_anew_hears_all_from_the_start_while_the_trial_trains_on(
    engine: MultiLoraEngine, tmp_path: Path
) -> None:
    spec = make_spec()
    wanted = alone(engine, spec)
    trials = make_trials(engine, tmp_path)
    with at_work(trials):
        trials.attach("a", spec)
        assert hear(trials, "a", 0).step == 2
        assert hear(trials, "a", 2).step == 4
        evaluations = follow(trials, "a", spec)  # the first client was killed
    assert [evaluation.step for evaluation in evaluations] == [2, 4, 6]
    assert losses_of(evaluations) == near(wanted)


def test_steps_and_tokens_are_those_of_the_batches_and_the_time_is_shared_out(
    engine: MultiLoraEngine, tmp_path: Path
) -> None:
    trials = make_trials(engine, tmp_path, slots=2)
    follow_all(trials, SPECS)
    advance_until_idle(trials)
    progress = {name: read_progress(tmp_path / name) for name in SPECS}
    lengths = engine._train.lengths
    for name, spec in SPECS.items():
        rows = [row for step in range(6) for row in samples_of_step(20, 4, seed=spec.seed, step=step)]
        assert (progress[name].step, progress[name].tokens) == (6, lengths[rows].sum())
    use = trials.use()
    assert use.tokens == sum(one.tokens for one in progress.values())
    assert use.train_s + use.eval_s == pytest.approx(sum(one.device_s for one in progress.values()))
    assert use.steps >= 18
    assert use.slots == 2


def test_slots_count_as_busy_while_trials_keep_coming(engine: MultiLoraEngine, tmp_path: Path) -> None:
    trials = make_trials(engine, tmp_path, slots=1)
    time.sleep(0.2)  # before the first trial nothing is on offer
    for name in ("a", "b", "c"):
        trials.attach(name, make_spec(max_steps=2))
    advance_until_idle(trials)
    use = trials.use()
    assert 0 < use.busy_slot_s <= use.open_slot_s
    assert use.busy_slot_s > 0.7 * use.open_slot_s
    time.sleep(0.3)
    assert trials.use() == use  # nothing came
    trials.attach("d", make_spec(max_steps=2))
    advance_until_idle(trials)
    later = trials.use()
    opened_s, busy_s = later.open_slot_s - use.open_slot_s, later.busy_slot_s - use.busy_slot_s
    assert opened_s - busy_s >= 0.3  # the nap, however long the last trial took


def test_waiting_without_work_is_counted_and_ends_when_a_trial_comes(engine: MultiLoraEngine, tmp_path: Path) -> None:
    trials = make_trials(engine, tmp_path)
    trials.wait_for_work(0.05)
    assert trials.use().waiting_s >= 0.05
    threading.Timer(0.2, trials.attach, ("a", make_spec())).start()
    started = time.monotonic()
    trials.wait_for_work(60)
    assert time.monotonic() - started < 30
    trials.wait_for_work(60)  # it is still there
    waited_s = trials.use().waiting_s
    assert trials.advance()
    assert trials.use().starved_s == waited_s
    advance_until_idle(trials)
    trials.wait_for_work(0.05)
    use = trials.use()
    assert use.waiting_s > use.starved_s == waited_s  # nobody came any more


def test_a_broken_engine_is_told_to_all_who_wait_and_to_all_who_come(engine: MultiLoraEngine, tmp_path: Path) -> None:
    trials = make_trials(engine, tmp_path)
    trials.attach("a", make_spec())
    told: list[str] = []

    def client() -> None:
        with pytest.raises(TrainingError) as caught:
            hear(trials, "a", 0)
        told.append(str(caught.value))

    thread = threading.Thread(target=client)
    thread.start()
    trials.fail(TrainingError("the device is gone"))
    thread.join(timeout=30)
    assert told == ["the device is gone."]
    trials.detach("a", wait=True)
    trials.attach("a", make_spec())
    client()
    assert len(told) == 2


def test_a_client_can_wait_until_its_trial_is_out(engine: MultiLoraEngine, tmp_path: Path) -> None:
    trials = make_trials(engine, tmp_path)
    trials.detach("unknown", wait=True)
    with at_work(trials):
        trials.attach("a", make_spec(max_steps=10_000))
        hear(trials, "a", 0)
        trials.detach("a", wait=True)
        assert engine.slots == []
        left = read_progress(tmp_path / "a")
    assert left == read_progress(tmp_path / "a")
    assert left.step >= 2


def test_many_clients_that_come_leave_and_come_again_at_any_time_change_no_loss(
    engine: MultiLoraEngine, model_folder: Path, tmp_path: Path
) -> None:
    wanted = {name: alone(make_engine(model_folder), spec) for name, spec in SPECS.items()}
    trials = make_trials(engine, tmp_path, slots=3)
    found: dict[str, Losses] = {}

    def restless(name: str, number: int) -> None:
        for visit in range(4):
            trials.attach(name, SPECS[name])
            if visit % 2:
                hear(trials, name, 0)
            time.sleep(0.002 * number)
            trials.detach(name)
        found[name] = losses_of(follow(trials, name, SPECS[name]))

    threads = [threading.Thread(target=restless, args=(name, i), daemon=True) for i, name in enumerate(SPECS)]
    with at_work(trials):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
    assert found.keys() == SPECS.keys()
    for name, losses in found.items():
        assert losses == near(wanted[name])


def test_attaching_twice_changes_nothing(engine: MultiLoraEngine, tmp_path: Path) -> None:
    trials: SlotScheduler = make_trials(engine, tmp_path)
    trials.attach("a", make_spec())
    trials.advance()
    trials.attach("a", make_spec())
    trials.advance()
    assert engine.slots == ["a"]
    assert hear(trials, "a", 0).step == 2
