"""Where a run's events go: TensorBoard's files from this process, outside trackers by a sender process each."""

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from orchestrator.config.schema import TrackerName
from orchestrator.core.progress import doing, say
from orchestrator.core.records import StopReason
from orchestrator.run.paths import RunDir
from orchestrator.tracking.destinations import IN_PROCESS
from orchestrator.tracking.events import (
    Event,
    Measured,
    Opened,
    TrialBegan,
    TrialEnded,
    append,
    deliver,
)
from orchestrator.tracking.tracker import RunInfo, Tracker

PATIENCE_S = 30.0
"""How long a training that is over waits for its trackers."""
Emit = Callable[[Event], None]


class Follow:
    """A tracker of the events that `connect` opens a way for, given the run's folder."""

    def __init__(self, name: str, connect: Callable[[RunDir], AbstractContextManager[Emit]]) -> None:
        self.name, self._connect = name, connect
        self._open = ExitStack()

    def run_started(self, run: RunInfo) -> None:
        """Open the way."""
        self._emit = self._open.enter_context(self._connect(RunDir(run.folder)))

    def trial_started(self, trial: str, hyperparameters: Mapping[str, float | int], step: int) -> None:
        """Pass on."""
        self._emit(TrialBegan(trial=trial, hyperparameters=dict(hyperparameters), step=step))

    def step(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        """Pass on."""
        self._emit(Measured(trial=trial, step=step, values=dict(values)))

    def metrics(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        """Pass on."""
        self._emit(Measured(trial=trial, step=step, values=dict(values)))

    def trial_ended(self, trial: str, reason: StopReason) -> None:
        """Pass on."""
        self._emit(TrialEnded(trial=trial, reason=reason))

    def run_ended(self) -> None:
        """Close the way."""
        self._open.close()


def followers(names: Sequence[TrackerName]) -> list[Tracker]:
    """The trackers that a configuration names."""
    return [Follow(name, connect) for name, connect in _ways(names)]


def publish(run: RunDir, names: Sequence[TrackerName], events: Sequence[Event]) -> None:
    """Give events to each tracker; one that fails is named, and nothing else happens."""
    for name, connect in _ways(names):
        try:
            with connect(run) as emit:
                for event in events:
                    emit(event)
        except Exception as error:  # noqa: BLE001 - a report is written, whatever a tracker says to it
            say(f"The tracker {name} failed with {type(error).__name__}: {error}.")


def _ways(names: Sequence[TrackerName]) -> Iterator[tuple[str, Callable[[RunDir], AbstractContextManager[Emit]]]]:
    if IN_PROCESS in names:
        yield IN_PROCESS, _tensorboard
    outside = [name for name in names if name != IN_PROCESS]
    if outside:
        yield " and ".join(outside), partial(_senders, outside)


@contextmanager
def _tensorboard(run: RunDir) -> Iterator[Emit]:
    from orchestrator.tracking.tensorboard import TensorBoard

    board = TensorBoard(run.tensorboard)
    try:
        yield partial(deliver, destination=board)
    finally:
        board.close()


@contextmanager
def _senders(names: Sequence[TrackerName], run: RunDir) -> Iterator[Emit]:
    run.tracking.mkdir(parents=True, exist_ok=True)
    if not run.events.is_file():
        append(run.events, Opened(key=uuid.uuid4().hex[:12]))
    senders = [_Sender(name, run) for name in names]
    try:
        yield partial(append, run.events)
    finally:
        _end(senders)


class _Sender:
    """A process that sends the run's events to one tracker."""

    def __init__(self, name: str, run: RunDir) -> None:
        self.name = name
        command = [sys.executable, "-m", "orchestrator.tracking.send", name, str(run.root)]
        with (run.tracking / f"{name}.log").open("ab") as log:
            self.process = subprocess.Popen(  # in a session of its own, so that Ctrl-C leaves it to this process
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._telling = threading.Thread(target=self._tell, daemon=True)
        self._telling.start()

    def _tell(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            say(line.rstrip())

    def end(self, until: float) -> bool:
        """Wait for what is left to be sent, at most until a time of the monotonic clock; returns whether it was."""
        try:
            is_sent = self.process.wait(max(until - time.monotonic(), 0.0)) == 0
        except subprocess.TimeoutExpired:
            self.process.kill()  # what it did not send, the next one does
            is_sent = self.process.wait() == 0
        self._telling.join()
        return is_sent


def _end(senders: Sequence[_Sender]) -> None:
    until = time.monotonic() + PATIENCE_S
    for sender in senders:
        assert sender.process.stdin is not None
        sender.process.stdin.close()
    with doing("sending the last of it to the trackers"):
        late = [sender.name for sender in senders if not sender.end(until)]
    if late:
        names = " and ".join(late)
        say(f"{names} did not receive everything yet. The next train, search or report of this run sends the rest.")
