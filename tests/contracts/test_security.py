"""Each line of the threat model has a test, and the test is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "security.md"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
MAX_LINES = 60


def threats() -> list[list[str]]:
    """The rows of the table: threat, what stops it, tests."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


@pytest.mark.parametrize("row", threats(), ids=lambda row: row[0][:40])
def test_a_threat_is_held_by_tests_that_are_there(row: list[str]) -> None:
    assert len(row) == 3
    named = TEST.findall(row[2])
    assert named
    for path, name in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"


def modules() -> list[Path]:
    return sorted(path for package in ("orchestrator", "evals", "jobs") for path in (ROOT / package).rglob("*.py"))


def loads_of_models() -> list[tuple[str, ast.Call]]:
    """Each call that has transformers or vLLM read what lies in a folder, with its place."""
    found = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".from_pretrained", "LLM")):
                found.append((f"{path.relative_to(ROOT)}:{node.lineno}", node))
    return found


def test_whatever_loads_a_model_or_tokenizer_says_whether_its_code_is_trusted() -> None:
    calls = loads_of_models()
    assert len(calls) > 8
    unsaid = [
        place
        for place, call in calls
        if not {"trust_remote_code", None} & {keyword.arg for keyword in call.keywords}  # None: settings made above
    ]
    assert unsaid == []
    values = {
        ast.unparse(keyword.value)
        for _, call in calls
        for keyword in call.keywords
        if keyword.arg == "trust_remote_code"
    }
    assert not values & {"True"}


def test_nothing_is_unpickled_here() -> None:
    reads = re.compile(r"pickle\.loads?\(|torch\.load\(|joblib\.load|shelve\.|marshal\.loads?|(?<!\.)\b(?:eval|exec)\(")
    found = {path.relative_to(ROOT).as_posix() for path in modules() if reads.search(path.read_text(encoding="utf-8"))}
    assert found == set()


def test_the_threat_model_is_one_page() -> None:
    assert len(threats()) > 20
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
