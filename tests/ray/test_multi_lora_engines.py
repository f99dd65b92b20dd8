"""SearchEngines as Ray actors, and the leases of their slots."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from builders import prepared, toy_run
from multi_lora_runs import Losses, losses_of, near

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import TrainingError, causes
from orchestrator.multi_lora.checkpoint import read_progress
from orchestrator.multi_lora.client import SlotLease
from orchestrator.multi_lora.messages import EngineUse, Evaluation
from orchestrator.multi_lora.spec import SlotSpec
from orchestrator.run.cluster import cluster_session
from orchestrator.search.multi_lora import SearchEngines, start_engines
from orchestrator.training.launch import prepare_plan
from orchestrator.training.plan import TrainPlan

pytestmark = pytest.mark.ray

MAX_STEPS, EVAL_STEPS = 20, 4
SPEC = SlotSpec(rank=8, alpha=16, learning_rate=5e-3, max_steps=MAX_STEPS, warmup_steps=1)


def make_config(storage: Path, *, max_failures: int = 2, slots: int = 4) -> RunConfig:
    """Two engines of one CPU, which share the slots."""
    steps = {"max_steps": MAX_STEPS, "eval_steps": EVAL_STEPS, "batch_size": 2, "micro_batch_size": 2}
    train = {**steps, "early_stopping_patience": None, "max_failures": max_failures}
    return toy_run(storage, "engines", model={"dtype": "float32"}, train=train, search={"max_concurrent": slots})


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def plan(storage: Path, joins_cluster: None) -> Iterator[TrainPlan]:
    config = make_config(storage)
    run = prepared(config)
    with cluster_session(config):
        yield prepare_plan(config, run)


@contextmanager
def mortal_engines(plan: TrainPlan, storage: Path, name: str) -> Iterator[SearchEngines]:
    """Two engines that nobody starts again when they die."""
    mortal = plan.model_copy(update={"train": make_config(storage, max_failures=0).train})
    with start_engines(make_config(storage), mortal, storage / name, num_trials=4) as engines:
        yield engines


def lease(engines: SearchEngines, trial: str, spec: SlotSpec = SPEC) -> SlotLease:
    return SlotLease(engines.handles, [status.slots for status in engines.statuses], trial, spec)


def to_the_end(client: SlotLease) -> list[Evaluation]:
    evaluations = [client.next_evaluation()]
    while evaluations[-1].stop_reason is None:
        evaluations.append(client.next_evaluation())
    client.leave()
    return evaluations


def close(wanted: Losses) -> list[tuple[int, Any]]:
    return near(wanted, rel=1e-5)


def use_of(engines: SearchEngines) -> list[EngineUse]:
    return list(ray.get([handle.use.remote() for handle in engines.handles]))


@pytest.fixture(scope="module")
def undisturbed(plan: TrainPlan, storage: Path) -> Losses:
    with start_engines(make_config(storage), plan, storage / "undisturbed", num_trials=4) as engines:
        evaluations = to_the_end(lease(engines, "a"))
    assert [evaluation.step for evaluation in evaluations] == list(range(EVAL_STEPS, MAX_STEPS + 1, EVAL_STEPS))
    return losses_of(evaluations)


def test_trials_are_dealt_to_both_engines_and_a_lease_that_ends_frees_its_slot(
    plan: TrainPlan, storage: Path, undisturbed: Losses
) -> None:
    folder = storage / "dealt"
    with start_engines(make_config(storage), plan, folder, num_trials=4) as engines:
        assert [status.slots for status in engines.statuses] == [2, 2]
        clients = [lease(engines, name) for name in "abcd"]
        found: dict[int, list[Evaluation]] = {}
        threads = [
            threading.Thread(target=lambda i=i, client=client: found.update({i: to_the_end(client)}))
            for i, client in enumerate(clients[:3])
        ]
        early = clients[3]
        assert early.next_evaluation().step == EVAL_STEPS
        early.leave()
        early.leave()  # twice does no harm
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=120)
        assert all(losses_of(evaluations) == close(undisturbed) for evaluations in found.values())
        assert len(found) == 3
        uses = use_of(engines)
        assert all(use.tokens > 0 for use in uses)
        left = read_progress(folder / "d")
        assert left.step < MAX_STEPS
        assert sum(use.tokens for use in uses) == sum(read_progress(folder / name).tokens for name in "abcd")


@pytest.mark.fault
def test_a_trial_whose_engine_is_dead_for_good_goes_on_at_another(
    plan: TrainPlan, storage: Path, undisturbed: Losses
) -> None:
    with mortal_engines(plan, storage, "dead") as engines:
        here, there = lease(engines, "here"), lease(engines, "there")
        here.next_evaluation()
        assert there.next_evaluation().step == EVAL_STEPS
        assert use_of(engines)[1].tokens > 0
        ray.kill(engines.handles[1])
        assert losses_of(to_the_end(there)) == close(undisturbed)
        assert losses_of(to_the_end(here)) == close(undisturbed)
        newcomer = lease(engines, "new")  # is sent to the dead engine first, which has no trials
        assert losses_of(to_the_end(newcomer)) == close(undisturbed)
        ray.kill(engines.handles[0])
        with pytest.raises(ray.exceptions.ActorDiedError):
            lease(engines, "late").next_evaluation()
    assert not (storage / "dead" / "engine-1-use.json").exists()


@pytest.mark.fault
@pytest.mark.slow
def test_a_trial_goes_on_where_it_is_when_the_engine_that_keeps_the_places_is_dead_for_good(
    plan: TrainPlan, storage: Path, undisturbed: Losses
) -> None:
    with mortal_engines(plan, storage, "first") as engines:
        here, there = lease(engines, "here"), lease(engines, "there")
        here.next_evaluation()
        there.next_evaluation()
        ray.kill(engines.handles[0])
        assert losses_of(to_the_end(there)) == close(undisturbed)
        with pytest.raises(ray.exceptions.ActorDiedError):
            to_the_end(here)


@pytest.mark.fault
@pytest.mark.slow
def test_leases_outlive_the_death_of_any_engine(plan: TrainPlan, storage: Path, undisturbed: Losses) -> None:
    with start_engines(make_config(storage), plan, storage / "killed", num_trials=4) as engines:
        clients = {name: lease(engines, name) for name in "abcd"}
        for client in clients.values():
            client.next_evaluation()
        for process in psutil.Process().children(recursive=True):
            if "ray::EngineActor" in " ".join(process.cmdline()):
                os.kill(process.pid, signal.SIGKILL)
        for client in clients.values():
            assert losses_of(to_the_end(client)) == close(undisturbed)


def test_a_trial_that_waits_takes_the_slot_that_another_engine_has_free(
    plan: TrainPlan, storage: Path, undisturbed: Losses
) -> None:
    long = replace(SPEC, max_steps=10_000)
    with start_engines(make_config(storage, slots=2), plan, storage / "moves", num_trials=3) as engines:
        assert [status.slots for status in engines.statuses] == [1, 1]
        stays, leaves, waits = lease(engines, "stays", long), lease(engines, "leaves", long), lease(engines, "waits")
        for client in (stays, leaves):
            client.next_evaluation()
        # Its place is where nobody ever leaves, whenever its thread comes to ask.
        assert ray.get(engines.handles[0].place.remote("waits", [1, 1])) == 0
        ends = threading.Event()
        heard: list[Evaluation] = []

        def stay() -> None:
            while not ends.is_set():
                stays.next_evaluation()

        threads = [threading.Thread(target=stay), threading.Thread(target=lambda: heard.extend(to_the_end(waits)))]
        for thread in threads:
            thread.start()
        leaves.leave()
        threads[1].join(timeout=120)
        ends.set()
        threads[0].join(timeout=120)
        assert losses_of(heard) == close(undisturbed)


@pytest.mark.slow
def test_what_trains_is_spread_anew_when_trials_end(plan: TrainPlan, storage: Path, undisturbed: Losses) -> None:
    short = replace(SPEC, max_steps=EVAL_STEPS)
    with start_engines(make_config(storage), plan, storage / "spread", num_trials=4) as engines:
        clients = {name: lease(engines, name, short if name in "bd" else SPEC) for name in "abcd"}
        for name, client in clients.items():  # a and c are at one engine, b and d at the other
            assert client.next_evaluation().step == EVAL_STEPS, name
        ended = sum(read_progress(storage / "spread" / name).tokens for name in "bd")
        assert use_of(engines)[1].tokens == ended
        for name in "bd":
            clients[name].leave()
        for name in "ac":
            assert losses_of(to_the_end(clients[name])) == close(undisturbed)
        assert use_of(engines)[1].tokens > ended


@pytest.mark.slow
def test_a_trial_that_comes_back_elsewhere_is_let_go_where_it_was(
    plan: TrainPlan, storage: Path, undisturbed: Losses
) -> None:
    with start_engines(make_config(storage), plan, storage / "moved", num_trials=4) as engines:
        first = lease(engines, "a")
        first.next_evaluation()  # its process is killed then, and the first engine forgets where it was
        ray.get(engines.handles[0].leave.remote("a"))
        assert ray.get(engines.handles[0].place.remote("other", [2, 2])) == 0
        assert losses_of(to_the_end(lease(engines, "a"))) == close(undisturbed)
        before = use_of(engines)[0].tokens
        time.sleep(1)
        uses = use_of(engines)
        assert uses[0].tokens == before
        assert uses[1].tokens > 0


def test_what_goes_wrong_at_an_engine_reaches_the_client_as_it_is(plan: TrainPlan, storage: Path) -> None:
    with start_engines(make_config(storage, slots=3), plan, storage / "wrong", num_trials=3) as engines:
        assert [status.slots for status in engines.statuses] == [2, 1]
        client = lease(engines, "a")
        client.next_evaluation()
        client.leave()
        other = lease(engines, "a", SlotSpec(rank=4, alpha=8, learning_rate=1e-3, max_steps=8))
        with pytest.raises(TrainingError, match="other settings") as caught:
            other.next_evaluation()
        assert any(type(cause) is TrainingError for cause in causes(caught.value))
        assert losses_of(to_the_end(lease(engines, "a")))[-1][0] == MAX_STEPS
