from collections.abc import Callable
from dataclasses import replace
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
    learned_spans,
    refuse_control_tokens,
    render_prompt,
    render_row,
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
    text = render_row(form, sample.messages, ()).text
    assert [found.group() for found in form.control.finditer(text)] == ["<|im_start|>", "<|im_end|>"] * 2


def test_a_turn_before_any_question_is_not_learned(form: ChatFormat) -> None:
    sample = make_sample(assistant("Welcome."), user("Hi"), assistant("Hello."), tools=(), kind="answer")
    row = render_row(form, sample.messages, ())
    assert ([turn.place for turn in row.turns], row.num_turns) == ([2], 1)


def test_a_greeting_that_the_template_cannot_end_with_leaves_the_later_turns_to_learn(form: ChatFormat) -> None:
    no_user = "{% if not messages | selectattr('role', 'equalto', 'user') | list %}{{ raise_exception('No user') }}"
    strict = replace(form, template=f"{no_user}{{% endif %}}{form.template}")
    system = Message(role="system", content="Be kind.")
    turns = (system, assistant("Welcome."), user("Hi"), assistant("Hello."))
    assert [turn.place for turn in render_row(form, turns, ()).turns] == [1, 3]
    row = render_row(strict, turns, ())
    assert ([turn.place for turn in row.turns], row.num_turns) == ([3], 2)
    with pytest.raises(RowLeftOut, match="No user"):
        render_row(strict, turns[:2], ())


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


TemplateMaker = Callable[[str], ChatFormat]


@pytest.fixture
def with_template(model_folder: Path) -> TemplateMaker:
    def make(template: str) -> ChatFormat:
        other = load_tokenizer(model_folder, trust_remote_code=False)
        other.chat_template = template
        return chat_format(other, thinking=False)

    return make


PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TALK = (user("Q1"), assistant("A1"), user("Q2"), assistant("A2"))


def spans_text(form: ChatFormat, messages: tuple[Message, ...]) -> list[str]:
    row = render_row(form, messages, ())
    encoding = form.encode_batch([row.text])[0]
    return form.decode_batch([encoding.ids[span.start : span.end] for span in learned_spans(form, row, encoding)])


def test_turns_of_an_unmarked_template_are_found_by_rendering_prefixes(with_template: TemplateMaker) -> None:
    assert spans_text(with_template(PLAIN), TALK) == ["A1<|im_end|>", "A2<|im_end|>"]
    rewriting = PLAIN.replace("{{ m.content }}", "{{ m.content if loop.last or m.role == 'user' else '...' }}")
    assert spans_text(with_template(rewriting), TALK) == ["A2<|im_end|>"]


def test_a_template_that_counts_the_turns_before_a_reply_cannot_be_learned(with_template: TemplateMaker) -> None:
    counting = "{{ messages | length }} turns\n" + PLAIN
    with pytest.raises(RowLeftOut, match="prompt_differs: turn 4: the chat template renders the prompt before it"):
        render_row(with_template(counting), TALK, ())


def test_a_template_without_prompt_token_nearby_is_compared_from_the_start(with_template: TemplateMaker) -> None:
    words = (
        "{% for m in messages %}{{ m.role }} says {{ m.content }}{% if m.role == 'assistant' %}<|im_end|>{% endif %}\n"
        "{% endfor %}{% if add_generation_prompt %}assistant says {% endif %}"
    )
    long_question = user("word " * 200)
    assert spans_text(with_template(words), (long_question, assistant("A1"))) == ["A1<|im_end|>"]


def test_an_error_of_the_template_is_the_rows_reason(with_template: TemplateMaker) -> None:
    for body in ("{{ raise_exception('no system') }}", "{{ messages[9].content }}", "{{ 1 + messages[0].role }}"):
        with pytest.raises(RowLeftOut, match="template_refuses: the chat template refuses it: "):
            render_row(with_template(body), TALK, ())


def test_a_prompt_that_the_template_refuses_is_an_error_of_the_base(with_template: TemplateMaker) -> None:
    form = with_template("{{ raise_exception('no system') }}")
    with pytest.raises(InputError, match="a prompt cannot be rendered: the chat template refuses it: no system"):
        render_prompt(form.tokenizer, TALK, ())


def test_a_tokenizer_without_characters_of_tokens_is_an_error() -> None:
    slow: Any = SimpleNamespace(is_fast=False, name_or_path="somewhere")
    with pytest.raises(InputError, match="somewhere: the tokenizer has no fast version"):
        chat_format(slow, thinking=False)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_text_survives_encoding_and_decoding(form: ChatFormat, text: str) -> None:
    assert form.decode_batch([form.encode(text)]) == [text]
