"""A reply and what is read in it: the calls, whether they fit their tools, and what a server would send on."""

from collections.abc import Sequence

from evals.judge.calls import check_calls
from evals.judge.verdicts import classify_reply
from evals.records import Generation, Problem, Verdict
from orchestrator.chat.formats.reply import ParsedReply, ParseProblem, ServedReply
from orchestrator.chat.parse import parse_reply, serving_differs
from orchestrator.core.records import JsonObject, Message, Record, ToolCall, ToolSpec
from orchestrator.refusals import ReplyKind


class ReadCall(Record):
    """A call of a reply; `problem` is why it is not valid, None where it fits its tool's JSON Schema."""

    name: str
    arguments: JsonObject
    problem: Problem | None


class Answer(Record):
    """One reply of the base or an adapter, as it was made and as it is read; a line of `generate --json` and `--out`.

    `unread` are attempts at calls that are none. `served` is what a client of `vllm serve` would get, and
    `serving_differs` whether that is other calls; both None where vLLM has no parser for it. `latency_s` is from
    the engine's first work on the prompt to the last token. `verdict` is None where nothing is expected of the reply.
    `error` is why there is no reply.
    """

    adapter_id: str
    case_id: str
    text: str
    thinking: str | None
    prose: str
    calls: tuple[ReadCall, ...]
    unread: tuple[ParseProblem, ...]
    kind: ReplyKind
    served: ServedReply | None
    serving_differs: bool | None
    finish_reason: str
    prompt_tokens: int | None
    output_tokens: int | None
    latency_s: float | None
    verdict: Verdict | None = None
    error: str | None = None

    @property
    def tries_to_call(self) -> bool:
        """Whether there is a call in it, or an attempt at one."""
        return bool(self.calls or self.unread)

    def message(self) -> Message:
        """It as a turn of the conversation: its calls and words; as it stands where a call of it cannot be read."""
        if self.unread:
            return Message(role="assistant", content=self.text)
        calls = [{"function": {"name": call.name, "arguments": call.arguments}} for call in self.calls]
        return Message(
            role="assistant",
            content=self.prose,
            reasoning_content=self.thinking,
            tool_calls=tuple(map(ToolCall.model_validate, calls)),
        )


def read_answer(
    adapter_id: str,
    reply: Generation,
    tools: Sequence[ToolSpec],
    reply_format: str,
    verdict: Verdict | None = None,
) -> Answer:
    """Read a reply as the evaluation reads it."""
    read = parse_reply(reply.text, format=reply_format, tools=tools)
    return Answer(
        adapter_id=adapter_id,
        case_id=reply.case_id,
        text=reply.text,
        thinking=read.thinking,
        prose=read.prose,
        calls=tuple(_read_call(call, tools) for call in read.calls),
        unread=read.problems,
        kind=classify_reply(read.prose, num_tool_calls=len(read.calls) + len(read.problems)),
        served=reply.served,
        serving_differs=None if reply.served is None else serving_differs(read, reply.served),
        finish_reason=reply.finish_reason,
        prompt_tokens=reply.prompt_tokens,
        output_tokens=reply.output_tokens,
        latency_s=reply.latency_s,
        verdict=verdict,
        error=reply.error,
    )


def _read_call(call: ToolCall, tools: Sequence[ToolSpec]) -> ReadCall:
    alone = ParsedReply(calls=(call,), prose="", thinking=None, problems=())
    function = call.function
    return ReadCall(name=function.name, arguments=function.arguments, problem=check_calls(alone, tools))
