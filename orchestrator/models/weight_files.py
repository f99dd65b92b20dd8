"""Which files hold a model's weights. Those are safetensors: a pickle can run code as it is read, and is not read."""

import json
from pathlib import Path

from orchestrator.core.errors import ModelNotFoundError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SAFE = ".safetensors"
PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
"""Endings of files that torch pickles."""
_SAVE = "Save it with save_pretrained, which writes safetensors"


def indexed_files(folder: Path) -> dict[str, str] | None:
    """By its name, the file in `folder` that holds each tensor of a base in several files; None where it is one.

    Raises:
        ModelNotFoundError: If the index cannot be read, or names something other than safetensors in the folder.
    """
    path = folder / INDEX
    if not path.is_file():
        return None
    try:
        files = {str(name): str(file) for name, file in json.loads(path.read_bytes())["weight_map"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        what = f"the index of the base's weights cannot be read ({type(error).__name__}: {error})"
        raise ModelNotFoundError(what, where=str(path), fix=_SAVE) from None
    odd = next((file for file in files.values() if Path(file).name != file or not file.endswith(SAFE)), None)
    if odd is not None:
        what = f"the index of the base's weights names {odd!r}"
        raise ModelNotFoundError(what, where=str(path), allowed="names of safetensors files beside it", fix=_SAVE)
    return files


def refuse_pickled_base(folder: Path) -> None:
    """Refuse a base whose weights are pickles. One without any weights is refused by whoever reads them.

    Raises:
        ModelNotFoundError: If they are, or its index names a file that `indexed_files` refuses.
    """
    if indexed_files(folder) is not None:
        return
    names = sorted(path.name for path in folder.iterdir())
    pickled = next((name for name in names if name.endswith(PICKLES)), None)
    if pickled is not None and not any(name.endswith(SAFE) for name in names):
        what = f"the base's weights are a pickle ({pickled}), which can run code as it is read"
        raise ModelNotFoundError(what, where=str(folder), allowed="weights as safetensors", fix=_SAVE)
