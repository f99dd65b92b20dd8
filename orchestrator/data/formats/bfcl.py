"""Berkeley Function Calling Leaderboard: `question`, `function`, and the accepted answers from a file of their own.

An answer is a list of `{function: {parameter: [accepted values]}}`, one for each call. An accepted value "" says that
the parameter may be absent; in an object that is accepted, each value again is a list of accepted ones. The executable
categories give calls as text instead (`"f(n=20)"`). Java and JavaScript types are read like the Python ones; a variable
or expression as text (`"System.out"`) is an argument only where the parameter's type allows text.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.errors import DataError
from orchestrator.core.records import JsonObject, Message, Role, ToolCall
from orchestrator.data.clean.quality import SCHEMA_FAILURES, schema_validator
from orchestrator.data.formats.common import (
    COMMON_FIELDS,
    Draft,
    Format,
    by_fields,
    read_content,
    read_role,
    short,
    text_field,
)
from orchestrator.data.formats.loose_schema import (
    OfferedTools,
    declared_call,
    is_declared,
    offered_call,
    offered_tools,
    read_tool,
    undeclared,
)
from orchestrator.data.read.file_bytes import MAX_LINE_BYTES, UTF8_BOM, open_bytes
from orchestrator.data.read.json_files import read_json, read_json_lines
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.notation.pythonic import PythonicError, parse_calls
from orchestrator.notation.strict_json import MAX_DEPTH, StrictJsonError, parse

MAY_BE_ABSENT = ""
"""The accepted value that stands for leaving the parameter out."""

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}


def answers_path(questions: Path) -> Path | None:
    """The file of accepted answers of a file of questions: `<stem>_answers.jsonl` or `possible_answer/<same name>`."""
    stem = questions.name.removesuffix(".gz").rpartition(".")[0]
    candidates = (questions.with_name(f"{stem}_answers.jsonl"), questions.parent / "possible_answer" / questions.name)
    return next((path for path in candidates if path.is_file()), None)


def load_answers(path: Path) -> dict[str, Any]:
    """The accepted answers by the id of their question, from rows of `id` and `ground_truth`.

    They are JSON lines or one JSON array, packed with gzip where the name ends in `.gz`, with or without a byte order
    mark. An answer that is no list of calls, such as the result of a web request, is for `read_bfcl` to refuse.

    Raises:
        DataError: With `file:line`, if the file is missing or a line is not an answer or repeats an id.
    """
    answers: dict[str, Any] = {}
    try:
        for row in read_json(path) if _is_array(path) else read_json_lines(path):
            where = f"{path}:{row.line}"
            if row.refusal:
                raise DataError(f"the answers cannot be read: {row.refusal.detail}", where=where)
            question, accepted = _answer(str(row.content), where=where)
            if question in answers:
                raise DataError(f"the id {short(question)} has two answers", where=where)
            answers[question] = accepted
    except OSError as error:
        raise DataError(f"the answers cannot be read: {error}", where=str(path)) from None
    if not answers:
        raise DataError("the file holds no answers", where=str(path), allowed="rows of `id` and `ground_truth`")
    return answers


def _is_array(path: Path) -> bool:
    with open_bytes(path) as file:
        return file.readline(MAX_LINE_BYTES).removeprefix(UTF8_BOM).lstrip().startswith(b"[")


def _answer(line: str, *, where: str) -> tuple[str, Any]:
    try:
        answer = parse(line)
    except StrictJsonError as error:
        raise DataError(f"the answer is {error}", where=where) from None
    allowed = '{"id": ..., "ground_truth": [...]} on each line'
    if not isinstance(answer, dict) or not isinstance(answer.get("id"), str):
        raise DataError("the answer has no `id`", where=where, allowed=allowed)
    if "ground_truth" not in answer:
        raise DataError("the answer has no `ground_truth`", where=where, allowed=allowed)
    return answer["id"], answer["ground_truth"]


def with_answer(row: JsonObject, answers: Mapping[str, Any]) -> JsonObject:
    """The row with the accepted answers of its id as `ground_truth`; unchanged if it has its own or there are none."""
    identifier = row.get("id")
    if row.get("ground_truth") is not None or not isinstance(identifier, str) or identifier not in answers:
        return row
    return {**row, "ground_truth": answers[identifier]}


def read_bfcl(row: JsonObject) -> Draft:
    """The question of a BFCL row and the calls that answer it, made from the accepted values in `ground_truth`.

    Of the accepted values the first that fits the parameter's schema is taken. A parameter whose list begins with ""
    is left out, unless the schema requires it: "" stands first where absence, so the default, is the usual answer.
    A row without `ground_truth` is refused as NO_ANSWER, a question of several turns as UNSUPPORTED_CONTENT.
    """
    messages = _question(row.get("question"))
    functions = [row["function"]] if isinstance(row.get("function"), dict) else row.get("function")
    if not isinstance(functions, list):
        raise RowRejected(Reason.INVALID_TOOL, f"`function` is {short(functions)}, not a list of functions")
    offered = offered_tools(read_tool(function, f"tool {number}") for number, function in enumerate(functions, start=1))
    messages.append(Message(role="assistant", tool_calls=_calls(row.get("ground_truth"), offered)))
    return Draft(messages=messages, tools=offered.specs, original_names=offered.original_names)


def _question(question: Any) -> list[Message]:
    if isinstance(question, str):
        question = [{"role": "user", "content": question}]
    if not isinstance(question, list) or not question:
        raise RowRejected(Reason.MALFORMED_FIELD, f"`question` is {short(question)}, not a list of messages")
    if all(isinstance(turn, list) for turn in question):
        if len(question) > 1:
            detail = f"`question` has {len(question)} turns with calls of their own; only one is read"
            raise RowRejected(Reason.UNSUPPORTED_CONTENT, detail)
        question = question[0]
    return [question_turn(turn, f"turn {number}") for number, turn in enumerate(question, start=1)]


def question_turn(turn: Any, where: str) -> Message:
    """One message of a question."""
    role = read_role(text_field(turn, "role", where), _ROLES, _ROLES, where)
    return Message(role=role, content=read_content(turn.get("content"), role, where))


def refuse_unanswered(answers: Any) -> None:
    """Refuse a question without accepted answers."""
    if answers is None or answers == []:
        detail = "no accepted answer; they are in a file of their own, <name>_answers.jsonl or possible_answer/<name>"
        raise RowRejected(Reason.NO_ANSWER, detail)


def _calls(answers: Any, offered: OfferedTools) -> tuple[ToolCall, ...]:
    refuse_unanswered(answers)
    if not isinstance(answers, list):
        raise RowRejected(Reason.MALFORMED_FIELD, f"`ground_truth` is {short(answers)}, not a list of calls")
    return tuple(_call(answer, offered, f"answer {number}") for number, answer in enumerate(answers, start=1))


def _call(answer: Any, offered: OfferedTools, where: str) -> ToolCall:
    if isinstance(answer, str):
        return _written_call(answer, offered, where)
    if not isinstance(answer, dict) or len(answer) != 1:
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where} is {short(answer)}, not one function and its parameters")
    ((name, accepted),) = answer.items()
    if not isinstance(accepted, dict):
        raise RowRejected(Reason.MALFORMED_FIELD, f"{where}: the parameters of {short(name)} are no object")
    empty = offered_call({"name": name, "arguments": {}}, offered, where)
    arguments = _arguments(accepted, offered.parameters_of(empty.function.name), where)
    return empty.model_copy(update={"function": empty.function.model_copy(update={"arguments": arguments})})


def _written_call(answer: str, offered: OfferedTools, where: str) -> ToolCall:
    try:
        calls = parse_calls(f"[{answer}]", offered.parameter_names)
    except PythonicError as error:
        raise RowRejected(Reason.CALL_NOT_PYTHONIC, f"{where}: {error}") from None
    if len(calls) != 1:
        raise RowRejected(Reason.CALL_NOT_PYTHONIC, f"{where} is {short(answer)}, not one call")
    return declared_call({"name": calls[0][0], "arguments": calls[0][1]}, offered, where)


def _arguments(accepted: JsonObject, schema: JsonObject, where: str) -> JsonObject:
    arguments: JsonObject = {}
    required = schema.get("required") or ()
    for name, values in accepted.items():
        if not isinstance(values, list) or not values:
            detail = f"{where}: {short(name)} has {short(values)}, not a list of accepted values"
            raise RowRejected(Reason.MALFORMED_FIELD, detail)
        if not is_declared(name, schema):
            if MAY_BE_ABSENT in values:
                continue
            raise undeclared(name, schema, where)
        given = [choice for value in values if value != MAY_BE_ABSENT for choice in _choices(value)]
        fitting = [value for value in given if fits(value, name, schema)]
        may_be_absent = MAY_BE_ABSENT in values and name not in required
        if may_be_absent and (values[0] == MAY_BE_ABSENT or not fitting):
            continue
        # Where no value fits, the schema check refuses the call and says why.
        arguments[name] = next(iter((*fitting, *given)), MAY_BE_ABSENT)
    return arguments


def _choices(value: Any) -> list[Any]:
    """The two readings of an accepted value: lists inside the objects of an accepted object are values, or are not.

    The leaderboard's own check compares them as values, so that this reading comes first.
    """
    return [_resolved(value, depth=1), _resolved(value, depth=MAX_DEPTH)]


def _resolved(value: Any, depth: int) -> Any:
    """An accepted value with the first accepted value at each place in its objects, down to a depth of objects."""
    if isinstance(value, list):
        return [_resolved(part, depth) for part in value]
    if not isinstance(value, dict) or depth == 0:
        return value
    resolved: JsonObject = {}
    for name, accepted in value.items():
        choices = accepted if isinstance(accepted, list) and accepted else [accepted]
        if choices[0] != MAY_BE_ABSENT:
            resolved[name] = _resolved(choices[0], depth - 1)
    return resolved


def fits(value: Any, name: str, schema: JsonObject) -> bool:
    """Whether a value fits what the schema of a tool's arguments says of one of them."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or name not in properties:
        return True  # an object that may hold anything beside what it declares
    validator = schema_validator(json.dumps({"type": "object", "properties": {name: properties[name]}}, sort_keys=True))
    try:
        return not isinstance(validator, str) and validator.is_valid({name: value})
    except SCHEMA_FAILURES:
        return False


FORMAT = Format(
    read_bfcl,
    COMMON_FIELDS | {"question", "function", "ground_truth"},
    hint=("question", "function"),
    recognise=by_fields("question", "function"),
    precedence=4,
)
