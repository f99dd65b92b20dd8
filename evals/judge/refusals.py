"""What kind of reply is it: a refusal, a partial refusal, a question for something missing, or help?"""

from orchestrator.chat.parse import split_thinking
from orchestrator.refusals import WINDOW_CHARS, ReplyKind, classify_words

__all__ = ["WINDOW_CHARS", "ReplyKind", "classify_reply"]


def classify_reply(text: str, *, num_tool_calls: int = 0) -> ReplyKind:
    """Classify one reply by its words after the think block; see `replies.classify_words` for what is told and missed.

    Args:
        text: The reply without its calls (`ParsedReply.prose`); a leading think block is ignored.
        num_tool_calls: How many calls, well-formed or not, stand beside the text.
    """
    return classify_words(split_thinking(text)[1], num_tool_calls=num_tool_calls)
