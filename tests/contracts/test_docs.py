"""The documentation says what is there: its paths, modules, links, layers, doors and configuration keys exist."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
from pydantic import BaseModel

from orchestrator.config.schema import RunConfig

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("orchestrator", "evals", "jobs")
FOLDERS = (*PACKAGES, "tests", "benchmarks", "docs", "configs", "deploy", "requirements")
MAX_README_LINES, MAX_DECISION_LINES = 220, 45

STAGED = ("orchestrator", "orchestrator/data", "evals")
"""Folders whose own folders are stages, for which pyproject.toml has an order."""

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

PATH = re.compile(rf"(?<![\w./<>-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w/?(?![\w/]*[<*{{])")
MODULE = re.compile(rf"(?<![\w./-])(?:{'|'.join(PACKAGES)})(?:\.[a-z_]\w*)+")
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
SHORT_PATH = re.compile(r"[a-z_]+(?:/[a-z_]+)+/?(?:\.py)?")
SHORT_NAME = re.compile(r"[a-z_]+(?:\.[a-z_]\w*)+")

RUN_FILES = (".gguf", ".json", ".jsonl")
"""Endings of what a run writes; its folder has an `evals/` of its own."""
NOT_PATHS = {"run/id", "tools/call", "tools/list"}
"""How two runs name their adapters, and methods of the Model Context Protocol."""
STILTED = ("shown otherwise", "what told", "to take today", r"(?:a|the|one|each|this|that|whole|of|for) talks?")
PHRASES = re.compile(rf"\b(?:{'|'.join(STILTED)})\b", re.IGNORECASE)


class Text(NamedTuple):
    """A docstring and where it is."""

    path: Path
    line: int
    text: str


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(read(path))


@cache
def docstrings() -> tuple[Text, ...]:
    """Docstrings of modules, classes, functions and attributes."""
    return tuple(
        Text(path, node.lineno, node.value.value)
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


@cache
def names_in(path: Path) -> frozenset[str]:
    """Every name that a module defines, at any level, or imports."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update(alias.asname or alias.name for alias in node.names)
    return frozenset(found)


def modules_at(place: Path) -> list[Path]:
    """The module or the modules of the package at a path without its ending; none if nothing is there."""
    return [place.with_suffix(".py")] if place.with_suffix(".py").is_file() else sorted(place.glob("*.py"))


def is_module_or_name(dotted: str) -> bool:
    """Whether a dotted path is a module, a package, or a name in one."""
    place = ROOT.joinpath(*dotted.split("."))
    parents = modules_at(place.parent) if place.parent != ROOT else []
    return bool(modules_at(place)) or any(place.name in names_in(module) for module in parents)


def is_known_path(path: str) -> bool:
    """Whether a file or folder is there; a file also without its ending, and a decision by its number alone."""
    return path.endswith(RUN_FILES) or (ROOT / path).exists() or any(ROOT.glob(f"{path}[-.]*"))


def unknown_places(text: str) -> list[str]:
    """Full paths and module paths in a text that are not there."""
    paths = [found for found in PATH.findall(text) if not is_known_path(found)]
    return paths + [found for found in MODULE.findall(text) if not is_module_or_name(found)]


def is_config_key(dotted: str) -> bool:
    """Whether a path of keys such as `search.space.r` leads somewhere in the configuration."""
    models: list[Any] = [RunConfig]
    for key in dotted.replace("[]", "").split("."):
        fields = [model.model_fields[key] for model in models if key in model.model_fields]
        if not fields:
            return False
        models = [model for field in fields for model in models_in(field.annotation)]
    return True


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def short_path_exists(found: str, near: Path) -> bool:
    """Whether `folder/module` is there, seen from a module's folder or one above it."""
    bases = [ROOT, *(ROOT / package for package in PACKAGES), *near.parents]
    return any(modules_at((base / found).with_suffix("")) for base in bases)


def short_name_exists(found: str) -> bool:
    """Whether `module.name` is there, in any module or package of that name."""
    owner, name = found.split(".")[:2]
    places = {path.parent if path.stem == "__init__" else path.with_suffix("") for path in MODULES}
    modules = [module for place in places if place.name == owner for module in modules_at(place)]
    return any(name == module.stem or name in names_in(module) for module in modules)


def unknown_short_places(text: Text) -> Iterator[str]:
    """Names in backticks such as `search/rungs` and `adapters.keep_adapter` that are not there."""
    owners = {path.stem for path in MODULES} | {path.parent.name for path in MODULES}
    for found in CODE.findall(text.text):
        if SHORT_PATH.fullmatch(found) and found not in NOT_PATHS and not short_path_exists(found, text.path):
            yield found
        if not SHORT_NAME.fullmatch(found) or found.split(".")[0] not in owners:
            continue
        if found.endswith(".py"):
            if not (text.path.parent / found).exists():
                yield found
        elif not (
            found.endswith(RUN_FILES) or is_config_key(found) or short_name_exists(found) or is_module_or_name(found)
        ):
            yield found


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("see `orchestrator/nowhere.py`", ["orchestrator/nowhere.py"]),
        ("see `orchestrator/core/` and evals/cases/, `evals/<id>/x.py`, `evals/cases.jsonl`", []),
        ("from `orchestrator.core.errors.causes`, jobs.pipeline.", []),
        ("python -m jobs.nothing", ["jobs.nothing"]),
        ("`orchestrator.core.errors.nothing`", ["orchestrator.core.errors.nothing"]),
    ],
)
def test_what_is_not_there_is_found(text: str, unknown: list[str]) -> None:
    assert unknown_places(text) == unknown


def test_short_names_that_are_not_there_are_found() -> None:
    text = (
        "`core/nothing`, `core/errors`, `errors.nothing`, `errors.causes`, `search.runner`, `tools/call`, `card.json`"
    )
    assert list(unknown_short_places(Text(ROOT / "orchestrator" / "cli.py", 1, text))) == [
        "core/nothing",
        "errors.nothing",
    ]


@pytest.mark.parametrize("text", ["The whole talk.", "what told the first", "the one to take today"])
def test_stilted_phrases_are_found(text: str) -> None:
    assert PHRASES.search(text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_names_only_what_is_there(page: Path) -> None:
    assert unknown_places(read(page)) == []


def test_docstrings_name_only_what_is_there() -> None:
    found = [
        f"{name_of(text.path)}:{text.line}: {place}"
        for text in docstrings()
        for place in (*unknown_places(text.text), *unknown_short_places(text))
    ]
    assert len(docstrings()) > 100
    assert found == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in ("artifacts.md", "CHANGELOG.md")], ids=name_of
)
def test_a_page_names_only_keys_of_the_configuration(page: Path) -> None:
    sections = "|".join(name for name, field in RunConfig.model_fields.items() if list(models_in(field.annotation)))
    keys = re.findall(rf"`((?:{sections})\.[a-z_]+(?:\[\]|\.[a-z_]+)*)", read(page))
    assert [key for key in keys if not is_config_key(key) and not key.endswith(RUN_FILES)] == []


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", read(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(read(page)):
        target, _, anchor = link.partition("#")
        path = page.parent / target if target else page
        if "://" not in link and not (path.exists() and (not anchor or anchor in slugs(path))):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_reads_like_english(page: Path) -> None:
    assert PHRASES.findall(read(page)) == []


def test_the_packages_read_like_english() -> None:
    strings = [
        (path, node.lineno, node.value)
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    strings += [(path, 1, read(path)) for path in sorted((ROOT / "evals").rglob("*.j2"))]
    found = [f"{name_of(path)}:{line}: {phrase}" for path, line, text in strings for phrase in PHRASES.findall(text)]
    assert len(strings) > 1000
    assert found == []


def test_the_readme_and_the_decisions_are_short() -> None:
    assert len(read(ROOT / "README.md").splitlines()) <= MAX_README_LINES
    assert {name_of(page): n for page in DECISIONS if (n := len(read(page).splitlines())) > MAX_DECISION_LINES} == {}


def test_decisions_are_numbered_and_say_why_what_and_at_what_cost() -> None:
    for number, page in enumerate(DECISIONS, start=1):
        assert page.name.startswith(f"{number:04}-")
        assert read(page).startswith(f"# {number}. ")
        assert {"why", "choice", "cost"} <= slugs(page), name_of(page)


def fenced_block(page: Path, heading: str) -> list[str]:
    """The lines of the first fenced block under a heading."""
    return read(page).split(f"\n## {heading}\n")[1].split("```")[1].splitlines()[1:]


def readme_folders() -> set[str]:
    """The folders of the README's tree, from the indentation of its lines."""
    found: set[str] = set()
    above: list[str] = []
    for line in fenced_block(ROOT / "README.md", "Folders"):
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[:depth], name.rstrip("/")]
        found.add("/".join(above))
    return found


def test_the_readmes_tree_is_the_tree() -> None:
    stages = {path.parent for path in MODULES if path.parent.parent in (ROOT, *(ROOT / name for name in STAGED))}
    wanted = {name_of(path) for path in stages} | {name for name in FOLDERS if (ROOT / name).is_dir()}
    assert [name for name in readme_folders() if not (ROOT / name).is_dir()] == []
    assert wanted - readme_folders() == set()


def layers() -> dict[str, list[str]]:
    """The order of layers of each package, by the import linter's settings."""
    contracts = tomllib.loads(read(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    return {c["containers"][0]: c["layers"] for c in contracts if c["type"] == "layers" and "containers" in c}


def test_the_layers_of_the_architecture_are_those_that_are_checked() -> None:
    page = read(ROOT / "docs" / "architecture.md")
    blocks = re.findall(r"^`([\w.]+)`:\n\n((?:    .+\n)+)", page, flags=re.MULTILINE)
    shown = {name: [line.strip() for line in block.splitlines()] for name, block in blocks}
    assert {name.replace(".", "/") for name in shown} == set(STAGED)
    assert shown == {name: order for name, order in layers().items() if name in shown}


def test_the_picture_of_the_architecture_names_modules() -> None:
    picture = "\n".join(fenced_block(ROOT / "docs" / "architecture.md", "The picture"))
    places = re.findall(r"\b([a-z_]+/[a-z_]+)\b(?![.*/<])", picture)
    assert {"config/load", "training/worker"} <= set(places)
    assert [place for place in places if not short_path_exists(place, ROOT / "orchestrator" / "cli.py")] == []


def imports_of(path: Path) -> set[str]:
    """What a module imports, lazily too, as dotted names."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_heavy_libraries_are_imported_at_their_doors_alone() -> None:
    section = read(ROOT / "docs" / "architecture.md").split("\n## Doors")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([a-z][\w.]*) \| (.+) \|$", section, flags=re.MULTILINE)
    assert {"trl", "peft", "vllm", "ray.tune"} <= {library for library, _ in rows}
    for library, doors in rows:
        places = CODE.findall(doors)
        users = {name_of(m) for m in MODULES if any(f"{name}.".startswith(f"{library}.") for name in imports_of(m))}
        assert {user for user in users if not user.startswith(tuple(places))} == set(), library
        assert [place for place in places if not any(user.startswith(place) for user in users)] == [], library
