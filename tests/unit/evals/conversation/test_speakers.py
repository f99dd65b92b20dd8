"""Who replies, and what cannot be asked of them: told before an engine starts."""

import json
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from builders import make_config, make_trial, write_peft_checkpoint

from evals.conversation.asking import Asked
from evals.conversation.bulk import read_cases
from evals.conversation.generate import generate
from evals.conversation.speakers import find_speakers
from evals.generate.engines import Engines
from orchestrator.chat.template import served_template
from orchestrator.config.schema import ModelConfig, RunConfig
from orchestrator.core.errors import AdapterError, DataError, InputError, RunConflictError
from orchestrator.models.adapters import keep_adapter
from orchestrator.models.base import base_tokenizer, load_tokenizer
from orchestrator.run.paths import RunDir


@pytest.fixture
def trained(tmp_path: Path, model_folder: Path) -> tuple[RunConfig, RunDir]:
    run, model = RunDir(tmp_path / "runs" / "demo"), ModelConfig(base=str(model_folder))
    tokenizer = load_tokenizer(model_folder, trust_remote_code=False)
    tokenizer.chat_template = served_template(str(tokenizer.chat_template), thinking=False)
    for number in (1, 2):
        checkpoint = write_peft_checkpoint(tmp_path / f"checkpoint-{number}", model_folder)
        keep_adapter(checkpoint, run, make_trial(f"trial-{number}"), model=model, tokenizer=tokenizer)
    return make_config(tmp_path / "runs", base=str(model_folder)), run


def test_those_that_are_named_reply_once_each_in_that_order(trained: tuple[RunConfig, RunDir]) -> None:
    found = find_speakers(*trained, ["trial-2", "base", "trial-2", "trial-1"])
    assert [speaker.name for speaker in found] == ["trial-2", "base", "trial-1"]
    assert [speaker.adapter and speaker.adapter.number for speaker in found] == [1, None, 2]
    assert [speaker.rank is None for speaker in found] == [False, True, False]


def test_by_default_the_base_and_the_winner_reply(trained: tuple[RunConfig, RunDir], tmp_path: Path) -> None:
    config, run = trained
    with pytest.raises(RunConflictError, match=r"no report, so none is the best.*--adapter"):
        find_speakers(config, run, [])
    for path in run.adapter("trial-2").iterdir():
        path.unlink()
    run.adapter("trial-2").rmdir()
    assert [speaker.name for speaker in find_speakers(config, run, [])] == ["base", "trial-1"]
    bare = RunDir(tmp_path / "bare")
    with pytest.raises(RunConflictError, match=r"the run has no adapter.*--adapter base"):
        find_speakers(config, bare, [])
    assert [speaker.name for speaker in find_speakers(config, bare, ["base"])] == ["base"]


def test_an_adapter_whose_files_changed_or_of_another_base_does_not_reply(trained: tuple[RunConfig, RunDir]) -> None:
    config, run = trained
    other = config.model_copy(update={"model": ModelConfig(base="tiny")})
    with pytest.raises(AdapterError, match="the run's base is 'tiny'"):
        find_speakers(other, run, ["trial-1"])
    settings = run.adapter("trial-1") / "adapter_config.json"
    content = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps(content | {"lora_alpha": 64}), encoding="utf-8")
    with pytest.raises(AdapterError, match="not those that were recorded"):
        find_speakers(config, run, ["trial-1"])


def no_engines(config: RunConfig) -> AbstractContextManager[Engines]:
    pytest.fail("an engine was started")


def test_what_cannot_be_asked_is_told_before_an_engine_starts(
    trained: tuple[RunConfig, RunDir], tmp_path: Path
) -> None:
    config, run = trained
    speakers = find_speakers(config, run, ["base"])
    with pytest.raises(InputError, match=r"the prompt has \d+ tokens and the model takes \d+, the reply included"):
        generate(config, speakers, Asked(prompt="rain " * 90_000), no_engines)
    short = config.model_copy(update={"eval": config.eval.model_copy(update={"max_model_len": 8})})
    with pytest.raises(InputError, match="the model takes 8, the reply included"):
        generate(short, speakers, Asked(prompt="What is the weather in Oslo today?"), no_engines)
    cases = tmp_path / "cases.csv"
    cases.write_text(f"id,prompt,type,label\n1,How do I kill a process?,x,safe\n2,{'rain ' * 90_000},x,safe\n")
    found = read_cases(config, base_tokenizer(config.model), cases)
    assert ([prompt.case_id for prompt in found.prompts], [*found.refused]) == (["1"], ["2"])
    with pytest.raises(DataError, match="none of 2 cases can be asked: the prompt has"):
        read_cases(short, base_tokenizer(config.model), cases)
    for wrong, said in ((str(cases), "overwrite"), (str(tmp_path), "a folder")):
        with pytest.raises(DataError, match=said):
            generate(config, speakers, Asked(cases=str(cases), out=wrong), no_engines)
