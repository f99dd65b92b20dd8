"""What every job does around its one piece of work: config, run folder, lock, ledger, cluster."""

import logging
import os
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.load import load_config
from orchestrator.config.schema import RunConfig
from orchestrator.core import progress
from orchestrator.core.errors import OrchestratorError
from orchestrator.core.interrupt import end_of_work, interrupt_once
from orchestrator.core.process import make_parser, run_guarded, set_environment_defaults
from orchestrator.core.text import shown
from orchestrator.run.folder import locked, look_into_run, open_run, run_dir, run_stage, with_template_date
from orchestrator.run.paths import RunDir, StageName
from orchestrator.run.published import fetched, published
from orchestrator.tracking.destinations import require_installed

if TYPE_CHECKING:
    from evals.generate.engines import Engines


def with_start(config: RunConfig) -> RunConfig:
    """The configuration with what the adapter of `train.init_from` decides; raises what `adopt` does."""
    if config.train.init_from is None:
        return config
    from orchestrator.models.start import adopt

    return adopt(config)


@dataclass(frozen=True)
class Scene:
    """What a job finds before it works."""

    settle: Callable[[RunConfig], RunConfig]
    """Decides what the configuration leaves open."""
    folder: Callable[[RunConfig], RunDir]
    """Where the job's folder is. Touches nothing."""
    open: Callable[[RunConfig], RunDir]
    """Makes that folder ready, and refuses one that is not for this configuration."""
    is_held: bool = True
    """Whether the job writes in that folder, so that no other may work in it meanwhile."""
    at_bucket: Callable[[RunConfig], AbstractContextManager[None]] = fetched
    """What is done around the job where the run is in a bucket."""


RUN = Scene(settle=with_start, folder=run_dir, open=open_run, at_bucket=published)
READ = Scene(settle=with_start, folder=run_dir, open=look_into_run, is_held=False)
"""A run that is only read, by as many as like, also while another job works in it."""


def run_job(
    job: str,
    work: Callable[..., int],
    arguments: Sequence[str] | None = None,
    *,
    add_options: Callable[[ArgumentParser], None] = lambda _: None,
    scene: Scene = RUN,
) -> int:
    """Run `python -m jobs.<job>` and return its exit code.

    The traceback of an unexpected error goes to `job.log` in the run's folder.

    Args:
        job: Its name.
        work: Receives the configuration, the run, which this process holds, and each option of its own as a keyword;
            returns the exit code.
        arguments: The command line without the program's name; None takes this process's own.
        add_options: Adds the job's own options to its command line.
        scene: Where it works.
    """
    set_environment_defaults()
    interrupt_once()
    log: Path | None = None

    def parsed() -> int:
        nonlocal log
        parser = make_parser(f"jobs.{job}")
        parser.add_argument("--config", type=Path, required=True, help="YAML or resolved JSON configuration")
        parser.add_argument(
            "--set",
            dest="overrides",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="replace one value; repeatable",
        )
        add_options(parser)
        given = vars(parser.parse_args(arguments))
        settled = scene.settle(load_config(given.pop("config"), given.pop("overrides")))
        require_installed(settled.tracking)
        held = locked(scene.folder(settled)) if scene.is_held else nullcontext()
        with held, scene.at_bucket(settled):  # opening writes, and a run that another process holds must stay as it is
            config = with_template_date(settled)
            run = scene.open(config)
            log = run.log
            with _warnings_in(log):
                return work(config, run, **given)

    code = run_guarded(
        "run" if job == "pipeline" else job, parsed, if_interrupted="the same command resumes it", log=lambda: log
    )
    end_of_work()
    return code


class _Shown(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


@contextmanager
def _warnings_in(log: Path) -> Iterator[None]:
    """Keep the warnings of libraries, which are written for programmers, off the terminal and in the run's log."""
    logger = logging.getLogger("py.warnings")
    is_writable = os.access(log.parent, os.W_OK)  # not so where a run is only read
    kept = logging.FileHandler(log, encoding="utf-8", delay=True) if is_writable else logging.NullHandler()
    kept.setFormatter(_Shown())
    logger.addHandler(kept)
    logger.propagate = False
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        logger.propagate = True
        logger.removeHandler(kept)
        kept.close()


def do_stage(
    run: RunDir,
    stage: StageName,
    input_digest: str,
    work: Callable[[], None],
    outputs: Sequence[Path] = (),
    *,
    say_result: Callable[[RunDir], None] = lambda _: None,
) -> None:
    """Do one stage of the run with its progress shown, or say that it is skipped; then say what it has."""

    def told() -> None:
        with progress.stage(stage):
            work()

    if not run_stage(run, stage, input_digest, told, outputs):
        progress.say(f"{progress.numbered(stage)}: skipped, because it was done before from the same input.")
    say_result(run)


def attempted(work: Callable[[], None], error: type[OrchestratorError]) -> OrchestratorError | None:
    """Do what the stages after it can do without; such an error is told, and for the caller to raise at the end."""
    try:
        work()
    except error as missing:
        progress.say(f"It is done without: {missing}")
        return missing
    return None


@contextmanager
def cluster_on_demand(config: RunConfig) -> Iterator[Callable[[], None]]:
    """Yield a function whose first call starts or joins Ray, so that a run with nothing left to do needs no cluster."""
    with ExitStack() as sessions:
        is_up = False

        def ensure_cluster() -> None:
            from orchestrator.run.cluster import cluster_session

            nonlocal is_up
            if not is_up:
                with progress.doing("starting or joining Ray"):
                    sessions.enter_context(cluster_session(config))
                is_up = True

        yield ensure_cluster


@contextmanager
def engines_on_demand(config: RunConfig, ensure_cluster: Callable[[], None]) -> "Iterator[Engines]":
    """Engines for replies, on a cluster that is started or joined for them."""
    ensure_cluster()
    from evals.generate.engines import open_engines

    with open_engines(config) as engines:
        yield engines
