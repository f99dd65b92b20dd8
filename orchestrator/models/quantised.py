"""Frozen bases whose linear layers are kept in 4 or 8 bits (QLoRA, arXiv 2305.14314), by bitsandbytes.

Embeddings and the output head stay in `model.dtype`. NF4 is quantised doubly: the scale of each block of 64 weights is
itself kept in 8 bits. Products are computed in `model.dtype`, on a matrix that is dequantised for that moment.

Imports no bitsandbytes before a quantised base is loaded.
"""

import copy
from typing import Any, Literal

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from orchestrator.core.errors import InputError

Quantised = Literal["nf4", "int8"]
NORM = "norm"
"""Ends the name of every normalising class of transformers and PyTorch, in lower case."""
BLOCK, OUTER_BLOCK = 64, 256
"""Weights that share a scale under NF4, and scales that share one of theirs."""
BYTES_A_WEIGHT: dict[str, float] = {"nf4": 0.5 + (1 + 4 / OUTER_BLOCK) / BLOCK, "int8": 1.0}
"""What a weight takes, its share of the scales included; int8 has one scale for each output feature."""


def quantization_settings(kind: Quantised, dtype: torch.dtype) -> BitsAndBytesConfig:
    """How transformers is to load a base of this kind whose products are computed in `dtype`."""
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def is_quantised(model: PreTrainedModel) -> bool:
    """Whether layers of this model are quantised."""
    return getattr(model, "hf_quantizer", None) is not None


def make_trainable_on(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Prepare a quantised base, whose products are computed in `dtype`, for adapters that are trained on it.

    All norms are kept in float32 and compute in it; what they hand on is of `dtype`. PEFT's
    `prepare_model_for_kbit_training` puts embeddings and head into float32 too, which takes four bytes a weight, and
    lets the norms hand float32 on, so that the layers behind them keep twice as much for the backward pass.
    """
    for module in model.modules():
        if type(module).__name__.lower().endswith(NORM) and next(module.parameters(recurse=False), None) is not None:
            module.float()
            module.register_forward_pre_hook(_in_float32)
            module.register_forward_hook(lambda _norm, _inputs, output: output.to(dtype))
        elif is_nf4(module):
            # On a processor with AVX512 for bfloat16 a pass without gradients would lay the weights out anew, with
            # rounded scales, for a product that has no backward pass: after one evaluation nothing would be learned.
            module.support_avx512bf16_for_cpu = False
            module.compute_dtype = dtype  # a base that was saved in 4 bits may name another
            module.weight.quant_state.dtype = dtype  # else of the file's type, also in a backward pass


def _in_float32(_norm: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value for value in inputs
    )


def is_nf4(layer: torch.nn.Module) -> bool:
    """Whether a linear layer's weight is kept in 4 bits."""
    return getattr(getattr(layer, "weight", None), "quant_state", None) is not None


def frozen_weight(layer: torch.nn.Linear) -> torch.Tensor:
    """The weight of a frozen linear layer as products use it, out x in; an NF4 one is dequantised for each call."""
    weight: torch.Tensor = layer.weight
    if not is_nf4(layer):
        return weight
    return plain_nf4(weight.data, weight.quant_state)


def plain_nf4(packed: torch.Tensor, state: Any) -> torch.Tensor:
    """The matrix, out x in, that 4 bits and bitsandbytes' `QuantState` stand for, in the state's type."""
    from bitsandbytes.functional import dequantize_4bit

    shape, whole = state.shape, copy.copy(state)
    if shape.numel() % BLOCK == 0:  # blocks as rows, for on processors 0.50 errs where a row is no whole blocks
        whole.shape = torch.Size((shape.numel() // BLOCK, BLOCK))
    plain: torch.Tensor = dequantize_4bit(packed, whole)
    return plain.view(shape)


def require_whole_blocks(model: PreTrainedModel) -> None:
    """Refuse a base in NF4 on a processor whose products bitsandbytes would compute wrongly there.

    Raises:
        InputError: Naming the layer.
    """
    for name, module in model.named_modules():
        if is_nf4(module) and module.in_features % BLOCK:
            what = f"{name} takes {module.in_features} features, and on a processor nf4 needs a multiple of {BLOCK}"
            raise InputError(what, where="model.quantization", fix="Set it to int8 or none, or train on a GPU")


def dequantised(weight: torch.Tensor, kind: Quantised) -> torch.Tensor:
    """A matrix, out x in, quantised and dequantised again, in its own type: what a quantised base computes with."""
    from bitsandbytes.functional import int8_vectorwise_dequant, int8_vectorwise_quant, quantize_4bit

    if kind == "nf4":
        return plain_nf4(*quantize_4bit(weight, quant_type="nf4", compress_statistics=True))
    levels, scales, _ = int8_vectorwise_quant(weight.to(torch.float16))
    of_rows: torch.Tensor = int8_vectorwise_dequant(levels, scales)
    return of_rows.to(weight.dtype)
