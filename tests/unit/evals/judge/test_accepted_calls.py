"""Verdicts of the Berkeley Function Calling Leaderboard's own checker on invented functions.

Each row of the tables is a fact about that checker (`bfcl-eval` 2026.3.23): what is declared, accepted and given, and
the code it answers with, None where it accepts the call. Its code `dict_checker:unclear` is
`value_error:dict_key` here.
"""

from typing import Any, Literal

import pytest
from builders import make_call
from hypothesis import given
from hypothesis import strategies as st

from evals.judge.accepted_calls import call_problem, count_accepted, match_accepted, must_be_given
from evals.judge.expected_calls import ArgumentCounts
from evals.records import AcceptedCall, FailureReason, Problem

Language = Literal["python", "java", "javascript"]

SIMPLE: FailureReason = "type_error:simple"
NESTED: FailureReason = "type_error:nested"
STRING: FailureReason = "value_error:string"
LIST: FailureReason = "value_error:list/tuple"
KEY: FailureReason = "value_error:dict_key"
VALUE: FailureReason = "value_error:dict_value"
COUNT: FailureReason = "value_error:list_dict_count"
OTHERS: FailureReason = "value_error:others"
JAVA: FailureReason = "type_error:java"
JS: FailureReason = "type_error:js"

PYTHON_FACTS: list[tuple[str, list[Any], Any, FailureReason | None]] = [
    # text: without regard to case, spaces, the marks ,./-_*^ and the kind of quotes
    ("string", ["Green Tea"], "Green Tea", None),
    ("string", ["Green Tea"], "greentea", None),
    ("string", ["Green Tea"], "GREEN-TEA", None),
    ("string", ["Green Tea"], "g.r/e_e*n^ tea,", None),
    ("string", ["Green Tea"], "green\ttea", STRING),
    ("string", ["Green Tea"], "green: tea", STRING),
    ("string", ["Green Tea"], "green", STRING),
    ("string", ["it's"], 'it"s', None),
    ("string", ["oolong", "Green Tea"], "green tea", None),
    ("string", ["\u00c4pfel"], "\u00e4pfel", None),
    ("string", ["", "tea"], "", None),
    ("string", ["", "tea"], " - ", None),
    ("string", [""], "", None),
    ("string", [""], "tea", STRING),
    ("string", ["5"], 5, SIMPLE),
    ("string", ["true"], True, SIMPLE),
    ("string", ["tea"], None, SIMPLE),
    ("string", ["tea"], ["tea"], SIMPLE),
    ("string", [], "tea", STRING),
    # whole numbers, numbers, booleans
    ("integer", [3], 3, None),
    ("integer", [3], 4, OTHERS),
    ("integer", [3], 3.0, SIMPLE),
    ("integer", [3], "3", SIMPLE),
    ("integer", [1], True, SIMPLE),
    ("integer", [3, 7], 7, None),
    ("integer", ["", 3], "", SIMPLE),
    ("integer", [""], 3, OTHERS),
    ("float", [2.5], 2.5, None),
    ("float", [2.5], 2.5000000000000004, OTHERS),
    ("float", [2.0], 2, None),
    ("float", [2], 2, None),
    ("float", [2], 2.0, None),
    ("float", [2.0], "2.0", SIMPLE),
    ("float", [1.0], True, SIMPLE),
    ("boolean", [True], True, None),
    ("boolean", [True], False, OTHERS),
    ("boolean", [True], 1, SIMPLE),
    ("boolean", [True], "true", SIMPLE),
    ("boolean", ["", True], None, SIMPLE),
    # a first accepted value of another type than declared: a variable or an expression, compared as it stands
    ("integer", ["width"], "width", None),
    ("integer", ["width"], "Width", OTHERS),
    ("integer", ["width", 3], 3, None),
    ("integer", ["width", 3], 4, OTHERS),
    ("integer", ["", "width"], "", None),
    ("integer", [3, "width"], "width", SIMPLE),
    ("integer", [True], 1, None),
    ("float", [3], 3, None),
    ("dict", ["config"], "config", None),
    ("dict", ["config"], {}, OTHERS),
    # any stands for text, and otherwise for the type of the first accepted value
    ("any", ["Green Tea"], "green tea", None),
    ("any", [5], 5, None),
    ("any", [5], "5", OTHERS),
    ("any", [5], 5.0, SIMPLE),
    ("any", [[1, 2]], [1, 2], None),
    ("any", [{"size": [1]}], {"size": 1}, OTHERS),
    ("any", [{"size": [1]}], {"size": [1]}, None),
    # lists: in order, texts as above at one level
    ("array of integer", [[1, 2]], [1, 2], None),
    ("array of integer", [[1, 2]], [2, 1], LIST),
    ("array of integer", [[1, 2], [2, 1]], [2, 1], None),
    ("array of integer", [[1, 2]], [1], LIST),
    ("array of integer", [[1, 2]], [], LIST),
    ("array of integer", [[1, 2]], [1, "2"], NESTED),
    ("array of integer", [[1, 2]], [1.0, 2], NESTED),
    ("array of integer", [[1, 2]], [True, 2], NESTED),
    ("array of integer", [[1, 2]], "1, 2", SIMPLE),
    ("array of integer", [[1, 2]], 1, SIMPLE),
    ("array of integer", ["", [1, 2]], [], None),
    ("array of integer", ["", [1, 2]], ["1"], LIST),
    ("array of integer", [[1, 2], ""], "", SIMPLE),
    ("array of integer", ["", [True]], [1], None),
    ("array of float", [[1.0, 2.5]], [1.0, 2.5], None),
    ("array of float", [[1.0, 2.5]], [1, 2.5], NESTED),
    ("array of float", [[1, 2.5]], [1, 2.5], None),
    ("array of float", [[1, 2.5]], [1.0, 2.5], None),
    ("array of string", [["Green Tea", "Oolong"]], ["greentea", "oolong"], None),
    ("array of string", [["Green Tea"]], [["Green Tea"]], NESTED),
    ("array of string", [["a", "b"], "ab"], ["A", "B"], None),
    ("array of string", [["x"], "ab"], ["a", "b"], None),
    ("array of string", ["all"], "all", None),
    ("array of string", ["all"], "All", OTHERS),
    ("array of string", ["all"], ["all"], OTHERS),
    ("array of string", [], ["a"], SIMPLE),
    ("array of array", [[[1, 2], [3]]], [[1, 2], [3]], None),
    ("array of array", [[["Tea"]]], [["tea"]], LIST),
    ("array of any", [[1, "a"]], [1, "A"], None),
    ("array of any", [[1, "a"]], [1, None], NESTED),
    ("tuple of float", [[1.5, 2.5]], [1.5, 2.5], None),
    ("tuple of float", [[1.5, 2.5]], (1.5, 2.5), None),
    ("array of float", [[1.5, 2.5]], (1.5, 2.5), SIMPLE),
    ("tuple of integer", [[1, 2]], (2, 1), LIST),
    # objects: for every entry accepted values, "" among them where it may be absent
    ("dict", [{"size": [1, 2], "note": ["", "Big One"]}], {"size": 2}, None),
    ("dict", [{"size": [1, 2], "note": ["", "Big One"]}], {"note": "bigone", "size": 1}, None),
    ("dict", [{"size": [1, 2], "note": ["", "Big One"]}], {"size": 1, "note": ""}, None),
    ("dict", [{"size": [1, 2]}], {"size": 3}, VALUE),
    ("dict", [{"size": [1, 2]}], {"size": "1"}, VALUE),
    ("dict", [{"size": [1, 2]}], {"size": 1.0}, None),
    ("dict", [{"size": [1, 2]}], {"size": True}, None),
    ("dict", [{"size": [1, 2]}], {}, KEY),
    ("dict", [{"size": [1, 2]}], {"size": 1, "more": 1}, KEY),
    ("dict", [{"size": [1, 2]}], {"Size": 1}, KEY),
    ("dict", [{"size": [1, 2], "note": ["x"]}], {"size": 3}, KEY),
    ("dict", [{"size": [1]}, {"note": ["x"]}], {"note": "x"}, None),
    ("dict", [{"size": [1]}, {"note": ["x"]}], {"size": 2}, KEY),
    ("dict", [{"note": ["x"]}, {"size": [1]}], {"size": 2}, VALUE),
    ("dict", [{"size": [1]}, ""], {"size": 1}, None),
    ("dict", [""], {}, KEY),
    ("dict", [{}], {}, None),
    ("dict", [{"size": [1]}], '{"size": 1}', SIMPLE),
    ("dict", [{"size": [1]}], [], SIMPLE),
    ("dict", [{"in": [{"deep": [1]}]}], {"in": {"deep": 1}}, VALUE),
    ("dict", [{"in": [{"deep": [1]}]}], {"in": {"deep": [1]}}, None),
    ("dict", [{"tags": [["a", "b"]]}], {"tags": ["a", "b"]}, None),
    ("dict", [{"tags": [["a", "b"]]}], {"tags": ["A", "b"]}, VALUE),
    ("dict", [{"code": "xyz"}], {"code": "Y"}, None),
    ("dict", [{"code": "xyz"}], {"code": "xyz"}, VALUE),
    ("dict", [{"code": "xyz"}], {}, None),
    # lists of objects: in order, each as above
    ("array of dict", [[{"n": [1]}, {"n": [2, 3]}]], [{"n": 1}, {"n": 3}], None),
    ("array of dict", [[{"n": [1]}, {"n": [2, 3]}]], [{"n": 3}, {"n": 1}], VALUE),
    ("array of dict", [[{"n": [1]}, {"n": [2, 3]}]], [{"n": 1}], COUNT),
    ("array of dict", [[{"n": [1]}]], [{"m": 1}], KEY),
    ("array of dict", [[{"n": [1]}]], [{}], KEY),
    ("array of dict", [[{"n": [1]}]], [1], NESTED),
    ("array of dict", [[{"n": [1]}], [{"m": [1]}]], [{"m": 1}], None),
    ("array of dict", [[{"n": [1]}], [{"n": [1]}, {"n": [2]}]], [{"n": 2}], COUNT),
    ("array of dict", [[{"n": [1]}, {"n": [2]}], [{"n": [1]}]], [{"n": 2}], VALUE),
    ("array of dict", [[]], [], None),
    ("array of dict", [""], [], None),
    ("array of dict", [""], [{}], COUNT),
]

JAVA_FACTS: list[tuple[str, list[Any], Any, FailureReason | None]] = [
    ("integer", [5], "5", None),
    ("integer", [5], 5, JAVA),
    ("integer", [5], "5L", SIMPLE),
    ("integer", [5], "6", OTHERS),
    ("integer", ["count"], "count", None),
    ("short", [-5], "-5", None),
    ("byte", [5], "5.0", SIMPLE),
    ("long", [5], "5L", None),
    ("long", [5], "5l", None),
    ("long", [5], "5", SIMPLE),
    ("float", [2.5], "2.5f", None),
    ("float", [2.5], "2.5F", None),
    ("float", [2.5], "2.5", SIMPLE),
    ("float", [2500.0], "2.5e3f", None),
    ("double", [2.5], "2.5", None),
    ("double", [5.0], "5", None),
    ("double", [2.5], "2.5d", SIMPLE),
    ("boolean", [True], "true", None),
    ("boolean", [True], "True", SIMPLE),
    ("boolean", [True], True, JAVA),
    ("char", ["x"], "X", None),
    ("char", ["x"], "'x'", STRING),
    ("String", ["Green Tea"], "green-tea", None),
    ("String", ["tea"], '"tea"', STRING),
    ("String", ["tea"], None, JAVA),
    ("any", ["new Tea()"], "newTea()", None),
    ("any", ["tea"], {"a": 1}, JAVA),
    ("Array of integer", [[1, 2]], "new int[]{1, 2}", None),
    ("Array of integer", [[1, 2]], "new int[] { 1,2, }", None),
    ("Array of integer", [[1, 2]], "{1, 2}", SIMPLE),
    ("Array of integer", [[1, 2]], [1, 2], JAVA),
    ("Array of integer", [[1, 2]], "new int[]{2, 1}", LIST),
    ("Array of integer", [[1, 2]], "new int[]{1, 2.5}", NESTED),
    ("Array of String", [['"tea"']], 'new String[]{"Tea"}', None),
    ("Array of String", [["tea"]], 'new String[]{"tea"}', LIST),
    ("ArrayList of String", [["tea", "oolong"]], 'new ArrayList<>(Arrays.asList("Tea", "oolong"))', None),
    ("ArrayList of String", [["tea"]], 'new ArrayList<String>() {{ add("tea"); }}', None),
    ("ArrayList of char", [["a"]], "new ArrayList<>(Arrays.asList('a'))", None),
    ("ArrayList of long", [[1, 2]], "new ArrayList<Long>(Arrays.asList(1L, 2L))", None),
    ("ArrayList of long", [[1, 2]], "new ArrayList<Long>(Arrays.asList(1, 2))", NESTED),
    ("ArrayList of any", [["a", 1]], "new ArrayList<>(Arrays.asList(a, 1))", LIST),
    ("ArrayList of String", [[]], "new ArrayList<>()", None),
    ("ArrayList of String", [["tea"]], "List.of(tea)", SIMPLE),
    ("ArrayList of String", ["names"], "names", None),
    ("HashMap", [{"a": [1], "b": ["x"]}], 'new HashMap<>() {{ put("a", 1); put("b", "X"); }}', None),
    ("HashMap", [{"a": [1]}], 'new HashMap<String, Integer>() { put("a", 2); }', VALUE),
    ("HashMap", [{"a": [1]}], "new HashMap<>()", KEY),
    ("HashMap", [{}], "new HashMap<>() {{ }}", None),
    ("HashMap", [{"a": [1]}], '{"a": 1}', SIMPLE),
]

JAVASCRIPT_FACTS: list[tuple[str, list[Any], Any, FailureReason | None]] = [
    ("integer", [5], "5", None),
    ("integer", [5], 5, JS),
    ("integer", [5], "5.0", SIMPLE),
    ("float", [2.5], "2.5", None),
    ("float", [5.0], "5", None),
    ("float", [2500.0], "2.5e3", SIMPLE),
    ("Bigint", [5], "5n", None),
    ("Bigint", [5], "5", SIMPLE),
    ("Boolean", [False], "false", None),
    ("Boolean", [False], "False", SIMPLE),
    ("String", ["tea"], "'Tea'", None),
    ("String", ["tea"], '"tea"', None),
    ("String", ["tea"], "`tea`", STRING),
    ("any", ["(x) => x"], "(X)=>x", None),
    ("any", ["(x) => x"], "(x) => y", STRING),
    ("any", ["tea"], "'tea'", STRING),
    ("array of integer", [[1, 2]], "[1, 2]", None),
    ("array of integer", [[1, 2]], "new Array(1, 2)", None),
    ("array of integer", [[1, 2]], [1, 2], JS),
    ("array of integer", [[1, 2]], "[1, '2']", NESTED),
    ("array of integer", [["a", 2]], "[a, 2]", None),
    ("array of integer", [[]], "[]", None),
    ("array of String", [["tea", "oolong"]], "['Tea', \"oolong\"]", None),
    ("array of array", [[[1, 2], [3]]], "[[1, 2], [3]]", None),
    ("array of array", [[[1], [2]]], "new Array([1], [2])", None),
    ("array of any", [["a", "1"]], "[a, 1]", None),
    ("array of integer", ["items"], "items", None),
    ("dict", [{"a": [1], "b": ["x"]}], "{a: 1, b: 'X'}", None),
    ("dict", [{"a": [[1, 2]]}], '{"a": [1, 2]}', None),
    ("dict", [{"a": [True]}], "{a: true}", None),
    ("dict", [{"a": [1]}], "{a: 2}", VALUE),
    ("dict", [{"a": [1]}], "{}", KEY),
    ("dict", [{"a": [1]}], "a", SIMPLE),
]

FACTS: list[tuple[Language, str, list[Any], Any, FailureReason | None]] = [
    *(("python", *fact) for fact in PYTHON_FACTS),
    *(("java", *fact) for fact in JAVA_FACTS),
    *(("javascript", *fact) for fact in JAVASCRIPT_FACTS),
]

CALL_TYPES = {"size": "integer", "label": "string", "note": "string"}
CALL_FACTS: list[tuple[dict[str, list[Any]], tuple[str, ...], dict[str, Any], FailureReason | None]] = [
    ({"size": [1], "label": ["a"]}, ("size",), {"label": "a", "size": 1}, None),
    ({"size": [1], "label": ["a"]}, ("size",), {"label": "a"}, "simple_function_checker:missing_required"),
    ({"size": [1], "label": ["a"]}, ("size",), {"size": 1}, "simple_function_checker:missing_optional"),
    ({"size": [1], "label": ["", "a"]}, ("size",), {"size": 1}, None),
    ({"size": ["", 1]}, ("size",), {}, "simple_function_checker:missing_required"),
    ({"size": [1]}, ("size",), {"size": 1, "note": "x"}, "simple_function_checker:unexpected_param"),
    ({"size": [1]}, ("size",), {"size": 1, "depth": 2}, "simple_function_checker:unexpected_param"),
    ({"size": [1], "depth": [2]}, ("size",), {"size": 1, "depth": 2}, "simple_function_checker:unexpected_param"),
    ({"size": [1], "depth": [2]}, ("size",), {"size": 1}, "simple_function_checker:missing_optional"),
    ({"size": [1], "depth": ["", 2]}, ("size",), {"size": 1}, None),
    ({"size": [1], "label": ["a"]}, ("size", "note"), {"size": 2}, "simple_function_checker:missing_required"),
    ({"size": [1], "label": ["a"]}, (), {"size": 2, "label": 3}, "value_error:others"),
    ({"size": [1], "label": ["a"]}, (), {"label": 3, "size": 2}, "type_error:simple"),
    ({"size": [1], "label": ["a"]}, (), {"size": 2}, "value_error:others"),
    ({}, (), {}, None),
    ({}, (), {"size": 1}, "simple_function_checker:unexpected_param"),
]


def accept(
    name: str = "brew", *, language: Language = "python", required: tuple[str, ...] = (), **given: Any
) -> AcceptedCall:
    """An accepted call whose parameters are whole numbers."""
    return AcceptedCall(
        name=name, arguments=given, types=dict.fromkeys(given, "integer"), required=required, language=language
    )


def of_one_parameter(language: Language, declared: str, values: list[Any]) -> AcceptedCall:
    word, _, item_word = declared.partition(" of ")
    item_types = {"leaf": item_word} if item_word else {}
    return AcceptedCall(
        name="brew", arguments={"leaf": values}, types={"leaf": word}, item_types=item_types, language=language
    )


def reason_of(problem: Problem | None) -> FailureReason | None:
    return None if problem is None else problem.reason


@pytest.mark.parametrize(("language", "declared", "values", "value", "code"), FACTS)
def test_an_argument_is_judged_as_on_the_leaderboard(
    language: Language, declared: str, values: list[Any], value: Any, code: FailureReason | None
) -> None:
    accepted = of_one_parameter(language, declared, values)
    assert reason_of(call_problem(make_call("brew", leaf=value), accepted)) == code
    counts = count_accepted(make_call("brew", leaf=value), accepted)
    assert counts == ArgumentCounts(expected=1, given=1, right=int(code is None))


@pytest.mark.parametrize(("values", "required", "arguments", "code"), CALL_FACTS)
def test_a_call_is_judged_as_on_the_leaderboard(
    values: dict[str, list[Any]], required: tuple[str, ...], arguments: dict[str, Any], code: FailureReason | None
) -> None:
    accepted = AcceptedCall(name="brew", arguments=values, types=CALL_TYPES, required=required)
    assert reason_of(call_problem(make_call("brew", **arguments), accepted)) == code


def test_the_name_is_the_first_rung() -> None:
    found = call_problem(make_call("boil", size=2), accept(size=[1], required=("size",)))
    assert found == Problem(
        reason="simple_function_checker:wrong_func_name", detail="calls boil where brew is expected"
    )


def test_a_number_beyond_a_double_is_no_float() -> None:
    accepted = of_one_parameter("python", "float", [2.5])
    assert reason_of(call_problem(make_call("brew", leaf=10**400), accepted)) == "type_error:simple"


def test_a_text_where_objects_may_be_absent_is_not_accepted() -> None:
    accepted = of_one_parameter("python", "array of dict", ["", [{"n": [1]}]])
    assert reason_of(call_problem(make_call("brew", leaf=["n"]), accepted)) == "value_error:dict_value"


def test_accepted_values_that_cannot_be_compared_are_passed_over() -> None:
    numbers = of_one_parameter("python", "array of integer", [[1], 5])
    assert call_problem(make_call("brew", leaf=[1]), numbers) is None
    assert reason_of(call_problem(make_call("brew", leaf=[2]), numbers)) == "value_error:list/tuple"
    entry = of_one_parameter("python", "dict", [{"n": 5}])
    assert reason_of(call_problem(make_call("brew", leaf={"n": 5}), entry)) == "value_error:dict_value"


def test_the_detail_shows_both_sides() -> None:
    found = call_problem(make_call("brew", size=3), accept(size=[1, 2]))
    assert found == Problem(reason="value_error:others", detail="brew: size: 3 where 1 or 2 is expected")
    absent = call_problem(make_call("brew"), accept(size=[1, 2]))
    assert absent is not None
    assert absent.detail == "brew: size: nothing where 1 or 2 is expected"


@pytest.mark.parametrize(
    ("num_accepted", "num_tools", "code"),
    [
        (1, 1, "simple_function_checker:wrong_count"),
        (1, 2, "multiple_function_checker:wrong_count"),
        (2, 1, "parallel_function_checker_no_order:wrong_count"),
        (2, 3, "parallel_function_checker_no_order:wrong_count"),
    ],
)
def test_a_wrong_count_is_named_after_the_question(num_accepted: int, num_tools: int, code: FailureReason) -> None:
    accepted = [accept(size=[1])] * num_accepted
    for calls in ([], [make_call("brew", size=1)] * (num_accepted + 1)):
        assert reason_of(match_accepted(calls, accepted, num_tools=num_tools)) == code


def test_several_calls_match_in_any_order() -> None:
    accepted = [accept(size=[1]), accept(size=[2]), accept("boil", size=[1])]
    calls = [make_call("boil", size=1), make_call("brew", size=2), make_call("brew", size=1)]
    assert match_accepted(calls, accepted, num_tools=2) is None
    for wrong in (make_call("brew", size=1), make_call("brew", size=3), make_call("stir", size=2)):
        found = match_accepted([calls[0], wrong, calls[2]], accepted, num_tools=2)
        assert reason_of(found) == "parallel_function_checker_no_order:cannot_find_match"


def test_the_first_call_that_fits_is_taken_though_another_would_do() -> None:
    accepted = [accept(size=[1, 2]), accept(size=[1])]
    one, two = make_call("brew", size=1), make_call("brew", size=2)
    assert match_accepted([two, one], accepted, num_tools=1) is None
    found = match_accepted([one, two], accepted, num_tools=1)
    assert found == Problem(
        reason="parallel_function_checker_no_order:cannot_find_match",
        detail="brew: size: 2 where 1 is expected",
    )


def test_which_arguments_are_expected() -> None:
    accepted = accept(size=[1], level=["", 2], depth=["", 3], width=[4], required=("size", "depth"))
    assert must_be_given(accepted) == ["size", "depth", "width"]
    assert count_accepted(make_call("brew"), accepted) == ArgumentCounts(expected=3, given=0, right=0)
    assert count_accepted(make_call("brew", size=1, level=2), accepted) == ArgumentCounts(4, 2, 2)
    assert count_accepted(make_call("brew", size=2, level=3, note=1), accepted) == ArgumentCounts(4, 3, 0)
    assert count_accepted(make_call("boil", size=1), accepted) is None


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_calls_of_one_accepted_value_each_match_in_every_order(sizes: list[int], drawn: Any) -> None:
    accepted = [accept(size=[size]) for size in sizes]
    calls = [make_call("brew", size=size) for size in drawn.sample(sizes, len(sizes))]
    assert match_accepted(calls, accepted, num_tools=1) is None
