"""Are the calls of a reply valid, are they the calls that the case asks for, and how many arguments are right?

What is not covered: whether a text means the same as the expected one ("NYC" and "New York" differ), and `format`
keywords of a schema, which JSON Schema treats as remarks. A regular expression that cannot be searched for in bounded
time makes its schema invalid here, as it does in the data.
"""

import json
from collections.abc import Mapping, Sequence

from evals.judge.accepted_calls import count_accepted, match_accepted, must_be_given
from evals.judge.expected_calls import ArgumentCounts, count_arguments, count_expected, match_expected, problem
from evals.records import Case, Problem
from orchestrator.chat.formats.reply import ParsedReply, schemas_of
from orchestrator.core.records import JsonObject, Record, ToolCall, ToolSpec
from orchestrator.data.clean.quality import schema_validator


class CallJudgement(Record):
    """What there is to say about the calls of one reply. Produced by `judge_calls`, consumed by `score`.

    `validity` and `match` are None where nothing is wrong; the two are judged apart. The counts are over all expected
    and all given calls, paired as well as possible.
    """

    validity: Problem | None
    match: Problem | None
    arguments_expected: int
    arguments_given: int
    arguments_right: int


def judge_calls(case: Case, reply: ParsedReply) -> CallJudgement:
    """Judge the calls of a reply. Never raises: what is wrong is in the judgement.

    Validity: see `check_calls`. Match: an attempt at a call that did not parse is the first thing wrong; then
    `accepted_calls` decide where the case has any (see `accepted_calls`), else `expected_calls` (see `call_match`). A
    case of kind `tool_call` with neither takes any call. Where no call is wanted nothing can be valid or invalid, and
    any call is an unexpected one; an attempt that did not parse is none. A call by a tool's name in the source
    (`original_names`) is a call of that tool.

    The arguments are counted as they match. A parameter that may be absent and is absent is not expected. Without
    expected or accepted calls all three counts are 0.
    """
    calls = [_by_offered_name(call, case) for call in reply.calls]
    if case.kind != "tool_call" and not case.expected_calls:
        names = ", ".join(call.function.name for call in calls)
        match = problem("unexpected_call", f"calls {names} where no call is expected") if calls else None
        return CallJudgement(validity=None, match=match, arguments_expected=0, arguments_given=0, arguments_right=0)
    schemas = _schemas(case.tools)
    counts = _counts(calls, case, schemas)
    return CallJudgement(
        validity=check_calls(reply, case.tools, original_names=case.original_names),
        match=_parse_problem(reply) if reply.problems else _match(calls, case, schemas),
        arguments_expected=counts.expected,
        arguments_given=counts.given,
        arguments_right=counts.right,
    )


def check_calls(
    reply: ParsedReply, tools: Sequence[ToolSpec], *, original_names: Mapping[str, str] | None = None
) -> Problem | None:
    """The first reason why the calls of `reply` are not valid, or None when all are.

    The ladder: there is a call; every attempt at a call parsed; every call names an offered tool; every call's
    arguments fit that tool's `parameters`, by the same validator that checked the data (`schema_validator`: the dialect
    that `$schema` names, else Draft 2020-12; `1.0` is an integer; nothing is ever fetched). A tool whose own schema
    cannot be used gives `tool_schema_is_invalid`, never an error. Where two tools have one name, the first counts.
    `original_names` gives offered tools their names in the source, by which they may be called as well.
    """
    if reply.problems:
        return _parse_problem(reply)
    if not reply.calls:
        return problem("no_call", f"the reply makes no call: {reply.prose!r}" if reply.prose else "the reply is empty")
    parameters = _schemas(tools)
    for original, offered in _offered_names(original_names or {}).items():
        if offered in parameters:
            parameters.setdefault(original, parameters[offered])
    for call in reply.calls:
        found = _check_call(call, parameters)
        if found is not None:
            return found
    return None


def _parse_problem(reply: ParsedReply) -> Problem:
    """The first attempt at a call that is none."""
    return Problem(reason=reply.problems[0].reason, detail=reply.problems[0].detail)


def _schemas(tools: Sequence[ToolSpec]) -> dict[str, JsonObject]:
    return schemas_of(reversed(tools))


def _offered_names(original_names: Mapping[str, str]) -> dict[str, str]:
    return {original: offered for offered, original in original_names.items()}


def _by_offered_name(call: ToolCall, case: Case) -> ToolCall:
    """The call by the name that its tool is offered under; an offered name is never another tool's original name."""
    name = call.function.name
    if not case.original_names or name in case.original_names:
        return call
    offered = _offered_names(case.original_names).get(name)
    if offered is None or any(tool.function.name == name for tool in case.tools):
        return call
    return call.model_copy(update={"function": call.function.model_copy(update={"name": offered})})


def _match(calls: Sequence[ToolCall], case: Case, schemas: dict[str, JsonObject]) -> Problem | None:
    if case.accepted_calls:
        return match_accepted(calls, case.accepted_calls, num_tools=len(case.tools))
    if case.expected_calls:
        return match_expected(calls, case.expected_calls, schemas)
    return None if calls else problem("no_call", "the reply makes no call where one is expected")


def _counts(calls: Sequence[ToolCall], case: Case, schemas: dict[str, JsonObject]) -> ArgumentCounts:
    given = [len(call.function.arguments) for call in calls]
    if case.accepted_calls:
        needed = [len(must_be_given(wanted)) for wanted in case.accepted_calls]
        pairs = [[count_accepted(call, wanted) for wanted in case.accepted_calls] for call in calls]
        return count_arguments(given, needed, pairs)
    if case.expected_calls:
        expected = [len(wanted.function.arguments) for wanted in case.expected_calls]
        alike = [[count_expected(call, wanted, schemas) for wanted in case.expected_calls] for call in calls]
        return count_arguments(given, expected, alike)
    return ArgumentCounts()


def _check_call(call: ToolCall, parameters: dict[str, JsonObject]) -> Problem | None:
    name = call.function.name
    if name not in parameters:
        offered = ", ".join(sorted(parameters)) or "none"
        return problem("unknown_tool", f"{name!r} is not offered; offered: {offered}")
    validator = schema_validator(json.dumps(parameters[name], sort_keys=True))
    if isinstance(validator, str):
        return problem("tool_schema_is_invalid", f"{name}: {validator}")
    # A schema is foreign data, and a reference in it can lead the validator anywhere (a loop, a non-schema): whatever
    # it raises says that this schema cannot be used, and must not end the evaluation of the other cases.
    try:
        error = validator.error(call.function.arguments)
    except Exception as invalid:  # noqa: BLE001 - foreign schemas, see above
        return problem("tool_schema_is_invalid", f"{name}: {type(invalid).__name__}: {invalid}")
    if error is None:
        return None
    return problem("arguments_do_not_fit_schema", f"{name}{error.json_path[1:]}: {error.message}")
