"""Another run than this one, by its folder or its name."""

from pathlib import Path

from orchestrator.core.errors import InputError
from orchestrator.run.paths import RunDir


def find_other_run(text: str, run: RunDir, *, where: str = "--compare") -> RunDir:
    """The run that `text`, given as `where`, means: a folder, or the name of a run beside `run`.

    Raises:
        InputError: If there is no such folder, or it is `run` itself.
    """
    places = (Path(text), run.root.parent / text)
    folder = next((path for path in places if _is_run(path)), None)
    if folder is None:
        raise InputError(
            f"no run is in the folder {text!r}, and none of that name lies beside this one",
            where=where,
            allowed=f"the folder of a run, or the name of one in {run.root.parent}",
        )
    if folder.resolve() == run.root.resolve():
        raise InputError("a run cannot be compared with itself", where=where, fix="Name another run")
    return RunDir(folder.resolve())


def _is_run(folder: Path) -> bool:
    try:
        return RunDir(folder).config.is_file()
    except OSError:  # a name that no file system takes
        return False
