"""Validity of calls against the offered tools, and equality with the expected calls."""

import random
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.parse import parse_reply
from evals.records import FailureReason, Problem
from evals.tool_calls import check_calls, json_equal, match_calls
from orchestrator.records import FunctionCall, FunctionSpec, JsonObject, ToolCall, ToolSpec

WEATHER: JsonObject = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2},
        "days": {"type": "integer", "minimum": 1},
        "unit": {"enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city"],
    "additionalProperties": False,
}


def tool(name: str, parameters: JsonObject) -> ToolSpec:
    return ToolSpec(function=FunctionSpec(name=name, parameters=parameters))


def call(name: str, **arguments: object) -> ToolCall:
    return ToolCall(function=FunctionCall(name=name, arguments=arguments))


def check(arguments: str, parameters: JsonObject = WEATHER) -> Problem | None:
    reply = parse_reply(f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>')
    return check_calls(reply, [tool("f", parameters)])


def reason_of(problem: Problem | None) -> FailureReason | None:
    return None if problem is None else problem.reason


@pytest.mark.parametrize(
    "arguments", ['{"city": "Rome"}', '{"city": "Rome", "days": 2.0}', '{"unit": "celsius", "city": "Rome", "days": 1}']
)
def test_arguments_that_fit(arguments: str) -> None:
    assert check(arguments) is None


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ("{}", "f: 'city' is a required property"),
        ('{"city": 5}', "f.city: 5 is not of type 'string'"),
        ('{"city": "Rome", "days": "2"}', "f.days: '2' is not of type 'integer'"),
        ('{"city": "Rome", "days": true}', "f.days: True is not of type 'integer'"),
        ('{"city": "Rome", "days": 1.5}', "f.days: 1.5 is not of type 'integer'"),
        ('{"city": "Rome", "unit": "kelvin"}', "f.unit: 'kelvin' is not one of ['celsius', 'fahrenheit']"),
        ('{"city": "Rome", "days": null}', "f.days: None is not of type 'integer'"),
        ('{"city": "Rome", "when": 1}', "f: Additional properties are not allowed ('when' was unexpected)"),
    ],
)
def test_arguments_that_do_not_fit_say_where(arguments: str, place: str) -> None:
    assert check(arguments) == Problem(reason="arguments_do_not_fit_schema", detail=place)


def test_the_ladder_no_call_malformed_unknown_tool() -> None:
    tools = [tool("f", WEATHER)]
    assert reason_of(check_calls(parse_reply("It is sunny."), tools)) == "no_call"
    assert reason_of(check_calls(parse_reply(""), tools)) == "no_call"
    good = '<tool_call>{"name": "f", "arguments": {"city": "Rome"}}</tool_call>'
    assert check_calls(parse_reply(good), tools) is None
    assert reason_of(check_calls(parse_reply(good + "<tool_call>{</tool_call>"), tools)) == "not_json"
    unknown = check_calls(parse_reply(good + good.replace('"f"', '"F"')), tools)
    assert unknown == Problem(reason="unknown_tool", detail="'F' is not offered; offered: f")
    assert reason_of(check_calls(parse_reply(good), [])) == "unknown_tool"


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "dict"},
        {"type": "object", "properties": []},
        {"properties": {"city": {"type": "strng"}}},
        {"properties": {"city": {"pattern": "("}}},
        {"required": "city"},
        {"$ref": "#"},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "#/x-not-a-schema", "x-not-a-schema": 5},
        {"$schema": 5},
        {"$id": "http://[", "$ref": "x"},
    ],
)
def test_an_unusable_schema_is_a_problem_not_an_error(parameters: JsonObject) -> None:
    assert reason_of(check('{"city": "Rome"}', parameters)) == "tool_schema_is_invalid"


def test_the_dialect_is_the_one_the_schema_names() -> None:
    tuple_of_strings = {"properties": {"pair": {"items": [{"type": "string"}]}}}
    draft_7 = {"$schema": "http://json-schema.org/draft-07/schema#", **tuple_of_strings}
    assert reason_of(check('{"pair": [5]}', draft_7)) == "arguments_do_not_fit_schema"
    assert reason_of(check('{"pair": [5]}', tuple_of_strings)) == "tool_schema_is_invalid"


def test_local_references_are_followed() -> None:
    schema = {"properties": {"city": {"$ref": "#/$defs/name"}}, "$defs": {"name": {"type": "string"}}}
    assert check('{"city": "Rome"}', schema) is None
    assert reason_of(check('{"city": 1}', schema)) == "arguments_do_not_fit_schema"


class _Recorder(BaseHTTPRequestHandler):
    paths: list[str]

    def do_GET(self) -> None:
        self.paths.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def recording_server() -> Iterator[tuple[str, list[str]]]:
    _Recorder.paths = []
    server = HTTPServer(("127.0.0.1", 0), _Recorder)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", _Recorder.paths
    server.shutdown()
    thread.join()
    server.server_close()


def test_remote_references_are_never_fetched(recording_server: tuple[str, list[str]]) -> None:
    url, paths = recording_server
    assert reason_of(check("{}", {"$ref": f"{url}/schema.json"})) == "tool_schema_is_invalid"
    assert check("{}", {"$schema": f"{url}/dialect"}) is None
    assert paths == []


def test_a_long_detail_is_cut() -> None:
    problem = check('{"city": ["' + "x" * 5000 + '"]}')
    assert problem is not None
    assert len(problem.detail) <= 303


def test_the_same_calls_in_another_order_match() -> None:
    expected = [call("f", a=1, b=[1, 2]), call("f", a=2), call("g")]
    assert match_calls([call("g"), call("f", a=2.0), call("f", b=[1, 2], a=1)], expected) is None
    assert match_calls([], []) is None


@pytest.mark.parametrize(
    ("calls", "expected", "problem"),
    [
        ([], [call("f")], ("wrong_number_of_calls", "0 calls where 1 are expected")),
        ([call("f"), call("f")], [call("f")], ("wrong_number_of_calls", "2 calls where 1 are expected")),
        ([call("g")], [call("f")], ("wrong_tool", "calls g where f is expected")),
        ([call("f"), call("f")], [call("f"), call("g")], ("wrong_tool", "calls f where g is expected")),
        ([call("f", a="x")], [call("f", a="y")], ("wrong_arguments", 'f: a: "x" where "y" is expected')),
        ([call("f", a=True)], [call("f", a=1)], ("wrong_arguments", "f: a: true where 1 is expected")),
        ([call("f", a=None)], [call("f")], ("wrong_arguments", "f: a: null where nothing is expected")),
        ([call("f", a=[1, 2])], [call("f", a=[2, 1])], ("wrong_arguments", "f: a: [1, 2] where [2, 1] is expected")),
        (
            [call("f", a=1), call("f", a=1)],
            [call("f", a=1), call("f", a=2)],
            ("wrong_arguments", "f: a: 1 where 2 is expected"),
        ),
    ],
)
def test_the_first_difference_is_named(
    calls: list[ToolCall], expected: list[ToolCall], problem: tuple[FailureReason, str]
) -> None:
    assert match_calls(calls, expected) == Problem(reason=problem[0], detail=problem[1])


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (1, 1.0, True),
        (0, -0.0, True),
        (2**53 + 1, float(2**53), False),
        (True, 1, False),
        (False, 0, False),
        (True, True, True),
        (None, False, False),
        ("1", 1, False),
        ("a", "A", False),
        ({"a": 1, "b": {"c": [1.0]}}, {"b": {"c": [1]}, "a": 1}, True),
        ({"a": None}, {}, False),
        ([True], [1], False),
        ([], {}, False),
        ({"a": False}, {"a": 0}, False),
    ],
)
def test_equality_of_json_values(left: object, right: object, equal: bool) -> None:
    assert json_equal(left, right) is equal
    assert json_equal(right, left) is equal


ARGUMENTS = st.dictionaries(st.sampled_from("ab"), st.sampled_from([0, 1, 1.0, True, "1", None, [1], [True]]))
CALLS = st.lists(
    st.builds(lambda name, arguments: call(name, **arguments), st.sampled_from("fg"), ARGUMENTS), max_size=5
)


@given(CALLS, CALLS, st.integers())
def test_matching_ignores_order_and_is_symmetric(left: list[ToolCall], right: list[ToolCall], seed: int) -> None:
    shuffled = random.Random(seed).sample(left, len(left))
    assert match_calls(left, shuffled) is None
    assert (match_calls(left, right) is None) is (match_calls(right, shuffled) is None)
