"""One adapter trained alone in the plainest way: what the fast path is held against.

PEFT's own layers, PyTorch's AdamW and clipping, transformers' schedules, the model's own logits, one row at a time
without padding. Nothing here is shared with the engine but what decides a run: the initial weights, the order of the
samples and the elements that dropout draws (dropout itself stands where PEFT puts it). Slow, and not for training.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel, get_scheduler

from orchestrator.multi_lora.batch import IGNORED, TokenRows, samples_of_step
from orchestrator.multi_lora.layers import DropoutKeys, row_key
from orchestrator.multi_lora.slots import Pair, SlotSpec, SlotState, Target, initial_state


class TrainedAlone(NamedTuple):
    """What training alone gave.

    For each step its loss and its gradient's norm before clipping, the gradient of the last step after clipping, and
    where the adapter and AdamW's moments stand.
    """

    losses: list[float]
    grad_norms: list[float]
    gradient: dict[str, Pair]
    state: SlotState


class _KeyedDropout(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """Dropout in PEFT's place, with the engine's draw for one row. `keys` is set before every forward pass."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.keys: DropoutKeys | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self.keys is not None
        return x * self.keys.multiplier(self.layer, x.shape[2], slice(0, 1), x.dtype)


def train_alone(
    model: PreTrainedModel, train: TokenRows, spec: SlotSpec, *, batch_size: int, steps: int
) -> TrainedAlone:
    """Train one adapter on all linear layers of a frozen base from its initial weights. The base is left as it was.

    Args:
        model: A causal language model of transformers, in eval mode while this runs.
        train: What is learned.
        spec: The adapter, and how it is trained.
        batch_size: Samples of one optimizer step.
        steps: Optimizer steps to do.
    """
    with _adapted(model, spec) as (peft_model, layers):
        parameters = [weight for _, pair in layers.items() for weight in _weights(pair)]
        optimizer = torch.optim.AdamW(
            parameters, lr=spec.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=spec.weight_decay
        )
        scheduler = get_scheduler(
            spec.schedule, optimizer, num_warmup_steps=spec.warmup_steps, num_training_steps=spec.max_steps
        )
        losses, norms = [], []
        for step in range(steps):
            optimizer.zero_grad()
            losses.append(_accumulate(peft_model, layers, train, spec, batch_size=batch_size, step=step))
            norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, spec.max_grad_norm)))
            optimizer.step()
            scheduler.step()
        gradient = _pairs(layers, {weight: weight.grad for weight in parameters})
        return TrainedAlone(losses, norms, gradient, _state(layers, optimizer, steps))


@contextmanager
def _adapted(model: PreTrainedModel, spec: SlotSpec) -> Iterator[tuple[PeftModel, dict[str, LoraLayer]]]:
    """The model with PEFT's layers, which hold the slot's initial weights, and those layers by name."""
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        use_rslora=spec.use_rslora,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model.eval(), config)
    try:
        modules = peft_model.get_base_model().named_modules()
        layers = {name: module for name, module in modules if isinstance(module, LoraLayer)}
        targets = [Target(name, layer.in_features, layer.out_features) for name, layer in layers.items()]
        for place, (name, pair) in enumerate(initial_state(spec, targets, torch.float64).adapter.items()):
            for weight, value in zip(_weights(layers[name]), pair, strict=True):
                weight.data.copy_(value)
            if spec.dropout:
                layers[name].lora_dropout["default"] = _KeyedDropout(place)
        yield peft_model, layers
    finally:
        peft_model.unload()


def _accumulate(
    model: PeftModel, layers: dict[str, LoraLayer], train: TokenRows, spec: SlotSpec, *, batch_size: int, step: int
) -> float:
    """Gradients of one batch, row after row. Returns the mean loss over its learned tokens."""
    batch = samples_of_step(len(train), batch_size, seed=spec.seed, step=step)
    learned = sum(len(train.learned(index)) for index in batch)
    total = 0.0
    for place, index in enumerate(batch):
        row = slice(train.offsets[index], train.offsets[index + 1])
        ids, labels = (torch.from_numpy(tokens[row]).to(model.device) for tokens in (train.ids, train.labels))
        keys = DropoutKeys([spec.dropout], [row_key(spec.seed, step, place)], len(ids), ids.device)
        for layer in layers.values():
            if isinstance(layer.lora_dropout["default"], _KeyedDropout):
                layer.lora_dropout["default"].keys = keys
        logits = model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0]
        precise = logits if logits.dtype == torch.float64 else logits.float()
        loss = torch.nn.functional.cross_entropy(precise[:-1], labels[1:], ignore_index=IGNORED, reduction="sum")
        (loss / max(1, learned)).backward()
        total += loss.item() / max(1, learned)
    return total


def _weights(layer: LoraLayer) -> tuple[torch.nn.Parameter, torch.nn.Parameter]:
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight


def _pairs(layers: dict[str, LoraLayer], values: dict[torch.nn.Parameter, torch.Tensor]) -> dict[str, Pair]:
    """Copies on the CPU of what belongs to A and B of every layer."""
    found = {}
    for name, layer in layers.items():
        a, b = (values[weight].detach().cpu().clone() for weight in _weights(layer))
        found[name] = (a, b)
    return found


def _state(layers: dict[str, LoraLayer], optimizer: torch.optim.AdamW, step: int) -> SlotState:
    weights = [weight for layer in layers.values() for weight in _weights(layer)]
    kept = optimizer.state
    return SlotState(
        step=step,
        adapter=_pairs(layers, {weight: weight for weight in weights}),
        exp_avg=_pairs(layers, {weight: kept[weight]["exp_avg"] for weight in weights}),
        exp_avg_sq=_pairs(layers, {weight: kept[weight]["exp_avg_sq"] for weight in weights}),
    )
