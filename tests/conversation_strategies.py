"""Hypothesis strategies of conversations that every text format can write."""

from hypothesis import strategies as st

from orchestrator.core.records import FunctionCall, FunctionSpec, Message, ToolCall, ToolSpec
from orchestrator.data.formats.common import call_mark

# Surrogates cannot be written as UTF-8; rows that hold them are refused where files are read.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
MARKS = (
    *("think>", "THINK]", "tools>", "tool_response>", "<|endoftext|>", "<|im_"),
    *("USER:", "ASSISTANT:", "FUNCTION RESPONSE:"),
)
"""What means something in a text format; Hypothesis also draws the texts that stand in the code under test."""
words = texts.map(str.strip).filter(
    lambda text: text and not call_mark(text) and not any(mark in text for mark in MARKS)
)
"""Text that text formats can write: nothing in or around it is significant."""
names = st.text("abc_-é", min_size=1, max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(texts, json_values, max_size=3)
calls = st.builds(ToolCall, function=st.builds(FunctionCall, name=names, arguments=arguments))
schemas = st.lists(names, max_size=3, unique=True).map(
    lambda keys: {"type": "object", "properties": {key: {"type": "string"} for key in keys}, "required": keys[:1]}
)
tools = st.builds(ToolSpec, function=st.builds(FunctionSpec, name=names, description=texts, parameters=schemas))
tool_lists = st.lists(tools, min_size=1, max_size=3, unique_by=lambda tool: tool.function.name)


def replies(*, has_reasoning: bool) -> st.SearchStrategy[Message]:
    """What an assistant says at the end."""
    reasoning = st.none() | words if has_reasoning else st.none()
    return st.builds(Message, role=st.just("assistant"), content=words, reasoning_content=reasoning)


@st.composite
def conversations(draw: st.DrawFn, *, has_reasoning: bool = True) -> list[Message]:
    """Questions, each with up to two turns of calls and their results before the reply."""
    messages = [Message(role="system", content=draw(words))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 2))):
        messages.append(Message(role="user", content=draw(words)))
        for _ in range(draw(st.integers(0, 2))):
            reply = draw(replies(has_reasoning=has_reasoning))
            called = draw(st.lists(calls, min_size=1, max_size=2))
            content = reply.content if draw(st.booleans()) else ""
            messages.append(reply.model_copy(update={"content": content, "tool_calls": tuple(called)}))
            messages += [Message(role="tool", content=draw(words)) for _ in called]
        messages.append(draw(replies(has_reasoning=has_reasoning)))
    return messages
