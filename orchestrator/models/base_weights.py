"""The tensors of a base model's own files, read one by one, and the digest of those files."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open

from orchestrator.core.errors import ModelNotFoundError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


class BaseWeights:
    """Checkpoint tensors of a folder in Hugging Face format, by name; nothing is read before it is asked for.

    Raises:
        ModelNotFoundError: If the folder has no weights as safetensors.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = _files_by_tensor(folder)

    def with_siblings(self, names: Iterable[str]) -> list[str]:
        """The named tensors and all others of the modules that hold theirs, sorted.

        `model.layers.0.self_attn.q_proj.weight` brings along the keys, values and the rest of that `self_attn`.
        """
        parents = {_parent(name) for name in names}
        return sorted(name for name in self._files if _parent(name) in parents)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor, None where the base has none of that name."""
        if name not in self._files:
            return None
        with safe_open(self._folder / self._files[name], framework="pt") as file:
            return tuple(file.get_slice(name).get_shape())

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor as stored, on the CPU."""
        with safe_open(self._folder / self._files[name], framework="pt") as file:
            stored: torch.Tensor = file.get_tensor(name)
        return stored


def _parent(name: str) -> str:
    """The module above the one that holds a tensor."""
    return name.rsplit(".", 2)[0]


def _files_by_tensor(folder: Path) -> dict[str, str]:
    if (folder / INDEX).is_file():
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return dict(index["weight_map"])
    if not (folder / WEIGHTS).is_file():
        raise ModelNotFoundError(
            "the base has no weights as safetensors", where=str(folder), fix="Save the model with save_pretrained"
        )
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        return dict.fromkeys(file.keys(), WEIGHTS)


def base_sha256(folder: Path) -> str:
    """Digest of everything in a base's folder that decides what it computes: weights, configuration, tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".model", ".txt")):
        with path.open("rb") as file:
            digest.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
