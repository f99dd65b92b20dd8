"""What is asked: messages and tools as a person gives them, read as the rows of the data are."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.core.errors import DataError, InputError
from orchestrator.core.records import JsonObject, Message, ToolSpec
from orchestrator.data.clean.quality import check_sample
from orchestrator.data.formats.canonical import sample_from_row
from orchestrator.data.rejection import RowRejected
from orchestrator.notation.strict_json import StrictJsonError, parse

STDIN = "-"
"""What a file is called that is read from stdin."""
MESSAGES = 'a list of messages, or {"messages": [...], "tools": [...]}'
TOOLS = 'a list of tools, or {"tools": [...]}'
_STAND_IN: JsonObject = {"role": "assistant", "content": "Of course."}
"""What the assistant says in place of the reply that is asked for, so that a conversation is read like any row."""


class Conversation(NamedTuple):
    """What was said so far, up to where the assistant speaks, and the tools that it may call."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]


def read_conversation(
    prompt: str | None, messages: str | None, tools: str | None, *, keep_thoughts: bool
) -> Conversation:
    """The conversation of a prompt, or of a file of messages (`-` is stdin), and the tools of a file.

    The tools of `tools` stand in for those beside the messages. Without prompt and messages, nothing is said yet.

    Raises:
        DataError: If a file cannot be read, holds no conversation or no tools, or ends with the assistant's turn.
    """
    row: JsonObject = {"messages": [] if prompt is None else [{"role": "user", "content": prompt}]}
    if messages is not None:
        row = _row_of(_document(messages), messages)
    if tools is not None:
        row["tools"] = _tools_of(_document(tools), tools)
    where = messages or tools or "--prompt"
    if row["messages"] and _role(row["messages"][-1]) == "assistant":
        fix = "End it with what the user says, or with a tool's result"
        raise DataError("the conversation ends with the assistant, so nothing is asked of it", where=where, fix=fix)
    asked = row["messages"] or [{"role": "user", "content": "Hello."}]
    try:
        sample = sample_from_row(
            {"messages": [*asked, _STAND_IN], "tools": row.get("tools")},
            "messages",
            source=where,
            keep_reasoning=keep_thoughts,
        ).sample
        sample = check_sample(sample).sample
    except RowRejected as problem:
        raise DataError(problem.detail, where=where, allowed=MESSAGES if messages else None) from None
    return Conversation(sample.messages[:-1] if row["messages"] else (), sample.tools)


def _row_of(document: Any, where: str) -> JsonObject:
    """The messages, and the tools if there are some beside them."""
    row = {"messages": document} if isinstance(document, list) else document
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list) or not row["messages"]:
        raise DataError("this is no conversation", where=where, allowed=MESSAGES)
    return {"messages": row["messages"], "tools": row.get("tools")}


def _tools_of(document: Any, where: str) -> list[Any]:
    tools = document.get("tools") if isinstance(document, dict) else document
    if not isinstance(tools, list) or not tools:
        raise DataError("there are no tools in it", where=where, allowed=TOOLS)
    return tools


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, dict) else None


def _document(path: str) -> Any:
    """The JSON document of a file, or of stdin."""
    try:
        return parse(read_text(path))
    except StrictJsonError as error:
        raise DataError(f"this is no JSON: {error}", where=path) from None


def read_text(path: str) -> str:
    """The text of a file, or of stdin.

    Raises:
        DataError: If it cannot be read, or is not UTF-8.
    """
    try:
        return sys.stdin.read() if path == STDIN else Path(path).expanduser().read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError("the file is not UTF-8 text", where=path) from None
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror})", where=path) from None


@dataclass(frozen=True)
class Asked:
    """What a person asks for: one conversation (a prompt, a file of messages, or stdin), a chat, or a file of cases."""

    prompt: str | None = None
    messages: str | None = None
    tools: str | None = None
    cases: str | None = None
    out: str | None = None
    top_p: float = 1.0
    chat: bool = False
    as_json: bool = False

    def checked(self) -> "Asked":
        """The same, with the prompt from stdin where nothing else is asked; a terminal without one is a chat.

        Raises:
            InputError: If two things are asked at once, or nothing is.
        """
        self._refuse_contradiction()
        if self.prompt or self.messages or self.cases or self.chat:
            return self
        if sys.stdin.isatty():
            return replace(self, chat=True)
        prompt = "" if self.tools == STDIN else sys.stdin.read().strip()
        if not prompt:
            fix = "Give --prompt TEXT, --messages FILE, --chat, or --cases FILE with --out FILE, or pipe a prompt in"
            raise InputError("nothing is asked", where="stdin", fix=fix)
        return replace(self, prompt=prompt)

    def _refuse_contradiction(self) -> None:
        if not 0 < self.top_p <= 1:
            raise InputError(f"{self.top_p:g} is no share of the probability", where="--top-p", allowed="above 0 to 1")
        asked = {"--prompt": self.prompt, "--messages": self.messages, "--cases": self.cases}
        named = [option for option, value in asked.items() if value is not None]
        if len(named) > 1:
            raise InputError("only one of them can be asked", where=" and ".join(named))
        if (self.cases is None) != (self.out is None):
            raise InputError("the two go together", where="--cases and --out", fix="Name both files, or none")
        if self.cases is not None and (self.chat or self.tools is not None or self.as_json):
            fix = "Leave out --chat, --tools and --json: the file has the conversations and tools, --out gets JSON"
            raise InputError("a file of cases is asked as it is", where="--cases", fix=fix)
        if self.prompt is not None and not self.prompt.strip():
            raise InputError("the prompt is empty", where="--prompt")
        if self.messages == self.tools == STDIN:
            raise InputError("both read stdin", where="--messages and --tools", fix="Name a file for one of them")
        if self.chat and STDIN in (self.messages, self.tools):
            fix = "Name a file for the messages and the tools"
            raise InputError("a chat reads what you say from stdin", where="--chat", fix=fix)
