"""YAML, a profile and `--set` overrides in; a validated `RunConfig` with absolute paths, or its resolved JSON, out.

Layers, from the ground up: defaults of the model, the profile's, the file's, `--set`'s. Mappings merge key by key;
anything else replaces what lies below.
"""

import copy
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from orchestrator.chat.named_templates import is_template_text, template_names, template_of_file
from orchestrator.config.errors import KeyPath, dotted, explain, shown
from orchestrator.config.schema import BUILT_IN_BASES, HUB, PROFILES, SYNTHETIC, RunConfig
from orchestrator.config.storage import is_bucket
from orchestrator.core.errors import ConfigError
from orchestrator.core.records import JsonObject
from orchestrator.core.text import without_secrets

TEXT_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a configuration and make its paths absolute.

    Paths of sources, suites and adapters (`train.init_from` too), and a local `model.base` or `eval.judge.base`, are
    relative to the config file's folder (as an override, to the current folder); `resources.storage_path` is relative
    to the current folder.

    Args:
        path: A YAML file, or resolved JSON (ends in `.json`), to which no profile is applied again.
        overrides: `dotted.key=value`, the value in YAML. `data.sources.0.limit=5` reaches into a list.

    Raises:
        ConfigError: If the file cannot be read, a setting is wrong (every wrong one is named), or one holds a secret.
    """
    settings = [_parse_override(text) for text in overrides]
    written = _read_mapping(path)
    for value, key in ((written, ()), *((setting.value, setting.path) for setting in settings)):
        _refuse_secrets(value, key)
    document = _with_absolute_paths(written, path.absolute().parent)
    tree = RunConfig().model_dump(mode="json")
    if path.suffix != ".json":
        tree = _overlay(tree, PROFILES.get(_chosen_profile(document, settings), {}))
    tree = _overlay(tree, document)
    tree = _with_absolute_paths(_apply(tree, settings), Path.cwd())
    if _inside(tree, "train", "init_from", str) is not None:
        tree = _without_unwritten(tree, [document, *map(_nested, settings)])
    try:
        config = RunConfig.model_validate(tree)
    except ValidationError as error:
        raise explain(error, tree, lambda key: _place_of(key, settings, path)) from None
    return _with_absolute_storage(config)


def _refuse_secrets(value: Any, key: KeyPath) -> None:
    """Refuse what would let others in: the configuration stands in the run's folder, and trackers show it."""
    if isinstance(value, dict | list):
        for part, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _refuse_secrets(inner, (*key, part))
    elif isinstance(value, str) and without_secrets(value) != value:
        fix = "Leave it out: keys, tokens and passwords come from the environment, or from what `login` commands keep"
        raise ConfigError("it holds a password, a key or a token", where=dotted(key), fix=fix)


FROM_ADAPTER = (
    "lora.r",
    "lora.alpha",
    "lora.use_rslora",
    "lora.target_modules",
    "search.space.r",
    "search.space.alpha",
)
"""What `train.init_from` decides where the user does not."""


def left_open(config: RunConfig) -> frozenset[str]:
    """The settings that the user left to the adapter of `train.init_from`."""
    if config.train.init_from is None:
        return frozenset()
    written = {f"lora.{name}" for name in config.lora.model_fields_set}
    written |= {f"search.space.{name}" for name in config.search.space.model_fields_set}
    return frozenset(FROM_ADAPTER) - written


def write_resolved(config: RunConfig, path: Path) -> None:
    """Write `config` as the JSON that `load_config` reads back as the same configuration, what is open left open."""
    tree = config.model_dump(mode="json")
    for key in left_open(config):
        *section, name = key.split(".")
        _at(tree, section).pop(name)
    path.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# Reading


class _Loader(yaml.SafeLoader):
    """Safe YAML with YAML 1.2's numbers (`2e-4`), dates left as text, and repeated keys refused."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag not in TEXT_TAGS:
                raise yaml.MarkedYAMLError(problem="this key is not text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} appears twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(error.problem or "this is not YAML", where=f"{where}{line}") from None
    except RecursionError:
        raise ConfigError("the nesting is too deep", where=where) from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"this is not YAML ({' '.join(str(error).split())})", where=where) from None


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ConfigError("the nesting is too deep", where=where) from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"this is not JSON ({error.msg})", where=f"{where}:{error.lineno}") from None
    except ValueError as error:
        raise ConfigError(str(error), where=where) from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> JsonObject:
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise ValueError(f"the key {key!r} appears twice")
    return dict(pairs)


def _read_mapping(path: Path) -> JsonObject:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        fix = "`orchestrator init` writes a commented starter config"
        raise ConfigError("there is no such file", where=str(path), fix=fix) from None
    except OSError as error:
        raise ConfigError(f"the file cannot be read ({error.strerror})", where=str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError("the file is not UTF-8 text", where=str(path)) from None
    document = (_parse_json if path.suffix == ".json" else _parse_yaml)(text, str(path))
    if not isinstance(document, dict):
        held = "is empty" if document is None else f"holds a {type(document).__name__}"
        raise ConfigError(f"the file {held}", where=str(path), allowed="a mapping of settings, such as `name: demo`")
    return document


# Overrides


class _Override(NamedTuple):
    """One `--set`: the path's parts and the parsed value."""

    path: tuple[str, ...]
    value: Any


def _parse_override(text: str) -> _Override:
    key, equals, value = text.partition("=")
    parts = tuple(part.strip() for part in key.split("."))
    if not equals or not all(parts):
        allowed = "dotted.key=value, such as train.learning_rate=1e-4"
        raise ConfigError(f"{text!r} is not a setting", where="--set", allowed=allowed)
    return _Override(parts, _parse_yaml(value, f"--set {key}"))


def _apply(tree: JsonObject, settings: Sequence[_Override]) -> JsonObject:
    tree = copy.deepcopy(tree)
    for setting in settings:
        node: Any = tree
        for depth, part in enumerate(setting.path[:-1]):
            node = _step_into(node, part, setting.path[:depth])
        _assign(node, setting)
    given = {key for setting in settings for key in _train_keys(setting)}
    return _epochs_count(tree, given)


def _train_keys(setting: _Override) -> set[str]:
    """The keys of `train` that one `--set` sets."""
    if setting.path == ("train",) and isinstance(setting.value, dict):
        return set(setting.value)
    return set(setting.path[1:2]) if setting.path[0] == "train" else set()


def _step_into(node: Any, part: str, path: KeyPath) -> Any:
    if isinstance(node, dict):
        return node.setdefault(part, {})
    return node[_index(node, part, path, len(node) if isinstance(node, list) else 0)]


def _assign(node: Any, setting: _Override) -> None:
    part, parent = setting.path[-1], setting.path[:-1]
    if isinstance(node, dict):
        node[part] = _merged(node.get(part), setting.value)
        return
    index = _index(node, part, parent, len(node) + 1 if isinstance(node, list) else 0)
    node[index : index + 1] = [_merged(node[index] if index < len(node) else None, setting.value)]


def _index(node: Any, part: str, path: KeyPath, end: int) -> int:
    where = f"--set: {dotted(path)}"
    if not isinstance(node, list):
        what = f"this is the value {shown(node)} and has no key {part!r}"
        raise ConfigError(what, where=where, fix="Set it whole")
    if not part.isdecimal() or int(part) >= end:
        allowed = f"a position below {end}" if end else "a whole new list"
        raise ConfigError(f"this is a list of {len(node)} and has no item {part!r}", where=where, allowed=allowed)
    return int(part)


def _place_of(key: KeyPath, settings: Sequence[_Override], file: Path) -> str:
    """Where `key` was set. A section may hold settings of the file and of `--set`."""
    parts = tuple(str(part) for part in key)
    if any(parts[: len(setting.path)] == setting.path for setting in settings):
        return "--set"
    return f"{file} and --set" if any(setting.path[: len(parts)] == parts for setting in settings) else str(file)


# Layers


def _chosen_profile(document: JsonObject, settings: Sequence[_Override]) -> str:
    set_here = [setting.value for setting in settings if setting.path == ("profile",)]
    return str([document.get("profile", RunConfig.model_fields["profile"].default), *set_here][-1])


def _overlay(below: JsonObject, above: JsonObject) -> JsonObject:
    train = above.get("train")
    return _epochs_count(_merged(below, above), set(train) if isinstance(train, dict) else set())


def _epochs_count(tree: JsonObject, given: set[str]) -> JsonObject:
    """Unset a lower layer's max_steps where a layer gives epochs alone: it would silently beat them."""
    if "epochs" in given and "max_steps" not in given and isinstance(tree["train"], dict):
        return {**tree, "train": {**tree["train"], "max_steps": None}}
    return tree


def _nested(setting: _Override) -> JsonObject:
    """One `--set` as a tree of its own."""
    value = setting.value
    for part in reversed(setting.path):
        value = {part: value}
    return value  # type: ignore[no-any-return] # a path has a part


def _without_unwritten(tree: JsonObject, layers: Sequence[JsonObject]) -> JsonObject:
    """Drop defaults and a profile's values of what the adapter of `train.init_from` decides."""
    tree = copy.deepcopy(tree)
    for key in FROM_ADAPTER:
        *section, name = key.split(".")
        if not any(name in _at(layer, section) for layer in layers):
            _at(tree, section).pop(name, None)
    return tree


def _at(tree: JsonObject, path: Sequence[str]) -> JsonObject:
    """The section at a path; an empty one where there is none."""
    node: Any = tree
    for part in path:
        node = node.get(part) if isinstance(node, dict) else None
    return node if isinstance(node, dict) else {}


def _merged(below: Any, above: Any) -> Any:
    """`above` over `below`. A section left empty, as when all its lines are comments, changes nothing."""
    if isinstance(below, dict) and above is None:
        return below
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}
    return above


# Paths


def _with_absolute_paths(tree: JsonObject, folder: Path) -> JsonObject:
    """Make paths of sources and suites and local models absolute; tolerate any shape, which is validated later."""
    tree = copy.deepcopy(tree)
    for section, key in (("data", "sources"), ("eval", "suites"), ("prefer", "sources")):
        for entry in _inside(tree, section, key, list) or []:
            if isinstance(entry, dict):
                entry.update({name: _absolute(path, folder) for name, path in _local_paths(entry)})
    adapters = _inside(tree, "eval", "adapters", list)
    if adapters is not None:
        tree["eval"]["adapters"] = [adapter_place(entry, folder) for entry in adapters]
    start = _inside(tree, "train", "init_from", str)
    if start is not None:
        tree["train"]["init_from"] = adapter_place(start, folder)
    template = _inside(tree, "model", "chat_template", str)
    if template is not None:
        tree["model"]["chat_template"] = _template(template, folder)
    for model in (tree.get("model"), _inside(tree, "eval", "judge", dict)):
        base = model.get("base") if isinstance(model, dict) else None
        if isinstance(model, dict) and isinstance(base, str) and _is_local_base(base, folder):
            model["base"] = _absolute(base, folder)
    return tree


def _template(setting: str, folder: Path) -> str:
    """`model.chat_template` with the text of a file in place of its path, so that a run depends on no other file."""
    if setting in template_names() or is_template_text(setting):
        return setting
    return template_of_file(setting, Path(_absolute(setting, folder)))


def adapter_place(name: Any, folder: Path) -> Any:
    """An adapter's name, as in `eval.adapters`, with a path of this machine made absolute; a hub id stays."""
    return _absolute(name, folder) if isinstance(name, str) and _is_local_base(name, folder) else name


def _inside(tree: JsonObject, section: str, key: str, kind: type) -> Any:
    """The value of a key of a section if it is of that kind, else None."""
    held = tree.get(section)
    value = held.get(key) if isinstance(held, dict) else None
    return value if isinstance(value, kind) else None


def _local_paths(entry: JsonObject) -> Iterator[tuple[str, str]]:
    """The keys of a source or suite that hold a path of this machine."""
    for key in ("path", "answers", "tools"):
        path = entry.get(key)
        if isinstance(path, str) and path and path != SYNTHETIC and not path.startswith(HUB) and not is_bucket(path):
            yield key, path


def _is_local_base(base: str, folder: Path) -> bool:
    if not base or base in BUILT_IN_BASES:
        return False
    return base.startswith(("./", "../", "~", "/")) or os.path.isdir(folder / base)  # noqa: PTH112 - Path.is_dir raises for long names


def _absolute(path: str, folder: Path) -> str:
    try:
        return str((folder / Path(path).expanduser()).resolve())
    except (RuntimeError, ValueError) as error:
        # RuntimeError: `~name` of nobody; ValueError: a null character.
        raise ConfigError(f"{path!r} is no path ({error})", fix="Write the path in full") from None


def _with_absolute_storage(config: RunConfig) -> RunConfig:
    if is_bucket(config.resources.storage_path):
        return config
    storage = _absolute(config.resources.storage_path, Path.cwd())
    return config.model_copy(update={"resources": config.resources.model_copy(update={"storage_path": storage})})
