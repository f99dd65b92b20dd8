"""The strict parser: each way to fail has its reason, and no text makes it raise. Its calls beside those of vLLM."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.records import FailureReason
from orchestrator.chat.formats.reply import ServedReply
from orchestrator.chat.parse import parse_reply, serving_differs, split_thinking
from orchestrator.notation.strict_json import MAX_DEPTH

GOOD = '{"name": "f", "arguments": {"a": 1}}'


def tagged(body: str) -> str:
    return f"<tool_call>{body}</tool_call>"


def reasons(text: str) -> list[FailureReason]:
    return [problem.reason for problem in parse_reply(text).problems]


def test_prose_and_two_calls() -> None:
    reply = parse_reply(f"One moment.\n<tool_call>\n{GOOD}\n</tool_call>\n" + tagged('{"arguments":{},"name":"g"}'))
    assert [(call.function.name, call.function.arguments) for call in reply.calls] == [("f", {"a": 1}), ("g", {})]
    assert reply.prose == "One moment."
    assert reply.thinking is None
    assert reply.problems == ()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "not_json"),
        ("get_weather(city='Rome')", "not_json"),
        ("{'name': 'f', 'arguments': {}}", "not_json"),
        ('{"name": "f", "arguments": {},}', "not_json"),
        ('{"name": "f", "arguments": {"a": 01}}', "not_json"),
        ('{"name": "f", "arguments": {"a": .5}}', "not_json"),
        ('{"name": "f", "arguments": {"a": +1}}', "not_json"),
        ('{"name": "f", "arguments": {"a": \u0661}}', "not_json"),
        ('{"name": "f", "arguments": {"a": "line\nbreak"}}', "not_json"),
        ('{"name": "f", "arguments": {} // done\n}', "not_json"),
        ('\ufeff{"name": "f", "arguments": {}}', "not_json"),
        ('\u00a0{"name": "f", "arguments": {}}', "not_json"),
        ('\f{"name": "f", "arguments": {}}', "not_json"),
        ('{"name": "f", "arguments": {"a": NaN}}', "not_strict_json"),
        ('{"name": "f", "arguments": {"a": Infinity}}', "not_strict_json"),
        ('{"name": "f", "arguments": {"a": -Infinity}}', "not_strict_json"),
        ('{"name": "f", "arguments": {"a": 1e999}}', "not_strict_json"),
        ('{"name": "f", "arguments": {"a": 1' + "0" * 309 + "}}", "not_strict_json"),
        ('{"name": "f", "arguments": {"a": ' + "9" * 5000 + "}}", "not_strict_json"),
        ('{"name": "f", "arguments": {"a": 1, "a": 2}}', "not_strict_json"),
        ('{"name": "f", "name": "f", "arguments": {}}', "not_strict_json"),
        (r'{"name": "f", "arguments": {"a": "\ud800"}}', "not_strict_json"),
        (r'{"name": "f", "arguments": {"\udc00": 1}}', "not_strict_json"),
        ("[" * 100_000, "not_strict_json"),
        ('{"name": "f", "arguments": {"a": ' + "[" * 500 + "]" * 500 + "}}", "not_strict_json"),
        ("[]", "not_a_call_object"),
        ("null", "not_a_call_object"),
        ("{}", "not_a_call_object"),
        ('{"name": "f"}', "not_a_call_object"),
        ('{"name": "f", "arguments": {}, "id": 1}', "not_a_call_object"),
        ('{"name": "f", "parameters": {}}', "not_a_call_object"),
        ('{"name": "", "arguments": {}}', "not_a_call_object"),
        ('{"name": 1, "arguments": {}}', "not_a_call_object"),
        ('{"name": "f", "arguments": "{}"}', "not_a_call_object"),
        ('{"name": "f", "arguments": null}', "not_a_call_object"),
        ('{"name": "f", "arguments": []}', "not_a_call_object"),
        (GOOD + " please", "text_inside_tag"),
        (GOOD + GOOD, "text_inside_tag"),
        (GOOD + "\u00a0", "text_inside_tag"),
    ],
)
def test_a_malformed_call_has_its_reason_and_hides_no_other_call(body: str, reason: FailureReason) -> None:
    reply = parse_reply(tagged(body) + tagged(GOOD))
    assert [problem.reason for problem in reply.problems] == [reason]
    assert [call.function.name for call in reply.calls] == ["f"]


@pytest.mark.parametrize("text", [f"<tool_call>{GOOD}", "<tool_call>", "<tool_call>{", f"<tool_call>{GOOD}<|im_end|>"])
def test_a_call_without_its_closing_tag_is_no_call(text: str) -> None:
    assert reasons(text) == ["unclosed_tag"]
    assert parse_reply(text).calls == ()


def test_a_call_that_begins_inside_another_is_read_on_its_own() -> None:
    reply = parse_reply(f"<tool_call>{GOOD}" + tagged(GOOD))
    assert [problem.reason for problem in reply.problems] == ["unclosed_tag"]
    assert len(reply.calls) == 1


def test_tags_inside_a_json_string_belong_to_the_string() -> None:
    arguments = {"html": "</tool_call><tool_call>"}
    reply = parse_reply(tagged(json.dumps({"name": "f", "arguments": arguments})))
    assert reply.problems == ()
    assert reply.calls[0].function.arguments == arguments


@pytest.mark.parametrize("before", ["\\u001f", "\\ud83d\\ude00", "\\\\", '\\"'])
def test_a_tag_right_behind_an_escape_belongs_to_the_string_too(before: str) -> None:
    reply = parse_reply(tagged(f'{{"name": "f", "arguments": {{"a": "{before}</tool_call>"}}}}'))
    assert reply.problems == ()
    assert reply.calls[0].function.arguments == {"a": json.loads(f'"{before}"') + "</tool_call>"}


def test_a_lone_surrogate_inside_a_call_is_not_replaced() -> None:
    assert reasons(tagged('{"name": "f", "arguments": {"a": "\ud800"}}')) == ["not_strict_json"]


def test_all_four_white_spaces_of_json_are_allowed_around_values() -> None:
    reply = parse_reply(tagged(' \t\r\n{ \t\r\n"name"\t:\r"f" \n,"arguments"\r\n: { } \t\r\n} \t\r\n'))
    assert [call.function.name for call in reply.calls] == ["f"]
    assert reply.problems == ()


def test_the_deepest_call_that_is_allowed() -> None:
    def nested(levels: int) -> str:
        return '{"name":"f","arguments":{"a":' + "[" * (levels - 2) + "]" * (levels - 2) + "}}"

    assert len(parse_reply(tagged(nested(MAX_DEPTH))).calls) == 1
    assert reasons(tagged(nested(MAX_DEPTH + 1))) == ["not_strict_json"]


def test_numbers_up_to_the_range_of_a_double_keep_their_value() -> None:
    largest = int(1.7e308)
    body = json.dumps({"name": "f", "arguments": {"i": largest, "x": -1.7e308, "s": "\U0001f600"}})
    assert parse_reply(tagged(body)).calls[0].function.arguments == {"i": largest, "x": -1.7e308, "s": "\U0001f600"}


@pytest.mark.parametrize(
    ("text", "thinking", "rest"),
    [
        ("<think>plan</think>answer", "plan", "answer"),
        ("\n<think>\n\n</think>\n\nanswer<|im_end|>\n", "", "answer"),
        ("<think>never closed <tool_call>", "never closed <tool_call>", ""),
        ("plan</think>answer", "plan", "answer"),
        ("answer <think>late</think>", None, "answer <think>late</think>"),
        ("answer", None, "answer"),
        ("answer<|im_end|>", None, "answer"),
        ("", None, ""),
    ],
)
def test_thinking_is_split_off(text: str, thinking: str | None, rest: str) -> None:
    assert split_thinking(text) == (thinking, rest)


def test_a_call_in_the_think_block_is_a_thought() -> None:
    reply = parse_reply(f"<think>maybe {tagged(GOOD)}</think>No call needed.")
    assert reply.calls == ()
    assert reply.problems == ()
    assert reply.prose == "No call needed."


def test_a_closing_think_tag_inside_a_call_ends_nothing() -> None:
    reply = parse_reply(tagged('{"name": "f", "arguments": {"a": "</think>"}}'))
    assert reply.calls[0].function.arguments == {"a": "</think>"}


def test_lone_surrogates_outside_calls_are_replaced() -> None:
    assert parse_reply("a\ud800b").prose == "a\ufffdb"


@pytest.mark.parametrize(
    "unit", ["<tool_call>", "</tool_call>", "<tool_call>{</tool_call>", '<tool_call>{"a', "<think>", "["]
)
def test_a_reply_of_half_a_megabyte_is_read_in_seconds(unit: str) -> None:
    text = unit * (500_000 // len(unit))
    start = time.process_time()
    parse_reply(text)
    assert time.process_time() - start < 5


TAGS = ["<tool_call>", "</tool_call>", "<think>", "</think>", "<|im_end|>"]
FRAGMENTS = st.sampled_from([*TAGS, GOOD, "NaN", "\ud800", *'{}"\\[,'])


@given(st.lists(FRAGMENTS | st.text(st.characters(), max_size=5), max_size=30).map("".join))
def test_no_text_makes_it_raise_and_every_attempt_is_counted(text: str) -> None:
    reply = parse_reply(text)
    reply.model_dump_json()
    assert len(reply.calls) + len(reply.problems) <= text.count("<tool_call>")
    if reply.thinking is None and "<tool_call>" in text:
        assert reply.calls or reply.problems


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(min_size=1), st.dictionaries(st.text(), JSON_VALUES, max_size=4), st.booleans())
def test_every_json_call_comes_back_as_it_was(name: str, arguments: dict[str, object], ascii_only: bool) -> None:
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=ascii_only)
    reply = parse_reply(tagged(body))
    assert reply.problems == ()
    assert (reply.calls[0].function.name, reply.calls[0].function.arguments) == (name, arguments)


def differs(arguments: str, served: str) -> bool:
    parsed = parse_reply(tagged(f'{{"name": "f", "arguments": {arguments}}}'))
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


F, G = '{"name": "f", "arguments": {}}', '{"name": "g", "arguments": {}}'


@pytest.mark.parametrize(
    ("text", "served", "expected"),
    [
        ("Hello.", (), False),
        ("<tool_call>{</tool_call>", (), False),
        (tagged(F), (), True),
        ("<tool_call>{</tool_call>", (("f", "{}"),), True),
        ("Hello.", (("f", "{}"),), True),
        (tagged(F), (("g", "{}"),), True),
        (tagged(F) + tagged(G), (("f", "{}"), ("g", "{}")), False),
        (tagged(F) + tagged(G), (("g", "{}"), ("f", "{}")), True),
        (tagged(F) + tagged(F), (("f", "{}"),), True),
        (tagged(F) + "<tool_call>{</tool_call>", (("f", "{}"),), False),
    ],
)
def test_calls_are_compared_in_order(text: str, served: tuple[tuple[str, str], ...], *, expected: bool) -> None:
    reply = ServedReply(parser="hermes", calls=served, content="whatever")
    assert serving_differs(parse_reply(text), reply) is expected


@given(st.text(), st.text())
def test_any_text_as_arguments_is_compared(name: str, arguments: str) -> None:
    reply = ServedReply(parser="hermes", calls=((name, arguments),), content="")
    assert serving_differs(parse_reply(tagged('{"name": "f", "arguments": {"a": 1}}')), reply)
