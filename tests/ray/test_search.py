"""Searches by Ray Tune on the tiny base, with each way to train its trials."""

import itertools
import math
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from builders import prepared, toy_run, write_other_base
from ray._private import worker as ray_worker
from ray.util.state import list_tasks
from watching import Watching, watch

from orchestrator.config.schema import RunConfig
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import TrialRecord
from orchestrator.core.steps import StepRow
from orchestrator.models.adapters import list_adapters
from orchestrator.run.cluster import cluster_session
from orchestrator.search.run import run_search

pytestmark = pytest.mark.ray


def search_config(storage: Path, name: str, **search: object) -> RunConfig:
    train = {"max_steps": 9, "eval_steps": 1, "batch_size": 2, "micro_batch_size": 2, "warmup_ratio": 0.0}
    return toy_run(storage, name, train=train, search=search)


@pytest.fixture
def another_cluster() -> Iterator[None]:
    """A cluster of somebody else on this machine, in which Ray's own helpers must not lose their way."""
    start = "ray.init(address='local', num_cpus=1, include_dashboard=False)"
    script = f"import ray; {start}; print('up', flush=True); input()"
    command, pipe = [sys.executable, "-c", script], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert any(line == "up\n" for line in process.stdout)
        yield
        process.communicate("\n")


@pytest.mark.usefixtures("another_cluster")
def test_a_grid_marks_the_diverged_stops_the_laggards_and_keeps_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = watch(monkeypatch)
    config = search_config(
        tmp_path,
        "grid",
        searcher="grid",
        num_trials=4,
        keep=1,
        runner="isolated",
        space={"r": [8], "alpha": [16], "learning_rate": [1e-2, 1e30, 1e-9, 2e-9]},
    )
    run = prepared(config)
    with cluster_session(config):
        assert_only_its_own_token_opens_it()
        records = run_search(config, run)
        assert some_trials_ran_side_by_side()
        wait_until_all_is_free()
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN" not in os.environ

    by_rate = {record.hyperparameters["learning_rate"]: record for record in records}
    assert len(by_rate) == 4
    assert by_rate[1e30].status == "diverged"
    assert by_rate[1e30].best_eval_loss is None
    best = by_rate[1e-2]
    assert best.status == "completed"
    assert records[0] == best
    assert best.adapter_id == best.trial_id == "trial-1"
    assert [record.adapter_id for record in records[1:]] == [None, None, None]
    assert [adapter.id for adapter in list_adapters(run)] == [best.adapter_id]
    assert "stopped_early" in {by_rate[1e-9].status, by_rate[2e-9].status}
    assert list(read_jsonl(run.trials, TrialRecord)) == records
    require_all_is_tracked(watching, records)


@pytest.mark.slow
@pytest.mark.usefixtures("joins_cluster")
def test_an_isolated_search_that_is_given_one_more_trial_trains_only_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"r": [8], "alpha": [16], "learning_rate": [1e-2, 1e-3]}
    settings = {"searcher": "grid", "keep": 1, "runner": "isolated", "space": space, "scheduler": "none"}
    one, two = (search_config(tmp_path, "more", num_trials=number, **settings) for number in (1, 2))
    run = prepared(one)
    with cluster_session(one):
        first = run_search(one, run)
    watching = watch(monkeypatch)
    with cluster_session(two):
        both = run_search(two, run)
    assert [trial for trial, *_ in watching.of("trial_started")] == ["trial-2"]
    assert [record for record in both if record.trial_id == "trial-1"] == [
        first[0].model_copy(update={"adapter_id": both[0].adapter_id if both[0].trial_id == "trial-1" else None})
    ]
    assert len(both) == 2
    assert len(list_adapters(run)) == 1


STEP_METRICS = set(StepRow.model_fields) - {"step", "at"}


def require_all_is_tracked(watching: Watching, records: list[TrialRecord]) -> None:
    """Trackers heard of each trial's start, of every step and every point of its curve, and of its end."""
    assert [watching.calls[0][0], watching.calls[-1][0]] == ["run_started", "run_ended"]
    assert watching.calls[0][1].num_trials == len(records)
    started = {trial: hyperparameters for trial, hyperparameters, _ in watching.of("trial_started")}
    assert started == {record.trial_id: record.hyperparameters for record in records}
    assert dict(watching.of("trial_ended")) == {record.trial_id: record.stop_reason for record in records}
    for record in records:
        told = [(step, its["eval_loss"]) for trial, step, its in watching.of("metrics") if trial == record.trial_id]
        assert {(point.step, point.eval_loss) for point in record.curve} >= {point for point in told if point[1] < 1e9}
        assert math.isnan(told[-1][1]) == (record.status == "diverged")
        steps = [(step, its) for trial, step, its in watching.of("step") if trial == record.trial_id]
        assert record.steps is not None
        assert [step for step, _ in steps] == list(range(1, len(steps) + 1))
        assert len(steps) >= record.steps
        assert steps[record.steps - 1][1]["tokens"] == record.tokens
        assert all(its.keys() == STEP_METRICS for _, its in steps)
        assert all(its["memory_bytes"] > 1e8 and its["tokens_per_s"] > 0 for _, its in steps)
        before = 0
        for point in record.curve:
            since = [its["loss"] for step, its in steps if before < step <= point.step]
            assert point.train_loss == pytest.approx(sum(since) / len(since))
            before = point.step


def assert_only_its_own_token_opens_it() -> None:
    """Whatever RAY_AUTH_MODE says, which is `disabled` here, a cluster that is started asks for a token of its own."""
    token, url = os.environ["RAY_AUTH_TOKEN"], f"http://{ray_worker.get_dashboard_url()}/api/jobs/"
    for headers, status in (({}, 401), ({"Authorization": f"Bearer {'f' * len(token)}"}, 403)):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30)
        assert refusal.value.code == status
        refusal.value.close()
    with urllib.request.urlopen(
        urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=30
    ) as answer:
        assert answer.status == 200
    join = f"import ray; ray.init(address={ray.get_runtime_context().gcs_address!r})"
    stranger = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    stranger.pop("RAY_AUTH_TOKEN")
    joined = subprocess.run([sys.executable, "-c", join], env=stranger, capture_output=True, text=True, timeout=120)
    assert joined.returncode != 0
    assert "auth" in joined.stderr.lower()


def wait_until_all_is_free() -> None:
    """Evaluation needs the CPUs that stopped trials held; Ray frees them some seconds after it noticed."""
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.5)


def some_trials_ran_side_by_side() -> bool:
    """Whether the training workers of two trials were alive at once: neither waited for the CPUs of the other."""
    address = ray.get_runtime_context().gcs_address
    tasks = list_tasks(
        address, filters=[("type", "=", "ACTOR_TASK")], detail=True, limit=10_000, raise_on_missing_output=False
    )
    spans: dict[str, tuple[float, float]] = {}
    for task in tasks:
        if "TrainWorker" in task.func_or_class_name and task.start_time_ms:
            first, last = spans.get(task.actor_id, (math.inf, 0))
            spans[task.actor_id] = (min(first, task.start_time_ms), max(last, task.end_time_ms or 0))
    assert len(spans) == 4
    return any(one[0] < two[1] and two[0] < one[1] for one, two in itertools.combinations(spans.values(), 2))


@pytest.mark.usefixtures("joins_cluster")
def test_optuna_proposes_points_inside_the_space_and_the_multi_lora_engine_trains_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = watch(monkeypatch)
    space = {"r": [8, 16], "alpha": [16, 32], "learning_rate": {"min": 1e-3, "max": 1e-2}}
    config = search_config(tmp_path, "optuna", searcher="optuna", num_trials=4, keep=2, space=space, scheduler="none")
    run = prepared(config)
    with cluster_session(config):
        records = run_search(config, run)
    assert len(records) == 4
    assert list(run.ray.glob("search-*/trials/engine-*.json"))
    for record in records:
        chosen = record.hyperparameters
        assert chosen["r"] in (8, 16)
        assert chosen["alpha"] in (16, 32)
        assert 1e-3 <= chosen["learning_rate"] <= 1e-2
        assert [point.step for point in record.curve] == list(range(1, 10))
    assert len(list_adapters(run)) == 2
    require_all_is_tracked(watching, records)

    more = config.model_copy(update={"search": config.search.model_copy(update={"num_trials": 6})})
    with cluster_session(more):
        further = run_search(more, run)
    assert {record.trial_id for record in further} == {f"trial-{number}" for number in range(1, 7)}
    assert [record.curve for record in further if record.trial_id in {its.trial_id for its in records}] == [
        its.curve for its in records
    ]
    assert len({record.hyperparameters["learning_rate"] for record in further}) == 6
    kept = [record.trial_id for record in further if record.adapter_id]
    assert kept == [record.trial_id for record in further[:2]]
    assert [adapter.id for adapter in list_adapters(run)] == kept


def test_auto_trains_each_trial_alone_where_the_engine_cannot_train_the_base(
    tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_other_base(tmp_path / "base", model_folder, "gemma2")
    config = search_config(tmp_path, "capped", num_trials=1, keep=1)
    config = config.model_copy(update={"model": config.model.model_copy(update={"base": str(base)})})
    run = prepared(config)
    with cluster_session(config):
        (record,) = run_search(config, run)
    assert record.status == "completed"
    assert [adapter.id for adapter in list_adapters(run)] == ["trial-1"]
    told = " ".join(capsys.readouterr().out.split())
    assert "search.runner auto trains each trial as a job of its own here" in told
    assert "it changes the logits behind its output head" in told
