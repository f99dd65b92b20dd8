"""TensorBoard: event files in the run's own folder, one folder a trial, for `tensorboard --logdir`."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.hparams import metadata as hparams
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
from tensorboard.plugins.text import metadata as texts
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from orchestrator.tracking.events import Measured, Scored, TrialBegan, TrialEnded, tagged


class TensorBoard:
    """Writes a folder for each trial below `folder`. A resumed trial goes on in a further file of its folder."""

    notice = ""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, EventFileWriter] = {}

    def trial_began(self, event: TrialBegan) -> None:
        """Open the trial's file. What an earlier one holds after this step is not shown."""
        writer = self._writers[event.trial] = self._open(event.trial)
        restart = SessionLog(status=SessionLog.START)
        writer.add_event(Event(wall_time=time.time(), step=event.step + 1, session_log=restart))
        writer.add_event(Event(wall_time=time.time(), summary=_hyperparameters(event.hyperparameters)))

    def measured(self, event: Measured) -> None:
        """Add a point to each curve, but none that is not finite: it has no place in a picture."""
        _add_points(self._writers[event.trial], tagged(event.values), event.step, event.at)

    def trial_ended(self, event: TrialEnded) -> None:
        """Close the trial's file."""
        self._writers.pop(event.trial).close()

    def scored(self, event: Scored) -> None:
        """Add one point a metric, in a file of its own."""
        with self._opened(event.trial) as writer:
            _add_points(writer, event.tagged, event.step)

    def reported(self, files: Sequence[Path]) -> None:
        """Show the report's text form."""
        for file in files:
            if file.suffix == ".md":
                text = TensorProto(dtype=DT_STRING, string_val=[file.read_bytes()])
                value = Summary.Value(tag=file.stem, metadata=texts.create_summary_metadata(file.stem, ""), tensor=text)
                with self._opened(file.stem) as writer:
                    writer.add_event(Event(wall_time=time.time(), summary=Summary(value=[value])))

    def close(self) -> None:
        """Close what is open."""
        for writer in self._writers.values():
            writer.close()

    def _open(self, name: str) -> EventFileWriter:
        # TensorBoard reads the files of a folder by name, which begins with the second.
        return EventFileWriter(str(self._folder / name), filename_suffix=f".{time.time_ns()}")

    @contextmanager
    def _opened(self, name: str) -> Iterator[EventFileWriter]:
        writer = self._open(name)
        try:
            yield writer
        finally:
            writer.close()


def _hyperparameters(given: Mapping[str, float | int]) -> Summary:
    """What the table of hyperparameters shows of a trial; `tensorboard` has a helper that needs TensorFlow."""
    session = SessionStartInfo()
    for name, value in given.items():
        session.hparams[name].number_value = value
    metadata = hparams.create_summary_metadata(HParamsPluginData(session_start_info=session))
    tag = hparams.SESSION_START_INFO_TAG
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=hparams.NULL_TENSOR)])


def _add_points(writer: EventFileWriter, values: Mapping[str, float], step: int, at: float | None = None) -> None:
    points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items() if math.isfinite(value)]
    wall_time = time.time() if at is None else at
    writer.add_event(Event(wall_time=wall_time, step=step, summary=Summary(value=points)))
    writer.flush()
