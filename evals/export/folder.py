"""The folder of an export: there whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from safetensors import SafetensorError

from orchestrator.core.errors import InputError

Form = Literal["adapter", "merged", "gguf", "hub"]
FORMS: tuple[Form, ...] = get_args(Form)
_ONLY_FOR: dict[str, Form] = {"llama_cpp": "gguf", "repo": "hub", "yes": "hub", "public": "hub", "anyway": "hub"}
"""Which form uses an option that not all use that write a folder."""
SPARE_BYTES = 64 * 1024**2
"""What files beside the weights take at most."""


def refuse_unused(to: Form, given: Mapping[str, object]) -> None:
    """Refuse an option that this form would leave unused.

    Raises:
        InputError: If one of `given`, by their names, is set and not used.
    """
    for name, value in given.items():
        is_used = to == _ONLY_FOR[name] if name in _ONLY_FOR else to != "hub"
        if value and not is_used:
            raise InputError(f"--to {to} does not use it", where=f"--{name.replace('_', '-')}", fix="Leave it out")


@contextmanager
def new_folder(place: Path, *, needs_bytes: int) -> Iterator[Path]:
    """An empty folder that becomes `place` if the block ends well, and is removed otherwise.

    Raises:
        InputError: If `place` is there, cannot be written, or lacks the space.
    """
    try:
        if place.exists():
            fix = "Name another folder with --out, or remove it"
            raise InputError("it is already there", where=str(place), fix=fix)
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    except OSError as error:
        raise _unwritable(place, error) from None
    try:
        free = shutil.disk_usage(partial).free
        if free < needs_bytes + SPARE_BYTES:
            what = f"there are {free / 1e9:.1f} GB free, and it takes {(needs_bytes + SPARE_BYTES) / 1e9:.1f} GB"
            raise InputError(what, where=str(place.parent), fix="Free some, or name another --out")
        partial.chmod(0o755)
        yield partial
        partial.rename(place)
    except (OSError, SafetensorError) as error:
        raise _unwritable(place, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unwritable(place: Path, error: Exception) -> InputError:
    why = getattr(error, "strerror", None) or " ".join(str(error).split())
    return InputError(f"it cannot be written ({why})", where=str(place), fix="Name another --out")
