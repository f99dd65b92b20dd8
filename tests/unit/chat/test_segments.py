"""Rows of tokens: each prompt as evaluation sends it, then the reply."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trl
from builders import assistant, make_call, make_sample, make_tool, user
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from orchestrator.chat.named_templates import named_template
from orchestrator.chat.parse import parse_reply
from orchestrator.chat.proof import prove_template
from orchestrator.chat.rendering import ChatFormat, chat_format, render_prompt
from orchestrator.chat.segments import Row, refuse_unfaithful, render_turns, rows_of, texts_of
from orchestrator.chat.template_input import RowLeftOut
from orchestrator.core.errors import InputError
from orchestrator.core.records import Message
from orchestrator.models.base import load_tokenizer
from orchestrator.toy.tiny import tiny_base_folder

TemplateMaker = Callable[[str], ChatFormat]
QWEN2_5 = (Path(trl.__file__).parent / "chat_templates/qwen2_5.jinja").read_text(encoding="utf-8")
PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL_CALLS = (
    "{% for c in m.tool_calls or [] %}[TOOL_CALLS]{{ c.function.name }}[ARGS]{{ c.function.arguments | tojson }}"
    "{% endfor %}"
)
COHERE_TALK = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.tool_calls %}<|START_ACTION|>[{% for c in m.tool_calls %}"
    '{"tool_name": "{{ c.function.name }}", "parameters": {{ c.function.arguments | tojson }}}{% endfor %}]'
    "<|END_ACTION|>{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>assistant\n{% if not enable_thinking %}<|START_THINKING|><|END_THINKING|>{% endif %}{% endif %}"
)
TALK = (user("Q1"), assistant("A1"), user("Q2"), assistant("A2"))


@pytest.fixture(scope="module")
def with_template(model_folder: Path) -> TemplateMaker:
    def make(template: str) -> ChatFormat:
        other = load_tokenizer(model_folder, trust_remote_code=False)
        other.chat_template = template
        return chat_format(other, thinking=False)

    return make


def rows(form: ChatFormat, messages: tuple[Message, ...]) -> list[Row]:
    return rows_of(form, render_turns(form, messages, ()).turns, form.encode)


def learned(form: ChatFormat, messages: tuple[Message, ...]) -> list[list[str]]:
    """By row, what is learned."""
    return [form.decode_batch([row.ids[span.start : span.end] for span in row.spans]) for row in rows(form, messages)]


def test_turns_that_go_on_from_each_other_share_a_row(with_template: TemplateMaker) -> None:
    form = with_template(PLAIN)
    assert learned(form, TALK) == [["A1<|im_end|>", "A2<|im_end|>"]]
    (row,) = rows(form, TALK)
    assert form.decode_batch([row.ids]) == [form.text(form.plain(TALK), None, prompt=False).rstrip()]


def test_a_template_that_rewrites_earlier_turns_gives_each_turn_a_row(with_template: TemplateMaker) -> None:
    rewriting = PLAIN.replace("{{ m.content }}", "{{ m.content if loop.last or m.role == 'user' else '...' }}")
    form = with_template(rewriting)
    assert learned(form, TALK) == [["A1<|im_end|>"], ["A2<|im_end|>"]]
    texts = form.decode_batch([row.ids for row in rows(form, TALK)])
    assert ["A1" in text for text in texts] == [True, False]


def test_a_template_that_counts_the_turns_gives_each_turn_a_row(with_template: TemplateMaker) -> None:
    counting = "{{ messages | selectattr('role', 'eq', 'user') | list | length }} questions\n" + PLAIN
    assert learned(with_template(counting), TALK) == [["A1<|im_end|>"], ["A2<|im_end|>"]]


def test_a_template_that_shows_another_prompt_than_it_asks_with_is_refused(with_template: TemplateMaker) -> None:
    counting = "{{ messages | length }} turns\n" + PLAIN.replace("<|im_start|>assistant\n{% endif", "Well:{% endif")
    with pytest.raises(RowLeftOut, match="prompt_differs: turn 4: the chat template renders the prompt before it"):
        render_turns(with_template(counting), TALK, ())


def test_an_earlier_turn_that_is_shown_otherwise_later_is_found_behind_its_opening(
    with_template: TemplateMaker,
) -> None:
    counting = "{{ messages | length }} turns\n" + PLAIN
    assert learned(with_template(counting), TALK) == [["A1<|im_end|>"], ["A2<|im_end|>"]]


def test_a_template_without_a_token_in_its_prompts_is_compared_from_the_start(with_template: TemplateMaker) -> None:
    words = (
        "{% for m in messages %}{{ m.role }} says {{ m.content }}{% if m.role == 'assistant' %}<|im_end|>{% endif %}\n"
        "{% endfor %}{% if add_generation_prompt %}assistant says {% endif %}"
    )
    assert learned(with_template(words), (user("word " * 200), assistant("A1"))) == [["A1<|im_end|>"]]


def test_a_turn_without_an_end_gets_one(with_template: TemplateMaker) -> None:
    words = (
        "{% for m in messages %}{{ m.role }} says {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant says{% endif %}"
    )
    assert learned(with_template(words), TALK) == [[" A1<|im_end|>"], [" A2<|im_end|>"]]


def test_the_token_that_the_template_writes_after_a_turn_ends_replies(model_folder: Path) -> None:
    other = load_tokenizer(model_folder, trust_remote_code=False)
    other.add_special_tokens({"extra_special_tokens": ["<|over|>"]})
    other.chat_template = PLAIN.replace("<|im_end|>", "<|over|>")
    form = chat_format(other, thinking=False)
    assert form.stop_ids >= {other.convert_tokens_to_ids("<|over|>"), other.eos_token_id}
    assert learned(form, TALK) == [["A1<|over|>", "A2<|over|>"]]


def test_without_any_end_the_base_is_refused(model_folder: Path, tmp_path: Path) -> None:
    other = load_tokenizer(model_folder, trust_remote_code=False)
    other.save_pretrained(tmp_path)
    endless = load_tokenizer(tmp_path, trust_remote_code=False)
    endless.eos_token = None
    endless.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    with pytest.raises(InputError, match=r"would never end.*generation_config\.json"):
        chat_format(endless, thinking=False)


@pytest.mark.parametrize(("shown", "num_rows"), [("", 2), ("<think>\n\n</think>\n\n", 1)])
def test_a_think_block_that_the_prompt_opens_is_closed_by_the_reply(
    with_template: TemplateMaker, shown: str, num_rows: int
) -> None:
    opening = PLAIN.replace("assistant\n{% endif", "assistant\n<think>\n{% endif").replace(
        "{{ m.content }}", "{{ '" + shown.replace("\n", "\\n") + "' if m.role == 'assistant' }}{{ m.content }}"
    )
    found = learned(with_template(opening), TALK)
    assert len(found) == num_rows
    assert [text.split("</think>")[1] for row in found for text in row] == ["\n\nA1<|im_end|>", "\n\nA2<|im_end|>"]


@pytest.mark.parametrize(
    ("block", "mark"),
    [
        ("<think>\\n\\n</think>\\n\\n", ""),
        ("<think>\\n</think>", ""),
        ("<think></think>", "</think>"),
        ("<|channel>thought\\n<channel|>", "{# <|tool_call> #}"),
        ("<|START_THINKING|><|END_THINKING|>", "{# <|START_ACTION|> #}"),
    ],
)
def test_a_think_block_that_only_the_prompt_has_is_no_part_of_the_reply(
    with_template: TemplateMaker, block: str, mark: str
) -> None:
    shown = mark if mark.startswith("</") else ""
    template = PLAIN.replace("assistant\n{% endif", f"assistant\n{{{{ '{block}' }}}}{{% endif").replace(
        "{{ m.content }}", f"{{{{ '{shown}' if m.role == 'assistant' }}}}{{{{ m.content }}}}"
    )
    form = with_template(template + ("" if shown else mark))
    assert learned(form, TALK) == [["A1<|im_end|>"], ["A2<|im_end|>"]]
    assert all(turn.prompt.endswith(block.replace("\\n", "\n")) for turn in render_turns(form, TALK, ()).turns)


def test_an_open_block_of_another_familys_thoughts_is_closed_by_its_own_mark(with_template: TemplateMaker) -> None:
    opening = PLAIN.replace("assistant\n{% endif", "assistant\n<|START_THINKING|>{% endif")
    form = with_template("{# <|START_ACTION|> #}" + opening)
    assert learned(form, TALK) == [["<|END_THINKING|>A1<|im_end|>"], ["<|END_THINKING|>A2<|im_end|>"]]


def test_white_space_that_stands_elsewhere_once_a_turn_is_there_makes_no_other_prompt(
    with_template: TemplateMaker,
) -> None:
    loose = PLAIN.replace("assistant\n{% endif", "assistant\n\n{% endif").replace("<|im_end|>\n", "<|im_end|>\n\n")
    form = with_template(loose.replace("{{ m.content }}", "{{ m.content }}{{ ' ' * (messages | length) }}"))
    assert learned(form, TALK) == [["A1  <|im_end|>"], ["A2    <|im_end|>"]]


def test_a_system_message_that_moves_to_the_last_turn_hides_no_reply(with_template: TemplateMaker) -> None:
    moving = (
        "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}[INST]"
        "{% if loop.last %}{{ messages[0].content }} {% endif %}{{ m.content }}[/INST]"
        "{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
    )
    talk = (Message(role="system", content="Be kind."), *TALK)
    assert learned(with_template(moving), talk) == [["A1<|im_end|>"], ["A2<|im_end|>"]]


@pytest.mark.parametrize("block", ["", "<think>\n\n</think>\n"])
def test_the_next_turn_that_a_template_always_opens_is_not_learned(with_template: TemplateMaker, block: str) -> None:
    always = "{% for m in messages %}{{ m.role }} says {{ m.content }}[over]{% endfor %}" + (block or "assistant says")
    found = [
        text.removeprefix("assistant says").strip() for row in learned(with_template(always), TALK) for text in row
    ]
    assert found == ["A1<|im_end|>", "A2<|im_end|>"]


def test_a_turn_before_any_question_and_one_that_is_not_to_be_learned_are_not(with_template: TemplateMaker) -> None:
    form = with_template(PLAIN)
    greeting = (assistant("Welcome."), user("Hi"), assistant("Hello."))
    assert learned(form, greeting) == [["Hello.<|im_end|>"]]
    assert render_turns(form, greeting, ()).unlearned == 0
    masked = (TALK[0], TALK[1].model_copy(update={"learned": False}), *TALK[2:])
    assert learned(form, masked) == [["A2<|im_end|>"]]
    assert render_turns(form, masked, ()).unlearned == 0


def test_a_greeting_that_the_template_cannot_end_with_leaves_the_later_turns_to_learn(
    with_template: TemplateMaker,
) -> None:
    no_user = "{% if not messages | selectattr('role', 'equalto', 'user') | list %}{{ raise_exception('No user') }}"
    strict = with_template(f"{no_user}{{% endif %}}{PLAIN}")
    turns = (Message(role="system", content="Be kind."), assistant("Welcome."), user("Hi"), assistant("Hello."))
    assert learned(with_template(PLAIN), turns) == [["Welcome.<|im_end|>", "Hello.<|im_end|>"]]
    assert learned(strict, turns) == [["Hello.<|im_end|>"]]
    with pytest.raises(RowLeftOut, match="No user"):
        render_turns(strict, turns[:2], ())


def test_a_turn_of_which_nothing_is_shown_is_left_out(with_template: TemplateMaker) -> None:
    silent = (user("Q1"), assistant(""), user("Q2"), assistant("A2"))
    assert learned(with_template(PLAIN), silent) == [["A2<|im_end|>"]]
    with pytest.raises(RowLeftOut, match="nothing_to_learn: turn 2: the chat template shows nothing of it"):
        render_turns(with_template(PLAIN), silent[:2], ())


def test_an_error_of_the_template_is_the_rows_reason(with_template: TemplateMaker) -> None:
    for body in ("{{ raise_exception('no system') }}", "{{ messages[9].content }}", "{{ 1 + messages[0].role }}"):
        with pytest.raises(RowLeftOut, match="template_refuses: the chat template refuses it: "):
            render_turns(with_template(body), TALK, ())


def test_a_reply_that_would_melt_into_its_prompt_is_encoded_apart() -> None:
    # Qwen2.5's template takes a leading line break of the reply as it is, and two line breaks are one token.
    other = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    other.chat_template = QWEN2_5
    form = chat_format(other, thinking=False)
    assert form.encode("\n\n") != form.encode("\n") * 2
    talk = (user("x"), assistant("\nYes."), user("y"), assistant("No."))
    assert learned(form, talk) == [["\nYes.<|im_end|>"], ["No.<|im_end|>"]]


PROSE = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30)
REPLIES = st.builds(
    lambda text, cities: assistant(text, *(make_call(city=city) for city in cities)), PROSE, st.lists(PROSE, max_size=2)
)
TURNS = st.lists(st.tuples(PROSE.map(user), REPLIES), min_size=1, max_size=4)
TEMPLATES = {
    "marked": None,
    "qwen2_5": QWEN2_5,
    "plain": PLAIN,
    "counting": "{{ messages | length }} turns\n" + PLAIN,
    "no tokens": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}"
    "assistant:{% endif %}",
}


@pytest.mark.parametrize("name", TEMPLATES)
@given(pairs=TURNS, is_tiny=st.booleans())
def test_every_turn_is_learned_behind_the_very_tokens_of_its_prompt(
    name: str, pairs: list[tuple[Message, Message]], is_tiny: bool, tokenizers: list[PreTrainedTokenizerBase]
) -> None:
    tokenizer, messages = tokenizers[is_tiny], [turn for pair in pairs for turn in pair]
    own = tokenizer.chat_template
    try:
        tokenizer.chat_template = TEMPLATES[name] or own
        form = chat_format(tokenizer, thinking=False)
        tools = (make_tool(),)
        try:
            shown = render_turns(form, messages, tools)
        except RowLeftOut:
            return
        made = rows_of(form, shown.turns, form.encode)
        known = {text: form.encode(text) for text in texts_of(form, shown.turns)}
        assert rows_of(form, shown.turns, lambda text: known.get(text) or form.encode(text)) == made
        spans = [(row, span) for row in made for span in row.spans]
        assert [span.place for _, span in spans] == [turn.place for turn in shown.turns]
        for (row, span), turn in zip(spans, shown.turns, strict=True):
            assert row.ids[: span.start] == render_prompt(tokenizer, messages[: span.place], tools)
            reply = row.ids[span.start : span.end]
            assert reply[-1] in form.stop_ids
            assert form.decode_batch([reply[:-1]]) == [turn.reply]
    finally:
        tokenizer.chat_template = own


@pytest.fixture(scope="module")
def tokenizers(model_folder: Path) -> list[PreTrainedTokenizerBase]:
    return [load_tokenizer(folder, trust_remote_code=False) for folder in (model_folder, tiny_base_folder())]


def test_the_texts_to_encode_are_known_beforehand(with_template: TemplateMaker) -> None:
    form, asked = with_template(PLAIN), list[str]()
    turns = render_turns(form, TALK * 3, (make_tool(),)).turns
    known = {text: form.encode(text) for text in texts_of(form, turns)}

    def encode(text: str) -> list[int]:
        asked.append(text)
        return known[text]

    assert len(rows_of(form, turns, encode)) == 1
    length = sum(map(len, asked))
    assert length < 3 * len(form.text(form.plain(TALK * 3), None, prompt=False)), "each turn is encoded once"


def test_samples_of_a_whole_catalogue_are_one_row_each(with_template: TemplateMaker) -> None:
    sample = make_sample()
    form = with_template(QWEN2_5)
    assert len(rows_of(form, render_turns(form, sample.messages, sample.tools).turns, form.encode)) == 1


THINKERS = {
    **{name: named_template(name) for name in ("gptoss", "lfm2_2_5", "qwen3", "qwen3_5_think", "qwen3_6", "qwen3_8")},
    **{name: named_template(name) for name in ("glm4moe", "gemma4_v3", "gemma4_v5", "deepseekv3", "muse_glimmer")},
    "mistral": PLAIN.replace("{{ m.content }}", f"{{{{ m.content }}}}{MISTRAL_CALLS}{{# [THINK] [/THINK] #}}"),
    "cohere": COHERE_TALK,
}
"""Templates of models that think: those of the last two never show a thought, as R1's and Command's do."""


@pytest.mark.parametrize("thinking", [True, False], ids=["keep", "drop"])
@pytest.mark.parametrize("family", [*THINKERS, "deepseek_r1_distill"])
def test_thoughts_are_learned_in_every_turn_or_in_none(model_folder: Path, family: str, *, thinking: bool) -> None:
    template = THINKERS.get(family) or named_template(family)
    form = chat_format(load_tokenizer(model_folder, trust_remote_code=False, template=template), thinking=thinking)
    prove_template(form)
    talk: tuple[Message, ...] = (
        user("Q1"),
        assistant("", make_call(city="Rome")).model_copy(update={"reasoning_content": "Look it up."}),
        Message(role="tool", content="sun", name="get_weather"),
        assistant("A1").model_copy(update={"reasoning_content": "It is sunny."}),
        user("Q2"),
        assistant("A2").model_copy(update={"reasoning_content": "Nothing to call."}),
    )
    talk = talk if family in THINKERS else (talk[0], *talk[3:])  # that family's template shows no calls
    sample = make_sample(*talk, kind="answer")
    turns = render_turns(form, sample.messages, sample.tools)
    assert turns.unlearned == 0
    refuse_unfaithful(form, turns.turns, sample)
    assert form.reply_format is not None
    rows = rows_of(form, turns.turns, form.encode)
    texts = form.decode_batch([row.ids[span.start : span.end - 1] for row in rows for span in row.spans])
    read = [parse_reply(text, format=form.reply_format, tools=sample.tools) for text in texts]
    thoughts = [message.reasoning_content for message in talk if message.role == "assistant"]
    assert [(reply.thinking or "").strip() for reply in read] == (thoughts if thinking else [""] * len(thoughts))
    said = [(1, ""), (0, "A1"), (0, "A2")]
    assert [(len(reply.calls), reply.prose.strip()) for reply in read] == said[-len(thoughts) :]
