"""A data format is one file, its test, and one name in one table."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "evals", "jobs")
LAST_NAME = '    "instruction",\n]\n'
FORMAT = '''
"""Notes: one `note` of a question and an answer with an arrow between them."""

from orchestrator.core.records import JsonObject, Message
from orchestrator.data.formats.common import COMMON_FIELDS, Draft, Format
from orchestrator.data.formats.loose_schema import read_tools
from orchestrator.data.rejection import Reason, RowRejected


def read_notes(row: JsonObject) -> Draft:
    """The question and the answer of a note."""
    asked, arrow, answer = str(row.get("note")).partition(" -> ")
    if not arrow:
        raise RowRejected(Reason.NO_ANSWER, "the note has no arrow")
    messages = [Message(role="user", content=asked), Message(role="assistant", content=answer)]
    return Draft(messages=messages, tools=read_tools(row))


def _recognised(row: JsonObject) -> str | None:
    return "the row has a `note`" if isinstance(row.get("note"), str) else None


FORMAT = Format(read_notes, COMMON_FIELDS | {"note"}, hint=("note",), recognise=_recognised)
'''
PROGRAM = """
import json
from pathlib import Path

from orchestrator.config.load import load_config
from orchestrator.data.formats.detect import detect_format
from orchestrator.data.prepare.prepare import prepare_data
from orchestrator.data.rejection import RowRejected
from orchestrator.run.paths import RunDir

told = {}
for name in ("auto", "notes"):
    config = load_config(Path("c.yaml"), [f"data.sources.0.format={name}"])
    card = prepare_data(config, RunDir(Path(name)), base_dir=Path.cwd())
    told[name] = [card.sources[0].formats["notes"].why, card.samples, card.sources[0].ignored_fields]
try:
    detect_format({"notes": 1})
except RowRejected as rejected:
    told["nearest"] = rejected.detail
told["older"] = detect_format({"question": "a", "function": []}).format
print(json.dumps(told))
"""


def test_a_format_is_one_file_and_one_name(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "orchestrator/data/formats/notes.py").write_text(FORMAT.lstrip(), encoding="utf-8")
    table = tree / "orchestrator/config/evaluation.py"
    text = table.read_text(encoding="utf-8")
    assert text.count(LAST_NAME) == 1
    table.write_text(text.replace(LAST_NAME, '    "instruction",\n    "notes",\n]\n'), encoding="utf-8")
    rows = [{"note": f"Question {number} {number * number}? -> Answer {number}.", "page": 1} for number in range(6)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "c.yaml").write_text("data: {near_duplicate_threshold: null, sources: [{path: a.jsonl}]}")
    command = [sys.executable, "-c", PROGRAM]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "auto": ["the row has a `note`", 6, {"page": 6}],
        "notes": ["the config says so", 6, {"page": 6}],
        "nearest": "the row has the keys notes; the nearest format is notes, with `note`",
        "older": "bfcl",
    }
