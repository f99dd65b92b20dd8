"""A reply format is one file and one row: the example in CONTRIBUTING.md, added to a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.chat.formats import REPLY_FORMATS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = re.compile(r"^## A reply format$.*?^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
GOOD = 'Sure. <<area {"base": 10, "text": "a > b"}>>'


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the example's file and row."""
    copy = tmp_path_factory.mktemp("copy")
    for package in ("orchestrator", "evals"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__", "tiny_base"))
    example = EXAMPLE.search((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert example is not None
    formats = copy / "orchestrator" / "chat" / "formats"
    (formats / "angle.py").write_text(example[1], encoding="utf-8")
    table = (formats / "__init__.py").read_text(encoding="utf-8")
    rows = table.replace("    JSON,\n)", "    JSON,\n    ANGLE,\n)")
    assert rows != table
    row_import = "from orchestrator.chat.formats.angle import ANGLE\n"
    (formats / "__init__.py").write_text(rows.replace("from orchestrator", f"{row_import}from orchestrator", 1))
    return copy


def run(copy: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def shown(copy: Path, script: str) -> object:
    """What an expression over the copy's modules is, as JSON."""
    lines = [
        "import json",
        "from orchestrator.chat.formats import detect_reply_format",
        "from orchestrator.chat.parse import CALL_MARKS, parse_reply, split_thinking",
        "from orchestrator.config.evaluation import EvalConfig",
        "from orchestrator.data.formats.common import split_reasoning",
        f"print(json.dumps({script}))",
    ]
    return json.loads(run(copy, "-c", "\n".join(lines)))


def test_it_is_found_in_a_chat_template(copy: Path) -> None:
    template = "{% for call in message.tool_calls %}{{ '<<' ~ call.name ~ ' ' ~ call.arguments | tojson ~ '>>' }}"
    assert shown(copy, f"detect_reply_format({template!r})") == "angle"
    assert shown(copy, "detect_reply_format('[TOOL_CALLS]')") == "mistral"


def test_it_is_read_strictly(copy: Path) -> None:
    read = "[[c.function.model_dump() for c in r.calls], [p.reason for p in r.problems], r.prose]"
    reply = f"[{read} for r in [parse_reply({{text!r}}, format='angle')]][0]"
    call = {"name": "area", "arguments": {"base": 10, "text": "a > b"}}
    assert shown(copy, reply.format(text=GOOD)) == [[call], [], "Sure."]
    assert shown(copy, reply.format(text="<<area {'base': 10}>>")) == [[], ["not_json"], ""]
    assert shown(copy, reply.format(text='<<area {"base": 10}')) == [[], ["unclosed_tag"], ""]


def test_thoughts_end_before_its_mark_in_replies_and_in_data(copy: Path) -> None:
    texts = ["plan</think>" + GOOD, GOOD + "</think>", f"[THINK]{GOOD}[/THINK]Done."]
    expected = [["plan", GOOD], [None, GOOD + "</think>"], [GOOD, "Done."]]
    assert shown(copy, f"[split_thinking(text, format='angle') for text in {texts!r}]") == expected
    assert shown(copy, f"[split_reasoning(text, 'turn 1') for text in {texts!r}]") == expected
    assert shown(copy, "[mark in CALL_MARKS for mark in ('<<', '>>')]") == [True, True]


def test_the_configuration_and_the_command_line_offer_it(copy: Path) -> None:
    assert shown(copy, "EvalConfig(reply_format='angle').reply_format") == "angle"
    offered = shown(copy, "EvalConfig.model_json_schema()['properties']['reply_format']['enum']")
    assert offered == ["auto", *REPLY_FORMATS, "angle"]
    assert "mcp, json, angle" in " ".join(run(copy, "-m", "evals.score", "--help").split())


def test_replies_in_it_are_scored(copy: Path, tmp_path: Path) -> None:
    tool = {"function": {"name": "area", "parameters": {"type": "object", "properties": {"base": {}, "text": {}}}}}
    case = {
        **{"id": "q1", "messages": [{"role": "user", "content": "How large?"}], "tools": [tool], "kind": "tool_call"},
        **{"tags": [], "expected_calls": [], "expected_text": ""},
    }
    reply = {"case_id": "q1", "text": GOOD, "finish_reason": "length"}
    cut_off = {**reply, "text": GOOD[:-2]}
    (tmp_path / "cases.jsonl").write_text(json.dumps(case))
    for name, given in (("good", reply), ("cut_off", cut_off)):
        (tmp_path / name).write_text(json.dumps(given))
        files = [f"--cases={tmp_path}/cases.jsonl", f"--generations={tmp_path}/{name}", f"--out={tmp_path}/{name}.json"]
        run(copy, "-m", "evals.score", "--reply-format=angle", *files)
    scores = [json.loads((tmp_path / f"{name}.json").read_text())["verdicts"][0] for name in ("good", "cut_off")]
    assert [(verdict["correct"], verdict["reason"]) for verdict in scores] == [(True, None), (False, "cut_off")]
