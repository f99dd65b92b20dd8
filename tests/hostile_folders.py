"""Folders of bases and adapters in which code waits to be run: whatever runs it leaves a mark on the disk."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

MODULE = "waits"
"""The name of the module that the folders bring along."""


class Marks:
    """Makes the file `mark` when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self._mark),)


def pickle_that_marks(path: Path, mark: Path) -> None:
    """A file as `torch.save` writes it."""
    torch.save({"weight": Marks(mark)}, path)


def _copy(base: Path, folder: Path) -> Path:
    return Path(shutil.copytree(base, folder))


def _with_settings(folder: Path, name: str, **settings: Any) -> None:
    path = folder / name
    written = {**json.loads(path.read_text(encoding="utf-8")), **settings}
    path.write_text(json.dumps(written), encoding="utf-8")


def _module(folder: Path, mark: Path) -> None:
    (folder / f"{MODULE}.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Waits: pass\n", encoding="utf-8")


def config_with_code(base: Path, folder: Path, mark: Path) -> Path:
    """A base of an architecture that only the code beside it knows."""
    _copy(base, folder)
    _module(folder, mark)
    code = {"AutoConfig": f"{MODULE}.Waits", "AutoModelForCausalLM": f"{MODULE}.Waits"}
    _with_settings(folder, "config.json", model_type="waits", architectures=["Waits"], auto_map=code)
    return folder


def known_config_with_code(base: Path, folder: Path, mark: Path) -> Path:
    """A base of a known architecture that brings code of its own along, which nobody needs."""
    _copy(base, folder)
    _module(folder, mark)
    code = {"AutoConfig": f"{MODULE}.Waits", "AutoModelForCausalLM": f"{MODULE}.Waits"}
    _with_settings(folder, "config.json", auto_map=code)
    _with_settings(folder, "tokenizer_config.json", auto_map={"AutoTokenizer": [f"{MODULE}.Waits", f"{MODULE}.Waits"]})
    return folder


def tokenizer_with_code(base: Path, folder: Path, mark: Path) -> Path:
    """A base whose tokenizer only the code beside it knows."""
    _copy(base, folder)
    _module(folder, mark)
    code = {"AutoTokenizer": [f"{MODULE}.Waits", f"{MODULE}.Waits"]}
    _with_settings(folder, "tokenizer_config.json", tokenizer_class="Waits", auto_map=code)
    (folder / "tokenizer.json").unlink()
    return folder


def pickled_weights(base: Path, folder: Path, mark: Path) -> Path:
    """A base whose weights are a pickle."""
    _copy(base, folder)
    (folder / "model.safetensors").unlink()
    pickle_that_marks(folder / "pytorch_model.bin", mark)
    return folder


def indexed_pickle(base: Path, folder: Path, mark: Path) -> Path:
    """A base whose index of safetensors names a pickle."""
    pickled_weights(base, folder, mark)
    index = {"weight_map": {"model.norm.weight": "pytorch_model.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def weights_elsewhere(base: Path, folder: Path, mark: Path) -> Path:
    """A base whose index names a file outside its folder."""
    _copy(base, folder)
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    index = {"weight_map": {"model.norm.weight": "../elsewhere.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


REFUSED: dict[str, Callable[[Path, Path, Path], Path]] = {
    "config": config_with_code,
    "tokenizer": tokenizer_with_code,
    "weights": pickled_weights,
    "index": indexed_pickle,
    "elsewhere": weights_elsewhere,
}
