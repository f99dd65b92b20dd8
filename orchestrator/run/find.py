"""Which configuration a command means: a file, or a run that has one."""

import json
from collections.abc import Sequence
from pathlib import Path

from orchestrator.config.load import load_config
from orchestrator.config.schema import ResourcesConfig
from orchestrator.core.errors import ConfigError
from orchestrator.run.folder import run_dir
from orchestrator.run.paths import RunDir

STORAGE = "resources.storage_path="


def find_config(given: Path, overrides: Sequence[str]) -> tuple[Path, tuple[str, ...]]:
    """The configuration file that `given` means, and the settings to lay over it.

    `given` is the file, or a run: its folder, or its name below `resources.storage_path`. A run's configuration is set
    to where the folder lies, wherever it was made.

    Raises:
        ConfigError: If it is both a file and a run, or neither.
    """
    chosen = [text.removeprefix(STORAGE) for text in overrides if text.startswith(STORAGE)]
    storage = Path([ResourcesConfig().storage_path, *chosen][-1]).expanduser()
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
    placed = (f"name={json.dumps(folder.name)}", f"{STORAGE}{json.dumps(str(folder.parent))}")
    return RunDir(folder).config, (*placed, *overrides)


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
    return place if config == place.config else run_dir(load_config(config, settings))
