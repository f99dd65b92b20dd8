"""Explains a bad configuration: one line for each wrong setting.

Pydantic reports every branch of a union and names validators in its paths. A line here has the dotted path, the value,
and what the configuration's JSON Schema allows there.
"""

import difflib
import json
import reprlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import ConfigError
from orchestrator.core.records import JsonObject

KeyPath = tuple[str | int, ...]
PlaceOf = Callable[[KeyPath], str]

BOUNDS = (("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"), ("exclusiveMaximum", "below"))

NAMES_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("rank", "lora_r", "lora_rank"), "lora.r"),
        "lora_alpha": "lora.alpha",
        "lora_dropout": "lora.dropout",
        "lora_target_modules": "lora.target_modules",
        **dict.fromkeys(("num_train_epochs", "num_epochs"), "train.epochs"),
        "lr": "train.learning_rate",
        "lr_scheduler_type": "train.scheduler",
        **dict.fromkeys(("per_device_train_batch_size", "micro_batch"), "train.micro_batch_size"),
        **dict.fromkeys(("gradient_accumulation_steps", "train_batch_size"), "train.batch_size"),
        **dict.fromkeys(("max_seq_length", "max_seq_len", "sequence_len", "cutoff_len"), "data.max_length"),
        **dict.fromkeys(("model_name_or_path", "base_model", "model_name"), "model.base"),
        "torch_dtype": "model.dtype",
        "num_samples": "search.num_trials",
        "random_state": "train.seed",
    }
)
"""What PEFT, TRL, Ray Tune, Axolotl, LLaMA-Factory and Unsloth call settings that have another name here."""


class _Problem(NamedTuple):
    """One wrong setting; `kind` is pydantic's error type."""

    path: KeyPath
    kind: str
    value: Any
    message: str


def explain(error: ValidationError, tree: JsonObject, place_of: PlaceOf) -> ConfigError:
    """One ConfigError for everything wrong with `tree`, one problem a line.

    `error` is what `RunConfig.model_validate(tree)` raised; `place_of` says where the user set a path: file or `--set`.
    """
    errors = [_as_error(problem, place_of(problem.path)) for problem in _problems(error, tree)]
    if len(errors) == 1:
        return errors[0]
    return ConfigError("\n  ".join([f"{len(errors)} settings are wrong:", *map(str, errors)]))


def dotted(path: KeyPath) -> str:
    """A path as `--set` takes it, such as `data.sources.0.path`."""
    return ".".join(str(part) for part in path)


def _problems(error: ValidationError, tree: JsonObject) -> list[_Problem]:
    by_path: dict[KeyPath, _Problem] = {}
    for detail in error.errors(include_url=False):
        for problem in _read_detail(detail, tree):
            if problem.path not in by_path or problem.kind == "value_error":
                by_path[problem.path] = problem
    # Branches of a union that expected another shape complain at the union itself; the branch that was meant
    # complains further in.
    parents = {path[:length] for path in by_path for length in range(len(path))}
    problems = [problem for path, problem in by_path.items() if path not in parents]
    meant = {_sibling_meant(problem.path) for problem in problems if problem.kind == "extra_forbidden"}
    return [problem for problem in problems if problem.kind != "missing" or problem.path not in meant]


def _sibling_meant(path: KeyPath) -> KeyPath | None:
    """The key of the same section that an unknown key at `path` is probably meant to be."""
    known = NAMES_ELSEWHERE.get(str(path[-1]))
    if known and known.rpartition(".")[0] == dotted(path[:-1]):
        return tuple(known.split("."))
    near = difflib.get_close_matches(str(path[-1]), keys_at(path[:-1]), n=1)
    return (*path[:-1], near[0]) if near else None


def _read_detail(detail: ErrorDetails, tree: JsonObject) -> Iterator[_Problem]:
    path, value = _plain_path(detail, tree)
    names = schema_at(path).get("propertyNames", {}).get("enum")
    if names and isinstance(value, dict) and not set(value) <= set(names):
        for key in value.keys() - set(names):
            yield _Problem((*path, key), "extra_forbidden", value[key], "")
        return
    message = str(detail.get("ctx", {}).get("error", detail["msg"]))
    yield _Problem(path, detail["type"], detail["input"], message)


def _plain_path(detail: ErrorDetails, tree: JsonObject) -> tuple[KeyPath, Any]:
    """The path in terms of the user's own keys, without the names of union branches, and the value found there."""
    node: Any = tree
    path: list[str | int] = []
    for part in detail["loc"]:
        known = range(len(node)) if isinstance(node, list) else node if isinstance(node, dict) else ()
        if part in known:
            path.append(part)
            node = node[part]
    if detail["type"] == "missing":
        path.append(detail["loc"][-1])
    return tuple(path), node


def _as_error(problem: _Problem, place: str) -> ConfigError:
    where = f"{place}: {dotted(problem.path)}" if problem.path else place
    schema = schema_at(problem.path)
    match problem.kind:
        case "extra_forbidden" | "invalid_key":
            nearest = _nearest_key(problem.path)
            fix = f"Perhaps {nearest} is meant" if nearest else None
            allowed = ", ".join(keys_at(problem.path[:-1]))
            return ConfigError("there is no such key", where=where, allowed=allowed, fix=fix)
        case "missing":
            return ConfigError("this key is required", where=where, allowed=describe(schema))
        case "value_error":
            return ConfigError(problem.message, where=where)
    number_for_text = problem.kind == "string_type" and isinstance(problem.value, bool | int | float)
    fix = "Put the value in quotes" if number_for_text else None
    return ConfigError(f"{shown(problem.value)} is not allowed here", where=where, allowed=describe(schema), fix=fix)


def shown(value: Any) -> str:
    """A value for a message, shortened and with YAML's words for null, true and false."""
    return json.dumps(value) if value is None or isinstance(value, bool) else reprlib.repr(value)


def _nearest_key(path: KeyPath) -> str | None:
    key = str(path[-1])
    if key in NAMES_ELSEWHERE:
        return NAMES_ELSEWHERE[key]
    sibling = _sibling_meant(path)
    if sibling:
        return dotted(sibling)
    by_last_part = {known[-1]: dotted(known) for known in reversed(list(_all_keys((), _schema())))}
    elsewhere = difflib.get_close_matches(key, by_last_part, n=1, cutoff=0.8)
    return by_last_part[elsewhere[0]] if elsewhere else None


@cache
def _schema() -> JsonObject:
    return RunConfig.model_json_schema()


def _all_keys(path: tuple[str, ...], node: JsonObject) -> Iterator[tuple[str, ...]]:
    for option in _options(node):
        for key, child in option.get("properties", {}).items():
            yield (*path, key)
            yield from _all_keys((*path, key), child)


def _options(node: JsonObject) -> list[JsonObject]:
    """The schemas of which a value must fit one, with references followed."""
    if "$ref" in node:
        return [_schema()["$defs"][node["$ref"].rsplit("/", 1)[-1]]]
    return [option for choice in node["anyOf"] for option in _options(choice)] if "anyOf" in node else [node]


def schema_at(path: KeyPath) -> JsonObject:
    """The JSON Schema of the setting at `path`; empty where the configuration has no such setting."""
    node = _schema()
    for part in path:
        node = next((child for option in _options(node) if (child := _child(option, part))), {})
    return node


def _child(option: JsonObject, part: str | int) -> JsonObject | None:
    named = option.get("properties", {}).get(part) or option.get("additionalProperties")
    child = option.get("items") if isinstance(part, int) else named
    return child if isinstance(child, dict) else None


def keys_at(path: KeyPath) -> list[str]:
    """The keys that the section at `path` may hold."""
    return [key for option in _options(schema_at(path)) for key in _keys(option)]


def _keys(option: JsonObject) -> list[str]:
    return [*option.get("properties", {}), *option.get("propertyNames", {}).get("enum", [])]


def describe(schema: JsonObject) -> str:
    """What a JSON Schema of the configuration allows, in words."""
    return ", or ".join(_describe_option(option) for option in _options(schema))


def _describe_option(option: JsonObject) -> str:
    if "enum" in option:
        return ", ".join(str(value) for value in option["enum"])
    if "const" in option:
        return str(option["const"])
    match option.get("type"):
        case "integer":
            return "a whole number" + _bounds(option)
        case "number":
            return "a number" + _bounds(option)
        case "string":
            form = option.get("examples", [option.get("pattern")])[0]
            return "text" if form is None else f"text of the form {form}"
        case "boolean":
            return "true or false"
        case "array":
            length = f" of at least {option['minItems']}" if "minItems" in option else ""
            return f"a list{length}, each item {describe(option['items'])}"
        case "object":
            return f"a mapping with the keys {', '.join(_keys(option))}"
        case _:
            return "null"


def _bounds(option: JsonObject) -> str:
    bounds = [f"{words} {option[key]:g}" for key, words in BOUNDS if key in option]
    return f" {' and '.join(bounds)}" if bounds else ""
