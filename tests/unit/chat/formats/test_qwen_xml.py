"""Functions and parameters in tags: what the families' templates write is read back, and nothing else is a call."""

import json
from typing import Any

import pytest
from gold_calls import Gold, broken, gold_calls
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.chat.formats import detect_reply_format
from orchestrator.chat.parse import parse_reply

TAGS = ("<tool_call>", "</tool_call>", "</function>", "</parameter>", "<function=f>", "<parameter=a>")


def read(text: str, gold: Gold, format: str = "qwen_xml") -> list[tuple[str, Any]]:
    reply = parse_reply(text, format=format, tools=gold.tools)
    return [(call.function.name, call.function.arguments) for call in reply.calls]


def _as_text(value: Any) -> Any:
    return value if isinstance(value, str) else json.dumps(value)


def in_tags(gold: Gold, call: str, gap: str, around: str) -> str:
    """Calls between tags of a family, with `gap` between tags and `around` a value."""
    texts: list[str] = []
    for name, arguments in gold.calls:
        written = {key: _as_text(value) for key, value in arguments.items()}
        inside = "".join(f"<parameter={key}>{around}{text}{around}</parameter>{gap}" for key, text in written.items())
        texts.append(f"<{call}>{gap}<function={name}>{gap}{inside}</function>{gap}</{call}>")
    return "Sure." + "\n".join(texts)


@pytest.mark.parametrize(
    ("format", "call", "gap", "around"),
    [
        ("qwen_xml", "tool_call", "\n", "\n"),
        ("qwen_xml", "tool_call", "", "\n"),
        ("seed_oss", "seed:tool_call", "\n", "\n"),
        ("mimo", "tool_call", "\n", ""),
    ],
)
@given(gold=gold_calls())
def test_calls_of_each_family_are_read(format: str, call: str, gap: str, around: str, gold: Gold) -> None:
    text = in_tags(gold, call, gap, around)
    assert json.dumps(read(text, gold, format)) == json.dumps(gold.calls)
    assert parse_reply(text, format=format, tools=gold.tools).prose.split() == ["Sure."]


@given(gold=gold_calls(), data=st.data())
def test_a_broken_reply_makes_no_call_that_was_not_there(gold: Gold, data: st.DataObject) -> None:
    gold = Gold(gold.tools, [("f", {"a": "x", **given}) for _, given in gold.calls])
    text = data.draw(broken(in_tags(gold, "tool_call", "\n", "\n"), TAGS))
    reply = parse_reply(text, format="qwen_xml", tools=gold.tools)
    found = [json.dumps(call) for call in read(text, gold)]
    written = [json.dumps((name, {key: _as_text(value) for key, value in given.items()})) for name, given in gold.calls]
    assert len(reply.calls) + len(reply.problems) <= len(gold.calls) + 1
    if not reply.problems:
        assert set(found) <= set(written)


SEED = "<seed:tool_call><function=f><parameter=a>x</parameter></function></seed:tool_call>"


def test_the_variants_are_told_apart() -> None:
    loop = "{% for c in m.tool_calls %}{% for k, v in c.arguments|items %}"
    lines = (
        loop
        + "{{ '<tool_call>\n<function=' + c.name + '>\n' }}{{ '<parameter=' + k + '>\\n' + v + '\\n</parameter>' }}"
    )
    bare = lines.replace("'>\\n' + v", "'>' }}{{ v")
    assert detect_reply_format(lines) == "qwen_xml"
    assert detect_reply_format(bare) == "mimo"
    assert detect_reply_format(lines.replace("tool_call>", "seed:tool_call>")) == "seed_oss"
    reply = parse_reply(f"<seed:think>plan</seed:think>{SEED}<seed:eos>", format="seed_oss")
    assert (reply.thinking, [call.function.arguments for call in reply.calls]) == ("plan", [{"a": "x"}])


@pytest.mark.parametrize(("format", "value"), [("qwen_xml", "\n x"), ("mimo", "\n\n x\n")])
def test_line_breaks_belong_to_the_tags_or_to_the_value(format: str, value: str) -> None:
    text = "<tool_call><function=f><parameter=a>\n\n x\n</parameter></function></tool_call>"
    assert [call.function.arguments for call in parse_reply(text, format=format).calls] == [{"a": value}]
