"""AdamW, clipping and schedules for a whole stack of slots; each row is updated as if it were alone."""

import math

import torch

from orchestrator.multi_lora.slots import CHUNK, SlotSpec, SlotStack

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""PyTorch's and TRL's defaults."""
CLIP_EPSILON = 1e-6
"""What `torch.nn.utils.clip_grad_norm_` adds to a norm before it divides."""


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


def gradient_norms(stack: SlotStack, room: torch.Tensor) -> torch.Tensor:
    """Turn `stack.grads` into gradients of A and B. Returns each slot's norm before clipping, slots x 1.

    Norms are summed in an order that does not depend on the number of slots. `room` is scratch memory of the shape of
    `stack.params`.
    """
    stack.scale_gradients()
    squares = torch.square(stack.grads, out=room).view(len(stack.names), -1, CHUNK).sum(dim=2)
    return squares.sum(dim=1, keepdim=True).sqrt()


def optimizer_step(stack: SlotStack, norms: torch.Tensor, room: torch.Tensor) -> None:
    """One AdamW step (arXiv 1711.05101) of every slot from `stack.grads`, which are clipped in place.

    `norms` are those of `gradient_norms`. `room` is scratch memory of the shape of `stack.params`; no other memory of
    that size is needed.
    """
    grads, params = stack.grads, stack.params
    limits = stack.per_slot([spec.max_grad_norm for spec in stack.specs])
    grads *= (limits / (norms + CLIP_EPSILON)).clamp(max=1.0)
    rates = [
        spec.learning_rate * schedule_factor(spec, step) for spec, step in zip(stack.specs, stack.steps, strict=True)
    ]
    counts = [step + 1 for step in stack.steps]
    decay = [1.0 - rate * spec.weight_decay for rate, spec in zip(rates, stack.specs, strict=True)]
    params *= stack.per_slot(decay)
    stack.exp_avg.lerp_(grads, 1 - BETA1)
    stack.exp_avg_sq.mul_(BETA2).addcmul_(grads, grads, value=1 - BETA2)
    root = stack.per_slot([math.sqrt(1 - BETA2**count) for count in counts])
    size = stack.per_slot([rate / (1 - BETA1**count) for rate, count in zip(rates, counts, strict=True)])
    torch.sqrt(stack.exp_avg_sq, out=room).div_(root).add_(EPSILON)
    params -= torch.div(stack.exp_avg, room, out=room).mul_(size)
    stack.steps = counts
    stack.refresh(room)
