"""Whole evaluations on a quantised base: on both precisions, and on a base that was saved in few bits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import keep_tiny, prepared, toy_run, write_tiny_adapter
from transformers import AutoModelForCausalLM

from evals.check.check import check_data
from evals.evaluate.fanout import evaluate_run
from evals.generate.engines import open_engines
from evals.records import EngineRecord, Generation, Scores
from evals.report.precision import ON_FULL
from evals.report.write import write_report
from orchestrator.config.schema import RunConfig
from orchestrator.core.files import read_jsonl
from orchestrator.models.adapters import read_adapter
from orchestrator.models.base import load_tokenizer
from orchestrator.models.quantised import quantization_settings
from orchestrator.run.cluster import cluster_session
from orchestrator.run.folder import check_dir
from orchestrator.run.paths import RunDir
from orchestrator.toy.tiny import tiny_base_folder
from orchestrator.training.launch import train_one

pytestmark = [pytest.mark.vllm, pytest.mark.ray, pytest.mark.usefixtures("joins_cluster")]

EVALUATION = {"max_new_tokens": 24, "latency_cases": 0}


def _config(storage: Path, name: str, base: str, **evaluation: Any) -> RunConfig:
    train = {"max_steps": 4, "eval_steps": 2, "batch_size": 8, "micro_batch_size": 4, "learning_rate": 1e-3}
    model = {"base": base, "quantization": "nf4", "dtype": "float32"}
    return toy_run(storage, name, model=model, train=train, eval={**EVALUATION, **evaluation})


def _evaluated(config: RunConfig, run: RunDir) -> list[Scores]:
    with open_engines(config) as engines:
        return evaluate_run(config, run, engines)


def _texts(run: RunDir, name: str) -> dict[str, str]:
    return {reply.case_id: reply.text for reply in read_jsonl(run.generations(name), Generation)}


def _weights_of(run: RunDir, name: str) -> str | None:
    return EngineRecord.model_validate_json(run.engine(name).read_text(encoding="utf-8")).base_weights


@pytest.fixture(scope="module")
def on_both(tmp_path_factory: pytest.TempPathFactory, ray_head: object) -> tuple[RunConfig, RunDir]:
    """A run on NF4 whose base and one adapter are scored on both precisions."""
    storage = tmp_path_factory.mktemp("both")
    config = _config(storage, "both", "tiny", base_precision="both")
    run = prepared(config)
    keep_tiny(run, write_tiny_adapter(storage / "trial-1", rank=8))
    with cluster_session(config):
        _evaluated(config, run)
    return config, run


def test_both_precisions_are_scored_on_the_same_cases_and_paired(on_both: tuple[RunConfig, RunDir]) -> None:
    config, run = on_both
    for name in ("base", "trial-1"):
        assert (_weights_of(run, name), _weights_of(run.full_base, name)) == ("dequantised_nf4", None)
        assert _texts(run, name).keys() == _texts(run.full_base, name).keys()
    report = write_report(config, run)
    gaps = {(gap.left, gap.right): gap.n for gap in report.precisions if gap.metric == "case_accuracy"}
    cases = len(_texts(run, "base"))
    assert gaps == {(name, name + ON_FULL): cases for name in ("base", "trial-1")}
    assert "Quantised minus full" in (run.report / "report.md").read_text(encoding="utf-8")


def test_without_both_the_second_scores_are_gone(on_both: tuple[RunConfig, RunDir]) -> None:
    config, run = on_both
    before = _texts(run, "trial-1")
    as_trained = config.model_copy(update={"eval": config.eval.model_copy(update={"base_precision": "as_trained"})})
    with cluster_session(config):
        _evaluated(as_trained, run)
    assert _texts(run, "trial-1") == before
    assert not run.full_base.root.exists()
    assert write_report(as_trained, run).precisions == ()


def test_a_base_that_was_saved_in_four_bits_is_checked_trained_on_and_scored(
    on_both: tuple[RunConfig, RunDir], tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    settings = quantization_settings("nf4", torch.float32)
    base = AutoModelForCausalLM.from_pretrained(
        tiny_base_folder(), dtype=torch.float32, quantization_config=settings, device_map={"": "cpu"}
    )
    base.save_pretrained(folder)
    load_tokenizer(tiny_base_folder(), trust_remote_code=False).save_pretrained(folder)
    config = _config(tmp_path, "saved", str(folder))
    assert check_data(config, check_dir(config), base_dir=tmp_path).not_ready == ()

    run = prepared(config)
    with cluster_session(config):
        trial = train_one(config, run)
        scored = _evaluated(config, run)

    name = trial.adapter_id or ""
    assert trial.curve[-1].eval_loss < trial.curve[0].eval_loss
    assert read_adapter(run.adapter(name)).quantization == "nf4"
    assert {scores.adapter_id: scores.num_unscored for scores in scored} == {"base": 0, name: 0}
    assert _weights_of(run, name) == "dequantised_nf4"
    assert _texts(run, "base") == _texts(on_both[1], "base")  # the same base, quantised while it is loaded
