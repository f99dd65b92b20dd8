"""What every job does around its one piece of work: arguments in, exit code out.

Exit codes: 0 done; 1 failed; 2 done, but a gate is not met; 3 bad input; 130 interrupted.
"""

import argparse
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from orchestrator.config.load import load_config
from orchestrator.config.schema import RunConfig
from orchestrator.core import progress
from orchestrator.core.environment import set_environment_defaults
from orchestrator.core.errors import InputError, OrchestratorError, causes
from orchestrator.run.folder import locked, open_run, run_dir
from orchestrator.run.ledger import run_stage
from orchestrator.run.paths import RunDir, StageName

DONE, FAILED, GATE_NOT_MET, INTERRUPTED = 0, 1, 2, 130


def run_job(
    job: str,
    work: Callable[..., int],
    arguments: Sequence[str] | None = None,
    *,
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
    open_folder: Callable[[RunConfig], RunDir] = open_run,
    folder: Callable[[RunConfig], RunDir] = run_dir,
) -> int:
    """Run one job from the command line.

    Args:
        job: Its name, as in `python -m jobs.<job>`.
        work: Receives the configuration and the run, which this process holds, and each option of its own as a keyword;
            returns the exit code.
        arguments: The command line without the program's name; None takes this process's own.
        add_options: Adds the job's own options to its command line.
        open_folder: Makes the folder that the job works in ready, and refuses one that is not for this configuration.
        folder: Where that folder is. Touches nothing.

    Returns:
        The exit code. Problems are told in one line on stderr; the traceback of an unexpected one is added to
        `job.log` in the run's folder.
    """
    set_environment_defaults()
    signal.signal(signal.SIGTERM, _interrupt)
    log: Path | None = None
    try:
        given = vars(_parser(job, add_options).parse_args(arguments))
        config = load_config(given.pop("config"), given.pop("overrides"))
        with locked(
            folder(config)
        ):  # before it is opened, which writes: a run that another process holds stays as it is
            run = open_folder(config)
            log = run.log
            return work(config, run, **given)
    except KeyboardInterrupt:
        return _say_interrupted(job)
    except SystemExit as request:
        # Ray puts a handler of its own in place of ours: SIGTERM then ends in sys.exit(SIGTERM).
        if request.code == signal.SIGTERM:
            return _say_interrupted(job)
        raise
    except Exception as error:  # noqa: BLE001 - the boundary: nothing may end without an exit code and a line
        return _explain(job, error, log)


def _interrupt(_signum: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _say_interrupted(job: str) -> int:
    _tell(f"{job} interrupted; the same command goes on from what is done")
    return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse exits with 2, which here means that a gate is not met.
        raise InputError(message, where=self.prog, fix=f"See {self.prog} --help")


def _parser(job: str, add_options: Callable[[argparse.ArgumentParser], None] | None) -> argparse.ArgumentParser:
    parser = _Parser(prog=f"python -m jobs.{job}", allow_abbrev=False)
    parser.add_argument("--config", type=Path, required=True, help="YAML or resolved JSON configuration")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace one value; repeatable",
    )
    if add_options is not None:
        add_options(parser)
    return parser


def _explain(job: str, error: Exception, log: Path | None) -> int:
    explanations = list(causes(error))
    own = next((cause for cause in explanations if isinstance(cause, OrchestratorError)), None)
    if own is not None:
        _tell(str(own))
        return own.exit_code
    place = _keep_traceback(error, log)
    _tell(f"{job} failed: {type(explanations[0]).__name__}: {explanations[0]}; the traceback is {place}")
    return FAILED


def _keep_traceback(error: Exception, log: Path | None) -> str:
    text = "".join(traceback.format_exception(error))
    if log is not None:
        try:
            with log.open("a", encoding="utf-8") as file:
                file.write(text + "\n")
        except OSError:
            pass
        else:
            return f"in {log}"
    sys.stderr.write(text)
    return "above"


def _tell(text: str) -> None:
    sys.stderr.write(" ".join(text.split()) + "\n")
    sys.stderr.flush()


def do_stage(
    run: RunDir, stage: StageName, input_digest: str, work: Callable[[], None], outputs: Sequence[Path] = ()
) -> None:
    """Do one stage of the run with its progress shown, or say that it is skipped."""

    def shown() -> None:
        with progress.stage(stage):
            work()

    if not run_stage(run, stage, input_digest, shown, outputs):
        progress.say(f"{stage}: skipped, because it was done before from the same input.")


@contextmanager
def cluster_on_demand(config: RunConfig) -> Iterator[Callable[[], None]]:
    """Yield a function whose first call starts or joins Ray, so that a run with nothing left to do needs no cluster."""
    with ExitStack() as sessions:
        is_up = False

        def ensure_cluster() -> None:
            from orchestrator.run.cluster import cluster_session

            nonlocal is_up
            if not is_up:
                sessions.enter_context(cluster_session(config))
                is_up = True

        yield ensure_cluster
