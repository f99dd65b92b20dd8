"""Which configuration a command means: a file, or a run that has one."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from orchestrator.config.load import load_config
from orchestrator.config.schema import ResourcesConfig, RunConfig
from orchestrator.config.storage import is_bucket
from orchestrator.core.errors import ConfigError
from orchestrator.run.folder import run_dir
from orchestrator.run.paths import RunDir
from orchestrator.run.published import fetch, is_working_folder

STORAGE = "resources.storage_path="


def find_config(given: Path, overrides: Sequence[str]) -> tuple[Path, tuple[str, ...]]:
    """The configuration file that `given` means, and the settings to lay over it.

    `given` is the file, or a run: its folder, or its name below `resources.storage_path`. A run's configuration is set
    to where the folder lies, wherever it was made.

    Raises:
        ConfigError: If it is both a file and a run, or neither.
        StorageRefusedError, StorageUnreachableError: If it may be a run in a bucket, which cannot be read.
    """
    chosen = [text.removeprefix(STORAGE) for text in overrides if text.startswith(STORAGE)]
    place = [ResourcesConfig().storage_path, *chosen][-1]
    if is_bucket(place):
        return given if given.is_file() else _in_bucket(given, place), tuple(overrides)
    storage = Path(place).expanduser()
    places = {place.resolve() for place in (given.expanduser(), storage / given) if RunDir(place).config.is_file()}
    meant = [*([given] if given.is_file() else []), *sorted(places)]
    if len(meant) > 1:
        raise ConfigError(
            f"this may be {' or '.join(map(str, meant))}", where=str(given), fix="Write the path of the one you mean"
        )
    if not places:
        if not meant and not given.suffix:
            fix = "Name a configuration (`orchestrator init` writes one), a run's folder, or the run's name"
            what = f"there is neither a configuration file nor a run called so, here or in {storage}"
            raise ConfigError(what, where=str(given), fix=fix)
        return given, tuple(overrides)
    folder = places.pop()
    if is_working_folder(RunDir(folder)):  # its configuration says where the run is
        return RunDir(folder).config, tuple(overrides)
    placed = (f"name={json.dumps(folder.name)}", f"{STORAGE}{json.dumps(str(folder.parent))}")
    return RunDir(folder).config, (*placed, *overrides)


def _in_bucket(given: Path, place: str) -> Path:
    """The configuration of the run of this name in a bucket, brought here; raises as `find_config` does."""
    config = _named(str(given), place)
    fetch(config)
    run = run_dir(config)
    if not run.config.is_file():
        fix = "Name a configuration (`orchestrator init` writes one), or the run's name"
        what = f"there is neither a configuration file called so here nor a run in {place.partition('?')[0]}"
        raise ConfigError(what, where=str(given), fix=fix)
    return run.config


def _named(name: str, place: str) -> RunConfig:
    try:
        return RunConfig(name=name, resources=ResourcesConfig(storage_path=place))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = first["msg"].removeprefix("Value error, ")
        raise ConfigError(what, where="the run's name" if first["loc"] == ("name",) else STORAGE[:-1]) from None


def find_run(given: Path, overrides: Sequence[str]) -> RunDir:
    """The run that `given` means: its folder, its name below `resources.storage_path`, or its configuration's.

    A folder needs nothing but to be there, so that a run can be looked at whose configuration cannot be read.

    Raises:
        ConfigError: As `find_config` does, or as loading the configuration does.
    """
    here = RunDir(given.resolve())
    if here.config.is_file() or here.ledger.is_file():
        return here
    config, settings = find_config(given, overrides)
    place = RunDir(config.parent.resolve())
    if config == place.config:
        return place
    loaded = load_config(config, settings)
    if is_bucket(loaded.resources.storage_path):
        fetch(loaded)
    return run_dir(loaded)
