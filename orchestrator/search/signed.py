"""Ray Tune's own files, which are pickles: read again only if the run's ledger has their digests.

Tune writes its state into a folder of this machine and copies it into the run's from there. A state is signed in
between, so that a driver that is killed at any moment leaves nothing unsigned.
"""

import hashlib
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from orchestrator.core.errors import RunConflictError
from orchestrator.run.folder import read_ledger, record_signed
from orchestrator.run.paths import RunDir

STATES = ("*.json", "*.pkl")
"""What Tune restores an experiment from."""
TUNER = "tuner.pkl"
"""What makes Tune's tuner again."""
ERRORS = "*/error.pkl"
"""What ended a trial, beside the same as text in `error.txt`."""


class SignsStates(tune.Callback):  # type: ignore[misc]  # ray ships no types for it
    """Signs each state of the experiment in `folder` before it is copied there."""

    def __init__(self, run: RunDir, folder: Path) -> None:
        self._run, self._folder = run, folder
        self._trials: list[Trial] = []

    def __reduce__(self) -> tuple[Callable[[RunDir, Path], "SignsStates"], tuple[RunDir, Path]]:
        return SignsStates, (self._run, self._folder)  # Tune stores its callbacks with the experiment

    def on_step_begin(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Remember Tune's own list of its trials, which grows."""
        self._trials = trials

    def get_state(self) -> None:
        """Tune has written all else of a state, and copies it after this. This callback has none of its own."""
        if self._trials:
            staging = Path(self._trials[0].storage.experiment_driver_staging_path)
            places = {path: _name(self._run, self._folder / path.relative_to(staging)) for path in _pickles(staging)}
            record_signed(self._run, {name: _digest(path) for path, name in places.items()})


def sign_tuner(run: RunDir, folder: Path) -> None:
    """Keep the digest of what Tune wrote into the run's folder itself, as its experiment began."""
    path = folder / TUNER
    record_signed(run, {_name(run, path): _digest(path)})


def require_signed(run: RunDir, folder: Path) -> None:
    """Refuse an experiment of Tune's that holds what this run did not write, because reading it could run anything.

    What ended a trial is left out instead, for Tune then takes the text beside it.

    Raises:
        RunConflictError: If it does, or if anyone may write there.
    """
    known, pickles = read_ledger(run).signed, list(_pickles(folder))
    for path in (run.ledger, folder, *pickles):
        if path.exists() and path.stat().st_mode & stat.S_IWOTH:
            what = "anyone on this machine may write here, and going on with the search could run what they wrote"
            raise RunConflictError(what, where=str(path), fix=f"chmod -R o-w {run.root}, if nobody else wrote there")
    for path in pickles:
        if _digest(path) in known.get(_name(run, path), ()):
            continue
        if path.match(ERRORS):
            path.unlink()
            continue
        what = "this is not what the run wrote (it was changed, or cut off), and reading it could run anything"
        fix = f"Restore the run's folder, or remove {folder.parent} to search anew"
        raise RunConflictError(what, where=str(path), fix=fix)


def _pickles(folder: Path) -> Iterator[Path]:
    for pattern in (*STATES, ERRORS):
        yield from sorted(folder.glob(pattern))


def _name(run: RunDir, path: Path) -> str:
    return path.relative_to(run.root).as_posix()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
