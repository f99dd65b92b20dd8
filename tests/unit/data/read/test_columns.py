"""What `data.sources[].fields` takes from a row."""

from typing import Any

import pytest

from orchestrator.core.errors import ConfigError
from orchestrator.data.read.columns import map_fields, read_recipe
from orchestrator.data.read.sources import RawRow, parse_mapped_row
from orchestrator.data.rejection import RowRejected


@pytest.mark.parametrize(
    ("fields", "row", "wanted"),
    [
        ({"messages": "dialog"}, {"dialog": [1], "id": 7}, {"messages": [1], "id": 7}),
        ({"tools": "meta.tools"}, {"meta": {"tools": [1]}, "chat": "x"}, {"tools": [1], "chat": "x"}),
        ({"tools": "meta.tools"}, {"meta": '{"tools": [1]}'}, {"tools": [1]}),
        ({"tools": "meta.tools"}, {"meta.tools": [1]}, {"tools": [1]}),
        ({"output": "examples.1.text"}, {"examples": [{}, {"text": "b"}]}, {"output": "b"}),
        ({"instruction": "{title}\n{about}"}, {"title": "T", "about": "A"}, {"instruction": "T\nA"}),
        ({"output": "{run.args}"}, {"run": {"args": {"é": 1.5}}}, {"output": '{"é": 1.5}'}),
        ({"output": "{{{n}}}"}, {"n": 3}, {"output": "{3}"}),
        ({"kind": "label?"}, {"label": None, "kind": "answer"}, {"label": None, "kind": "answer"}),
        ({"kind": "label?"}, {"label": "refusal", "kind": "answer"}, {"kind": "refusal"}),
        ({"system": "{role?}{tone?}"}, {"tone": "calm"}, {"system": "calm"}),
        ({"system": "{role?}"}, {"prompt": "x"}, {"prompt": "x"}),
        ({"input": "output", "output": "input"}, {"input": "a", "output": "b"}, {"input": "b", "output": "a"}),
    ],
)
def test_fields_are_taken_from_the_columns_named(fields: dict[str, str], row: dict[str, Any], wanted: Any) -> None:
    assert map_fields(row, fields).row == wanted


@pytest.mark.parametrize("row", [{"dialog": None, "meta": {}}, {"meta": 1}, {}])
def test_a_row_without_a_column_is_rejected_by_its_name(row: dict[str, Any]) -> None:
    with pytest.raises(RowRejected, match=r"missing_column: nothing in the column 'dialog', .* for `messages`"):
        map_fields(row, {"messages": "dialog"})
    with pytest.raises(RowRejected, match=r"'meta\.tools'"):
        map_fields(row, {"tools": "{meta.tools}"})


@pytest.mark.parametrize("template", ["{", "{}", "{a!r}", "{a:>3}", "a}", "{{a}}"])
def test_a_template_holds_columns_and_nothing_else(template: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(template)


def test_cells_are_read_by_the_name_that_they_are_given() -> None:
    cells = {"ask": "[1] is what?", "say": '{"a": 1}', "dialog": '[{"role": "user"}]', "meta": '{"tools": [{}]}'}
    fields = {"instruction": "ask", "output": "say", "messages": "dialog", "tools": "meta.tools"}
    row, found = parse_mapped_row(RawRow("a.csv", 2, cells), fields)
    assert row == {
        "instruction": "[1] is what?",
        "output": '{"a": 1}',
        "messages": [{"role": "user"}],
        "tools": [{}],
    }
    assert found == ("ask", "say", "dialog", "meta.tools")
