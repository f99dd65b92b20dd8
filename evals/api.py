"""The Python API, for notebooks and CI: `import orchestrator as o`. docs/python.md shows it in use.

The functions are those that the commands use; what a run has is read from its folder each time it is asked for.
"""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from evals.generate.as_served import as_served
from evals.generate.chosen import WINNER, choose_adapter, read_report
from evals.records import EngineRecord, Report, Scores
from orchestrator.config.load import load_config
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE, GATE_NOT_MET, INTERRUPTED, ConfigError, OrchestratorError, RunConflictError
from orchestrator.core.files import parse_line, read_jsonl
from orchestrator.core.interrupt import handlers_kept
from orchestrator.core.records import AdapterRecord, Record, TrialRecord
from orchestrator.run.command import Stage, run_job
from orchestrator.run.find import find_run
from orchestrator.run.folder import Ledger, read_ledger
from orchestrator.run.paths import RunDir

Model = TypeVar("Model", bound=Record)
Place = str | os.PathLike[str]
"""A configuration's file, a run's folder, or a run's name below `runs`."""
_END = "\n...\n"
"""What YAML ends a document with that is a single value."""


@dataclass(frozen=True)
class Adapter:
    """An adapter of a run. `folder` is in PEFT format, `record` says what it is.

    `serve_command` is the shell command that serves it as it was scored; None where it was not scored.
    """

    id: str
    folder: Path
    record: AdapterRecord
    serve_command: str | None


@dataclass(frozen=True)
class Run:
    """A run, as far as it is. Made by `load_run` and `run`."""

    folder: Path

    @property
    def _dir(self) -> RunDir:
        return RunDir(self.folder)

    @property
    def config(self) -> RunConfig:
        """Its configuration, with all defaults."""
        return load_config(self._dir.config)

    @property
    def ledger(self) -> Ledger:
        """Which of its stages are done, when and for how long, and what was found about its training."""
        return read_ledger(self._dir)

    def trials(self) -> list[TrialRecord]:
        """The trials of its search, none before there is one."""
        return list(read_jsonl(self._dir.trials, TrialRecord)) if self._dir.trials.is_file() else []

    def adapters(self) -> list[Adapter]:
        """The adapters that it kept, by id."""
        return [self.adapter(path.name) for path in sorted(self.folder.glob("adapters/[!.]*"))]

    def adapter(self, name: str = WINNER) -> Adapter:
        """The adapter of this id, or the `winner`: what the report recommends.

        Raises:
            RunConflictError: If the run has no such adapter, or nothing says which one is best.
        """
        id_ = choose_adapter(self._dir, name)
        path, made = self._dir.adapter_record(id_), self._dir.engine(id_)
        record, engine = _read(path, AdapterRecord), _read(made, EngineRecord) if made.is_file() else None
        folder = self._dir.adapter(id_)
        serve = as_served(self.config, record, engine, folder)
        return Adapter(id_, folder, record, None if serve is None else serve.command)

    def scores(self) -> dict[str, Scores]:
        """The scores of the base (`base`) and of each adapter, by id: metrics with intervals, and a verdict a case.

        Raises:
            RunConflictError: If the run has not been scored.
        """
        found = {path.parent.name: path for path in sorted(self.folder.glob("evals/*/scores.json"))}
        if not found:
            raise RunConflictError("the run has no scores", where=str(self.folder), fix="Run evaluate first")
        return {
            id_: parse_line(path.read_text(encoding="utf-8"), Scores, where=str(path)) for id_, path in found.items()
        }

    def report(self) -> Report:
        """Its report: the verdict, the adapters beside the base, comparisons, gates.

        Raises:
            RunConflictError: If none was written.
        """
        report = read_report(self._dir)
        if report is None:
            raise RunConflictError("the run has no report", where=str(self.folder), fix="Run report first")
        return report

    @property
    def passed(self) -> bool:
        """Whether every gate of the configuration is met; raises as `report` does."""
        return all(gate.passed for gate in self.report().gates)


def load_run(place: Place) -> Run:
    """The run in a folder, of this name below `runs`, or of a configuration.

    Raises:
        ConfigError: If there is none, or the configuration is not valid.
    """
    run = find_run(Path(place), ())
    if not run.config.is_file():
        raise ConfigError("there is no run yet", where=str(run.root), fix="Run it first")
    return Run(run.root)


def run(place: Place, settings: Mapping[str, Any] | None = None, *, stage: str = Stage.RUN) -> Run:
    """Do what `orchestrator run` does, or another stage, and give the run; what is done already is skipped.

    It runs in a process of its own, whose words appear where this process writes. A gate that is not met is no error:
    see `Run.passed`. Call it from the main thread, which hears an interruption.

    Args:
        place: A configuration's file, or a run that goes on.
        settings: Values that replace those of the configuration, such as `{"train.epochs": 2}`.
        stage: `check`, `prepare`, `train`, `search`, `evaluate`, `report`, or `run` for everything.

    Raises:
        ConfigError: If there is no such stage or configuration, or a setting is not valid.
        OrchestratorError: If the stage failed; what is wrong is the line that begins with `Error:`.
        KeyboardInterrupt: If it was interrupted.
    """
    if stage not in list(Stage):
        raise ConfigError(f"there is no stage {stage!r}", where="stage", allowed=", ".join(Stage))
    overrides = [_written(key, value) for key, value in (settings or {}).items()]
    hang_up = signal.getsignal(signal.SIGHUP)
    try:
        with handlers_kept():
            code = run_job(Stage(stage).job, Path(place), overrides)
    finally:
        signal.signal(signal.SIGHUP, hang_up)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code not in (DONE, GATE_NOT_MET):
        what = f"the stage {stage} ended with exit code {code}; the line that begins with Error: says why"
        raise OrchestratorError(what, where=str(place))
    return Run(find_run(Path(place), overrides).root)


def _written(key: str, value: Any) -> str:
    """A setting as `--set` takes it: YAML on one line."""
    plain = os.fspath(value) if isinstance(value, os.PathLike) else value
    try:
        text = yaml.safe_dump(plain, default_flow_style=True, width=float("inf"))
    except yaml.YAMLError:
        what = f"a value of the type {type(value).__name__} cannot be written into a configuration"
        allowed = "text, numbers, True, False, None, paths, and lists and dicts of these"
        raise ConfigError(what, where=key, allowed=allowed) from None
    return f"{key}={text.removesuffix(_END).strip()}"


def _read(path: Path, model: type[Model]) -> Model:
    try:
        return parse_line(path.read_text(encoding="utf-8"), model, where=str(path))
    except OSError as error:
        raise RunConflictError(f"it cannot be read ({error.strerror})", where=str(path)) from None
