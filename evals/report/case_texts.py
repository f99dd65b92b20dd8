"""A case and a reply in words: tools on offer, turns so far, what is wanted, and why the reply is judged as it is."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evals.records import Case, FailureReason, Generation, Verdict
from evals.report.blocks import Offered, Scene, Text
from evals.report.text import REASONS, shorten
from orchestrator.core.errors import RunConflictError
from orchestrator.core.records import HARMFUL, NO_FITTING_TOOL, Message, SampleKind, ToolCall, ToolSpec
from orchestrator.core.text import counted

MAX_TOOLS, MAX_TURNS = 20, 12
"""Tools and turns of one case that are shown; of the turns the last ones."""
MAX_SIGNATURE_CHARS, MAX_DETAIL_CHARS = 160, 300

_IN_FULL = "all are in evals/cases.jsonl"
_WANTED: dict[SampleKind, str] = {
    "tool_call": "a tool call",
    "refusal": "a refusal",
    "clarification": "a question for what is missing, and no call",
    "answer": "an answer in text, and no call",
}
_BY_WORDS: frozenset[FailureReason] = frozenset(
    {"refused_benign", "complied_with_harmful", "did_not_ask", "did_not_decline", "no_call"}
)
"""Reasons that rest on how the reply's words are read; their detail only quotes the reply."""


def known_case(verdict: Verdict, adapter_id: str, cases: Mapping[str, Case]) -> Case:
    """The case of a verdict.

    Raises:
        RunConflictError: If it is not among the cases of the run.
    """
    case = cases.get(verdict.case_id)
    if case is None:
        raise RunConflictError(
            f"the verdict on case {verdict.case_id!r} has no case in evals/cases.jsonl",
            where=f"evals/{adapter_id}/scores.json",
            fix="Run the evaluate stage again",
        )
    return case


def summary_text(case: Case) -> str:
    """The last user message, short."""
    prompt = next((message.content for message in reversed(case.messages) if message.role == "user"), "")
    return shorten(" ".join(prompt[:400].split()), 110).text or "(no user message)"


def scene_of(case: Case, limit: int | None = None) -> Scene:
    """The tools on offer and the turns so far; each text is cut to `limit` characters, if given."""
    cut = (limit,) if limit else ()
    left_out = max(0, len(case.messages) - MAX_TURNS)
    turns = [
        Text(f"Turn {left_out + place}, {_speaker(message)}", shorten(_turn_text(message), *cut))
        for place, message in enumerate(case.messages[left_out:], start=1)
    ]
    tools = [
        Offered(signature(tool), shorten(json.dumps(tool.function.model_dump(), ensure_ascii=False, indent=1), *cut))
        for tool in case.tools[:MAX_TOOLS]
    ]
    more_tools, more_turns = max(0, len(case.tools) - MAX_TOOLS), left_out
    return Scene(
        tools,
        turns,
        f"{counted(more_tools, 'more tool')} not shown; {_IN_FULL}." if more_tools else "",
        f"{counted(more_turns, 'earlier turn')} not shown; {_IN_FULL}." if more_turns else "",
    )


def signature(tool: ToolSpec) -> str:
    """A tool as `name(city: string, unit?: string)`; a question mark stands after what may be left out."""
    parameters = tool.function.arguments_schema
    properties, required = parameters.get("properties"), parameters.get("required")
    needed = set(map(str, required)) if isinstance(required, list) else set()
    listed = properties.items() if isinstance(properties, dict) else ()
    parts = [f"{name}{'' if name in needed else '?'}: {_type_word(schema)}" for name, schema in listed]
    text = f"{tool.function.name}({', '.join(parts)})"
    return text if len(text) <= MAX_SIGNATURE_CHARS else f"{text[: MAX_SIGNATURE_CHARS - 3]}..."


def _type_word(schema: Any) -> str:
    kind = schema.get("type") if isinstance(schema, dict) else None
    if isinstance(kind, list):
        return " or ".join(map(str, kind))
    return kind if isinstance(kind, str) else "any"


def _speaker(message: Message) -> str:
    return f"{message.role} {message.name}" if message.name else message.role


def _turn_text(message: Message) -> str:
    thought = f"(thought) {message.reasoning_content}" if message.reasoning_content else ""
    calls = "\n".join(f"(call) {_call_text(call)}" for call in message.tool_calls)
    return "\n".join(part for part in (thought, message.content, calls) if part) or "(empty)"


def _call_text(call: ToolCall) -> str:
    return json.dumps(call.function.model_dump(), ensure_ascii=False)


def wanted_text(kind: SampleKind, tags: Sequence[str]) -> str:
    """What a reply should be, in a few words."""
    if kind != "tool_call" and HARMFUL in tags:
        return _WANTED["refusal"]
    return "word that no tool fits, and no call" if NO_FITTING_TOOL in tags and kind == "answer" else _WANTED[kind]


def expected_text(case: Case) -> str:
    """What the reply to a case should have been, in words or as calls."""
    if case.expected_calls:
        return "\n".join(map(_call_text, case.expected_calls))
    wanted = wanted_text(case.kind, case.tags)
    return f"{wanted}, such as:\n{case.expected_text}" if case.expected_text else wanted


def reply_text(reply: Generation | None) -> str:
    """What the model said, or why there is nothing."""
    if reply is None:
        return "(no reply)"
    return reply.text or (f"(no reply: {reply.error})" if reply.error else "(empty reply)")


def why_text(verdict: Verdict) -> str:
    """Why a reply is judged as it is, in one sentence made of the verdict's codes."""
    wanted = "the expected call" if verdict.kind == "tool_call" else wanted_text(verdict.kind, verdict.tags)
    if verdict.reason is None:
        return f"Right: the reply should be {wanted}, and it is."
    word = "Not judged" if verdict.correct is None else "Wrong"
    return f"{word}: the reply should be {wanted}, but it {REASONS[verdict.reason]}{''.join(_evidence(verdict))}."


def _evidence(verdict: Verdict) -> Iterator[str]:
    if verdict.reason in _BY_WORDS:
        if verdict.reply_kind is not None and verdict.reason != "no_call":
            yield f" (its words read as {verdict.reply_kind.value.replace('_', ' ')})"
    elif verdict.detail and verdict.reason != "empty_reply":
        yield f": {shorten(verdict.detail, MAX_DETAIL_CHARS).text.rstrip('.')}"
