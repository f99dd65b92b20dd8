"""Modules, functions and jobs stay small enough to read in one sitting."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "evals", "jobs")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MODULE_LINES, FUNCTION_LINES, JOB_LINES = 400, 60, 60


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_there_is_something_to_measure() -> None:
    assert {name_of(path).split("/")[0] for path in MODULES} == set(PACKAGES)
    assert len(MODULES) > 40


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_short(path: Path) -> None:
    lines = lines_of(path)
    assert lines <= MODULE_LINES, f"{name_of(path)} has {lines} lines, {MODULE_LINES} are allowed: split it by subject"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_its_functions_are_short(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            where = f"{name_of(path)}:{node.lineno}"
            assert lines <= FUNCTION_LINES, f"{where}: {node.name} has {lines} lines, {FUNCTION_LINES} are allowed"


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("[!_]*.py")), ids=name_of)
def test_a_job_parses_calls_one_function_and_exits(path: Path) -> None:
    lines = lines_of(path)
    assert lines <= JOB_LINES, f"{name_of(path)} has {lines} lines, {JOB_LINES} are allowed: move work into a package"
