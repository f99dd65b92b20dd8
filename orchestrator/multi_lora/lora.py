"""LoRA on the base's linear layers for all slots of a batch at once.

Every adapted layer computes x W' + s (x A') B' where A and B are those of the slot that a row belongs to. Rows of a
slot lie together, and slots of one stack too, so that the products are one batched product for each stack on board.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from orchestrator.core.errors import InputError
from orchestrator.multi_lora.dropout import DropoutKeys
from orchestrator.multi_lora.slots import Pair, Target


@dataclass(frozen=True)
class Segment:
    """Rows `first` to `last` (exclusive) of a batch, which belong to `num_slots` slots of one stack.

    `weights` and `grads` hold A and B of every adapted layer in the order of the layers; no gradients in evaluation.
    """

    first: int
    last: int
    num_slots: int
    weights: Sequence[Pair]
    grads: Sequence[Pair] | None = None


@dataclass
class Board:
    """What the adapted layers of one model share: which rows belong to which slots in the pass that runs.

    `anchor` requires gradients and has none: it makes PyTorch call the layers' backward.
    """

    segments: list[Segment] = field(default_factory=list)
    dropout: DropoutKeys | None = None
    anchor: torch.Tensor = field(default_factory=lambda: torch.zeros((), requires_grad=True))


class StackedLinear(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """A frozen linear layer with the adapters of the board. Input and output are rows x length x features."""

    def __init__(self, base: torch.nn.Linear, index: int, board: Board) -> None:
        super().__init__()
        self.base, self.index, self.board = base, index, board

    @property
    def weight(self) -> torch.Tensor:
        """The base's; some models look at a layer's weights themselves."""
        return self.base.weight

    @property
    def bias(self) -> torch.Tensor | None:
        """The base's."""
        return self.base.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The base's output and the update of each row's own slot."""
        if not self.board.segments:
            return torch.nn.functional.linear(x, self.base.weight, self.base.bias)
        adapted: torch.Tensor = _StackedLora.apply(x, self.board.anchor, self)
        return adapted


class _StackedLora(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed
    """Forward and backward of `StackedLinear`. Gradients of A and B are added to the stack's own tensors."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, _anchor: torch.Tensor, layer: StackedLinear) -> torch.Tensor:
        board, base = layer.board, layer.base
        _require_rows(x, board)
        y = torch.nn.functional.linear(x, base.weight, base.bias)
        inputs, inner, masks = [], [], []
        for part in board.segments:
            a, b = part.weights[layer.index]
            rows = slice(part.first, part.last)
            adapted = x[rows]
            if board.dropout is not None and part.grads is not None:
                mask = board.dropout.multiplier(layer.index, x.shape[2], rows, x.dtype)
                adapted = adapted * mask
                masks.append(mask.reshape(part.num_slots, -1, x.shape[2]))
            adapted = adapted.reshape(part.num_slots, -1, x.shape[2])
            z = torch.bmm(adapted, a.mT)
            y[rows].view(part.num_slots, -1, y.shape[2]).baddbmm_(z, b.mT)
            inputs.append(adapted)
            inner.append(z)
        ctx.layer, ctx.segments, ctx.num = layer, list(board.segments), len(inputs)
        ctx.save_for_backward(*inputs, *inner, *masks)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        layer: StackedLinear = ctx.layer
        gradient = gradients[0].contiguous()
        saved = ctx.saved_tensors
        inputs, inner, masks = saved[: ctx.num], saved[ctx.num : 2 * ctx.num], saved[2 * ctx.num :]
        passes_on: bool = ctx.needs_input_grad[0]
        dx = gradient @ layer.base.weight if passes_on else None
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
                    # A slot without dropout rounds as it does where none has it, whatever its neighbours have.
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
        InputError: If one does, such as a base that flattens its rows.
    """
    board = Board([Segment(0, 2, 1, ())])
    hooks = [
        model.get_submodule(target.name).register_forward_pre_hook(
            lambda _layer, inputs: _require_rows(inputs[0], board)
        )
        for target in targets
    ]
    try:
        decoder(input_ids=torch.ones(2, 5, dtype=torch.long, device=next(model.parameters()).device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()


def _require_rows(x: torch.Tensor, board: Board) -> None:
    rows = board.segments[-1].last
    if x.dim() != 3 or x.shape[0] != rows:
        raise InputError(
            f"an adapted layer gets an input of shape {list(x.shape)} instead of {rows} rows x length x features",
            where="search.runner",
            fix="This base mixes rows inside its layers: set search.runner to isolated",
        )


def adapted_layers(model: PreTrainedModel, target_modules: str | Sequence[str]) -> list[Target]:
    """The layers that PEFT itself would adapt for these `target_modules`, in the model's order.

    Raises:
        InputError: If one of them is not a linear layer or is the output head, or there is none.
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
        if type(layer) is not torch.nn.Linear:
            raise InputError(
                f"{name} is a {type(layer).__name__}, and only plain linear layers are trained packed",
                where="lora.target_modules",
                fix="Set search.runner to isolated, or name the layers to adapt",
            )
        if layer is model.get_output_embeddings():
            raise InputError(
                f"{name} is the output head, which is not trained packed",
                where="lora.target_modules",
                fix="Leave it out, or set search.runner to isolated",
            )
        targets.append(Target(name, layer.in_features, layer.out_features))
    return targets


def attach(model: torch.nn.Module, targets: Sequence[Target]) -> Board:
    """Put a `StackedLinear` in place of every target. Without segments on the board the model computes as before."""
    board = Board(anchor=torch.zeros((), device=next(model.parameters()).device, requires_grad=True))
    for index, target in enumerate(targets):
        parent, _, attribute = target.name.rpartition(".")
        layer = model.get_submodule(target.name)
        assert isinstance(layer, torch.nn.Linear)
        setattr(model.get_submodule(parent), attribute, StackedLinear(layer, index, board))
    return board
