"""The advice beside a sample that is left out, followed, lets it in: one case or more for each reason."""

import json
from pathlib import Path
from typing import get_args

import pytest
import trl
from builders import assistant, make_call, make_sample, make_tool, user

from orchestrator.chat.named_templates import named_template
from orchestrator.chat.rendering import ChatFormat, chat_format
from orchestrator.core.records import FunctionSpec, LeftOutReason, Message, Sample, ToolSpec
from orchestrator.data.card import LeftOut
from orchestrator.data.tokens.advice import ADVICE
from orchestrator.data.tokens.tokenize import TokenRows, tokenize_samples
from orchestrator.models.base import load_tokenizer

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
QWEN = (TEMPLATES / "qwen3.jinja").read_text(encoding="utf-8")
SAID = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}@<|im_end|>\n{% endfor %}"
ASKED = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CALLS = "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"
WORDS = SAID.replace("@", "") + ASKED
WITH_CALLS = SAID.replace("@", CALLS) + ASKED
SYSTEM = Message(role="system", content="Help.")
RESULT = Message(role="tool", content="sun", name="get_weather")
ROME, OSLO = make_call(city="Rome"), make_call(city="Oslo")
TALK = make_sample(user("a"), assistant("b"), user("c"), assistant("d"), tools=(), kind="answer")
CALLED = make_sample(user("x"), assistant("", ROME))
BESIDE = make_sample(user("x"), assistant("I will look.", ROME))


def form_of(folder: Path, template: str) -> ChatFormat:
    tokenizer = load_tokenizer(folder, trust_remote_code=False)
    tokenizer.chat_template = template
    return chat_format(tokenizer, thinking=False)


def tokens_of(
    form: ChatFormat, sample: Sample, max_length: int | None = None, *, shorten: bool = False
) -> TokenRows | LeftOut:
    return next(tokenize_samples(form, [sample], max_length=max_length, shorten=shorten)).tokens


def left_out(form: ChatFormat, sample: Sample, max_length: int | None = None) -> LeftOut:
    tokens = tokens_of(form, sample, max_length)
    assert isinstance(tokens, LeftOut)
    return tokens


def takes(form: ChatFormat, sample: Sample, max_length: int | None = None, *, shorten: bool = False) -> bool:
    return isinstance(tokens_of(form, sample, max_length, shorten=shorten), TokenRows)


def test_every_reason_has_advice() -> None:
    assert set(ADVICE) == set(get_args(LeftOutReason))


def test_too_long(model_folder: Path) -> None:
    form = form_of(model_folder, QWEN)
    found = left_out(form, TALK, 24)
    assert (found.reason, found.fix) == ("too_long", "Raise data.max_length, or set data.overlong to shorten")
    assert takes(form, TALK, found.tokens)
    assert takes(form, TALK, 24, shorten=True)


def test_nothing_to_learn(model_folder: Path) -> None:
    found = left_out(form_of(model_folder, WORDS), CALLED)
    assert (found.reason, found.fix) == ("nothing_to_learn", ADVICE["nothing_to_learn"])
    assert "shows tool calls, such as Qwen3" in found.fix
    assert takes(form_of(model_folder, QWEN), CALLED)


def test_control_token_in_text(model_folder: Path) -> None:
    form = form_of(model_folder, QWEN)
    found = left_out(form, make_sample(user("a<|im_end|>b"), assistant("c"), kind="answer"))
    assert (found.reason, found.fix) == ("control_token_in_text", ADVICE["control_token_in_text"])
    assert takes(form, make_sample(user("ab"), assistant("c"), kind="answer"))


def test_text_not_shown(model_folder: Path) -> None:
    dropping = form_of(model_folder, WITH_CALLS.replace("{{ m.content }}", "{{ m.content if not m.tool_calls }}"))
    found = left_out(dropping, BESIDE)
    assert found.reason == "text_not_shown"
    assert found.detail == "turn 2: the chat template does not show the words 'I will look.' beside its calls"
    assert "shows text beside calls, such as Qwen3, or take that text out" in found.fix
    assert takes(form_of(model_folder, QWEN), BESIDE)
    assert takes(dropping, CALLED)


def test_text_is_looked_for_in_every_row_and_turn(model_folder: Path) -> None:
    dropping = form_of(model_folder, WITH_CALLS.replace("{{ m.content }}", "{{ m.content if not m.tool_calls }}"))
    early = (*BESIDE.messages, RESULT, assistant("It is sunny."))
    samples = [CALLED] * 400 + [make_sample(*early, kind="answer", id="early")]
    made = [found.tokens for found in tokenize_samples(dropping, samples, max_length=None)]
    assert [isinstance(tokens, LeftOut) for tokens in made] == [False] * 400 + [True]
    spaced = make_sample(user("x"), assistant("  It  is\n\n sunny. "), kind="answer")
    assert takes(form_of(model_folder, WORDS.replace("{{ m.content }}", "{{ m.content | trim }}")), spaced)


def test_prompt_differs(model_folder: Path) -> None:
    otherwise = "{{ messages | length }} turns\n" + WORDS.replace("<|im_start|>assistant\n{% endif", "Well:{% endif")
    found = left_out(form_of(model_folder, otherwise), TALK)
    assert (found.reason, found.fix) == ("prompt_differs", ADVICE["prompt_differs"])
    assert takes(form_of(model_folder, QWEN), TALK)


def refusing(condition: str) -> str:
    return f"{{% if {condition} %}}{{{{ raise_exception('not this') }}}}{{% endif %}}" + WITH_CALLS


BARE = ToolSpec(function=FunctionSpec(name="now"))
ONE = assistant("", ROME)
TWO = assistant("", ROME, OSLO)


@pytest.mark.parametrize(
    ("template", "sample", "advice", "followed"),
    [
        (
            refusing("messages[0].role == 'system'"),
            make_sample(SYSTEM, user("a"), assistant("b"), kind="answer"),
            "Leave system messages out",
            make_sample(user("a"), assistant("b"), kind="answer"),
        ),
        (
            "{% for t in tools or [] %}{{ '' + t.function.description }}{% endfor %}" + WITH_CALLS,
            make_sample(user("a"), assistant("b"), tools=(BARE,), kind="answer"),
            "Give every tool a description and parameters",
            make_sample(user("a"), assistant("b"), tools=(make_tool(),), kind="answer"),
        ),
        (
            (TEMPLATES / "llama3_1.jinja").read_text(encoding="utf-8").replace("<|eot_id|>", "<|im_end|>"),
            make_sample(user("a"), TWO, RESULT, RESULT, assistant("b"), kind="answer"),
            "Give one call a turn",
            make_sample(user("a"), ONE, RESULT, assistant("b"), kind="answer"),
        ),
        (
            (TEMPLATES / "gemma3.jinja").read_text(encoding="utf-8").replace("<end_of_turn>", "<|im_end|>"),
            make_sample(user("a"), user("b"), assistant("c"), tools=(), kind="answer"),
            "Let the user speak first, and join turns of one speaker",
            make_sample(user("a\n\nb"), assistant("c"), tools=(), kind="answer"),
        ),
        (
            (TEMPLATES / "gemma3.jinja").read_text(encoding="utf-8").replace("<end_of_turn>", "<|im_end|>"),
            make_sample(user("a"), ONE, RESULT, assistant("b"), kind="answer"),
            "Set model.chat_template to hermes, or use a base whose chat template shows such conversations",
            None,
        ),
        (
            (TEMPLATES / "gemma.jinja").read_text(encoding="utf-8").replace("<end_of_turn>", "<|im_end|>"),
            make_sample(SYSTEM, user("a"), user("b"), assistant("c"), tools=(), kind="answer"),
            "Leave system messages out; let the user speak first",
            make_sample(user("a\n\nb"), assistant("c"), tools=(), kind="answer"),
        ),
    ],
)
def test_template_refuses(
    model_folder: Path, template: str, sample: Sample, advice: str, followed: Sample | None
) -> None:
    form = form_of(model_folder, template)
    found = left_out(form, sample)
    assert found.reason == "template_refuses"
    assert found.fix.startswith(advice)
    assert takes(form_of(model_folder, QWEN), sample)
    if followed is not None:
        assert takes(form, followed)


def test_a_template_that_takes_nothing_is_answered_with_hermes(model_folder: Path) -> None:
    found = left_out(form_of(model_folder, "{{ raise_exception('never') }}"), TALK)
    assert found.fix.startswith("Set model.chat_template to hermes, or use a base")
    assert takes(form_of(model_folder, named_template("hermes")), TALK)
    assert json.loads(found.model_dump_json())["fix"] == found.fix


SEVERAL = make_sample(user("a"), TWO, RESULT, RESULT, assistant("b"), kind="answer")
SPLIT = make_sample(user("a"), ONE, RESULT, assistant("", OSLO), RESULT, assistant("b"), kind="answer")
LAST = make_sample(user("a"), TWO)
SPLIT_THEM = "Give one call a turn, each with its result after it; or set model.chat_template to hermes"
NO_WAY = "Set model.chat_template to hermes, or use a base whose chat template shows such conversations"


@pytest.mark.parametrize(
    ("name", "sample", "reason", "advice"),
    [
        ("gptoss", SEVERAL, "calls_not_shown", SPLIT_THEM),
        ("gptoss", LAST, "calls_not_shown", ADVICE["calls_not_shown"]),
        ("llama3_1", SEVERAL, "template_refuses", SPLIT_THEM),
        ("llama3_1", LAST, "template_refuses", NO_WAY),
        ("llama3_2", SEVERAL, "template_refuses", SPLIT_THEM),
    ],
)
def test_several_calls_that_a_template_refuses_or_drops(
    model_folder: Path, name: str, sample: Sample, reason: LeftOutReason, advice: str
) -> None:
    form = form_of(model_folder, named_template(name))
    found = left_out(form, sample)
    assert (found.reason, found.fix) == (reason, advice)
    assert takes(form_of(model_folder, named_template("hermes")), sample)
    if advice == SPLIT_THEM:
        assert takes(form, SPLIT)


def test_a_call_that_the_notation_cannot_say(model_folder: Path) -> None:
    typed = make_sample(user("a"), assistant("", make_call(city=5)))
    form = form_of(model_folder, named_template("qwen3_5_think"))
    found = left_out(form, typed)
    assert (found.reason, found.fix) == ("calls_not_shown", ADVICE["calls_not_shown"])
    assert "is read as other calls than the data has" in found.detail
    assert takes(form_of(model_folder, named_template("hermes")), typed)
    assert takes(form, make_sample(user("a"), assistant("", make_call(city="5"))))


def test_calls_that_are_read_by_another_format(model_folder: Path) -> None:
    tokenizer = load_tokenizer(model_folder, trust_remote_code=False)
    found = left_out(chat_format(tokenizer, thinking=False, reply_format="mistral"), CALLED)
    assert found.detail.startswith("turn 2: no call is read in '<tool_call>")
    assert found.fix == "Set eval.reply_format to hermes, by which its calls are read"
    assert takes(chat_format(tokenizer, thinking=False, reply_format="hermes"), CALLED)
