"""Which format a row is in: recognised by its fields or, where formats share fields, by what its turns hold."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from orchestrator.config.schema import RowFormat
from orchestrator.core.records import JsonObject
from orchestrator.data.formats import mcp
from orchestrator.data.formats.canonical import FORMATS
from orchestrator.data.formats.common import ROLES, short
from orchestrator.data.formats.glaive import CALL_SPEAKER
from orchestrator.data.formats.glaive import OPEN_CALL as OPEN_GLAIVE_CALL
from orchestrator.data.formats.hermes import OPEN_CALL, OPEN_TOOLS, offers_tools
from orchestrator.data.formats.sharegpt import SHAREGPT_CALLS, SHAREGPT_ROLES, is_pair
from orchestrator.data.formats.turn_lists import has_turns, peeked, turns_of
from orchestrator.data.read.json_files import TURN_LISTS
from orchestrator.data.read.unread import turns_hint
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.notation.pythonic import opens_like_calls

TOOLACE_MARKS = ("[func_name1(", "composing functions")
"""What the system texts of ToolACE say about calls; a row without a call is recognised by them alone."""

RUNS = ("contents", "items", "input", "output")
"""Fields that hold turns or items in the formats of APIs."""
_MAX_KEYS_COMPARED = 20


class Detected(NamedTuple):
    """The format of a row, and why, as a clause for the card."""

    format: RowFormat
    why: str


def detect_format(row: JsonObject) -> Detected:
    """Recognise the format of a row; UNKNOWN_FORMAT, with the row's keys and the nearest format, if it is in none."""
    if row.get("session") is not None or row.get("jsonrpc") is not None:
        return Detected("mcp", f"the row has `{'session' if row.get('session') is not None else 'jsonrpc'}`")
    # The text of turns is parsed once, for all that look into it; what is no list stays for the reader to refuse.
    parsed = {key: peeked(row[key]) or row[key] for key in (*TURN_LISTS, *RUNS) if isinstance(row.get(key), str)}
    row = {**row, **parsed}
    forms = sorted(FORMATS.items(), key=lambda item: item[1].precedence)
    for name, form in forms:
        if form.precedence < 0 and (why := form.recognise(row)) is not None:
            return Detected(name, why)
    if has_turns(row):
        return _by_turns(row, turns_of(row))
    for name, form in forms:
        if (why := form.recognise(row)) is not None:
            return Detected(name, why)
    raise RowRejected(Reason.UNKNOWN_FORMAT, _nearest(row))


def _by_turns(row: JsonObject, turns: Sequence[Any]) -> Detected:
    if not turns:
        name: RowFormat = "messages" if row.get("messages") is not None else "sharegpt"
        return Detected(name, f"`{'messages' if name == 'messages' else 'conversations'}` is empty")
    objects = [turn for turn in turns if isinstance(turn, dict)]
    if len(objects) < len(turns):
        odd = next(turn for turn in turns if not isinstance(turn, dict))
        raise RowRejected(Reason.UNKNOWN_FORMAT, f"a turn is {short(odd)}, not an object with `role` or `from`")
    speakers = [turn["from"] if turn.get("from") is not None else turn.get("role") for turn in objects]
    has_fields = any(turn.get("tool_calls") or turn.get("function_call") for turn in objects)
    if (why := _mcp_turns(row, objects, has_fields=has_fields)) is not None:
        return Detected("mcp", why)
    if CALL_SPEAKER in speakers:
        return Detected("glaive", f"a turn is a {CALL_SPEAKER}")
    call = next((speaker for speaker in speakers if speaker in SHAREGPT_CALLS), None)
    if call is not None:
        return Detected("sharegpt", f"a turn is a {call}")
    written = None if has_fields else _by_texts(row, list(_texts(row, objects, speakers)))
    return written or _by_keys(objects, speakers)


def _mcp_turns(row: JsonObject, turns: Sequence[JsonObject], *, has_fields: bool) -> str | None:
    """Why turns are those of MCP. Where calls have fields of their own, JSON-RPC in a text is what a tool answered."""
    spoken = () if has_fields else (turn.get("content") for turn in turns if turn.get("role") in ("assistant", "tool"))
    if any("jsonrpc" in turn for turn in turns) or any(mcp.is_rpc(content) for content in spoken):
        return "the turns hold JSON-RPC"
    return mcp.why_tools(row) if isinstance(row.get("tools"), dict) else None


def _texts(row: JsonObject, turns: Sequence[JsonObject], speakers: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Who says what, as far as it is text; a role is None for words that are no speaker's."""
    if isinstance(row.get("system"), str):
        yield "system", row["system"]
    for turn, speaker in zip(turns, speakers, strict=True):
        role = SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
        text = next((turn[key] for key in ("value", "content", "text") if turn.get(key) is not None), None)
        if role is not None and isinstance(text, str):
            yield role, text


def _by_texts(row: JsonObject, texts: Sequence[tuple[str, str]]) -> Detected | None:
    if any(role == "assistant" and OPEN_CALL in text for role, text in texts):
        return Detected("hermes", f"the assistant's text has {OPEN_CALL}")
    if any(role == "system" and OPEN_TOOLS in text and offers_tools(text) for role, text in texts):
        return Detected("hermes", f"the system text has {OPEN_TOOLS}")
    if any(role == "assistant" and OPEN_GLAIVE_CALL in text for role, text in texts):
        return Detected("glaive", f"the assistant's text has {OPEN_GLAIVE_CALL}")
    if row.get("conversations") is None:
        return None
    if any(role == "assistant" and opens_like_calls(text) for role, text in texts):
        return Detected("toolace", "the assistant calls like [name(argument=value)]")
    if any(role == "system" and any(mark in text for mark in TOOLACE_MARKS) for role, text in texts):
        return Detected("toolace", "the system text asks for calls like [name(argument=value)]")
    return None


def _by_keys(turns: Sequence[JsonObject], speakers: Sequence[Any]) -> Detected:
    first = turns[0]
    if is_pair(first):
        return Detected("sharegpt", "the turns are pairs of `human` and `assistant`")
    if first.get("from") is not None:
        return Detected("sharegpt", "the turns have `from`")
    if first.get("role") is None:
        keys = ", ".join(sorted(first)[:10])[:200] or "none"
        detail = f"turn 1 has neither `role` nor `from` (keys: {keys}); the nearest formats are messages and sharegpt"
        raise RowRejected(Reason.UNKNOWN_FORMAT, detail)
    dialect = next((role for role in speakers if isinstance(role, str) and _is_dialect(role)), None)
    if dialect is not None:
        return Detected("sharegpt", f"the turns have `role`, one of them {dialect}")
    said = next((key for key in ("value", "text") if first.get(key) is not None), None)
    if "content" not in first and said is not None:
        return Detected("sharegpt", f"the turns have `role` and `{said}`")
    return Detected("messages", "the turns have `role`")


def _is_dialect(role: str) -> bool:
    return role in SHAREGPT_ROLES and role not in ROLES


_COMMON_FIELDS = frozenset({"tools", "tool", "request", "question", "answers", "input", "output", "system"})
"""Fields of formats that rows of any other kind have as well: alone they tell no format."""


def _nearest(row: JsonObject) -> str:
    """The row's keys, and the columns that look like turns, else the format that shares most fields with the row."""
    keys = [key[:40] for key in sorted(row)[:_MAX_KEYS_COMPARED]]
    named = f"the row has the keys {', '.join(keys)[:200] or '(none)'}"
    if hint := turns_hint(row):
        return named + hint
    near: dict[RowFormat, float] = {}
    for format, form in FORMATS.items():
        shared = {field for field in form.hint if get_close_matches(field, keys, n=1, cutoff=0.75)}
        if shared - _COMMON_FIELDS:
            near[format] = len(shared) / len(form.hint)
    if not near:
        return f"{named}, which no format has; name the columns of turns in data.sources[].fields (docs/data.md)"
    name = max(near, key=lambda name: near[name])
    wanted = " and ".join(f"`{field}`" for field in FORMATS[name].hint)
    return f"{named}; the nearest format is {name}, with {wanted}"
