"""Bases that were saved in few bits by bitsandbytes: their tensors under the names and shapes of the plain ones."""

from collections.abc import Iterable, Mapping

import torch

from orchestrator.core.records import JsonObject
from orchestrator.models.quantised import Quantised, plain_nf4

STATE = ".quant_state.bitsandbytes__nf4"
"""Ends the name of what an NF4 weight's file says of it, behind the weight's own."""
SCALES, LAYOUT = "SCB", "weight_format"
"""What an int8 weight has beside it."""


def stored_kind(settings: JsonObject) -> Quantised | str | None:
    """How config.json says that the weights are quantised; None: not at all.

    What adapters can be trained on is `nf4` or `int8`; any other method is returned as it is called.
    """
    given = settings.get("quantization_config")
    if given is None:
        return None
    method = str(given.get("quant_method", "unknown"))
    if method != "bitsandbytes":
        return method
    if given.get("load_in_8bit"):
        return "int8"
    kind = given.get("bnb_4bit_quant_type", "fp4")
    return "nf4" if kind == "nf4" else f"bitsandbytes, {kind}"


def parts_of(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """By the name of each weight in few bits, the tensors beside it that its numbers come from."""
    known = set(names)
    packed: dict[str, tuple[str, ...]] = {}
    for name in known:
        if name.endswith(STATE):
            weight = name.removesuffix(STATE)
            packed[weight] = tuple(part for part in known if part.startswith(f"{weight}."))
        elif name.endswith(f".{SCALES}"):
            layer = name.removesuffix(SCALES)
            packed[f"{layer}weight"] = tuple({name, f"{layer}{LAYOUT}"} & known)
    return packed


def unpacked(weight: torch.Tensor, parts: Mapping[str, torch.Tensor], dtype: torch.dtype | None) -> torch.Tensor:
    """The numbers, out x in, that a weight and its parts stand for; without a `dtype` in the type that they came from.

    8 bits do not say theirs, and are given in float16.
    """
    scales = next((part for name, part in parts.items() if name.endswith(SCALES)), None)
    if scales is not None:
        return (weight.float() * scales.float().unsqueeze(1) / 127).to(dtype or torch.float16)
    from bitsandbytes.functional import QuantState

    state = QuantState.from_dict(dict(parts), device=weight.device)
    state.dtype = dtype or state.dtype
    return plain_nf4(weight, state)


def unpacked_shape(stored: tuple[int, ...], parts: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
    """The shape of these numbers; `stored` is that of the weight's own tensor."""
    state = next((part for name, part in parts.items() if name.endswith(STATE)), None)
    if state is None:
        return stored
    from bitsandbytes.utils import unpack_tensor_to_dict

    return tuple(unpack_tensor_to_dict(state)["shape"])
