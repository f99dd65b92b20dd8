"""What every process does around its work: environment, arguments in, exit code out, one line for what is wrong.

The environment must be set before the libraries that read it are imported, so this module imports nothing heavy.
"""

import errno
import io
import os
import sys
import time
import traceback
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from orchestrator.core.errors import DONE, FAILED, INTERRUPTED, DataError, InputError, OrchestratorError, causes
from orchestrator.core.interrupt import end_of_work, is_interrupted
from orchestrator.core.text import shown

ENVIRONMENT_DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        # No library reports what is trained here.
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # Tokenizer threads deadlock in processes that fork afterwards, as data loaders do.
        "TOKENIZERS_PARALLELISM": "false",
        # Progress is shown once, by this project.
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "RAY_AIR_NEW_OUTPUT": "0",
        # Samples that are too long are counted and listed; transformers warns of the first one only.
        "TRANSFORMERS_VERBOSITY": "error",
        # Ray Tune otherwise takes the first Ctrl-C as a search that is done.
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        # Ray Train otherwise moves each worker to a folder of its own and relative paths break.
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        # A worker that does not answer hangs; Ray Train by itself waits for ten minutes.
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "120",
    }
)
"""Holds no secrets: Ray shows the environment of a job to everyone who can reach its dashboard."""

STORAGE_TROUBLE = {
    errno.ENOSPC: "no space is left",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "files may not become as large as this one",
    errno.EROFS: "it can only be read",
    errno.EIO: "the storage gives errors",
    errno.ESTALE: "the network storage has lost it",
}
"""What the system says of storage that fails under a run, by the number of its error."""
SIGNAL_LAG_S = 0.2
"""A process of ours that the same signal ended may be noticed before the signal itself."""


def set_environment_defaults() -> None:
    """Set each default that the user has not set."""
    for name, value in ENVIRONMENT_DEFAULTS.items():
        os.environ.setdefault(name, value)


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse exits with 2, which in this project means that a gate is not met.
        raise InputError(message, where=self.prog, fix=f"See {self.prog} --help")


def make_parser(module: str, description: str | None = None, example: str | None = None) -> ArgumentParser:
    """A parser for `python -m <module>`; its help ends with the example."""
    return _Parser(
        prog=f"python -m {module}",
        description=description,
        epilog=example,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run_guarded(
    name: str, work: Callable[[], int], *, if_interrupted: str, log: Callable[[], Path | None] = lambda: None
) -> int:
    """Do the work of the process `name` and return its exit code; what ends it early is one line on stderr.

    Args:
        name: What that line calls the process.
        work: Returns the exit code. Parses the arguments too, so that wrong ones are reported in the same way.
        if_interrupted: What an interruption leaves behind, as a clause.
        log: The file that gets the traceback of an unexpected error; None puts it on stderr.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an ASCII terminal must not end the work
    try:
        try:
            return work()
        except Exception as error:  # the boundary: nothing may end without an exit code and a line
            if not isinstance(error, InputError):
                time.sleep(SIGNAL_LAG_S)
            if is_interrupted():
                raise KeyboardInterrupt from error
            return _explain(name, error, log())
    except KeyboardInterrupt:
        end_of_work()
        tell(f"{name} interrupted; {if_interrupted}")
        return INTERRUPTED


def _explain(name: str, error: Exception, log: Path | None) -> int:
    explanations = list(causes(error))
    own = next((cause for cause in explanations if isinstance(cause, OrchestratorError)), None)
    if own is not None:
        tell_error(str(own))
        return own.exit_code
    place = _keep_traceback(error, log)
    if told := _of_storage(explanations, log):
        tell_error(f"{name} failed: {told}; the traceback is {place}")
        return FAILED
    tell_error(f"{name} failed: {type(explanations[0]).__name__}: {explanations[0]}; the traceback is {place}")
    return FAILED


def _of_storage(explanations: Sequence[BaseException], log: Path | None) -> str | None:
    """What ails the storage, where that is what ended the work."""
    for cause in explanations:
        if isinstance(cause, OSError) and cause.errno in STORAGE_TROUBLE:
            what = STORAGE_TROUBLE[cause.errno]
            where = cause.filename or (log.parent if log is not None else "the storage of this run")
            return f"{where}: {what}. Make room or mend it, and give the same command: it goes on from what is there"
    return None


def _keep_traceback(error: Exception, log: Path | None) -> str:
    text = shown("".join(traceback.format_exception(error)))
    if log is not None:
        with suppress(OSError), log.open("a", encoding="utf-8") as file:
            file.write(text)
            return f"in {log}"
    if sys.stderr is not None:
        sys.stderr.write(text)
    return "above"


def run_command(parser: ArgumentParser, work: Callable[[Namespace], None], arguments: Sequence[str] | None) -> int:
    """Do the work of a command that writes one result; `arguments` of None are this process's own."""

    def parsed() -> int:
        given = parser.parse_args(arguments)
        for name, value in vars(given).items():
            try:
                str(value).encode()
            except UnicodeEncodeError:  # it could be neither shown nor written into a result
                option, fix = f"--{name.replace('_', '-')}", "Give another name, or rename the file"
                raise InputError(f"{str(value)!r} is not UTF-8 text", where=option, fix=fix) from None
        try:
            work(given)
        except BrokenPipeError:
            _drop_stdout()
            tell_error(f"{parser.prog} stopped: nobody reads its output any more")
            return FAILED
        return DONE

    return run_guarded(parser.prog, parsed, if_interrupted="nothing was written")


def tell_error(text: str) -> None:
    """What ends the work, as every command says it: one line on stderr that begins with `Error:`."""
    tell(f"Error: {text}")


def tell(text: str) -> None:
    """One line on stderr, control characters in it written as escapes, without secrets."""
    if sys.stderr is not None:  # None where the process began without it
        sys.stderr.write(shown(" ".join(text.split())) + "\n")
        sys.stderr.flush()


def show(text: str) -> None:
    """Text on stdout, after the work: if nobody reads it any more, that is no fault."""
    if sys.stdout is None:  # where the process began without it
        return
    try:
        sys.stdout.write(shown(text))
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
    except OSError as error:
        _drop_stdout()
        tell(f"the summary cannot be shown ({error.strerror})")


def _drop_stdout() -> None:
    """Let what is left of stdout go nowhere, for Python would try to write it once more at its end."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def output_file(path: Path, inputs: Iterable[Path | None]) -> Path:
    """Where a result for `path` is written: the file itself, or what it links to.

    Raises:
        DataError: If that is one of the inputs, or there is something other than a regular file.
    """
    wrong = None
    try:
        target = path.resolve()
        if target.is_dir():
            wrong = "this is a folder, not a file"
        elif target.exists() and not target.is_file():
            wrong = "this is a device or pipe, not a file"
        elif target.exists() and any(given and given.exists() and target.samefile(given) for given in inputs):
            wrong = "the result would overwrite what it is made from"
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself, a name with a NUL
        raise _unwritable(path, error) from None
    if wrong:
        raise DataError(wrong, where=f"--out {path}", fix="Name a file of its own for the result")
    return target


def write_output(path: Path, text: str) -> None:
    """Write a file so that it appears whole or not at all.

    Raises:
        DataError: If it cannot be written there.
    """
    from orchestrator.core.files import write_text_atomic

    try:
        write_text_atomic(path, text)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: Exception) -> DataError:
    cause = getattr(error, "strerror", None) or error
    return DataError(f"the file cannot be written ({cause})", where=str(path), fix="Name a place you may write to")
