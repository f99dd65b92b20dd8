"""Chat templates that a base can be given: hermes, and those of the families that TRL ships."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from builders import assistant, make_call, make_config, make_sample, make_tool, user, write_samples
from token_rows import learned_texts, tokens_of
from transformers import AutoTokenizer

from orchestrator.chat.formats import detect_reply_format
from orchestrator.chat.named_templates import named_template, template_names
from orchestrator.chat.parse import parse_reply
from orchestrator.chat.proof import prove_template
from orchestrator.chat.rendering import ChatFormat, chat_format
from orchestrator.chat.template_input import plain_tools
from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import ConfigError, InputError
from orchestrator.core.records import Message
from orchestrator.data.tokens.store import tokenize_run
from orchestrator.models.base import base_tokenizer
from orchestrator.run.folder import open_run

NESTED: dict[str, Any] = {"city": 'Ro"me', "n": {"a": [None, 1.5, True]}, "s": "\u00fc<b>"}
TOOL_TALK = make_sample(
    Message(role="system", content="Help."),
    user("Q1"),
    assistant("Let me see.", make_call(**NESTED)),
    Message(role="tool", content='{"sky": 1}', name="get_weather"),
    assistant("A1"),
    user("Q2"),
    assistant("", make_call(city="Oslo"), make_call(city="Lima")),
    Message(role="tool", content="rain", name="get_weather"),
    Message(role="tool", content="sun", name="get_weather"),
    assistant("A2"),
    kind="answer",
)


@pytest.fixture(scope="module")
def bare_base(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained base as most are: without a chat template, and without the marks of one in its vocabulary."""
    folder = tmp_path_factory.mktemp("bare") / "base"
    shutil.copytree(model_folder, folder)
    (folder / "chat_template.jinja").unlink()
    return folder


def form_of(folder: Path, template: str, *, thinking: bool = False) -> ChatFormat:
    return chat_format(base_tokenizer(ModelConfig(base=str(folder), chat_template=template)), thinking=thinking)


def test_a_base_without_a_template_learns_calls_by_hermes(bare_base: Path) -> None:
    with pytest.raises(InputError, match=r"no chat template.*Set model\.chat_template"):
        base_tokenizer(ModelConfig(base=str(bare_base)))
    form = form_of(bare_base, "hermes")
    prove_template(form)
    assert detect_reply_format(form.template) == "hermes"
    (row,) = learned_texts(form, TOOL_TALK)
    calls = [[call.function for call in parse_reply(text).calls] for text in row]
    gold = [message for message in TOOL_TALK.messages if message.role == "assistant"]
    assert calls == [[call.function for call in message.tool_calls] for message in gold]
    assert [parse_reply(text).prose for text in row] == ["Let me see.", "A1", "", "A2"]
    assert not any(parse_reply(text).problems for text in row)
    assert tokens_of(form, TOOL_TALK).unlearned == 0


def test_hermes_shows_system_tools_calls_and_results(bare_base: Path) -> None:
    form = form_of(bare_base, "hermes")
    text = form.text(form.plain(TOOL_TALK.messages), plain_tools(TOOL_TALK.tools), prompt=True)
    assert text.startswith("<|im_start|>system\nHelp.\n\nYou can call functions.")
    assert json.dumps(plain_tools((make_tool(),))[0]["function"]["name"]) in text  # type: ignore[index]
    assert text.count("<tool_response>") == 3
    assert "<tool_response>\nrain\n</tool_response>\n<tool_response>\nsun\n</tool_response><|im_end|>" in text
    assert text.endswith("A2<|im_end|>\n<|im_start|>assistant\n")
    plain = form.text(form.plain([user("Hi")]), None, prompt=True)
    assert plain == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_hermes_keeps_thoughts_where_they_are_wanted(bare_base: Path) -> None:
    form = form_of(bare_base, "hermes", thinking=True)
    prove_template(form)
    thought = Message(role="assistant", content="Yes.", reasoning_content="Hm.")
    sample = make_sample(user("x"), thought, tools=(), kind="answer")
    assert learned_texts(form, sample) == [["<think>\nHm.\n</think>\n\nYes.<|im_end|>"]]


def test_marks_that_the_vocabulary_lacks_are_text(bare_base: Path, tmp_path: Path) -> None:
    shutil.copytree(bare_base, tmp_path / "other")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = tmp_path / "other" / name
        path.write_text(path.read_text(encoding="utf-8").replace("<|im_", "<|other_"), encoding="utf-8")
    assert AutoTokenizer.from_pretrained(tmp_path / "other").convert_tokens_to_ids("<|im_end|>") is None
    form = form_of(tmp_path / "other", "hermes")
    prove_template(form)
    texts = [text for row in learned_texts(form, TOOL_TALK) for text in row]
    assert [text.endswith("<|im_end|><|other_end|>") for text in texts] == [True] * 4
    assert [len(parse_reply(text).calls) for text in texts] == [1, 0, 2, 0]


@pytest.mark.parametrize("name", [name for name in template_names() if name not in ("own", "hermes")])
def test_a_family_that_trl_ships_can_be_named(name: str, bare_base: Path) -> None:
    assert named_template(name)
    assert form_of(bare_base, name).template


def test_a_name_that_is_none_is_refused_with_those_that_are(bare_base: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"model\.chat_template: nothing: this is neither a file nor a template's name.*hermes, cohere",
    ):
        base_tokenizer(ModelConfig(base=str(bare_base), chat_template="nothing"))


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{% for m in messages %}{{ m.content }", "the chat template refuses it: unexpected '}'"),
        ("{% bogus %}", "the chat template refuses it: Encountered unknown tag 'bogus'"),
        ("{{ messages[0].content | bogus }}", "the chat template refuses it: No filter named 'bogus'"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "the chat template refuses it: maximum recursion depth"),
        ("{% for i in range(10 ** 9) %}{{ i }}{% endfor %}", "the chat template refuses it: Range too big"),
        ("{{ messages.nothing.more }}", "the chat template refuses it: 'list object' has no attribute 'nothing'"),
        ("{{ 'the same each time' }}", "the chat template shows nothing of it"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_by_its_setting(
    bare_base: Path, tmp_path: Path, template: str, fault: str
) -> None:
    config = make_config(tmp_path, base=str(bare_base))
    config = config.model_copy(update={"model": config.model.model_copy(update={"chat_template": template})})
    run = open_run(config)
    for part in ("train", "val", "test"):
        write_samples(run, part, [TOOL_TALK])
    with pytest.raises(InputError) as caught:
        tokenize_run(config, run)
    assert str(caught.value).startswith("model.chat_template: the chat template cannot be learned from: ")
    assert fault in str(caught.value)
    assert "Set model.chat_template to hermes or to the name of a family" in str(caught.value)
