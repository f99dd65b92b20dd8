"""What the commands of this package do around their work: arguments in, exit code out, one line for what is wrong.

Exit codes: 0 done; 1 failed; 3 bad input; 130 interrupted.
"""

import io
import os
import sys
import traceback
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from orchestrator.core.errors import DataError, InputError, OrchestratorError
from orchestrator.core.text import visible

DONE, FAILED, INTERRUPTED = 0, 1, 130


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse exits with 2, which in this project means that a gate is not met.
        raise InputError(message, where=self.prog, fix=f"See {self.prog} --help")


def make_parser(module: str, description: str, example: str) -> ArgumentParser:
    """A parser for `python -m <module>`; its help ends with the example."""
    return _Parser(
        prog=f"python -m {module}",
        description=description,
        epilog=example,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run_command(parser: ArgumentParser, work: Callable[[Namespace], None], arguments: Sequence[str] | None) -> int:
    """Do the work with the parsed arguments (None takes this process's own) and return the exit code.

    Bad input is told in one line; only what is a fault of this project shows its traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an ASCII terminal must not end the work
    try:
        given = parser.parse_args(arguments)
        _refuse_unwritable_text(given)
        work(given)
    except BrokenPipeError:
        _drop_stdout()
        tell(f"{parser.prog} stopped: nobody reads its output any more")
        return FAILED
    except OrchestratorError as error:
        tell(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        tell(f"{parser.prog} interrupted; nothing was written")
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the boundary: nothing may end without an exit code and a line
        traceback.print_exc()
        tell(f"{parser.prog} failed: {type(error).__name__}: {error}; the traceback is above")
        return FAILED
    return DONE


def _refuse_unwritable_text(given: Namespace) -> None:
    """Refuse options that are no UTF-8 text: they could be neither shown nor written into a result."""
    for name, value in vars(given).items():
        try:
            str(value).encode()
        except UnicodeEncodeError:
            option = f"--{name.replace('_', '-')}"
            fix = "Give another name, or rename the file"
            raise InputError(f"{str(value)!r} is not UTF-8 text", where=option, fix=fix) from None


def tell(text: str) -> None:
    """One line on stderr, control characters in it written as escapes."""
    if sys.stderr is not None:  # None where the process began without it
        sys.stderr.write(visible(" ".join(text.split())) + "\n")
        sys.stderr.flush()


def show(text: str) -> None:
    """Text on stdout, after the work: if nobody reads it any more, that is no fault."""
    if sys.stdout is None:  # where the process began without it
        return
    try:
        sys.stdout.write(visible(text))
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
    where, fix = str(path), "Name a file of its own for the result"
    try:
        target = path.resolve()
        if target.is_dir():
            raise DataError("this is a folder, not a file", where=f"--out {where}", fix=fix)
        if target.exists() and not target.is_file():
            raise DataError("this is a device or pipe, not a file", where=f"--out {where}", fix=fix)
        for given in inputs:
            if given is not None and target.exists() and given.exists() and target.samefile(given):
                raise DataError("the result would overwrite what it is made from", where=f"--out {where}", fix=fix)
    except DataError:
        raise
    except (OSError, RuntimeError, ValueError) as error:  # a link to itself, a name with a NUL
        raise _unwritable(path, error) from None
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
