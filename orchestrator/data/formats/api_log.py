"""Logs of an API: a request with the turns and tools, and beside it the response with the reply.

    {"request": {"messages": [...], "tools": [...]}, "response": {"choices": [{"message": {...}}]}}

The two may be wrapped (`body` of a batch, `inputBodyJson` of Bedrock's invocation log), flat in the row, LangSmith's
runs, Langfuse's generations, or OpenAI's preferences with `preferred_output`. The turns inside are those of any API
that has a format here.
"""

from itertools import chain
from typing import Any, NamedTuple

from orchestrator.core.records import JsonObject
from orchestrator.data.formats import bedrock, gemini, instruction, langchain, responses
from orchestrator.data.formats.common import COMMON_FIELDS, TOOL_LISTS, Draft, Format, short
from orchestrator.data.formats.messages import read_messages
from orchestrator.data.formats.turn_lists import joined, peeked, speaker_of
from orchestrator.data.read.json_files import TURN_LISTS
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.notation.strict_json import StrictJsonError, parse

HALVES = (
    *(("request", "response"), ("inputs", "outputs"), ("input", "preferred_output"), ("input", "output")),
    *(("inputs", "output"), ("params", "result"), ("reqPayload", "respPayload")),
    *(("full_request", "full_response"), ("request_body", "response_body"), ("kwargs", "response")),
)
"""Fields with a request and its response."""
FLAT_RESPONSES = ("response", "choices", "candidates", "output", "completion")
"""Fields with the response in a row that is the request itself."""
BODIES = ("body", "inputBodyJson", "outputBodyJson", "json", "parsed_body")
"""What an object around a request or a response calls it."""
TOOL_PLACES = (("extra", "invocation_params"), ("invocation_params",), ("metadata",), ("model_kwargs",))
"""Where a log keeps the tools that its request lacks."""
TURNS = (*TURN_LISTS, gemini.CONTENTS, "input", "prompt")
ASKED_FIELDS = (
    *("system", "instructions", responses.BEFORE, bedrock.TOOL_CONFIG),
    *gemini.SYSTEM,
    *TOOL_LISTS,
)
"""Fields of a request that say more than its turns."""
REPLIERS = frozenset({"assistant", "model", "ai", "gpt"})
CUT_OFF = {
    **dict.fromkeys(("finish_reason", "finishReason"), ("length", "MAX_TOKENS")),
    **dict.fromkeys(("stop_reason", "stopReason"), ("max_tokens",)),
    "status": ("incomplete",),
}
"""How APIs say that a reply ends too early."""


class _Log(NamedTuple):
    """A request, the field with its turns, those turns, and the response; `where` names the fields in the row."""

    request: JsonObject
    field: str
    turns: list[Any]
    response: Any
    where: str


def read_api_log(row: JsonObject) -> Draft:
    """The conversation of a request and the reply in its response. A reply that was cut off is refused."""
    log = _log(row)
    if log is None and (asked_in_words := _in_words(row)) is not None:
        return instruction.FORMAT.read(asked_in_words)
    if log is None:
        raise RowRejected(Reason.UNKNOWN_FORMAT, "the row holds no request with turns beside a response")
    reply = _reply(log.response)
    if not reply:
        raise RowRejected(Reason.NO_ANSWER, f"{log.where}: no reply of an API is in {short(log.response)}")
    asked = {key: log.request[key] for key in ASKED_FIELDS if log.request.get(key) not in (None, "", [])}
    elsewhere = {} if any(key in asked for key in TOOL_LISTS) else _tools_elsewhere(row)
    whole = {**elsewhere, **asked, log.field: joined(log.turns, reply)}
    for form in (gemini.FORMAT, bedrock.FORMAT, responses.FORMAT, langchain.FORMAT):
        if form.recognise(whole) is not None:
            return form.read(whole)
    system = [{"role": "system", "content": whole["system"]}] if whole.get("system") else []
    tools = {key: whole[key] for key in TOOL_LISTS if key in whole}
    return read_messages({"messages": [*system, *whole[log.field]], **tools})


def _log(row: JsonObject) -> _Log | None:
    if responses.FORMAT.recognise(row) is not None:
        return None
    for asking, answering in HALVES:
        if row.get(asking) is not None and row.get(answering) is not None:
            request = _body(row[asking])
            found = _turns(request if isinstance(request, dict) else {"messages": request})
            if found is None and isinstance(request, dict) and isinstance(request.get("input"), str):
                found = _words(request["input"], _body(row[answering]))
            if found is not None:
                held = request if isinstance(request, dict) else {}
                return _Log(held, *found, row[answering], f"`{asking}` and `{answering}`")
    found = _turns(row) if row.get("input") is None else None
    answered = next((key for key in FLAT_RESPONSES if row.get(key) not in (None, "", [], {})), None)
    if found is None or answered is None or speaker_of(found[1][-1]) in REPLIERS or not _reply_of(row, answered):
        return None
    if found[0] == "prompt" and isinstance(row[answered], list):
        return None  # a prompt and its completion, as TRL has them
    response = row[answered] if _reply(row[answered]) else {answered: row[answered]}
    return _Log(row, *found, response, f"`{found[0]}` and `{answered}`")


def _in_words(row: JsonObject) -> JsonObject | None:
    """A run of LangSmith without turns, a question and its answer, as a row of raw fields; None for any other row."""
    asked, answered = row.get("inputs"), row.get("outputs")
    if not isinstance(asked, dict) or not isinstance(answered, dict):
        return None
    fields = {**asked, **answered}
    return fields if instruction.FORMAT.recognise(fields) is not None else None


def _words(text: str, response: Any) -> tuple[str, list[Any]] | None:
    """The input of the Responses API, where it is a text."""
    items = response.get("output") if isinstance(response, dict) else None
    return ("input", [{"role": "user", "content": text}]) if isinstance(items, list) else None


def _reply_of(row: JsonObject, answered: str) -> list[Any] | None:
    return _reply(row[answered]) or _reply({answered: row[answered]})


def _turns(request: JsonObject) -> tuple[str, list[Any]] | None:
    """The field of a request with its turns, and these; a batch of one conversation is that conversation."""
    for field in TURNS:
        turns = peeked(request.get(field))
        if field == gemini.CONTENTS and isinstance(request.get(field), dict):
            turns = [request[field]]
        if len(turns) == 1 and isinstance(turns[0], list):
            turns = turns[0]
        if turns and all(isinstance(turn, dict) and _is_turn(turn) for turn in turns):
            return field, turns
    return None


def _is_turn(turn: JsonObject) -> bool:
    return any(turn.get(key) is not None for key in ("role", "from", "type", "parts", "lc"))


def _body(given: Any) -> Any:
    """A request or response without what is around it."""
    if isinstance(given, str) and given.lstrip().startswith(("{", "[")):
        try:
            given = parse(given)
        except StrictJsonError:
            return given
    if not isinstance(given, dict):
        return given
    inner = next((given[key] for key in BODIES if given.get(key) is not None), None)
    return given if inner is None else _body(inner)


def _reply(response: Any) -> list[Any] | None:
    """The turns of the reply in a response, whose shape tells the API; None if there are none."""
    response = _body(response)
    if isinstance(response, str):
        return [{"role": "assistant", "content": response}] if response.strip() else None
    if isinstance(response, list):
        is_turns = bool(response) and all(isinstance(turn, dict) and _is_turn(turn) for turn in response)
        return response if is_turns else None
    if not isinstance(response, dict):
        return None
    _refuse_cut_off(response)
    for key in ("choices", "candidates", "generations"):
        if response.get(key):
            return _only(response[key], key)
    for key in ("output", "messages"):
        if isinstance(response.get(key), (dict, list)):
            return _reply(response[key])
    if isinstance(response.get("message"), dict):
        return _reply(response["message"])
    if response.get("type") == "message" or ("role" not in response and isinstance(response.get("content"), list)):
        return [{"role": response.get("role") or "assistant", "content": response.get("content")}]
    return [response] if _is_turn(response) else None


def _only(given: Any, key: str) -> list[Any] | None:
    """The turn in the one choice of a response."""
    while isinstance(given, list) and len(given) == 1:
        given = given[0]
    if isinstance(given, list):
        detail = f"`{key}` holds {len(given)} replies, and which is right is not said"
        raise RowRejected(Reason.UNSUPPORTED_CONTENT, detail)
    if not isinstance(given, dict):
        return None
    _refuse_cut_off(given)
    turn = given.get("content") if key == "candidates" else given.get("message")
    if isinstance(turn, dict):
        return [turn]
    return [{"role": "assistant", "content": given["text"]}] if isinstance(given.get("text"), str) else None


def _refuse_cut_off(response: JsonObject) -> None:
    for key, words in CUT_OFF.items():
        if isinstance(response.get(key), str) and response[key] in words:
            raise RowRejected(Reason.NO_ANSWER, f"the reply was cut off: `{key}` is {short(response[key])}")


def _tools_elsewhere(row: JsonObject) -> JsonObject:
    for path in ((), *TOOL_PLACES):
        held: Any = row
        for part in path:
            held = held.get(part) if isinstance(held, dict) else None
        named = [key for key in TOOL_LISTS if isinstance(held, dict) and held.get(key)]
        if named:
            return {named[0]: held[named[0]]}
    return {}


def _recognised(row: JsonObject) -> str | None:
    log = _log(row)
    if log is None and _in_words(row) is not None:
        return "`inputs` and `outputs` hold a question and its answer"
    return None if log is None else f"{log.where} hold a request and its response"


FORMAT = Format(
    read_api_log,
    COMMON_FIELDS | {*ASKED_FIELDS, *FLAT_RESPONSES, *TURN_LISTS, gemini.CONTENTS, *chain(*HALVES)},
    reads_system=True,
    recognise=_recognised,
    precedence=-5,
)
