"""Validity of calls against the offered tools, and the judgement of a whole reply."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from builders import make_call
from hypothesis import given
from hypothesis import strategies as st

from evals.judge.calls import CallJudgement, check_calls, judge_calls
from evals.records import AcceptedCall, Case, FailureReason, Problem
from orchestrator.chat.formats.reply import ParsedReply, ParseProblem
from orchestrator.chat.parse import parse_reply
from orchestrator.core.records import FunctionSpec, JsonObject, SampleKind, ToolCall, ToolSpec

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


def replied(*calls: ToolCall, problem: ParseProblem | None = None) -> ParsedReply:
    return ParsedReply(calls=calls, prose="", thinking=None, problems=() if problem is None else (problem,))


def make_case(
    *expected: ToolCall, accepted: tuple[AcceptedCall, ...] = (), kind: SampleKind = "tool_call", **fields: object
) -> Case:
    given = {"tools": (tool("f", WEATHER), tool("geo_area", {})), "original_names": {"geo_area": "geo.area"}, **fields}
    return Case(
        id="c", messages=(), kind=kind, tags=(), expected_calls=expected, accepted_calls=accepted, expected_text="",
        **given,
    )  # fmt: skip


def judged(case: Case, *calls: ToolCall) -> CallJudgement:
    return judge_calls(case, replied(*calls))


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


def test_null_fits_where_openapi_says_nullable() -> None:
    schema: JsonObject = {"properties": {"city": {"type": "string", "enum": ["Rome"], "nullable": True}}}
    assert check('{"city": null}', schema) is None
    assert reason_of(check('{"city": 1}', schema)) == "arguments_do_not_fit_schema"


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


NOT_JSON = ParseProblem(reason="not_json", detail="Expecting value at character 1")
IS_NOT_JSON = Problem(reason="not_json", detail="Expecting value at character 1")
AREA = AcceptedCall(
    name="geo_area", arguments={"side": [2, 3], "unit": ["", "cm"]}, types={"side": "integer", "unit": "string"}
)
"""Accepted although the tool `geo_area` of these cases declares nothing."""


def test_the_right_call_is_valid_and_matches() -> None:
    judgement = judged(make_case(make_call("f", city="Rome", days=2)), make_call("f", days=2.0, city="Rome"))
    expected = CallJudgement(validity=None, match=None, arguments_expected=2, arguments_given=2, arguments_right=2)
    assert judgement == expected


def test_validity_and_match_are_judged_apart() -> None:
    wrong_but_valid = judged(make_case(make_call("f", city="Rome")), make_call("f", city="Oslo"))
    assert (reason_of(wrong_but_valid.validity), reason_of(wrong_but_valid.match)) == (None, "value_error:string")
    # The data itself may expect what the schema does not allow: the city is shorter than two characters.
    right_but_invalid = judged(make_case(make_call("f", city="Y")), make_call("f", city="Y"))
    assert reason_of(right_but_invalid.validity) == "arguments_do_not_fit_schema"
    assert right_but_invalid.match is None


def test_accepted_calls_decide_over_expected_ones() -> None:
    case = make_case(make_call("geo_area", side=2), accepted=(AREA,), tools=(tool("geo_area", {"required": ["unit"]}),))
    judgement = judged(case, make_call("geo_area", side=3))
    assert reason_of(judgement.validity) == "arguments_do_not_fit_schema"
    assert judgement.match is None
    assert (judgement.arguments_expected, judgement.arguments_given, judgement.arguments_right) == (1, 1, 1)
    judgement = judged(case, make_call("geo_area", side=4, unit="CM"))
    assert reason_of(judgement.match) == "value_error:others"
    assert (judgement.arguments_expected, judgement.arguments_given, judgement.arguments_right) == (2, 2, 1)


@pytest.mark.parametrize("name", ["geo_area", "geo.area"])
@pytest.mark.parametrize("accepted", [(AREA,), ()])
def test_a_tool_may_be_called_by_either_of_its_names(name: str, accepted: tuple[AcceptedCall, ...]) -> None:
    judgement = judged(make_case(make_call("geo_area", side=2), accepted=accepted), make_call(name, side=2))
    assert (judgement.validity, judgement.match, judgement.arguments_right) == (None, None, 1)


def test_other_names_are_no_names_of_the_tool() -> None:
    judgement = judged(make_case(make_call("geo_area", side=2)), make_call("geo-area", side=2))
    assert reason_of(judgement.validity) == "unknown_tool"
    assert reason_of(judgement.match) == "simple_function_checker:wrong_func_name"
    assert (judgement.arguments_expected, judgement.arguments_given, judgement.arguments_right) == (1, 1, 0)


def test_an_offered_name_is_the_tool_that_has_it() -> None:
    tools = (tool("geo_area", {}), tool("geo_area_2", {"required": ["side"]}))
    case = make_case(make_call("geo_area"), tools=tools, original_names={"geo_area_2": "geo.area"})
    assert judged(case, make_call("geo_area")).match is None
    other = judged(case, make_call("geo.area"))
    assert other.validity == Problem(
        reason="arguments_do_not_fit_schema", detail="geo.area: 'side' is a required property"
    )
    assert reason_of(other.match) == "simple_function_checker:wrong_func_name"


def test_an_attempt_that_did_not_parse_spoils_right_calls() -> None:
    call = make_call("f", city="Rome")
    judgement = judge_calls(make_case(call), replied(call, problem=NOT_JSON))
    assert (judgement.validity, judgement.match) == (IS_NOT_JSON, IS_NOT_JSON)
    assert (judgement.arguments_expected, judgement.arguments_given, judgement.arguments_right) == (1, 1, 1)


def test_no_call_where_one_is_expected() -> None:
    judgement = judged(make_case(make_call("f", city="Rome")))
    assert reason_of(judgement.validity) == "no_call"
    assert reason_of(judgement.match) == "multiple_function_checker:wrong_count"
    assert (judgement.arguments_expected, judgement.arguments_given) == (1, 0)


def test_any_call_will_do_where_one_is_wanted_and_none_expected() -> None:
    case = make_case()
    assert reason_of(judged(case).match) == "no_call"
    assert judge_calls(case, replied(problem=NOT_JSON)).match == IS_NOT_JSON
    judgement = judged(case, make_call("unknown", a=1), make_call("f"))
    assert judgement.match is None
    assert reason_of(judgement.validity) == "unknown_tool"
    assert (judgement.arguments_expected, judgement.arguments_given, judgement.arguments_right) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["answer", "refusal", "clarification"])
def test_nothing_may_be_called_where_no_call_is_wanted(kind: SampleKind) -> None:
    case = make_case(kind=kind)
    quiet = CallJudgement(validity=None, match=None, arguments_expected=0, arguments_given=0, arguments_right=0)
    assert judged(case) == quiet
    assert judge_calls(case, replied(problem=NOT_JSON)) == quiet
    called = judged(case, make_call("f", city="Rome"))
    unexpected = Problem(reason="unexpected_call", detail="calls f where no call is expected")
    assert called == quiet.model_copy(update={"match": unexpected})


def test_calls_are_paired_as_well_as_possible_before_arguments_are_counted() -> None:
    expected = (make_call("f", city="Rome", days=1), make_call("f", city="Oslo", days=2))
    judgement = judged(make_case(*expected), make_call("f", city="Oslo", days=1), make_call("f", city="Oslo", days=2))
    assert reason_of(judgement.match) == "parallel_function_checker_no_order:cannot_find_match"
    assert (judgement.arguments_expected, judgement.arguments_given, judgement.arguments_right) == (4, 4, 3)
    judgement = judged(make_case(*expected), make_call("f", city="Oslo", days=2), *[make_call("geo_area", a=1)] * 2)
    assert (judgement.arguments_expected, judgement.arguments_given, judgement.arguments_right) == (4, 4, 2)


SIDES = st.lists(st.sampled_from([1, 2, 3, 4, "2", None]), max_size=4)


@given(SIDES, SIDES, st.booleans())
def test_a_judgement_does_not_depend_on_the_order_of_the_calls_and_its_counts_add_up(
    given: list[object], wanted: list[object], is_accepted: bool
) -> None:
    accepted = (AREA,) * len(wanted) if is_accepted else ()
    case = make_case(*(make_call("geo_area", side=side) for side in wanted), accepted=accepted)
    calls = [
        make_call("geo_area", side=side, unit="cm") if side == 4 else make_call("geo_area", side=side) for side in given
    ]
    judgement = judged(case, *calls)
    backwards = judged(case, *reversed(calls))
    counts = judgement.model_dump(include={"arguments_expected", "arguments_given", "arguments_right"})
    assert counts == backwards.model_dump(include=set(counts))
    assert (judgement.match is None) is (backwards.match is None)
    assert judgement.arguments_right <= min(judgement.arguments_expected, judgement.arguments_given)
    if judgement.match is None and wanted:
        assert judgement.arguments_right == judgement.arguments_expected == judgement.arguments_given
