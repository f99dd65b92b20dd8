"""Questions of the Berkeley Function Calling Leaderboard as cases.

Its categories of one turn are read: simple, multiple, parallel, parallel_multiple and their live variants, Java and
JavaScript, relevance and irrelevance. The category is in the id of a question (`live_simple_3-2-0`), else in the name
of the file. What is asked and offered is read as for training (`orchestrator.data.formats.bfcl`), but a question counts
whatever the leaderboard would score, also where its answer does not fit the schema of its own tool. As on the
leaderboard, tools of Java and JavaScript take source text for every parameter, and their descriptions say of what type.
"""

import json
import re
from typing import Any, Literal

from evals.judge.accepted_calls import ITEM_WORDS, MAY_BE_ABSENT, TYPE_WORDS, argument_problem
from evals.records import AcceptedCall, Case
from orchestrator.core.records import NO_FITTING_TOOL, FunctionCall, JsonObject, Message, ToolCall
from orchestrator.data.formats.bfcl import fits, question_turn, refuse_unanswered
from orchestrator.data.formats.common import short
from orchestrator.data.formats.loose_schema import OfferedTools, offered_tools, read_tool
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.notation.source_literals import write_source

Language = Literal["python", "java", "javascript"]

_CATEGORY = re.compile(
    r"(?:live_)?(?:irrelevance|relevance|(?:simple_)?javascript|(?:simple_)?java|simple(?:_python)?"
    r"|parallel_multiple|parallel|multiple)"
)
"""The categories of one turn, by the names of the third and the fourth version of the leaderboard."""

_SHOWN_NAMES: dict[str, str] = {"java": "Java", "javascript": "JavaScript"}


def case_from_bfcl_row(row: JsonObject, *, suite: str, file_name: str) -> Case:
    """A question as a case of a suite.

    A question of irrelevance becomes a case of kind `answer` with the tag `no_fitting_tool`; one of relevance a case of
    kind `tool_call` without expected or accepted calls, for the leaderboard takes any call there. Every other question
    has its `accepted_calls`, and in `expected_calls` one example of them, or what comes nearest where no call is ever
    accepted.

    The row has `id`, `question`, `function`, and as `ground_truth` the accepted answers; `file_name` gives the category
    where the id does not. RowRejected if it cannot be a case.
    """
    messages = _messages(row.get("question"))
    functions = _functions(row.get("function"))
    category = _category(row["id"], file_name)
    language: Language = "javascript" if "javascript" in category else "java" if "java" in category else "python"
    described = [function if language == "python" else _as_source(function, language) for function in functions]
    offered = offered_tools(read_tool(function, f"tool {number}") for number, function in enumerate(described, start=1))
    accepted: tuple[AcceptedCall, ...] = ()
    if not category.endswith("relevance"):
        accepted = _accepted_calls(row.get("ground_truth"), functions, offered, language)
    needs_no_call = category.endswith("irrelevance")
    return Case(
        id=row["id"],
        suite=suite,
        messages=tuple(messages),
        tools=offered.specs,
        kind="answer" if needs_no_call else "tool_call",
        tags=(NO_FITTING_TOOL,) if needs_no_call else (),
        expected_calls=tuple(_example(call, offered) for call in accepted),
        accepted_calls=accepted,
        expected_text="",
        original_names=offered.original_names,
    )


def _category(identifier: str, file_name: str) -> str:
    """The category of a question, as its id or else the file's name gives it; "" where neither does."""
    named = _CATEGORY.fullmatch(identifier.rpartition("_")[0])
    if named is None:
        stem = file_name.removesuffix(".gz").rpartition(".")[0]
        named = _CATEGORY.fullmatch(re.sub(r"^bfcl_(v\d+_)?", "", stem, flags=re.IGNORECASE))
    return named[0] if named else ""


def _messages(question: Any) -> list[Message]:
    turns = question if isinstance(question, list) and all(isinstance(turn, list) for turn in question) else [question]
    if len(turns) != 1 or not isinstance(turns[0], list) or not turns[0]:
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, f"`question` is {short(question)}, not one turn of messages")
    return [question_turn(message, f"message {number}") for number, message in enumerate(turns[0], start=1)]


def _functions(functions: Any) -> list[JsonObject]:
    listed = [functions] if isinstance(functions, dict) else functions
    if not isinstance(listed, list) or not all(isinstance(function, dict) for function in listed):
        raise RowRejected(Reason.INVALID_TOOL, f"`function` is {short(functions)}, not a list of functions")
    return listed


def _as_source(function: JsonObject, language: Language) -> JsonObject:
    """The description of a function that takes source text for every parameter."""
    parameters = {**_parameters(function), "properties": {}}
    for name, declared in _properties(function).items():
        of_items = f" of {_item_word(declared)}" if _word(declared) in ITEM_WORDS else ""
        kind = "value of any type" if _word(declared) == "any" else f"{_word(declared)}{of_items}"
        hint = f"Write the {_SHOWN_NAMES[language]} {kind} as source text."
        members = declared.get("properties")
        hint += f" Its entries: {json.dumps(members, ensure_ascii=False)}." if members else ""
        description = f"{declared.get('description') or ''} {hint}".strip()
        parameters["properties"][name] = {"type": "string", "description": description}
    return {**function, "parameters": parameters}


def _parameters(function: JsonObject) -> JsonObject:
    parameters = function.get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def _properties(function: JsonObject) -> dict[str, JsonObject]:
    properties = _parameters(function).get("properties")
    given = properties if isinstance(properties, dict) else {}
    return {name: declared for name, declared in given.items() if isinstance(declared, dict)}


def _word(declared: JsonObject) -> str:
    return str(declared.get("type", ""))


def _item_word(declared: JsonObject) -> str:
    items = declared.get("items")
    return _word(items) if isinstance(items, dict) else ""


def _accepted_calls(
    answers: Any, functions: list[JsonObject], offered: OfferedTools, language: Language
) -> tuple[AcceptedCall, ...]:
    refuse_unanswered(answers)
    if not isinstance(answers, list) or not all(isinstance(answer, dict) and len(answer) == 1 for answer in answers):
        detail = f"`ground_truth` is {short(answers)}, not a list of functions with accepted values"
        raise RowRejected(Reason.MALFORMED_FIELD, detail)
    by_name = {function.get("name"): function for function in reversed(functions)}
    calls = []
    for number, answer in enumerate(answers, start=1):
        ((name, accepted),) = answer.items()
        # With one function the leaderboard does not look at the name in the answer.
        function = functions[0] if len(functions) == 1 else by_name.get(name)
        if function is None:
            raise RowRejected(Reason.UNKNOWN_TOOL, f"answer {number}: {short(name)} is called and not offered")
        calls.append(_accepted_call(function, accepted, offered, language))
    return tuple(calls)


def _accepted_call(function: JsonObject, accepted: Any, offered: OfferedTools, language: Language) -> AcceptedCall:
    where = f"the accepted values of {short(function['name'])}"
    if not isinstance(accepted, dict) or not all(isinstance(values, list) for values in accepted.values()):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where} are {short(accepted)}, not a list for each parameter")
    properties = _properties(function)
    types = {name: _word(declared) for name, declared in properties.items()}
    item_types = {name: _item_word(declared) for name, declared in properties.items() if _word(declared) in ITEM_WORDS}
    words = TYPE_WORDS[language]
    for name in accepted.keys() & types.keys():
        unknown = [word for word in (types[name], item_types.get(name, "any")) if word not in words]
        if unknown:
            detail = f"{where}: the leaderboard knows no type {short(unknown[0])} of {short(name)} in {language}"
            raise RowRejected(Reason.INVALID_TOOL_SCHEMA, detail)
    required = _parameters(function).get("required")
    return AcceptedCall(
        name=offered.legal_names[function["name"]],
        arguments=accepted,
        types=types,
        item_types=item_types,
        required=tuple(required) if isinstance(required, list) else (),
        language=language,
    )


def _example(accepted: AcceptedCall, offered: OfferedTools) -> ToolCall:
    """One accepted call: each parameter with its first value that is accepted and fits the tool's schema."""
    schema = offered.parameters_of(accepted.name)
    arguments: JsonObject = {}
    for name, values in accepted.arguments.items():
        may_be_absent = MAY_BE_ABSENT in values and name not in accepted.required
        if may_be_absent and (values[0] == MAY_BE_ABSENT or name not in accepted.types):
            continue
        candidates = [_written(reading, name, accepted) for value in values for reading in _readings(value)]
        good = [value for value in candidates if argument_problem(name, value, accepted) is None]
        fitting = [value for value in good if fits(value, name, schema)] if len(good) > 1 else good
        chosen = (*fitting, *good, *candidates)
        if chosen:
            arguments[name] = chosen[0]
    return ToolCall(function=FunctionCall(name=accepted.name, arguments=arguments))


def _readings(value: Any) -> list[Any]:
    """What an accepted value may stand for: itself, or for an object each entry with its first accepted value."""
    if isinstance(value, list):
        return [[_readings(item)[0] for item in value], value]
    if not isinstance(value, dict):
        return [value]
    firsts = {key: part[0] if isinstance(part, list) and part else part for key, part in value.items()}
    return [{key: part for key, part in firsts.items() if part != MAY_BE_ABSENT}, value]


def _written(value: Any, name: str, accepted: AcceptedCall) -> Any:
    if accepted.language == "python":
        return value
    return write_source(value, accepted.types.get(name, ""), accepted.item_types.get(name), accepted.language)
