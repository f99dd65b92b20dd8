"""`plan` on the toy base: for programs and people, with times from a rate or from steps that were measured before."""

import json
from pathlib import Path

import pytest

from jobs import _plan
from jobs.plan import plan
from orchestrator.config.preferences import PreferConfig
from orchestrator.config.schema import RunConfig
from orchestrator.data.tokens.store import tokenize_run
from orchestrator.plan.devices import this_machine
from orchestrator.plan.forecast import forecast_on
from orchestrator.plan.measured import Measured
from orchestrator.probe import processes
from orchestrator.run.folder import check_dir, read_ledger


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "planned",
            "model": {"base": "tiny", "dtype": "float32"},
            "data": {"sources": [{"path": "synthetic", "catalogue": "easy", "limit": 80}]},
            "resources": {"storage_path": str(tmp_path_factory.mktemp("runs"))},
        }
    )


def test_without_a_probe_times_are_from_a_rate(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(config, check_dir(config), device=["cpu", "H100"], as_json=True, no_probe=True) == 0
    devices = json.loads(capsys.readouterr().out)["devices"]
    assert [device["measured"] for device in devices] == [None, None]
    assert devices[0]["search_s"] > devices[1]["search_s"] > 0


def test_what_an_earlier_plan_measured_is_taken_kept_and_said(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "user_cache", lambda: tmp_path)
    run = check_dir(config)
    assert plan(config, run, no_probe=True) == 0
    job, device = _plan.job_of(config, tokenize_run(config, run)), this_machine()
    probe = _plan._probe(job, forecast_on(job, device, cpus=2), device, run)
    assert probe is not None
    found = Measured(
        tokens_per_s=123.0, read_tokens_per_s=456.0, peak_bytes=1000, steps=4, processes=probe.processes, probe_s=30.0
    )  # fmt: skip
    probe.place.parent.mkdir(parents=True)
    probe.place.write_text(found.model_dump_json(), encoding="utf-8")
    capsys.readouterr()

    assert plan(config, run, device=["cpu", "L4"]) == 0
    said = capsys.readouterr().out
    assert "times of training are measured: 4 real steps" in said
    assert "123 tokens/s each" in said
    assert "L4: times are from the rate that the device states" in said
    _plan.require_room(config, run)
    assert "of training in all, as measured by an earlier plan." in capsys.readouterr().out
    planned = read_ledger(run).plan
    assert planned is not None
    assert planned.is_measured


def test_what_preferences_need_is_said_before_anything_is_trained(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [{"role": "user", "content": "What is it like in Rome?"}]
    turn = {"role": "assistant", "content": "It is warm."}
    rows = [{"messages": [*asked, turn], "label": label} for label in (True, False, False)]
    pair = {"prompt": asked, "chosen": [turn], "rejected": [{"role": "assistant", "content": "No."}]}
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (pair, *rows)), encoding="utf-8")
    settings = {"sources": [{"path": str(path)}], "max_prompts": 20, "beta": [0.1, 0.3], "max_pairs": 15}
    both = config.model_copy(update={"prefer": PreferConfig.model_validate(settings)})

    assert plan(both, check_dir(both), device=["cpu", "T4"], as_json=True, no_probe=True) == 0
    found = json.loads(capsys.readouterr().out)["preferences"]
    assert found["known"] == {"found": {"file": 1}, "alone": 0, "left_out": {"unpaired": 3}}
    assert (found["prompts"], found["replies"], found["most_pairs"], found["trainings"]) == (20, 40, 15, 2)
    assert found["most_steps"] == 4  # 14 pairs in batches of 8, twice
    assert [device["verdict"] for device in found["devices"]] == ["fits", "fits"]
    of_sft = forecast_on(_plan.job_of(both, tokenize_run(both, check_dir(both))), this_machine(), cpus=2)
    assert found["devices"][0]["expected"] != of_sft.expected

    alone = config.model_copy(update={"prefer": PreferConfig.model_validate({**settings, "loss": "kto"})})
    assert plan(alone, check_dir(alone), device=["cpu"], no_probe=True) == 0
    said = capsys.readouterr().out
    assert "pairs in sources: 4 of file (3 of them single replies)" in said
    assert "2 trainings of at most 4 steps each" in said
    assert "Memory of a training on pairs on this CPU" in said


def test_without_preferences_nothing_is_said_of_them(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan(config, check_dir(config), device=["cpu"], as_json=True, no_probe=True) == 0
    assert "preferences" not in json.loads(capsys.readouterr().out)
