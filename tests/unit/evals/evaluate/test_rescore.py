from pathlib import Path

import pytest
from builders import make_config, make_trial, weather_samples, write_peft_checkpoint
from transformers import PreTrainedTokenizerBase

from evals.cases.samples import cases_from_samples
from evals.evaluate.rescore import rescore_run, stage_digest
from evals.records import EngineRecord, FailedAdapter, Generation, Scores
from orchestrator.config.evaluation import EvalConfig
from orchestrator.config.schema import ModelConfig, RunConfig
from orchestrator.core.errors import RunConflictError, UnscoredAdaptersError
from orchestrator.core.files import dump_jsonl, write_text_atomic
from orchestrator.models.adapters import keep_adapter
from orchestrator.run.folder import run_dir
from orchestrator.run.paths import RunDir

CITIES = ("Rome", "Oslo", "Bern", "Lima")


def calls(city: str, tag: str = "tool_call") -> str:
    return f'<{tag}>{{"name": "get_weather", "arguments": {{"city": "{city}"}}}}</{tag}>'


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return make_config(tmp_path, name="again", eval=EvalConfig(reply_format="hermes"))


@pytest.fixture
def run(config: RunConfig) -> RunDir:
    run = run_dir(config)
    write_text_atomic(run.cases, dump_jsonl(cases_from_samples(weather_samples(*CITIES))))
    return run


def write_replies(run: RunDir, adapter_id: str, texts: dict[str, str]) -> None:
    replies = [Generation(case_id=f"s-{city}", text=text) for city, text in texts.items()]
    write_text_atomic(run.generations(adapter_id), dump_jsonl(replies))


def accuracy(run: RunDir, adapter_id: str) -> float | None:
    scores = Scores.model_validate_json(run.scores(adapter_id).read_text(encoding="utf-8"))
    return scores.metrics["tool_call_accuracy"].value


def test_the_replies_that_are_there_are_judged_by_todays_rules(config: RunConfig, run: RunDir) -> None:
    write_replies(run, "base", dict.fromkeys(CITIES, "It is sunny."))
    write_replies(run, "abc", {city: calls("Rome" if city == "Oslo" else city) for city in CITIES})
    write_text_atomic(run.scores("abc"), "scores of an older version")
    rescore_run(config, run)
    assert accuracy(run, "abc") == 0.75
    assert accuracy(run, "base") == 0.0


def test_the_format_of_the_configuration_reads_them(config: RunConfig, run: RunDir) -> None:
    write_replies(run, "abc", {city: calls(city) for city in CITIES})
    bare = config.model_copy(update={"eval": EvalConfig(reply_format="json")})
    rescore_run(bare, run)
    assert accuracy(run, "abc") == 0.0
    rescore_run(config, run)
    assert accuracy(run, "abc") == 1.0


def test_too_many_missing_replies_are_told_after_the_others_are_scored(config: RunConfig, run: RunDir) -> None:
    write_replies(run, "abc", {"Rome": calls("Rome")})
    write_replies(run, "base", {city: calls(city) for city in CITIES})
    with pytest.raises(UnscoredAdaptersError, match="3 of 4 cases got no reply"):
        rescore_run(config, run)
    assert accuracy(run, "base") == 1.0
    failure = FailedAdapter.model_validate_json(run.failure("abc").read_text(encoding="utf-8"))
    assert (failure.adapter_id, failure.error) == ("abc", "EvaluationError")
    write_replies(run, "abc", {city: calls(city) for city in CITIES})
    rescore_run(config, run)
    assert not run.failure("abc").exists()


def test_an_adapter_that_could_not_be_loaded_is_not_scored_by_judging_again(config: RunConfig, run: RunDir) -> None:
    for adapter_id in ("abc", "base"):
        write_replies(run, adapter_id, {city: calls(city) for city in CITIES})
    failure = FailedAdapter(adapter_id="abc", error="AdapterError", message="the adapter cannot be read.")
    write_text_atomic(run.failure("abc"), failure.model_dump_json())
    with pytest.raises(UnscoredAdaptersError, match=r"not scored \(1\): abc: the adapter cannot be read"):
        rescore_run(config, run)
    assert not run.scores("abc").exists()
    assert accuracy(run, "base") == 1.0


def test_a_run_without_replies_is_refused(config: RunConfig, run: RunDir) -> None:
    with pytest.raises(RunConflictError, match="the run has no replies"):
        rescore_run(config, run)


def test_replies_of_an_adapter_that_was_trained_again_are_not_taken_for_the_new_ones(
    config: RunConfig, run: RunDir, tmp_path: Path, model_folder: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    digests = []
    for seed in (0, 1):
        source = write_peft_checkpoint(tmp_path / str(seed), model_folder, seed=seed)
        record = keep_adapter(source, run, make_trial("trial-3"), model=ModelConfig(base="tiny"), tokenizer=tokenizer)
        digests.append(stage_digest(config, run))
        if seed == 0:
            write_replies(run, record.id, {city: calls(city) for city in CITIES})
            made = EngineRecord(
                adapter_id=record.id, inputs_sha256="", weights_sha256=record.sha256,
                applied_as="merged", device="cpu", num_engines=1,
            )  # fmt: skip
            write_text_atomic(run.engine(record.id), made.model_dump_json())
            rescore_run(config, run)
    assert digests[0] != digests[1]
    with pytest.raises(RunConflictError, match=r"not those of trial-3, which was trained again since.*Run evaluate"):
        rescore_run(config, run)
