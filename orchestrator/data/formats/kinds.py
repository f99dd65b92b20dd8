"""What kind of reply a sample teaches, told from its last turn where the row does not say."""

from orchestrator.core.records import Message, SampleKind
from orchestrator.refusals import ReplyKind, classify_words


def infer_kind(reply: Message, *, has_tools: bool) -> SampleKind:
    """`tool_call` for a turn with calls, else what its words do.

    A question back is a clarification only where tools are offered: without them nothing is missing for a call.
    A reply that declines a part and delivers another is an answer. See `refusals.classify_words` for what is not told.
    """
    if reply.tool_calls:
        return "tool_call"
    kind = classify_words(reply.content)
    if kind is ReplyKind.REFUSAL:
        return "refusal"
    return "clarification" if kind is ReplyKind.CLARIFICATION and has_tools else "answer"
