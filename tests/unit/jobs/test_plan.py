"""`plan` on the toy base: for programs and people, with times from a rate or from steps that were measured before."""

import json
from pathlib import Path

import pytest

from jobs import _plan
from jobs.plan import plan
from orchestrator.config.schema import RunConfig
from orchestrator.data.tokens.store import tokenize_run
from orchestrator.plan.devices import this_machine
from orchestrator.plan.forecast import forecast_on
from orchestrator.plan.measured import Measured
from orchestrator.probe import measure
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
    monkeypatch.setattr(measure, "user_cache", lambda: tmp_path)
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
