"""LoRA on the base's linear layers for all slots of a batch at once.

Every adapted layer computes x W' + s (x A') B' with A and B of the slot that a row belongs to. Rows of a slot lie
together, and slots of a stack too, so that each stack in a pass takes one batched product.

Dropout is a function of slot, step, layer, token and channel: a stateful generator would give a slot other masks when
its neighbours or the padding change. So every element hashes its own coordinates (the mixer is "lowbias32" from the
public study of integer hashes by Wellons, 2018).

Also here: causal attention for short bfloat16 rows on CPUs, where PyTorch's own backward pass is slow. Measured with 8
heads of 32 on rows of 64 to 1,024 tokens (AVX512 with bfloat16, one thread), forward and backward take a third to a
half of the time of `scaled_dot_product_attention`. In float32 they do not, and nothing changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora import LoraLayer
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from orchestrator.core.errors import InputError
from orchestrator.models.quantised import frozen_weight, is_nf4
from orchestrator.multi_lora.slots import Pair, Target

BLOCKED = "blocked_causal"
"""Its name in transformers."""
BLOCK = 128
"""Queries at a time: the scores of one head stay in the CPU's cache, and later keys are never computed."""
LONGEST = 1024
"""Longer rows keep PyTorch's attention, which does not hold all probabilities for the backward pass."""
UNSUPPORTED = ("softcap", "s_aux", "position_bias", "cache")
"""Arguments of models that do more than softmax(q k') v."""
_TOP = 1 << 31


class DropoutKeys:
    """The dropout keys of one pass. `rates` and `row_keys` have one entry per row of the batch."""

    def __init__(self, rates: Sequence[float], row_keys: Sequence[int], length: int, device: torch.device) -> None:
        rows = torch.from_numpy(np.array(row_keys, dtype=np.uint32).view(np.int32)).to(device)
        places = torch.arange(length, dtype=torch.int32, device=device)
        self._tokens = _mix(rows.unsqueeze(1) + _mix(places))
        self._limits = torch.tensor([int(rate * _TOP) for rate in rates], dtype=torch.int64, device=device)
        self._scales = torch.tensor([1.0 / (1.0 - rate) for rate in rates], dtype=torch.float64, device=device)

    def multiplier(self, layer: int, channels: int, rows: slice, dtype: torch.dtype) -> torch.Tensor:
        """Zero where dropped, else 1 / (1 - rate); rows x length x channels."""
        places = torch.arange(channels, dtype=torch.int32, device=self._tokens.device)
        columns = _mix(places + (layer + 1) * 0x10001)
        drawn = _mix(self._tokens[rows].unsqueeze(2) ^ columns) & (_TOP - 1)
        limits = self._limits[rows].clamp(max=_TOP - 1).to(torch.int32)
        kept = drawn >= limits.view(-1, 1, 1)
        return kept * self._scales[rows].to(dtype).view(-1, 1, 1)


def row_key(seed: int, step: int, rank: int) -> int:
    """The key of a row: the slot's seed, the step, and the row's place in the slot's batch."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


def _mix(value: torch.Tensor) -> torch.Tensor:
    """A 32-bit integer hash; int32 arithmetic wraps around."""
    value = (value ^ (value >> 16 & 0xFFFF)) * 0x7FEB352D
    value = (value ^ (value >> 15 & 0x1FFFF)) * (0x846CA68B - (1 << 32))
    return value ^ (value >> 16 & 0xFFFF)


@dataclass(frozen=True)
class Segment:
    """Rows `first` to `last` (exclusive) of a batch, which belong to `num_slots` slots of one stack.

    `weights` and `grads` hold A and B of every adapted layer in order; evaluation has no gradients.
    """

    first: int
    last: int
    num_slots: int
    weights: Sequence[Pair]
    grads: Sequence[Pair] | None = None


@dataclass
class PassLayout:
    """What a model's adapted layers share: which rows of the running pass belong to which slots.

    `anchor` requires gradients and gets none: it makes PyTorch call the layers' backward.
    """

    segments: list[Segment] = field(default_factory=list)
    dropout: DropoutKeys | None = None
    anchor: torch.Tensor = field(default_factory=lambda: torch.zeros((), requires_grad=True))


class StackedLinear(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """A frozen linear layer with the layout's adapters. Input and output are rows x length x features."""

    def __init__(self, base: torch.nn.Linear, index: int, layout: PassLayout) -> None:
        super().__init__()
        self.base, self.index, self.layout = base, index, layout

    @property
    def weight(self) -> torch.Tensor:
        """The base's, dequantised where it is in 4 bits: some models read their layers' weights."""
        return frozen_weight(self.base)

    @property
    def bias(self) -> torch.Tensor | None:
        """The base's."""
        return self.base.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The base's output plus the update of each row's own slot."""
        if not self.layout.segments:
            return torch.nn.functional.linear(x, self.weight, self.base.bias)
        adapted: torch.Tensor = _StackedLora.apply(x, self.layout.anchor, self)
        return adapted


class _StackedLora(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """Forward and backward of `StackedLinear`. Gradients of A and B are added to the stack's own tensors."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, _anchor: torch.Tensor, layer: StackedLinear) -> torch.Tensor:
        layout, base = layer.layout, layer.base
        _require_rows(x, layout)
        y = torch.nn.functional.linear(x, layer.weight, base.bias)
        inputs, inner, masks = [], [], []
        for part in layout.segments:
            a, b = part.weights[layer.index]
            rows = slice(part.first, part.last)
            adapted = x[rows]
            if layout.dropout is not None and part.grads is not None:
                mask = layout.dropout.multiplier(layer.index, x.shape[2], rows, x.dtype)
                adapted = adapted * mask
                masks.append(mask.reshape(part.num_slots, -1, x.shape[2]))
            adapted = adapted.reshape(part.num_slots, -1, x.shape[2])
            z = torch.bmm(adapted, a.mT)
            y[rows].view(part.num_slots, -1, y.shape[2]).baddbmm_(z, b.mT)
            inputs.append(adapted)
            inner.append(z)
        ctx.layer, ctx.segments, ctx.num = layer, list(layout.segments), len(inputs)
        ctx.save_for_backward(*inputs, *inner, *masks)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        layer: StackedLinear = ctx.layer
        gradient = gradients[0].contiguous()
        saved = ctx.saved_tensors
        inputs, inner, masks = saved[: ctx.num], saved[ctx.num : 2 * ctx.num], saved[2 * ctx.num :]
        passes_on: bool = ctx.needs_input_grad[0]
        dx = gradient @ layer.weight if passes_on else None
        for place, part in enumerate(ctx.segments):
            a, b = part.weights[layer.index]
            rows = slice(part.first, part.last)
            g = gradient[rows].view(part.num_slots, -1, gradient.shape[2])
            dz = torch.bmm(g, b)
            grad_a, grad_b = part.grads[layer.index]
            _add_product(grad_a, dz.mT, inputs[place])
            _add_product(grad_b, g.mT, inner[place])
            if dx is not None:
                through = dx[rows].view(part.num_slots, -1, dx.shape[2])
                if masks:
                    # A slot without dropout must round as if no slot had dropout.
                    plain = torch.baddbmm(through, dz, a)
                    dropped = through + torch.bmm(dz, a) * masks[place]
                    through.copy_(torch.where(masks[place] == 1, plain, dropped))
                else:
                    through.baddbmm_(dz, a)
        return dx, None, None


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    if left.dtype == total.dtype:
        total.baddbmm_(left, right)
    else:
        total += torch.bmm(left, right)


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is not followed
def require_whole_rows(decoder: torch.nn.Module, model: PreTrainedModel, targets: Sequence[Target]) -> None:
    """Refuse a base that hands an adapted layer anything but rows x length x features.

    Raises:
        InputError: If it does, such as a base that flattens its rows.
    """
    layout = PassLayout([Segment(0, 2, 1, ())])
    hooks = [
        model.get_submodule(target.name).register_forward_pre_hook(
            lambda _layer, inputs: _require_rows(inputs[0], layout)
        )
        for target in targets
    ]
    try:
        decoder(input_ids=torch.ones(2, 5, dtype=torch.long, device=next(model.parameters()).device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()


def _require_rows(x: torch.Tensor, layout: PassLayout) -> None:
    rows = layout.segments[-1].last
    if x.dim() != 3 or x.shape[0] != rows:
        raise InputError(
            f"an adapted layer gets an input of shape {list(x.shape)} instead of {rows} rows x length x features",
            where="search.runner",
            fix="This base mixes rows inside its layers: set search.runner to isolated",
        )


def adapted_layers(model: PreTrainedModel, target_modules: str | Sequence[str]) -> list[Target]:
    """The layers that PEFT itself would adapt for these `target_modules`, in the model's order.

    Raises:
        InputError: If there is none, or one is not a plain linear layer or is the output head.
    """
    chosen = target_modules if isinstance(target_modules, str) else list(target_modules)
    try:
        adapted = LoraModel(model, LoraConfig(r=1, target_modules=chosen, task_type="CAUSAL_LM"), "targets")
    except ValueError as error:
        raise InputError(
            f"the base has no such layers ({str(error).splitlines()[0]})", where="lora.target_modules"
        ) from None
    names = [name for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    adapted.unload()
    targets = []
    for name in names:
        layer = model.get_submodule(name)
        if type(layer) is not torch.nn.Linear and not is_nf4(layer):
            raise InputError(
                f"{name} is a {type(layer).__name__}, and the multi-LoRA engine adapts only plain linear layers",
                where="lora.target_modules",
                fix="Set search.runner to isolated, or name the layers to adapt",
            )
        if layer is model.get_output_embeddings():
            raise InputError(
                f"{name} is the output head, which the multi-LoRA engine does not adapt",
                where="lora.target_modules",
                fix="Leave it out, or set search.runner to isolated",
            )
        targets.append(Target(name, layer.in_features, layer.out_features))
    return targets


def attach(model: torch.nn.Module, targets: Sequence[Target]) -> PassLayout:
    """Replace every target by a `StackedLinear`. While the layout has no segments, the model computes as before."""
    layout = PassLayout(anchor=torch.zeros((), device=next(model.parameters()).device, requires_grad=True))
    for index, target in enumerate(targets):
        parent, _, attribute = target.name.rpartition(".")
        layer = model.get_submodule(target.name)
        assert isinstance(layer, torch.nn.Linear)
        setattr(model.get_submodule(parent), attribute, StackedLinear(layer, index, layout))
    return layout


def use_blocked_attention(model: PreTrainedModel) -> None:
    """Let a bfloat16 model on a CPU use blocked attention, if its attention can be set."""
    on_cpu = model.device.type == "cpu" and model.dtype == torch.bfloat16
    if on_cpu and model.config._attn_implementation == "sdpa" and model._can_set_attn_implementation():
        AttentionInterface.register(BLOCKED, _attention)
        AttentionMaskInterface.register(BLOCKED, sdpa_mask)
        model.set_attn_implementation(BLOCKED)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: rows x heads x length x size in, rows x length x heads x size out."""
    plain = attention_mask is None and not settings.get("dropout") and query.shape[2] == key.shape[2] <= LONGEST
    causal = settings.get("is_causal", getattr(module, "is_causal", True)) is not False
    if not plain or not causal or any(settings.get(name) is not None for name in UNSUPPORTED):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)  # type: ignore[no-any-return]
    groups = getattr(module, "num_key_value_groups", 1)
    scale = settings.get("scaling") or query.shape[-1] ** -0.5
    out = causal_attention(query, repeat_kv(key, groups), repeat_kv(value, groups), scale)
    return out.transpose(1, 2).contiguous(), None


def causal_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """softmax(scale q k') v over the tokens up to each; all rows x heads x length x size."""
    out: torch.Tensor = _BlockedCausal.apply(query, key, value, scale)
    return out


class _BlockedCausal(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        shape = query.shape
        query, key, value = (tensor.reshape(-1, *tensor.shape[2:]) for tensor in (query, key, value))
        out, probabilities = value.new_empty(*query.shape[:2], value.shape[2]), []
        for start, end in _blocks(query.shape[1]):
            future = query.new_full((end - start, end), float("-inf")).triu_(1 + start)
            scores = torch.baddbmm(future, query[:, start:end], key[:, :end].mT, alpha=scale)
            share = torch.softmax(scores, dim=-1)
            out[:, start:end] = torch.bmm(share, value[:, :end])
            probabilities.append(share)
        ctx.scale, ctx.shape = scale, shape
        ctx.save_for_backward(query, key, value, *probabilities)
        return out.view(*shape[:3], value.shape[2])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        query, key, value, *probabilities = ctx.saved_tensors
        gradient = gradients[0].reshape(*query.shape[:2], -1)
        scaled_query, scaled_key = query * ctx.scale, key * ctx.scale
        d_query, d_key, d_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for (start, end), share in zip(_blocks(query.shape[1]), probabilities, strict=True):
            part = gradient[:, start:end]
            d_value[:, :end] += torch.bmm(share.mT, part)
            d_share = torch.bmm(part, value[:, :end].mT)
            # dS = P o (dP - rowsum(P o dP)), as for every softmax
            d_scores = torch._softmax_backward_data(d_share, share, -1, share.dtype)
            d_query[:, start:end] = torch.bmm(d_scores, scaled_key[:, :end])
            d_key[:, :end] += torch.bmm(d_scores.mT, scaled_query[:, start:end])
        leading = ctx.shape[:2]
        return d_query.unflatten(0, leading), d_key.unflatten(0, leading), d_value.unflatten(0, leading), None


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK)]
