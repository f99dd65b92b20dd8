"""What an installed package holds: the code and the files that it reads, without the recipe of the toy base."""

from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from orchestrator.toy.tiny import FILES

ROOT = Path(__file__).resolve().parents[2]
RECIPE = "orchestrator/toy/pretrain.py"


@pytest.fixture(scope="module")
def wheel() -> set[str]:
    """The paths of all that the wheel of this checkout holds, metadata aside."""
    return {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}


def test_all_code_but_the_recipe_is_installed(wheel: set[str]) -> None:
    packages = ("orchestrator", "evals", "jobs")
    modules = {path.relative_to(ROOT).as_posix() for package in packages for path in (ROOT / package).rglob("*.py")}
    assert RECIPE in modules
    assert {path for path in wheel if path.endswith(".py")} == modules - {RECIPE}


def test_what_the_code_reads_is_installed(wheel: set[str]) -> None:
    assert {f"orchestrator/toy/tiny_base/{name}" for name in (*FILES, "recipe.json")} <= wheel
    assert "orchestrator/config/starter.yaml" in wheel
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "evals/report/templates").iterdir()}
    assert templates
    assert templates <= wheel


def test_nothing_that_is_installed_needs_the_recipe(wheel: set[str]) -> None:
    users = [path for path in wheel if path.endswith(".py") and "toy.pretrain" in (ROOT / path).read_text("utf-8")]
    assert users == []
