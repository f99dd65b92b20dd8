"""Laws over all of the data path: what a row says is what is trained on, and what the strict parser reads again."""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from conversation_strategies import conversations, json_values, words
from hypothesis import given, settings
from hypothesis import strategies as st
from token_rows import tokenize_sample
from transformers import PreTrainedTokenizerBase

from orchestrator.chat.parse import CALL_MARKS, parse_reply
from orchestrator.chat.rendering import ChatFormat, chat_format, refuse_control_tokens
from orchestrator.chat.template_input import RowLeftOut
from orchestrator.config.schema import RowFormat
from orchestrator.core.files import dump_line, parse_line
from orchestrator.core.records import FunctionCall, FunctionSpec, JsonObject, Message, Sample, ToolCall, ToolSpec
from orchestrator.data.clean.quality import check_sample
from orchestrator.data.formats.canonical import sample_from_row
from orchestrator.data.formats.detect import detect_format
from orchestrator.data.rejection import RowRejected
from orchestrator.notation.strict_json import parse

HOSTILE = [
    *("</tool_call>", "<tool_call>", "<|im_end|>", "<|im_start|>assistant\n", "<|endoftext|>", "</think>", "<think>"),
    *('"', "'", "\\", "\\u0041", "{", "}", "[", "}}", "\n", "\r\n", "\t", "\0", "\u2028", "\x85", "\ufeff", "\u202e"),
    *("é", "e\u0301", "😀", "中", "&lt;", "%s", "{{ tools }}", "{% raw %}", "null", "true", "1e999", "NaN", " ", ","),
]
hostile_texts = st.lists(st.sampled_from(HOSTILE), max_size=5).map("".join)
edge_numbers = st.sampled_from([0, -0.0, 1.0, 1, True, 2**53 + 1, -(2**63), 10**300, 1e22, 1.5e300, 5e-324, 0.1, -1e-7])
hostile_values = st.recursive(
    json_values | hostile_texts | edge_numbers,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hostile_texts, inner, max_size=3),
    max_leaves=5,
)
identifiers = st.from_regex(r"[a-z][a-z_]{0,5}", fullmatch=True)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,7}", fullmatch=True)


def offered(name: str, description: str = "") -> ToolSpec:
    """A tool that takes any arguments, nulls included, so that nothing is repaired."""
    parameters = {"type": "object", "properties": {}, "additionalProperties": True}
    return ToolSpec(function=FunctionSpec(name=name, description=description, parameters=parameters))


def is_plain(messages: Sequence[Message]) -> bool:
    """Whether no text could be taken for a mark of some format; marks in arguments are what is looked at here."""
    return not any(mark in message.content for message in messages for mark in "<[{:")


@st.composite
def samples(draw: st.DrawFn, *, keys: st.SearchStrategy[str] = hostile_texts, has_text: bool = True) -> Sample:
    """A valid conversation about one to three tools, its calls with arguments of any JSON.

    Args:
        draw: Given by hypothesis.
        keys: Names of arguments.
        has_text: Whether a turn with calls may say something too.
    """
    tools = [offered(name, draw(words)) for name in draw(st.lists(names, min_size=1, max_size=3, unique=True))]
    arguments = st.dictionaries(keys, hostile_values, max_size=3)
    messages: list[Message] = []
    waiting: list[str] = []
    for message in draw(conversations(has_reasoning=False).filter(is_plain)):
        if message.tool_calls:
            waiting = [draw(st.sampled_from(tools)).function.name for _ in message.tool_calls]
            calls = (FunctionCall(name=name, arguments=draw(arguments)) for name in waiting)
            update = {"tool_calls": tuple(ToolCall(function=call) for call in calls)}
            message = message.model_copy(update=update if has_text else {**update, "content": ""})
        elif message.role == "tool":
            message = message.model_copy(update={"name": waiting.pop(0)})
        messages.append(message)
    if draw(st.booleans()) and any(message.tool_calls for message in messages):
        last = max(place for place, message in enumerate(messages) if message.tool_calls)
        messages = messages[: last + 1]
    kind = "tool_call" if messages[-1].tool_calls else "answer"
    return Sample(id="s", messages=tuple(messages), tools=tuple(tools), kind=kind, source="test:1")


def plain_calls(message: Message) -> list[JsonObject]:
    return [{"name": call.function.name, "arguments": call.function.arguments} for call in message.tool_calls]


def plain_tools(sample: Sample) -> list[JsonObject]:
    return [tool.function.model_dump() for tool in sample.tools]


def split_system(sample: Sample) -> tuple[str, Sequence[Message]]:
    first = sample.messages[0]
    return (first.content, sample.messages[1:]) if first.role == "system" else ("", sample.messages)


def as_messages(sample: Sample) -> JsonObject:
    turns = [message.model_dump(exclude={"name"}) for message in sample.messages]
    return {"messages": turns, "tools": [{"type": "function", "function": tool} for tool in plain_tools(sample)]}


def as_messages_in_text(sample: Sample) -> JsonObject:
    row = as_messages(sample)
    for turn in row["messages"]:
        for call in turn.get("tool_calls", ()):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return {**row, "tools": json.dumps(row["tools"])}


def as_sharegpt(sample: Sample) -> JsonObject:
    turns: list[JsonObject] = []
    speakers = {"user": "human", "assistant": "gpt", "tool": "observation", "system": "system"}
    for message in sample.messages:
        if message.content:
            turns.append({"from": speakers[message.role], "value": message.content})
        if message.tool_calls:
            turns.append({"from": "function_call", "value": json.dumps(plain_calls(message))})
    return {"conversations": turns, "tools": json.dumps(plain_tools(sample))}


def as_hermes(sample: Sample) -> JsonObject:
    system, rest = split_system(sample)
    turns = [{"from": "system", "value": f"{system}\n<tools>\n{json.dumps(plain_tools(sample))}\n</tools>"}]
    for message in rest:
        calls = [f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in plain_calls(message)]
        text = "\n".join([*([message.content] if message.content else []), *calls])
        turns.append({"from": {"user": "human", "assistant": "gpt", "tool": "tool"}[message.role], "value": text})
    return {"conversations": turns}


def as_glaive(sample: Sample) -> JsonObject:
    system, rest = split_system(sample)
    turns = []
    for message in rest:
        said = [message.content] if message.content else []
        for call in plain_calls(message):
            arguments = json.dumps(call["arguments"])
            said.append(f'<functioncall> {{"name": {json.dumps(call["name"])}, "arguments": \'{arguments}\'}}')
        speaker = {"user": "USER", "assistant": "ASSISTANT", "tool": "FUNCTION RESPONSE"}[message.role]
        turns.append(f"{speaker}: {' '.join(said)}")
    return {"chat": "\n\n".join(turns), "system": f"SYSTEM: {system}", "tools": plain_tools(sample)}


def as_toolace(sample: Sample) -> JsonObject:
    system, rest = split_system(sample)
    turns: list[JsonObject] = []
    for message in rest:
        calls = [
            f"{call['name']}({', '.join(f'{key}={value!r}' for key, value in call['arguments'].items())})"
            for call in plain_calls(message)
        ]
        text = f"[{', '.join(calls)}]" if calls else message.content
        if message.role != "tool":
            turns.append({"from": message.role, "value": text})
            continue
        if turns[-1]["from"] != "tool":
            turns.append({"from": "tool", "value": []})
        turns[-1]["value"].append({"name": message.name, "results": message.content})
    turns = [{**turn, "value": json.dumps(turn["value"])} if turn["from"] == "tool" else turn for turn in turns]
    return {"system": system, "conversations": turns, "tools": plain_tools(sample)}


def as_mcp(sample: Sample) -> JsonObject:
    turns: list[JsonObject] = []
    waiting: list[int] = []
    number = 0
    for message in sample.messages:
        if message.content and message.role != "tool":
            turns.append({"role": message.role, "content": message.content})
        for call in plain_calls(message):
            number += 1
            waiting.append(number)
            turns.append({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call})
        if message.role == "tool":
            content = [{"type": "text", "text": message.content}]
            turns.append({"jsonrpc": "2.0", "id": waiting.pop(0), "result": {"content": content}})
    tools = [{"name": tool["name"], "inputSchema": tool["parameters"]} for tool in plain_tools(sample)]
    for tool, spec in zip(tools, sample.tools, strict=True):
        tool["description"] = spec.function.description
    return {"tools": {"tools": tools}, "session": turns}


def as_xlam(sample: Sample) -> JsonObject:
    answers = json.dumps(plain_calls(sample.messages[-1]))
    return {"query": sample.messages[0].content, "tools": json.dumps(plain_tools(sample)), "answers": answers}


def as_tool_pairs(sample: Sample) -> JsonObject:
    pairs = [{"tool": call["name"], "arguments": call["arguments"]} for call in plain_calls(sample.messages[-1])]
    return {"input": sample.messages[0].content, "tools": plain_tools(sample), "output": json.dumps(pairs)}


def as_instruction(sample: Sample) -> JsonObject:
    calls = plain_calls(sample.messages[-1])
    return {"instruction": sample.messages[0].content, "tools": plain_tools(sample), "output": json.dumps(calls)}


class Dialect(NamedTuple):
    """How a sample is written as a row of a format, and which samples can be."""

    format: RowFormat
    write: Callable[[Sample], JsonObject]
    samples: st.SearchStrategy[Sample]


def asked_and_called(sample: Sample) -> Sample:
    """One question and the first calls of a conversation."""
    asked = next(message for message in sample.messages if message.role == "user")
    calls = next(message for message in sample.messages if message.tool_calls)
    return sample.model_copy(
        update={"messages": (asked, calls.model_copy(update={"content": ""})), "kind": "tool_call"}
    )


calling = samples().filter(lambda sample: any(message.tool_calls for message in sample.messages))
single = calling.map(asked_and_called)
DIALECTS = {
    "messages": Dialect("messages", as_messages, samples()),
    "messages in text": Dialect("messages", as_messages_in_text, samples()),
    "sharegpt": Dialect("sharegpt", as_sharegpt, samples()),
    "hermes": Dialect("hermes", as_hermes, samples()),
    "glaive": Dialect("glaive", as_glaive, samples()),
    "toolace": Dialect(
        "toolace",
        as_toolace,
        samples(keys=identifiers, has_text=False).filter(lambda s: any(message.tool_calls for message in s.messages)),
    ),
    "mcp": Dialect("mcp", as_mcp, samples()),
    "xlam": Dialect("xlam", as_xlam, single),
    "tool pairs": Dialect("tool_pairs", as_tool_pairs, single),
    "instruction": Dialect("instruction", as_instruction, single),
}


def content(sample: Sample) -> str:
    """Messages and tools with JSON's types, where 1, 1.0 and true differ; ids of calls aside."""
    turns = [[message.role, message.content, message.name, plain_calls(message)] for message in sample.messages]
    return json.dumps([turns, plain_tools(sample)], sort_keys=True)


def has_marks(turns: Any) -> bool:
    return any(mark in json.dumps(turns, ensure_ascii=False) for mark in CALL_MARKS)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_sample_written_in_any_dialect_is_read_as_itself(dialect: Dialect, data: st.DataObject) -> None:
    sample = data.draw(dialect.samples)
    row = parse(json.dumps(dialect.write(sample)))
    if dialect.format == "toolace" and has_marks(row["conversations"]):
        with pytest.raises(RowRejected):
            sample_from_row(row, detect_format(row).format, source="test:1", keep_reasoning=True)
        return
    assert detect_format(row).format == dialect.format
    read = sample_from_row(row, dialect.format, source="test:1", keep_reasoning=True).sample
    checked = check_sample(read)
    assert content(checked.sample) == content(sample)
    assert checked.num_repaired_nulls == 0
    assert parse_line(dump_line(read), Sample, where="x") == read


@pytest.fixture(scope="session")
def form(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    return chat_format(tokenizer, thinking=False)


def is_left_out(form: ChatFormat, sample: Sample) -> bool:
    try:
        refuse_control_tokens(form, sample)
    except RowLeftOut:
        return True
    return False


@settings(max_examples=200)
@given(sample=samples())
def test_what_is_learned_is_parsed_as_the_calls_and_words_of_the_data(form: ChatFormat, sample: Sample) -> None:
    if is_left_out(form, sample):
        return
    row = tokenize_sample(form.tokenizer, sample)
    assert row.spans[-1].place == len(sample.messages) - 1
    texts = form.decode_batch([row.input_ids[span.start : span.end - 1] for span in row.spans])
    for span, text in zip(row.spans, texts, strict=True):
        message, reply = sample.messages[span.place], parse_reply(text)
        assert reply.problems == ()
        assert json.dumps([plain_calls(message)]) == json.dumps(
            [[{"name": call.function.name, "arguments": call.function.arguments} for call in reply.calls]]
        )
        assert reply.prose == message.content.strip()
