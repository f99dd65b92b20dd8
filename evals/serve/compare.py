"""What a client got, held against what was scored: each difference with its cause."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from evals.generate.engine import Prompt
from evals.generate.likelihoods import Likelihoods, why_another
from evals.records import Case, Generation
from evals.serve.client import Answer
from orchestrator.chat.call_ids import CallIds
from orchestrator.chat.formats.reply import ServedReply
from orchestrator.chat.serving import ServingReader
from orchestrator.core.records import JsonObject, Record, ToolSpec
from orchestrator.core.text import counted
from orchestrator.notation.strict_json import json_equal

Part = Literal["prompt", "calls", "text", "thoughts", "finish reason", "reply", "request", "adapter"]
OF_SCALE = ("lora_alpha", "r", "use_rslora", "alpha_pattern", "rank_pattern")
"""What of an adapter's settings makes its scale."""
SHOWN_CHARS, SHOWN_TOKENS = 160, 8


class Difference(Record):
    """What is not as it was scored: which part of which case, asked how, and why.

    `by_rounding`: the same weights may say either, because two tokens are as likely up to rounding, or are drawn.
    """

    case_id: str
    asked: str
    part: Part
    cause: str
    by_rounding: bool = False


class Way(NamedTuple):
    """One way to ask a case: its name, what is added to the request, and what is left out of it.

    `forces` is what of calls is forced: some call, or that of one tool.
    """

    name: str
    fields: dict[str, Any]
    has_tools: bool = True
    reads_calls: bool = True
    forces: Literal["some", "one"] | None = None


@dataclass(frozen=True)
class Knowledge:
    """What the run knows: how a prompt is rendered, how tokens are read, and how replies were made.

    `prompt` gives token ids, `decode` their text, `decode_plain` that without control tokens. `ends` are texts that end
    a reply. `serve` is vLLM's parser that the run names, None where vLLM has none. `call_ids` are those that the
    template wants.
    """

    prompt: Callable[[Case, Sequence[ToolSpec]], list[int]]
    decode: Callable[[Sequence[int]], str]
    decode_plain: Callable[[Sequence[int]], str]
    ends: tuple[str, ...]
    serve: ServingReader | None
    parser: str | None
    call_ids: CallIds
    dtype: str | None
    temperature: float

    def text(self, tokens: Sequence[int]) -> str:
        """The reply as the run keeps it."""
        text = self.decode(tokens)
        return text.removesuffix(next(filter(text.endswith, self.ends), ""))

    def read(self, text: str, tools: Sequence[ToolSpec]) -> ServedReply:
        """What a client should get for a reply."""
        if self.serve is None:
            return ServedReply(parser="none", calls=(), content=text)
        return self.serve(text, tools)


def in_prompt(case: Case, way: Way, scored: Generation, answer: Answer, knows: Knowledge) -> list[Difference]:
    """Whether the model was given what it was given when it was scored, or without tools what the run renders."""
    got = list(answer.prompt)
    if way.has_tools and Prompt(case.id, got).sha256 == scored.prompt_sha256:
        return []
    wanted = knows.prompt(case, case.tools if way.has_tools else ())
    if got == wanted:
        cause = "it is the run's own, which is another than when it was scored: run evaluate again"
        return [Difference(case_id=case.id, asked=way.name, part="prompt", cause=cause)] if way.has_tools else []
    place = next((i for i, (one, other) in enumerate(zip(got, wanted, strict=False)) if one != other), None)
    if place is None:
        place = min(len(got), len(wanted))
    start = max(0, place - 2)
    there, here = (knows.decode(ids[start : place + SHOWN_TOKENS]) for ids in (got, wanted))
    parted = f"at token {place} the server has {there!r}, and the run {here!r}"
    cause = f"{parted}: its chat template or tokenizer is another"
    return [Difference(case_id=case.id, asked=way.name, part="prompt", cause=cause)]


def in_reading(case: Case, way: Way, scored: Generation, answer: Answer, knows: Knowledge) -> list[Difference]:
    """Whether the tokens of the reply were read as vLLM's parser reads them that the run names."""
    text, tools = knows.text(answer.tokens), case.tools if way.has_tools and way.reads_calls else ()
    read = scored.served if tools == case.tools and text == scored.text and scored.served else knows.read(text, tools)
    plain = knows.read(knows.decode_plain(answer.tokens), tools)
    found: list[tuple[Part, str]] = []
    if not same_calls(answer.calls, read.calls):
        cause = f"the server reads {_calls_text(answer.calls)} where the parser {knows.parser} reads "
        found.append(("calls", f"{cause}{_calls_text(read.calls)} from the same tokens"))
    elif answer.content.strip() not in (read.content.strip(), plain.content.strip()):
        found.append(("text", f"the client gets {_clip(answer.content)}, and the tokens say {_clip(read.content)}"))
    if (answer.thinking or "").strip() != (read.thinking or "").strip():
        split, wanted = (_clip(thoughts or "") for thoughts in (answer.thinking, read.thinking))
        cause = f"the server splits off {split} where the run has {wanted}: its reasoning parser is another"
        found.append(("thoughts", cause))
    reasons = {"tool_calls"} if answer.calls else {scored.finish_reason} if text == scored.text else {"stop", "length"}
    if answer.calls and scored.finish_reason == "length":
        reasons.add("length")
    if answer.finish_reason not in reasons:
        found.append(("finish reason", f"it is {answer.finish_reason}, and should be {' or '.join(sorted(reasons))}"))
    return [Difference(case_id=case.id, asked=way.name, part=part, cause=cause) for part, cause in found]


def in_forced(case: Case, way: Way, wanted_name: str | None, answer: Answer) -> list[Difference]:
    """Whether a forced call is one: of an offered tool, or of the named one, with an object as its arguments.

    Whether these fit the tool's schema is the model's doing: vLLM forces a call, and leaves its values open.
    """
    if answer.finish_reason == "length":  # cut off in the middle of a call
        return []
    cause, offered = None, {tool.function.name for tool in case.tools}
    if not answer.calls or (way.forces == "one" and len(answer.calls) != 1):
        cause = f"it makes {counted(len(answer.calls), 'call')}"
    for name, arguments in answer.calls:
        if name not in offered or wanted_name not in (None, name):
            cause = f"it calls {name!r}"
        elif not _is_object(arguments):
            cause = f"the arguments of {name} are {_clip(arguments)}"
    return [Difference(case_id=case.id, asked=way.name, part="calls", cause=cause)] if cause else []


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(json.loads(arguments), dict)
    except ValueError:
        return False


def in_reply(
    case: Case, way: Way, scored: Generation, of_base: Generation | None, answer: Answer, knows: Knowledge
) -> list[Difference]:
    """Whether the reply is the one that was scored, and if not, why."""
    text = knows.text(answer.tokens)
    if text == scored.text:
        return []
    shown = f"{_clip(text)}, and {_clip(scored.text)} was scored"
    if of_base is not None and text == of_base.text:
        cause, by_rounding = "the base replies so: the adapter is not in force", False
    elif knows.temperature > 0:
        cause, by_rounding = f"replies are drawn at temperature {knows.temperature:g}", True
    else:
        said = Likelihoods(answer.tokens, answer.likely)
        cause, by_rounding = why_another(scored.text, said, knows.decode, knows.ends, knows.dtype)
    return [
        Difference(case_id=case.id, asked=way.name, part="reply", cause=f"{cause}: {shown}", by_rounding=by_rounding)
    ]


def in_settings(there: JsonObject, scored: JsonObject) -> str | None:
    """What makes the scale of the adapter that a server loaded another than that which was scored."""
    others = [key for key in OF_SCALE if (there.get(key) or None) != (scored.get(key) or None)]
    told = (f"{key} is {json.dumps(there.get(key))} where {json.dumps(scored.get(key))} was scored" for key in others)
    return f"its scale is another, for {' and '.join(told)}" if others else None


def same_calls(left: Sequence[tuple[str, str]], right: Sequence[tuple[str, str]]) -> bool:
    """Whether two lists of calls have the same names and arguments, these compared as JSON."""
    return len(left) == len(right) and all(
        one[0] == other[0] and _same_json(one[1], other[1]) for one, other in zip(left, right, strict=True)
    )


def _same_json(left: str, right: str) -> bool:
    try:
        return json_equal(json.loads(left), json.loads(right))
    except ValueError:
        return left == right


def _calls_text(calls: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name}({_clip(arguments)})" for name, arguments in calls) or "no call"


def _clip(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "...")
