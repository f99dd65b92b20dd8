"""Functions of the user's own as the format of a source."""

import json
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from evals.check.check import check_data
from orchestrator.config.load import load_config
from orchestrator.config.schema import DataConfig, RunConfig, SourceConfig
from orchestrator.core.errors import ConfigError, DataError
from orchestrator.core.files import read_jsonl
from orchestrator.core.parallel import INLINE_CHUNKS
from orchestrator.core.records import QuarantinedRow, Sample
from orchestrator.data.card import DataCard
from orchestrator.data.prepare.collect import ROWS_PER_CHUNK
from orchestrator.data.prepare.prepare import data_digest, prepare_data
from orchestrator.run.folder import check_dir
from orchestrator.run.paths import RunDir, SplitName

PARTS: tuple[SplitName, ...] = ("train", "val", "test")
TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
MODULE = """
from {helper} import TOOL


def convert(row):
    if row["city"] == "skip":
        return None
    if row["city"] == "fail":
        raise KeyError("no such city")
    if row["city"] == "list":
        return [row]
    if row["city"] == "nan":
        return {{"messages": float("nan")}}
    if row["city"] == "set":
        return {{"messages": {{1}}}}
    call = {{"function": {{"name": "weather", "arguments": {{"city": row["city"]}}}}}}
    turns = ({{"role": "user", "content": row["asked"]}}, {{"role": "assistant", "tool_calls": [call]}})
    return {{"messages": turns, "tools": [TOOL], "id": "city-" + row["city"], "tags": ["mine"]}}
"""


@pytest.fixture
def module(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current directory, another one in each test: Python imports a name once."""
    name = f"rows_of_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(dedent(MODULE).format(helper=f"{name}_helper"))
    (tmp_path / f"{name}_helper.py").write_text(f"TOOL = {TOOL!r}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def write(path: Path, *cities: str) -> None:
    rows = [
        {"city": city, "asked": f"The weather in {city}, {len(city)} {number}?"} for number, city in enumerate(cities)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def names(count: int) -> list[str]:
    return [f"town{number}" for number in range(count)]


def prepare(folder: Path, name: str, **data: Any) -> DataCard:
    source = SourceConfig(path="a.jsonl", format=name)
    settings = {"near_duplicate_threshold": None, **data}
    return prepare_data(
        RunConfig(data=DataConfig(sources=(source,), **settings)), RunDir(folder / "run"), base_dir=folder
    )


def samples_in(folder: Path) -> list[Sample]:
    return [sample for part in PARTS for sample in read_jsonl(RunDir(folder / "run").split(part), Sample)]


def test_a_function_gives_rows_of_messages_and_each_other_outcome_has_its_reason(tmp_path: Path, module: str) -> None:
    write(tmp_path / "a.jsonl", *names(12), "skip", "fail", "list", "nan", "set", "skip")
    card = prepare(tmp_path, f"{module}:convert", max_quarantine_rate=0.3)
    assert {sample.id for sample in samples_in(tmp_path)} == {f"city-{name}" for name in names(12)}
    assert {sample.tags for sample in samples_in(tmp_path)} == {("mine",)}
    why = f"the function {module}:convert returns it"
    assert {name: (count.rows, count.why) for name, count in card.sources[0].formats.items()} == {"messages": (12, why)}
    refused = {
        (row.reason, row.line, row.detail) for row in read_jsonl(RunDir(tmp_path / "run").quarantine, QuarantinedRow)
    }
    assert {(reason, line) for reason, line, _ in refused} == {
        ("left_out", 13),
        ("function_failed", 14),
        ("function_failed", 15),
        ("malformed_json", 16),
        ("unsupported_content", 17),
        ("left_out", 18),
    }
    details = {line: detail for _, line, detail in refused}
    assert details[14] == "KeyError: 'no such city'"
    assert details[15] == "the function returned a list, not a dict or None"


def test_what_a_function_gives_is_checked_like_any_row(tmp_path: Path, module: str) -> None:
    (tmp_path / f"{module}.py").write_text('def convert(row):\n    return {"messages": [{"role": "user"}], **row}\n')
    write(tmp_path / "a.jsonl", *names(3))
    with pytest.raises(DataError, match="no_assistant_turn x 3"):
        prepare(tmp_path, f"{module}:convert")


def test_rows_that_a_function_leaves_out_are_not_bad_data_and_those_it_fails_on_are(
    tmp_path: Path, module: str
) -> None:
    write(tmp_path / "a.jsonl", *names(10), *["skip"] * 10)
    assert prepare(tmp_path, f"{module}:convert", max_quarantine_rate=0.0).reasons["left_out"].count == 10
    write(tmp_path / "a.jsonl", *names(10), *["fail"] * 10)
    with pytest.raises(DataError, match=r"function_failed x 10, such as a\.jsonl:11: KeyError"):
        prepare(tmp_path, f"{module}:convert")


def test_a_function_works_in_other_processes(tmp_path: Path, module: str) -> None:
    count = ROWS_PER_CHUNK * (INLINE_CHUNKS + 1)
    write(tmp_path / "a.jsonl", *names(count))
    assert prepare(tmp_path, f"{module}:convert").samples == count


def test_a_changed_function_is_changed_data(tmp_path: Path, module: str) -> None:
    write(tmp_path / "a.jsonl", *names(3))
    file = tmp_path / f"{module}.py"
    (tmp_path / f"{module}_shown.py").write_text(f"from {module} import convert\n")
    data = [
        DataConfig(sources=(SourceConfig(path="a.jsonl", format=f"{name}:convert"),))
        for name in (module, f"{module}_shown")
    ]
    before = [data_digest(section, base_dir=tmp_path) for section in data]
    assert before == [data_digest(section, base_dir=tmp_path) for section in data]
    file.write_text(file.read_text() + "\n")
    assert all(data_digest(section, base_dir=tmp_path) != digest for section, digest in zip(data, before, strict=True))


@pytest.mark.parametrize(
    ("text", "named", "message"),
    [
        ("", "{}_absent:convert", "the module {}_absent cannot be imported (ModuleNotFoundError"),
        ("import {}_absent", "{}:convert", "cannot be imported (ModuleNotFoundError: No module named '{}_absent'"),
        ("def convert(:", "{}:convert", "cannot be imported (SyntaxError"),
        ("convert = 1", "{}:convert", "the module {} has no function convert"),
        ("", "{}:convert", "the module {} has no function convert"),
    ],
)
def test_a_function_that_is_not_there_is_an_error_with_the_rule(
    tmp_path: Path, module: str, text: str, named: str, message: str
) -> None:
    write(tmp_path / "a.jsonl", *names(3))
    (tmp_path / f"{module}.py").write_text(text.format(module))
    for attempt in (
        prepare,
        lambda _, name: data_digest(
            DataConfig(sources=(SourceConfig(path="a.jsonl", format=name),)), base_dir=tmp_path
        ),
    ):
        with pytest.raises(ConfigError) as caught:
            attempt(tmp_path, named.format(module))
        assert message.format(module) in str(caught.value)
        assert f"in the current directory ({tmp_path}) and among the installed packages" in str(caught.value)
        assert caught.value.exit_code == 3


def test_a_function_without_a_file_is_refused(tmp_path: Path, module: str) -> None:
    write(tmp_path / "a.jsonl", *names(3))
    with pytest.raises(ConfigError, match="in no Python file"):
        data_digest(DataConfig(sources=(SourceConfig(path="a.jsonl", format="builtins:dict"),)), base_dir=tmp_path)


def test_a_wrong_format_names_all_formats_and_the_form_of_a_function(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    for wrong in ("mesages", "module:", ":function", "a b:c", "a:b.c"):
        file.write_text(f'data: {{sources: [{{path: a.jsonl, format: "{wrong}"}}]}}')
        with pytest.raises(ConfigError) as caught:
            load_config(file)
        assert "data.sources.0.format: " in str(caught.value)
        assert f"'{wrong}' is not allowed here. Allowed: auto, synthetic, or messages, sharegpt, " in str(caught.value)
        assert "instruction, or text of the form package.module:function" in str(caught.value)


def test_the_schema_offers_the_known_names_and_the_pattern() -> None:
    options = RunConfig.model_json_schema()["$defs"]["SourceConfig"]["properties"]["format"]["anyOf"]
    assert {name for option in options for name in option.get("enum", ())} >= {"auto", "synthetic", "messages", "bfcl"}
    assert [option["pattern"] for option in options if "pattern" in option] == [
        r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
    ]


def test_a_check_reads_rows_by_a_function_and_says_why_it_cannot(
    tmp_path: Path, module: str, model_folder: Path
) -> None:
    write(tmp_path / "a.jsonl", *names(12))
    settings = {
        "name": "mine",
        "model": {"base": str(model_folder)},
        "data": {"sources": [{"path": "a.jsonl", "format": f"{module}:convert"}], "near_duplicate_threshold": None},
        "resources": {"storage_path": str(tmp_path / "runs")},
    }
    config = RunConfig.model_validate(settings)
    card = check_data(config, check_dir(config), base_dir=tmp_path)
    assert card.not_ready == ()
    assert card.data is not None
    assert card.data.samples == 12
    settings["data"] = {"sources": [{"path": "a.jsonl", "format": f"{module}:absent"}]}
    wrong = RunConfig.model_validate(settings)
    (problem,) = check_data(wrong, check_dir(wrong), base_dir=tmp_path).not_ready
    assert f"the module {module} has no function absent" in problem
