"""Strict parsing of replies: which calls does a reply make, in the format of its family of models?

Nothing is repaired. A client that runs the tool would have to guess what a malformed call means, so a malformed call
is a failure with a reason, and the reason is what a person needs to fix the data or the training.

- `hermes`: prose, and any number of `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.
- `llama_json`: `{"name": ..., "parameters": {...}}`, several with `;` between them, also behind a python tag.
- `mistral`: prose, then `[TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...]`, `[TOOL_CALLS]name{...}` or
  `[TOOL_CALLS]name[ARGS]{...}`.
- `pythonic`: `[name(argument="value"), ...]`.
- `mcp`: a JSON-RPC 2.0 request `tools/call`, or a batch of them.
- `json`: `{"name": ..., "arguments": {...}}`, with `tool` for `name` too, or an array of them.

The module of each format says what counts as an attempt at a call; everything else is prose without a problem.
"""

from collections.abc import Callable

from orchestrator.chat.calls import MAX_NESTING, Found, without_lone_surrogates
from orchestrator.chat.formats.bare_json import read_json, read_llama_json, read_mcp
from orchestrator.chat.formats.hermes import read_hermes
from orchestrator.chat.formats.mistral import read_mistral
from orchestrator.chat.formats.pythonic import read_pythonic
from orchestrator.chat.reply import ParsedReply, ReplyFormat
from orchestrator.chat.served import serving_differs
from orchestrator.chat.thinking import split_thinking

__all__ = ["MAX_NESTING", "parse_reply", "serving_differs", "split_thinking"]

_READERS: dict[ReplyFormat, Callable[[str], Found]] = {
    "hermes": read_hermes,
    "llama_json": read_llama_json,
    "mistral": read_mistral,
    "pythonic": read_pythonic,
    "mcp": read_mcp,
    "json": read_json,
}


def parse_reply(text: str, *, format: ReplyFormat = "hermes") -> ParsedReply:
    """Take a reply apart. Never raises: what is wrong with a reply is in its `problems`.

    A call is accepted when it is strict JSON (RFC 8259, no NaN or Infinity, no key twice, no number outside the range
    of a double, no lone surrogate, at most `MAX_NESTING` levels), or for `pythonic` literals of the same kind, with
    a name that is a non-empty string, arguments that are an object, and nothing that its format does not define.

    Each attempt at a call is one call or one problem. Where nothing may stand beside calls and something does, the
    reply as a whole is one attempt, and its problem `text_beside_call`.

    Calls inside the think block are thoughts, not calls. A think block that is not closed takes the rest of the reply.
    Lone surrogates in prose and thoughts become U+FFFD. The time is linear in the text. Not recognised: calls in
    another format than the given one, and think blocks that do not come first; both are prose.
    """
    thinking, rest = split_thinking(text, format=format)
    found = _READERS[format](rest)
    return ParsedReply(
        calls=found.calls,
        prose=without_lone_surrogates(found.prose.strip()),
        thinking=None if thinking is None else without_lone_surrogates(thinking),
        problems=found.problems,
    )
