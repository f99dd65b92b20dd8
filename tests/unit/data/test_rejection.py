"""Whatever a row holds, it becomes a sample or is rejected with a reason; nothing else is raised."""

from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from orchestrator.data.canonical import content_hash, ignored_fields, sample_from_row
from orchestrator.data.quality import check_sample
from orchestrator.data.readers import detect_format
from orchestrator.data.rejection import RowRejected
from orchestrator.jsonl import dump_line, parse_line
from orchestrator.records import JsonObject, Sample


def mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The usual value, or any other JSON in its place."""
    odd: st.SearchStrategy[Any] = st.sampled_from(
        [None, "", "x", "{", "{}", "[]", '{"a": 1, "a": 2}', 0, -1.5, True, [], {}, [[]], [None], {"a": None}]
    )
    return st.integers(0, 19).flatmap(lambda number: odd if number == 0 else usual)


schemas = st.fixed_dictionaries(
    {"type": mostly(st.just("object"))},
    optional={
        "properties": mostly(
            st.fixed_dictionaries({"a": mostly(st.sampled_from([{"type": "string"}, {"$ref": "#"}]))})
        ),
        "required": mostly(st.just(["a"])),
        "$ref": mostly(st.sampled_from(["#", "#/x", "http://["])),
        "$schema": mostly(st.just("http://json-schema.org/draft-03/schema#")),
    },
)
functions = st.fixed_dictionaries({"name": mostly(st.just("f")), "parameters": mostly(schemas)})
tools = st.lists(
    mostly(functions | functions.map(lambda function: {"type": "function", "function": function})), max_size=2
)
calls = st.fixed_dictionaries(
    {"name": mostly(st.just("f")), "arguments": mostly(st.sampled_from([{}, {"a": "x"}, {"a": None}, '{"a": "x"}']))},
    optional={"id": mostly(st.just("c1")), "type": mostly(st.just("function"))},
)
messages = st.fixed_dictionaries(
    {"role": mostly(st.sampled_from(["system", "user", "assistant", "tool"])), "content": mostly(st.just("text"))},
    optional={"tool_calls": mostly(st.lists(mostly(calls), max_size=2)), "tool_call_id": mostly(st.just("c1"))},
)
turns = st.fixed_dictionaries(
    {
        "from": mostly(st.sampled_from(["human", "gpt", "function_call", "observation", "system"])),
        "value": mostly(st.just("text") | calls | st.lists(calls, max_size=2)),
    }
)
ASKED: JsonObject = {"role": "user", "content": "go"}
rows = st.fixed_dictionaries(
    {"messages": mostly(st.tuples(st.just(ASKED), messages).map(list) | st.lists(mostly(messages), max_size=5))},
    optional={
        "tools": mostly(tools),
        "kind": mostly(st.just("answer")),
        "id": mostly(st.just("i")),
        "tags": mostly(st.just(["t"])),
    },
) | st.fixed_dictionaries(
    {"conversations": mostly(st.lists(mostly(turns), max_size=5))},
    optional={"tools": mostly(tools), "system": mostly(st.just("s"))},
)


calling = st.builds(
    lambda call, function: {"messages": [ASKED, {"role": "assistant", "tool_calls": [call]}], "tools": [function]},
    calls,
    functions,
)


@settings(max_examples=400)
@given(rows | calling)
def test_any_row_becomes_a_sample_that_can_be_written_or_is_rejected(row: JsonObject) -> None:
    try:
        sample = sample_from_row(row, detect_format(row), source="f:1")
        checked = check_sample(sample).sample
        list(ignored_fields(row))
    except RowRejected as rejected:
        event(rejected.reason)
    else:
        event("sample")
        again = parse_line(dump_line(checked), Sample, where="f:1")
        assert again == checked
        assert content_hash(again) == content_hash(checked)
        assert check_sample(again) == (checked, 0)
