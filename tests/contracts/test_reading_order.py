"""The reading order that the package names is the order of its layers, which `lint-imports` checks."""

import re
import tomllib
from pathlib import Path

import orchestrator

ROOT = Path(__file__).resolve().parents[2]


def layers(name: str) -> list[set[str]]:
    """The layers of a contract of pyproject.toml, the lowest first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = (contract for contract in contracts if contract["name"] == name)
    return [set(layer.split(" | ")) for layer in reversed(contract["layers"])]


def test_the_docstring_names_the_packages_in_the_order_of_their_layers() -> None:
    assert orchestrator.__doc__ is not None
    (order,) = re.findall(r"\n\n((?:    .*\n)+)", orchestrator.__doc__)
    named = [set(step.split(" | ")) for step in " ".join(order.split()).split(" -> ")]
    assert named == layers("the stages of orchestrator")
