"""Checks of a canonical sample, the one repair, and findings that a person should look at.

The repair undoes Arrow: a table of rows with different arguments fills those that a row lacks with null, and a model
trained on that learns to emit nulls. See `check_sample`.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby, pairwise
from typing import Any, Literal, NamedTuple

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import validator_for
from referencing.exceptions import Unresolvable

from orchestrator.core.records import BENIGN, HARMFUL, JsonObject, Message, Role, Sample, ToolCall, ToolSpec
from orchestrator.core.remember import remembered
from orchestrator.data.clean.bounded_schema import BoundedSchema
from orchestrator.data.rejection import OFFERED_NONE, Reason, RowRejected
from orchestrator.notation.strict_json import StrictJsonError, parse

NULLABLE_KEYWORDS = {"default", "const", "example"}
"""Schema keywords whose value may rightly be null."""

NEXT_ROLES: dict[Role, tuple[Role, ...]] = {
    "system": ("user", "assistant"),
    "user": ("assistant", "system"),
    "assistant": ("user", "system"),
    "tool": ("tool", "assistant", "user", "system"),
}
"""What may follow a turn; whether a base's chat template shows it is seen when it is rendered."""

MAX_DETAIL_CHARS = 300

_NAMED = re.compile(r'"(?:name|tool|tool_name|function|function_name|action)"\s*+:\s*+"([^"\\]++)"')
_GIVEN = re.compile(r'"(?:arguments|parameters|args|input|action_input)"\s*+:')
"""How JSON that was meant as a call names its tool and what the tool is given."""

SCHEMA_FAILURES = (Unresolvable, RecursionError, re.error, OverflowError, TypeError, ValueError)
"""What `jsonschema` raises on a schema that its meta-schema lets pass: dangling or endless `$ref`, `$id` that is no
URI, numbers beyond a float. A check that would take too long is a ValueError."""

FlagCode = Literal[
    "secret", "harmful_not_refused", "benign_refused", "undeclared_argument", "control_token", "turn_not_learned"
]

OPEN_KEYWORDS = frozenset(
    {"additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames", "$ref", "$dynamicRef"}
    | {"allOf", "anyOf", "oneOf", "if", "dependentSchemas"}
)
"""Schema keywords that may allow an argument which `properties` does not name."""

_SECRETS = (
    ("a private key", "PRIVATE KEY-----", r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    ("an AWS access key", "AKIA", r"\bAKIA[0-9A-Z]{16}\b"),
    ("an AWS access key", "ASIA", r"\bASIA[0-9A-Z]{16}\b"),
    ("a GitHub token", "ghp_", r"\bghp_[A-Za-z0-9]{36,}"),
    ("a GitHub token", "gho_", r"\bgho_[A-Za-z0-9]{36,}"),
    ("a GitHub token", "ghs_", r"\bghs_[A-Za-z0-9]{36,}"),
    ("a GitHub token", "github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{22,}"),
    ("a Slack token", "xox", r"\bxox[abposr]-[A-Za-z0-9-]{10,}"),
    ("a Google API key", "AIza", r"\bAIza[0-9A-Za-z_-]{35}"),
    ("an OpenAI or Anthropic key", "sk-", r"\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,}"),
    ("a Hugging Face token", "hf_", r"\bhf_[A-Za-z0-9]{30,}\b"),
    ("a Stripe key", "k_live_", r"\b[rs]k_live_[0-9A-Za-z]{16,}"),
    ("a JSON web token", "eyJ", r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
)
"""Published forms of credentials: name, a literal that each has (far faster to look for, so first), and pattern.
Passwords and keys without a form of their own are missed."""

_CONTROL = re.compile(r"<\|\w{1,40}\|>")
"""How most tokenizers write the tokens that divide turns."""


class Flag(NamedTuple):
    """A finding in a sample that is kept, for a person to decide; `detail` repeats no secret."""

    code: FlagCode
    detail: str


class CheckedSample(NamedTuple):
    """A sample that passed, and how many nulls were taken out of its arguments and tool schemas."""

    sample: Sample
    num_repaired_nulls: int


def check_sample(sample: Sample) -> CheckedSample:
    """Check a sample and repair the nulls that Arrow filled in.

    Somebody must ask before the assistant's last turn, which ends the conversation and agrees with `kind`. No speaker
    has two turns in a row. Every call must name an offered tool and fit its JSON Schema, and none may stand in a text.
    Results stand right after calls, one for each; no reply follows calls that have none. A null is removed from a
    schema where JSON Schema knows no null, and from arguments where the tool's schema neither requires nor allows it.
    Formats (`"format": "date"`) are not asserted.

    Raises:
        RowRejected: With the first thing wrong.
    """
    _check_order(sample.messages)
    _check_results(sample.messages)
    _check_kind(sample)
    _check_words(sample)
    tools, num_nulls, validators = _checked_tools(sample.tools)
    nulls = _NullCount(num_nulls)
    messages = tuple(_repair_calls(message, validators, nulls) for message in sample.messages)
    if nulls.count:
        sample = sample.model_copy(update={"tools": tools, "messages": messages})
    return CheckedSample(sample, nulls.count)


class _NullCount:
    def __init__(self, count: int = 0) -> None:
        self.count = count


def _check_order(messages: Sequence[Message]) -> None:
    speaking = messages[1:] if messages[0].role == "system" else messages
    if not any(message.role == "assistant" for message in speaking):
        raise RowRejected(Reason.NO_ASSISTANT_TURN, "the assistant says nothing")
    if messages[0].role == "assistant" and not any(message.role == "user" for message in messages):
        raise RowRejected(Reason.NO_USER_TURN, "the user says nothing, and no system message asks for anything")
    if speaking[0].role == "tool":
        raise RowRejected(Reason.TOOL_RESULT_WITHOUT_CALL, "the conversation starts with a tool's result")
    for number, (message, following) in enumerate(pairwise(messages), start=2):
        _check_next(message, following, f"turn {number}")
    if messages[-1].role != "assistant":
        raise RowRejected(Reason.ENDS_WITHOUT_ASSISTANT, f"the last turn is {messages[-1].role}, not assistant")
    for number, message in enumerate(messages, start=1):
        empty = not message.content.strip() and not message.tool_calls
        if empty and message.role in ("user", "assistant"):
            raise RowRejected(Reason.EMPTY_TURN, f"turn {number} ({message.role}) has no text")


def _check_next(message: Message, following: Message, where: str) -> None:
    if message.tool_calls and following.role == "assistant":
        detail = f"{where} is {following.role}, but the calls before it have no result"
        raise RowRejected(Reason.CALL_WITHOUT_RESULT, detail)
    if following.role == "tool" and message.role != "tool" and not message.tool_calls:
        raise RowRejected(Reason.TOOL_RESULT_WITHOUT_CALL, f"{where} is a tool's result, but nothing was called")
    if following.role not in (*NEXT_ROLES[message.role], "tool") and not _stay_apart(message, following):
        raise RowRejected(Reason.ROLES_OUT_OF_ORDER, f"{where} is {following.role}, after {message.role}")


def _stay_apart(message: Message, following: Message) -> bool:
    """Whether two turns of the assistant cannot be one: thoughts follow a text, or only one of them is learned."""
    is_split = following.reasoning_content is not None or message.learned != following.learned
    return message.role == following.role == "assistant" and is_split


def _check_results(messages: Sequence[Message]) -> None:
    calls: tuple[ToolCall, ...] = ()
    for is_result, group in groupby(messages, key=lambda message: message.role == "tool"):
        turns = list(group)
        if is_result:
            _check_answers(turns, calls)
        else:
            calls = turns[-1].tool_calls


def _check_answers(results: Sequence[Message], calls: Sequence[ToolCall]) -> None:
    ids = [result.tool_call_id for result in results if result.tool_call_id]
    if len(results) > len(calls) or len(set(ids)) < len(ids):
        raise RowRejected(Reason.TOOL_RESULT_WITHOUT_CALL, f"{len(results)} results for {len(calls)} calls")
    known_ids = {call.id for call in calls if call.id}
    unknown_id = next((given for given in ids if given not in known_ids), None) if known_ids else None
    if unknown_id is not None:
        raise RowRejected(Reason.TOOL_RESULT_WITHOUT_CALL, f"no call has the id {unknown_id[:80]!r} of a result")
    names = {call.function.name for call in calls}
    unknown = next((result.name for result in results if result.name and result.name not in names), None)
    if unknown is not None:
        raise RowRejected(Reason.TOOL_RESULT_WITHOUT_CALL, f"a result of {unknown[:80]!r}, which was not called")
    if len(results) < len(calls) and not (len(results) == 1 and _answers_all(results[0], calls)):
        detail = f"{len(calls)} calls have {len(results)} {'result' if len(results) == 1 else 'results'}"
        raise RowRejected(Reason.CALL_WITHOUT_RESULT, detail)


def _answers_all(result: Message, calls: Sequence[ToolCall]) -> bool:
    """Whether one result stands for all calls: a JSON list of as many entries, or an object with each call's name."""
    if result.tool_call_id or result.name:
        return False
    try:
        value = parse(result.content)
    except StrictJsonError:
        return False
    if isinstance(value, dict):
        return {call.function.name for call in calls} <= value.keys()
    return isinstance(value, list) and len(value) == len(calls)


def _check_kind(sample: Sample) -> None:
    calls = bool(sample.messages[-1].tool_calls)
    if calls != (sample.kind == "tool_call"):
        detail = f"kind is {sample.kind}, but the last turn {'calls' if calls else 'does not call'} a tool"
        raise RowRejected(Reason.KIND_DISAGREES, detail)


def _check_words(sample: Sample) -> None:
    """Refuse a text that calls an offered tool, as JSON or like Python: it would be learned unchecked, as an answer."""
    names = {tool.function.name for tool in sample.tools}.union(sample.original_names.values())
    for number, message in enumerate(sample.messages, start=1):
        if message.role == "assistant" and message.content and names:
            text = message.content.strip().strip("`").strip()
            opening = text.partition("(")[0] if text.endswith(")") else ""
            named = _NAMED.findall(text) if _GIVEN.search(text) else []
            found = next((name for name in (opening, *named) if name in names), None)
            if found is not None:
                raise RowRejected(Reason.CALL_IN_TEXT, f"turn {number} calls {found[:80]!r} in its text")


@remembered
def _checked_tools(tools: tuple[ToolSpec, ...]) -> tuple[tuple[ToolSpec, ...], int, dict[str, BoundedSchema]]:
    """The tools without nulls in their schemas, how many those were, and the validator of each tool by name."""
    nulls = _NullCount()
    repaired = tuple(_repair_tool(tool, nulls) for tool in tools)
    return repaired if nulls.count else tools, nulls.count, _validators(repaired)


def _repair_tool(tool: ToolSpec, nulls: _NullCount) -> ToolSpec:
    parameters = _without_null_keywords(tool.function.parameters, nulls)
    return tool.model_copy(update={"function": tool.function.model_copy(update={"parameters": parameters})})


def _without_null_keywords(schema: Any, nulls: _NullCount) -> Any:
    if isinstance(schema, list):
        return [_without_null_keywords(part, nulls) if isinstance(part, dict) else part for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if value is not None or key in NULLABLE_KEYWORDS}
    nulls.count += len(schema) - len(kept)
    return {
        key: value if key in (*NULLABLE_KEYWORDS, "enum", "examples") else _without_null_keywords(value, nulls)
        for key, value in kept.items()
    }


def _validators(tools: Sequence[ToolSpec]) -> dict[str, BoundedSchema]:
    validators: dict[str, BoundedSchema] = {}
    for tool in tools:
        name = tool.function.name
        if name in validators:
            raise RowRejected(Reason.DUPLICATE_TOOL, f"the tool {name[:80]!r} is offered twice")
        validator = schema_validator(json.dumps(tool.function.arguments_schema, sort_keys=True))
        if isinstance(validator, str):
            raise RowRejected(Reason.INVALID_TOOL_SCHEMA, f"the schema of {name[:80]!r}: {validator}")
        validators[name] = validator
    return validators


@lru_cache(maxsize=4096)
def schema_validator(schema_json: str) -> BoundedSchema | str:
    """A validator for a JSON Schema of an object given as JSON text, or what is wrong with the schema.

    The dialect is that of `$schema`, else 2020-12. Nothing is ever fetched: a `$ref` to another document is an error.
    """
    schema: JsonObject = json.loads(schema_json)
    if schema.get("type", "object") != "object":
        return f"type is {str(schema['type'])[:80]!r}, not 'object'"
    if not isinstance(schema.get("$schema", ""), str):
        return "$schema is not text"
    foreign = next((ref for ref in _references(schema) if not ref.startswith("#")), None)
    if foreign is not None:
        return f"$ref {foreign[:80]!r} points to another document; write that schema in place"
    if '"unevaluatedProperties"' in schema_json and '"patternProperties"' in schema_json:
        return "patternProperties beside unevaluatedProperties, which cannot be checked in bounded time"
    try:
        return BoundedSchema(schema, validator_for(schema, default=Draft202012Validator))
    except SchemaError as error:
        return _shorten(f"{'.'.join(str(part) for part in error.absolute_path)}: {error.message}".removeprefix(": "))
    except SCHEMA_FAILURES as error:
        return _shorten(f"{type(error).__name__}: {error}")


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                yield value
            else:
                yield from _references(value)
    elif isinstance(schema, list):
        for part in schema:
            yield from _references(part)


def _repair_calls(message: Message, validators: dict[str, BoundedSchema], nulls: _NullCount) -> Message:
    if not message.tool_calls:
        return message
    calls = tuple(_repair_call(call, validators, nulls) for call in message.tool_calls)
    return message.model_copy(update={"tool_calls": calls})


def _repair_call(call: ToolCall, validators: dict[str, BoundedSchema], nulls: _NullCount) -> ToolCall:
    name = call.function.name
    if name not in validators:
        offered = f"offered: {', '.join(sorted(validators))[:200]}" if validators else OFFERED_NONE
        raise RowRejected(Reason.UNKNOWN_TOOL, f"{name[:80]!r} is called; {offered}")
    validator = validators[name]
    try:
        arguments = _without_filled_nulls(call.function.arguments, validator.schema, validator, nulls)
        error = validator.error(arguments)
    except SCHEMA_FAILURES as failure:
        detail = f"the schema of {name[:80]!r} cannot be applied: {type(failure).__name__}: {failure}"
        raise RowRejected(Reason.INVALID_TOOL_SCHEMA, _shorten(detail)) from None
    if error is not None:
        raise RowRejected(Reason.ARGUMENTS_DO_NOT_FIT_SCHEMA, f"{name[:80]}{_describe(error)}")
    return call.model_copy(update={"function": call.function.model_copy(update={"arguments": arguments})})


def _describe(error: ValidationError) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    return _shorten(f"{path}: {error.message}")


def _without_filled_nulls(value: Any, schema: Any, validator: BoundedSchema, nulls: _NullCount) -> Any:
    if not isinstance(schema, dict):
        return value
    if isinstance(value, list):
        return [_without_filled_nulls(part, schema.get("items"), validator, nulls) for part in value]
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, dict):
        return value
    kept = {key: part for key, part in value.items() if part is not None or not _is_filled(key, schema, validator)}
    nulls.count += len(value) - len(kept)
    return {key: _without_filled_nulls(part, properties.get(key), validator, nulls) for key, part in kept.items()}


def _is_filled(key: str, schema: JsonObject, validator: BoundedSchema) -> bool:
    """Whether a null under `key` can only be a filler: not required, and declared without null or not declared."""
    if key in schema.get("required", ()):
        return False
    # An argument that the schema does not name may be anything; only an explicit word makes its null meaningful.
    allowed = schema["properties"].get(key, schema.get("additionalProperties", False))
    return not validator.is_valid(None, part=allowed)


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_DETAIL_CHARS else f"{text[: MAX_DETAIL_CHARS - 3]}..."


def find_flags(sample: Sample, text: str, *, is_kind_inferred: bool) -> Iterator[Flag]:
    """What stands out in a sample whose JSON is `text`.

    A label that the last turn seems to contradict is flagged only where the kind was inferred, for words can
    mislead; a given kind that contradicts is a reason for the quarantine.
    """
    found = next((what for what, literal, form in _SECRETS if literal in text and re.search(form, text)), None)
    if found:
        yield Flag("secret", f"it seems to hold {found}; a model may repeat it")
    if is_kind_inferred and HARMFUL in sample.tags and sample.kind != "refusal":
        yield Flag("harmful_not_refused", f"it is tagged harmful, but the last turn reads as {sample.kind}")
    if is_kind_inferred and BENIGN in sample.tags and sample.kind == "refusal":
        yield Flag("benign_refused", "it is tagged benign, but the last turn reads as a refusal")
    if "<|" in text and (control := _CONTROL.search(text)):
        yield Flag("control_token", f"it holds {control[0]}, which a tokenizer may read as the border of a turn")
    masked = [place for place, message in enumerate(sample.messages, start=1) if not message.learned]
    if masked:
        yield Flag("turn_not_learned", f"turn {masked[0]} is shown and not learned, as the row says")
    undeclared = next(_undeclared_arguments(sample), None)
    if undeclared:
        detail = f"{undeclared[:160]} is given, which the tool's schema does not name; is it misspelt or made up?"
        yield Flag("undeclared_argument", detail)


def _undeclared_arguments(sample: Sample) -> Iterator[str]:
    """Arguments that fit their schema only because JSON Schema allows whatever it does not name."""
    named: dict[str, JsonObject] = {
        tool.function.name: tool.function.arguments_schema.get("properties", {})
        for tool in sample.tools
        if not OPEN_KEYWORDS & tool.function.arguments_schema.keys()
    }
    for message in sample.messages:
        for call in message.tool_calls:
            known = named.get(call.function.name)
            if known is not None:
                yield from (f"{call.function.name}.{key}" for key in call.function.arguments if key not in known)
