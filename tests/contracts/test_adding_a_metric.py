"""A metric is one row and its name: a copy of the tree with one more has it computed, gated, compared and reported."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME, LABEL = "short_reply_rate", "Replies of few words"
ROW = f'''    MetricRow(
        "{NAME}", "{LABEL}", "cases with a tool", guarded=True,
        outcome=lambda v: None if v.called is None else v.correct is True,
    ),
'''
SCRIPT = f"""
import sys
from pathlib import Path
from report_run import make_cases, write_run
from evals.report.render import gist_lines
from evals.report.write import write_report
settings = {{"gates": {{"{NAME}": {{"min": 0.999}}}}}}
config, run = write_run(Path(sys.argv[1]), cases=make_cases(30), settings=settings)
report = write_report(config, run)
print("\\n".join(gist_lines(report)))
"""


def insert(path: Path, before: str, text: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert content.count(before) == 1, f"{path.name} has {before!r} once"
    path.write_text(content.replace(before, text + before), encoding="utf-8")


def test_a_metric_is_a_row_and_its_name(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for package in ("evals", "orchestrator"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    insert(copy / "orchestrator/core/records.py", '    "truncated_rate",\n', f'    "{NAME}",\n')
    insert(copy / "evals/stats/metrics.py", '    MetricRow(\n        "truncated_rate",', ROW)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "runs")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(copy), str(ROOT / "tests")))}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"Gate not met: {NAME} of \S+ is 0\.", done.stdout)
    folder = tmp_path / "runs" / "demo" / "report"
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    figures = {adapter["id"]: adapter["metrics"][NAME] for adapter in report["adapters"]}
    assert {figure["n"] for figure in figures.values()} == {30}
    assert figures[report["adapters"][0]["id"]]["value"] > figures["base"]["value"]
    assert [(gate["metric"], gate["passed"]) for gate in report["gates"]] == [(NAME, False)]
    assert [(entry["right"], entry["n"]) for entry in report["comparisons"] if entry["metric"] == NAME] == [
        ("base", 30)
    ]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f'<th>{LABEL}<br><span class="muted">of cases with a tool; higher is better</span></th>' in page
    assert f"| {LABEL} | " in (folder / "report.md").read_text(encoding="utf-8")
