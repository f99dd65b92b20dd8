"""The state of a slot, and the stacked tensors of all slots whose ranks share a width, with their optimizer.

A stack keeps one row per slot in a few flat tensors, so that AdamW, clipping and schedules are one sequence of
operations for all of them, each row updated as if it were alone, and every LoRA product is one batched product.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch

from orchestrator.multi_lora.spec import SlotSpec as SlotSpec

NARROWEST = 16
"""Ranks below this are padded to it: narrower products take as long on CPUs and tensor cores."""
STATE_TENSORS = 4
"""Numbers that a stack keeps for each weight in full precision: itself, its gradient, and AdamW's two moments."""
CHUNK = 1024
"""Rows are padded to a multiple of this, so that norms are summed in the same order for any number of slots."""
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""PyTorch's and TRL's defaults."""
GROWTH_INTERVAL = 2000
"""Steps without an overflow before the loss scale doubles, as in `torch.amp.GradScaler`."""
CLIP_EPSILON = 1e-6
"""What `torch.nn.utils.clip_grad_norm_` adds to a norm before it divides."""


class Target(NamedTuple):
    """An adapted linear layer: its name in the base, and its sizes."""

    name: str
    in_features: int
    out_features: int


Pair = tuple[torch.Tensor, torch.Tensor]
"""A (rank x in) and B (out x rank) of one layer."""


@dataclass(frozen=True)
class LossScale:
    """The factor on a slot's loss under a float16 base, whose small gradients would be zero without; as GradScaler's.

    `good_steps` have passed since it last changed; `skipped` steps in all had a gradient that overflowed.
    """

    factor: float = 2.0**16
    good_steps: int = 0
    skipped: int = 0

    def after_step(self, *, overflowed: bool) -> "LossScale":
        """Half of it after an overflow, twice after GROWTH_INTERVAL steps without."""
        if overflowed:
            return LossScale(self.factor / 2, 0, self.skipped + 1)
        if self.good_steps + 1 < GROWTH_INTERVAL:
            return LossScale(self.factor, self.good_steps + 1, self.skipped)
        return LossScale(self.factor * 2, 0, self.skipped)


@dataclass(frozen=True)
class SlotState:
    """A slot after `step` optimizer steps: its adapter and AdamW's moments by layer, on the CPU.

    With its `SlotSpec` this decides how the slot goes on: data order and dropout are functions of seed and step.
    `loss_scale` is None where the loss is not scaled.
    """

    step: int
    adapter: dict[str, Pair]
    exp_avg: dict[str, Pair]
    exp_avg_sq: dict[str, Pair]
    loss_scale: LossScale | None = None


def initial_state(
    spec: SlotSpec,
    targets: Iterable[Target],
    dtype: torch.dtype = torch.float32,
    start: Mapping[str, Pair] | None = None,
) -> SlotState:
    """A new adapter as PEFT makes it: A uniform by Kaiming with a = sqrt(5), B zero; the same on every device.

    Or, with `start`, that adapter of the same rank, with an optimizer that has seen nothing.
    """
    generator = torch.Generator().manual_seed(spec.seed)
    adapter, zeros = {}, {}
    for target in targets:
        if start is not None:
            a, b = (matrix.to(dtype, copy=True) for matrix in start[target.name])
        else:
            a = torch.empty(spec.rank, target.in_features)
            torch.nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
            b = torch.zeros(target.out_features, spec.rank, dtype=dtype)
        adapter[target.name] = (a.to(dtype), b)
        zeros[target.name] = (torch.zeros_like(a, dtype=dtype), torch.zeros_like(b))
    return SlotState(step=0, adapter=adapter, exp_avg=zeros, exp_avg_sq=zeros)


def schedule_factor(spec: SlotSpec, step: int) -> float:
    """The factor on the learning rate in the step after `step` steps, as in transformers' schedules."""
    if step < spec.warmup_steps:
        return step / max(1, spec.warmup_steps)
    if spec.schedule == "constant_with_warmup":
        return 1.0
    progress = (step - spec.warmup_steps) / max(1, spec.max_steps - spec.warmup_steps)
    if spec.schedule == "linear":
        return max(0.0, 1.0 - progress)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def stack_width(rank: int) -> int:
    """The padded rank of the stack for slots of this rank: the next power of two, at least `NARROWEST`."""
    return max(NARROWEST, 1 << (rank - 1).bit_length())


class SlotStack:
    """Slots whose ranks are padded to one `width`. Row i of every tensor belongs to `names[i]`.

    Padding is zero in A and B. Then both gradients of the padding are exactly zero (dA has a factor B, dB a factor
    x A), and so are AdamW's moments: padding stays zero without a mask.

    Attributes:
        params: Weights, slots x size, in float32 (float64 under a float64 base): all A, then all B.
        grads: Their gradients, summed over the passes of a step.
        work: What the products use: the weights in the base's type, B already scaled; zero for a lost slot.
        lost: Whether each slot's numbers have stopped being finite.
        silent: Whether each slot computes as the base for now, and learns nothing.
        loss_scales: Each slot's, None where the loss is not scaled.
        weights: A and B of every layer, slots x width x in and slots x out x width, as views of `work`.
        gradients: The same of `grads`.
    """

    def __init__(self, width: int, targets: Sequence[Target], *, device: torch.device, dtype: torch.dtype) -> None:
        self.width, self._targets, self._dtype = width, targets, dtype
        sizes = [width * target.in_features for target in targets] + [width * target.out_features for target in targets]
        *offsets, end = accumulate(sizes, initial=0)
        self._a_offsets, self._b_offsets = offsets[: len(targets)], offsets[len(targets) :]
        self._a_size, size = self._b_offsets[0], math.ceil(end / CHUNK) * CHUNK
        state_type = torch.float64 if dtype == torch.float64 else torch.float32
        self.names: list[str] = []
        self.specs: list[SlotSpec] = []
        self.steps: list[int] = []
        self.lost: list[bool] = []
        self.silent: list[bool] = []
        self.loss_scales: list[LossScale | None] = []
        self._hold(*(torch.zeros(0, size, dtype=state_type, device=device) for _ in range(3)))

    def add(self, name: str, spec: SlotSpec, state: SlotState) -> None:
        """Add a slot at the end. If memory runs out, the stack is as before."""
        rows = (self._row(spec.rank, part) for part in (state.adapter, state.exp_avg, state.exp_avg_sq))
        kept = (self.params, self.exp_avg, self.exp_avg_sq)
        self._hold(*(torch.cat([old, row]) for old, row in zip(kept, rows, strict=True)))
        self.names.append(name)
        self.specs.append(spec)
        self.steps.append(state.step)
        self.lost.append(False)
        self.silent.append(False)
        self.loss_scales.append(state.loss_scale or (LossScale() if self._dtype == torch.float16 else None))
        self.refresh(self.grads)
        self.grads.zero_()

    def remove(self, name: str) -> None:
        """Remove a slot; those behind it move up."""
        index = self.names.index(name)
        stay = [i for i in range(len(self.names)) if i != index]
        self._hold(*(tensor[stay] for tensor in (self.params, self.exp_avg, self.exp_avg_sq)))
        for column in (self.names, self.specs, self.steps, self.lost, self.silent, self.loss_scales):
            del column[index]
        self.refresh(self.grads)
        self.grads.zero_()

    def state(self, name: str) -> SlotState:
        """A copy of a slot's state, without padding."""
        index = self.names.index(name)
        adapter, exp_avg, exp_avg_sq = (
            self._pairs(tensor[index].cpu(), self.specs[index].rank)
            for tensor in (self.params, self.exp_avg, self.exp_avg_sq)
        )
        return SlotState(self.steps[index], adapter, exp_avg, exp_avg_sq, self.loss_scales[index])

    def gradient(self, name: str) -> dict[str, Pair]:
        """The gradient of a slot's last step, after clipping."""
        index = self.names.index(name)
        return self._pairs(self.grads[index].cpu(), self.specs[index].rank)

    def refresh(self, room: torch.Tensor) -> None:
        """Bring `work` up to date with `params`; `room` is scratch memory of their shape."""
        scales = self.per_slot([spec.scale for spec in self.specs])
        room.copy_(self.params)
        room[:, self._a_size :].mul_(scales)
        self.work.copy_(room)
        self.silent = [False] * len(self.names)
        for index, is_lost in enumerate(self.lost):
            if is_lost:
                self.silence(index)

    def silence(self, index: int) -> None:
        """Make a slot compute what the base does and learn nothing, until the next `restore` or `refresh`."""
        self.silent[index] = True
        self.work[index].zero_()

    def restore(self, index: int) -> None:
        """Undo `silence`."""
        self.silent[index] = False
        row = self.params[index].clone()
        row[self._a_size :] *= self.specs[index].scale
        self.work[index].copy_(row)

    def loss_factors(self) -> list[float]:
        """The factor on each slot's loss; zero for a silent one."""
        scales = zip(self.loss_scales, self.silent, strict=True)
        return [0.0 if silent else scale.factor if scale else 1.0 for scale, silent in scales]

    def gradient_norms(self, room: torch.Tensor) -> torch.Tensor:
        """Turn the products' gradients, of the scaled B and loss, into those of B. Returns each slot's norm, slots x 1.

        Norms are before clipping, and summed in an order that does not depend on the number of slots. `room` is scratch
        memory of the shape of `params`.
        """
        self.grads[:, self._a_size :] *= self.per_slot([spec.scale for spec in self.specs])
        if any(self.loss_scales):
            self.grads *= self.per_slot([1.0 / scale.factor if scale else 1.0 for scale in self.loss_scales])
        squares = torch.square(self.grads, out=room).view(len(self.names), -1, CHUNK).sum(dim=2)
        return squares.sum(dim=1, keepdim=True).sqrt()

    def learning_rates(self) -> list[float]:
        """Each slot's learning rate in its next step."""
        pairs = zip(self.specs, self._applied(), strict=True)
        return [spec.learning_rate * schedule_factor(spec, step) for spec, step in pairs]

    def _applied(self) -> list[int]:
        """Each slot's steps that were not skipped."""
        return [
            step - scale.skipped if scale else step for step, scale in zip(self.steps, self.loss_scales, strict=True)
        ]

    def optimizer_step(self, norms: torch.Tensor, room: torch.Tensor) -> None:
        """One AdamW step (arXiv 1711.05101) of every slot from `grads`, which are clipped in place.

        `norms` are those of `gradient_norms`; a slot with an infinite one skips the step, but for its count. `room` is
        scratch memory of the shape of `params`; no other memory of that size is needed.
        """
        skipped = (
            [index for index, (norm,) in enumerate(norms.tolist()) if norm == math.inf] if any(self.loss_scales) else []
        )
        states = (self.params, self.exp_avg, self.exp_avg_sq)
        kept = [(tensor, index, tensor[index].clone()) for index in skipped for tensor in states]
        applied = self._applied()
        limits = self.per_slot([spec.max_grad_norm for spec in self.specs])
        self.grads *= (limits / (norms + CLIP_EPSILON)).clamp(max=1.0)
        rates = self.learning_rates()
        counts = [step + 1 for step in applied]
        decay = [1.0 - rate * spec.weight_decay for rate, spec in zip(rates, self.specs, strict=True)]
        self.params *= self.per_slot(decay)
        self.exp_avg.lerp_(self.grads, 1 - BETA1)
        self.exp_avg_sq.mul_(BETA2).addcmul_(self.grads, self.grads, value=1 - BETA2)
        root = self.per_slot([math.sqrt(1 - BETA2**count) for count in counts])
        size = self.per_slot([rate / (1 - BETA1**count) for rate, count in zip(rates, counts, strict=True)])
        torch.sqrt(self.exp_avg_sq, out=room).div_(root).add_(EPSILON)
        self.params -= torch.div(self.exp_avg, room, out=room).mul_(size)
        for tensor, index, row in kept:
            tensor[index] = row
        self.steps = [step + 1 for step in self.steps]
        self.loss_scales = [
            scale and scale.after_step(overflowed=index in skipped) for index, scale in enumerate(self.loss_scales)
        ]
        self.refresh(room)

    def per_slot(self, values: Sequence[float]) -> torch.Tensor:
        """One number per slot as a column, slots x 1."""
        return torch.tensor(values, dtype=self.params.dtype, device=self.params.device).unsqueeze(1)

    def views(self, flat: torch.Tensor) -> list[Pair]:
        """A (slots x width x in) and B (slots x out x width) of every layer in a tensor laid out like `params`."""
        width, pairs = self.width, []
        for (_, num_in, num_out), a, b in zip(self._targets, self._a_offsets, self._b_offsets, strict=True):
            a_part, b_part = flat[:, a : a + width * num_in], flat[:, b : b + width * num_out]
            pairs.append((a_part.view(-1, width, num_in), b_part.view(-1, num_out, width)))
        return pairs

    def _hold(self, params: torch.Tensor, exp_avg: torch.Tensor, exp_avg_sq: torch.Tensor) -> None:
        grads, work = torch.zeros_like(params), torch.empty_like(params, dtype=self._dtype)
        self.params, self.exp_avg, self.exp_avg_sq, self.grads, self.work = params, exp_avg, exp_avg_sq, grads, work
        self.weights, self.gradients = self.views(work), self.views(grads)

    def _row(self, rank: int, part: dict[str, Pair]) -> torch.Tensor:
        row = self.params.new_zeros(1, self.params.shape[1])
        for target, (a, b) in zip(self._targets, self.views(row), strict=True):
            given_a, given_b = part[target.name]
            a[0, :rank] = given_a
            b[0, :, :rank] = given_b
        return row

    def _pairs(self, row: torch.Tensor, rank: int) -> dict[str, Pair]:
        pairs = self.views(row.unsqueeze(0))
        return {
            target.name: (a[0, :rank].clone(), b[0, :, :rank].clone())
            for target, (a, b) in zip(self._targets, pairs, strict=True)
        }
