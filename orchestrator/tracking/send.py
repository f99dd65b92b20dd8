"""Sends the events of a run to one tracker: `python -m orchestrator.tracking.send NAME RUN_FOLDER`.

A process of its own, because trackers wait for networks, print, and keep global state. It ends when its standard input
does and everything is sent. How far it came stays beside the events, and the next process goes on from there. Each line
on its standard output is a sentence for the person who trains; what a tracker itself prints goes to standard error.
"""

import io
import os
import select
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TextIO

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE, FAILED
from orchestrator.core.files import write_text_atomic
from orchestrator.core.process import set_environment_defaults
from orchestrator.core.text import shown
from orchestrator.run.deaths import last_line
from orchestrator.run.paths import RunDir
from orchestrator.tracking.destinations import connect
from orchestrator.tracking.events import Destination, Opened, Run, deliver, read_events

LOOK_EVERY_S = 1.0
TRY_AGAIN_AFTER_S = 60.0
DEFAULTS = {
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "WANDB_ERROR_REPORTING": "false",
}
"""Environment of the trackers where the user has not set it: any store works that the user names, no tracker reports
of itself, and one that cannot be reached is known within a minute."""


class Shown(io.TextIOBase):
    """A stream for what a tracker prints: no secret gets into it, and nothing that a terminal obeys."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what may be shown of a text."""
        self._stream.write(shown(text))
        return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        self._stream.flush()

    def fileno(self) -> int:
        """The stream's own."""
        return self._stream.fileno()


class Sending:
    """The events of a run on their way to one tracker."""

    def __init__(self, name: str, run: RunDir, tell: Callable[[str], None]) -> None:
        self._name, self._run, self._tell = name, run, tell
        self._place = run.tracking / f"{name}.sent"
        self._sent = int(self._place.read_text(encoding="utf-8")) if self._place.is_file() else 0
        self._destination: Destination | None = None

    def send(self) -> None:
        """Send what is there; raises what the tracker raises, with the event that failed still to be sent."""
        before = self._sent
        try:
            for event, behind in read_events(self._run.events, self._sent):
                if not isinstance(event, Opened):
                    deliver(event, self._connected())
                self._sent = behind
        finally:
            if self._sent != before:
                write_text_atomic(self._place, f"{self._sent}\n")

    def close(self) -> None:
        """Let the tracker send what it holds."""
        if self._destination is not None:
            self._destination.close()

    def forget(self) -> None:
        """Connect anew before the next event."""
        self._destination = None

    def _connected(self) -> Destination:
        if self._destination is None:
            opened, _ = next(read_events(self._run.events))
            assert isinstance(opened, Opened)
            config = RunConfig.model_validate_json(self._run.config.read_text(encoding="utf-8"))
            run = Run(key=opened.key, name=config.name, folder=self._run.root, config=config.model_dump(mode="json"))
            self._destination = connect(self._name, run)
            if self._destination.notice:
                self._tell(self._destination.notice)
        return self._destination


def send_all(name: str, run: RunDir, tell: Callable[[str], None]) -> int:
    """Send until standard input ends; a failure is told once, and the rest is tried again each minute."""
    sending, failed = Sending(name, run, tell), False
    while True:
        is_last = _stdin_ends_within(TRY_AGAIN_AFTER_S if failed else LOOK_EVERY_S)
        try:
            sending.send()
            if is_last:
                sending.close()
                return DONE
            if failed:
                tell(f"The tracker {name} works again and has everything.")
            failed = False
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises, the training goes on
            if not failed:
                tell(f"The tracker {name} failed with {last_line(error).rstrip('.')}. Nothing waits for it.")
            failed = True
            sending.forget()
            if is_last:
                return FAILED


def _stdin_ends_within(seconds: float) -> bool:
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and not sys.stdin.read(1)


def main(name: str, folder: str) -> int:
    """Keep standard output for the person, and send."""
    set_environment_defaults()
    for variable, value in DEFAULTS.items():
        os.environ.setdefault(variable, value)
    person = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdout = sys.stderr = Shown(sys.stderr)
    return send_all(name, RunDir(Path(folder)), partial(print, file=person, flush=True))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
