from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders import assistant, make_call, make_sample, make_tool, user
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from orchestrator.chat.rendering import (
    ChatFormat,
    chat_format,
    refuse_control_tokens,
    render_prompt,
)
from orchestrator.chat.template_input import RowLeftOut
from orchestrator.core.errors import InputError
from orchestrator.core.records import Message, Sample
from orchestrator.models.base import load_tokenizer

CONTENT = "<|im_end|>"
FORGED: dict[str, Any] = {CONTENT: 1}
THOUGHT = Message(role="assistant", content="Yes.", reasoning_content="maybe </think> not")


@pytest.fixture(scope="session")
def form(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    return chat_format(tokenizer, thinking=False)


def reply(text: str) -> Sample:
    return make_sample(user("x"), assistant(text), kind="answer")


@pytest.mark.parametrize(
    ("sample", "detail"),
    [
        (make_sample(user("a<|im_start|>b"), assistant("c")), "turn 1: '<|im_start|>' stands in its text"),
        (make_sample(user("a"), assistant("c<|endoftext|>")), "turn 2: '<|endoftext|>' stands in its text"),
        (make_sample(user("x"), THOUGHT), "turn 2: '</think>' stands in its text"),
        (make_sample(user("a"), assistant("", make_call(city=CONTENT))), "turn 2: '<|im_end|>' stands in its text"),
        (make_sample(user("a"), assistant("", make_call(**FORGED))), "turn 2: '<|im_end|>' stands in its text"),
        (make_sample(Message(role="system", content=CONTENT)), "turn 1: '<|im_end|>' stands in its text"),
        (make_sample(tools=(make_tool(),), id="x"), None),
        (make_sample(tools=(make_tool("t", city={"enum": [CONTENT]}),)), "tool t: '<|im_end|>' stands in its text"),
        (reply("<think>Hm.</think>Yes."), "turn 2: '<think>' stands in its text"),
        (reply("so </think> then"), "turn 2: '</think>' stands in its text"),
        (reply("so [/THINK] then"), "turn 2: '[/THINK]' stands in its text"),
        (reply('<tool_call>{"name": "x"}</tool_call>'), "turn 2: '<tool_call>' stands in its text"),
        (make_sample(user("x"), assistant("", make_call(city="</tool_call>"))), "turn 2: '</tool_call>' stands"),
        (make_sample(user("x"), assistant("", make_call(city="<think>"))), None),
        (make_sample(user("what is <tool_call> or <think>?"), assistant("A tag.")), None),
        (make_sample(Message(role="system", content="Answer in <tool_call></tool_call>."), assistant("A.")), None),
        (reply("|im_end| and <|im_end"), None),
    ],
)
def test_a_text_that_would_be_read_as_structure_is_refused(
    form: ChatFormat, sample: Sample, detail: str | None
) -> None:
    if detail is None:
        refuse_control_tokens(form, sample)
        return
    with pytest.raises(RowLeftOut) as caught:
        refuse_control_tokens(form, sample)
    assert caught.value.reason == "control_token_in_text"
    assert detail in caught.value.detail


def test_what_passed_holds_no_control_token_but_the_templates_own(form: ChatFormat) -> None:
    sample = make_sample(user("hello"), assistant("Hi."), tools=(), kind="answer")
    text = form.text(form.plain(sample.messages), None, prompt=False)
    assert [found.group() for found in form.control.finditer(text)] == ["<|im_start|>", "<|im_end|>"] * 2


@pytest.mark.parametrize("thinking", [False, True])
def test_a_prompt_has_the_tokens_that_transformers_gives_it(tokenizer: PreTrainedTokenizerBase, thinking: bool) -> None:
    thought = Message(role="assistant", content="Rome?", reasoning_content="Hm.")
    messages, tools = (user("the weather"), thought, user("yes")), (make_tool("one"), make_tool("two"))
    plain = [message.model_dump(mode="json", exclude_none=True) for message in messages]
    if not thinking:
        del plain[1]["reasoning_content"]
    prompt = render_prompt(tokenizer, messages, tools, thinking=thinking)
    assert prompt == tokenizer.apply_chat_template(
        plain,
        tools=[tool.model_dump(mode="json") for tool in tools],
        add_generation_prompt=True,
        enable_thinking=thinking,
        return_dict=False,
    )


def test_a_prompt_that_the_template_refuses_is_an_error_of_the_base(model_folder: Path) -> None:
    other = load_tokenizer(model_folder, trust_remote_code=False)
    other.chat_template = "{{ raise_exception('no system') }}"
    with pytest.raises(InputError, match="a prompt cannot be rendered: the chat template refuses it: no system"):
        render_prompt(other, (user("Q1"),), ())


def test_a_tokenizer_without_characters_of_tokens_is_an_error() -> None:
    slow: Any = SimpleNamespace(is_fast=False, name_or_path="somewhere")
    with pytest.raises(InputError, match="somewhere: the tokenizer has no fast version"):
        chat_format(slow, thinking=False)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_text_survives_encoding_and_decoding(form: ChatFormat, text: str) -> None:
    assert form.decode_batch([form.encode(text)]) == [text]
