"""DoRA (arXiv 2402.09353): an adapter that also learns the length of each row of the merged matrix."""

from collections.abc import Mapping

import torch

from orchestrator.core.errors import AdapterError

MAGNITUDE = ".lora_magnitude_vector"
"""Ends PEFT's name of the lengths of a layer."""


def take_lengths(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Take the lengths out of an adapter's tensors, by the name of the base's matrix that they are of."""
    keys = [key for key in tensors if key.startswith(prefix) and key.endswith(MAGNITUDE)]
    return {f"{key.removeprefix(prefix).removesuffix(MAGNITUDE)}.weight": tensors.pop(key) for key in keys}


def check_lengths(lengths: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]], *, where: str) -> None:
    """Check that each adapted matrix, of these shapes, has a finite length for each of its rows, and no other has.

    Raises:
        AdapterError: Naming the matrix that has not.
    """
    for name in sorted(shapes.keys() | lengths.keys()):
        found = lengths.get(name)
        if found is None or tuple(found.shape) != shapes.get(name, ())[:1] or not bool(torch.isfinite(found).all()):
            what = "DoRA has one finite length for each row of each adapted matrix, and this one has not"
            raise AdapterError(what, where=f"{where}: {name}", fix="Train it again")


def with_lengths(merged: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Base and update together, out x in, whose rows get these lengths (equation 5)."""
    return merged * (lengths.float() / merged.norm(dim=1)).unsqueeze(1)
