"""What the commands of this package do around their work: arguments in, exit code out, one line for what is wrong.

Exit codes: 0 done; 1 failed; 3 bad input; 130 interrupted.
"""

import sys
import traceback
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from orchestrator.errors import DataError, InputError, OrchestratorError

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
    try:
        work(parser.parse_args(arguments))
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


def tell(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(" ".join(text.split()) + "\n")
    sys.stderr.flush()


def write_output(path: Path, text: str) -> None:
    """Write a file so that it appears whole or not at all.

    Raises:
        DataError: If it cannot be written there.
    """
    from orchestrator.runs import write_text_atomic

    try:
        write_text_atomic(path, text)
    except OSError as error:
        raise DataError(
            f"the file cannot be written ({error.strerror})", where=str(path), fix="Name a place you may write to"
        ) from None
