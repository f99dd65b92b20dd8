"""Strict calls and what vLLM's parser gives a client are compared as calls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.chat.formats.reply import ServedReply
from orchestrator.chat.parse import parse_reply, serving_differs


def differs(arguments: str, served: str) -> bool:
    parsed = parse_reply(f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>')
    assert len(parsed.calls) == 1
    return serving_differs(parsed, ServedReply(parser="hermes", calls=(("f", served),), content=""))


@pytest.mark.parametrize(
    ("arguments", "served", "expected"),
    [
        ("{}", "{}", False),
        ('{"a": 1, "b": [true, null, "x"]}', '{"b":[true,null,"x"],"a":1}', False),
        ('{"a": 1}', '{"a": 1.0}', False),
        ('{"a": 1e2}', '{"a": 100}', False),
        ('{"a": 1}', '{"a": true}', True),
        ('{"a": 0}', '{"a": false}', True),
        ('{"a": [1]}', '{"a": [true]}', True),
        ('{"a": {"b": 1}}', '{"a": {"b": 2}}', True),
        ('{"a": 1}', '{"a": "1"}', True),
        ('{"a": [1, 2]}', '{"a": [2, 1]}', True),
        ('{"a": [1]}', '{"a": [1, 1]}', True),
        ('{"a": 1}', '{"a": 1, "b": null}', True),
        ('{"a": "x"}', '{"a": "x "}', True),
        ('{"a": {}}', '{"a": []}', True),
        ("{}", "[]", True),
        ("{}", "", True),
        ('{"a": 1}', '{"a": NaN}', True),
        ('{"a": 1}', '{"a": 1', True),
        ("{}", '"' + "[" * 100_000 + '"', True),
        ("{}", "[" * 100_000, True),
    ],
)
def test_arguments_are_compared_as_json_values(arguments: str, served: str, *, expected: bool) -> None:
    assert differs(arguments, served) is expected


CALLS = "<tool_call>{}</tool_call>"
F, G = '{"name": "f", "arguments": {}}', '{"name": "g", "arguments": {}}'


@pytest.mark.parametrize(
    ("text", "served", "expected"),
    [
        ("Hello.", (), False),
        ("<tool_call>{</tool_call>", (), False),
        (CALLS.format(F), (), True),
        ("<tool_call>{</tool_call>", (("f", "{}"),), True),
        ("Hello.", (("f", "{}"),), True),
        (CALLS.format(F), (("g", "{}"),), True),
        (CALLS.format(F) + CALLS.format(G), (("f", "{}"), ("g", "{}")), False),
        (CALLS.format(F) + CALLS.format(G), (("g", "{}"), ("f", "{}")), True),
        (CALLS.format(F) + CALLS.format(F), (("f", "{}"),), True),
        (CALLS.format(F) + "<tool_call>{</tool_call>", (("f", "{}"),), False),
    ],
)
def test_calls_are_compared_in_order(text: str, served: tuple[tuple[str, str], ...], *, expected: bool) -> None:
    reply = ServedReply(parser="hermes", calls=served, content="whatever")
    assert serving_differs(parse_reply(text), reply) is expected


@given(st.text(), st.text())
def test_any_text_as_arguments_is_compared(name: str, arguments: str) -> None:
    reply = ServedReply(parser="hermes", calls=((name, arguments),), content="")
    assert serving_differs(parse_reply(CALLS.format('{"name": "f", "arguments": {"a": 1}}')), reply)
