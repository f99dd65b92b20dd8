"""Many LoRA adapters trained at once on one frozen base.

    engine = MultiLoraEngine(model, train, val, batch_size=8, micro_batch_size=8)
    engine.admit("a", SlotSpec(rank=8, alpha=16, learning_rate=2e-4, max_steps=100))
    engine.train_step()      # one optimizer step of every slot
    engine.eval_loss(["a"])
    state = engine.evict("a")

Each slot's losses, gradients and adapter are those of training it alone: slots share the base's products and nothing
else (docs/multi-lora.md).
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from orchestrator.core.memory import give_freed_memory_back
from orchestrator.multi_lora.base_checks import decoder_and_head, require_causal_rows, require_steady_positions
from orchestrator.multi_lora.batch import Pass, TokenRows, even_passes, make_passes, pass_size, samples_of_step
from orchestrator.multi_lora.layers import (
    DropoutKeys,
    Segment,
    adapted_layers,
    attach,
    require_whole_rows,
    row_key,
    use_blocked_attention,
)
from orchestrator.multi_lora.slots import (
    STATE_TENSORS,
    Pair,
    SlotSpec,
    SlotStack,
    SlotState,
    initial_state,
    stack_width,
)

LOGITS_AT_ONCE = 1 << 24
"""Logits of one chunk: 64 MB in float32."""
EVAL_ROWS = 2
"""Rows of a slot in an evaluation pass for each in a training pass: nothing is kept for a backward pass."""


class StepResult(NamedTuple):
    """One optimizer step of a slot.

    `step` counts the steps done, `epoch` the passes over the data; `loss` is the mean over the batch's `learned`
    tokens, before the step; `accuracy` is the share of these that have the largest logit, ties included; `grad_norm` is
    before clipping; `tokens` are all of the batch, without padding. If the gradient overflowed float16 the step was
    `skipped`: `grad_norm` is infinite, the weights are as before, and the loss scale is halved.
    """

    step: int
    epoch: float
    loss: float
    accuracy: float
    learning_rate: float
    grad_norm: float
    tokens: int
    learned: int
    skipped: bool = False


Member = tuple[SlotStack, list[int] | None]
"""The rows of a stack that take part in a pass; None means all."""
Place = tuple[SlotStack, int]
"""A slot, as its stack and row."""
Numbers = list[list[float]]
"""A computation's results for each slot that took part, in the order of their rows."""


class MultiLoraEngine:
    """Slots on a frozen base. The model is changed in place and belongs to the engine from then on.

    Args:
        model: A frozen causal language model of transformers, on the device to use.
        train: What is learned.
        val: What eval loss is measured on.
        batch_size: Samples of one optimizer step of a slot.
        micro_batch_size: Most samples of a slot in one forward pass; may be lowered at any time.
        target_modules: As in PEFT; `all-linear` is every linear layer but the output head.

    Attributes:
        start: By layer, the adapter that new slots, all of its rank, start from; None starts each from a random one.

    Raises:
        InputError: If the base cannot be trained this way.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        train: TokenRows,
        val: TokenRows,
        *,
        batch_size: int,
        micro_batch_size: int,
        target_modules: str | Sequence[str] = "all-linear",
    ) -> None:
        use_blocked_attention(model.eval())
        self._decoder, self._head = decoder_and_head(model)
        require_causal_rows(model, self._decoder, self._head)
        self.targets = adapted_layers(model, target_modules)
        self._layout = attach(model, self.targets)
        require_whole_rows(self._decoder, model, self.targets)
        require_steady_positions(model, longest=int(max(train.lengths.max(), val.lengths.max())))
        self._train, self._val = train, val
        self._batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.device, self.dtype = self._head.weight.device, self._head.weight.dtype
        self.start: Mapping[str, Pair] | None = None
        self._stacks: dict[int, SlotStack] = {}

    @property
    def slots(self) -> list[str]:
        """Names of the slots, in the order of their rows."""
        return [name for stack in self._ordered() for name in stack.names]

    @property
    def longest(self) -> int:
        """Tokens of the longest training row."""
        return int(self._train.lengths.max())

    def slot_bytes(self, rank: int) -> int:
        """Memory that one more slot of this rank takes at most: a stack that grows is copied."""
        size = stack_width(rank) * sum(target.in_features + target.out_features for target in self.targets)
        state = torch.float64.itemsize if self.dtype == torch.float64 else torch.float32.itemsize
        total: int = 2 * size * (STATE_TENSORS * state + self.dtype.itemsize)
        return total

    def admit(self, name: str, spec: SlotSpec, state: SlotState | None = None) -> None:
        """Begin an adapter, or resume it from `state`. It takes part from the next step on."""
        if name in self.slots:
            raise ValueError(f"slot {name!r} is taken")
        width = stack_width(spec.rank)
        stack = self._stacks.get(width) or SlotStack(width, self.targets, device=self.device, dtype=self.dtype)
        stack.add(name, spec, state or initial_state(spec, self.targets, stack.params.dtype, self.start))
        self._stacks[width] = stack

    def evict(self, name: str) -> SlotState:
        """Free a slot. Returns its state."""
        stack = self._find(name)
        state = stack.state(name)
        stack.remove(name)
        if not stack.names:
            del self._stacks[stack.width]
        return state

    def export(self, name: str) -> SlotState:
        """A copy of a slot's state, on the CPU."""
        return self._find(name).state(name)

    def gradient(self, name: str) -> dict[str, Pair]:
        """The clipped gradient of a slot's last step, by layer; zero once slots of its width have come or gone."""
        return self._find(name).gradient(name)

    def train_step(self) -> dict[str, StepResult]:
        """One optimizer step of every slot, each on its own next batch.

        A slot whose loss or gradient is not finite changes no other (`_kept_apart`); its own weights are lost and its
        numbers NaN, so evict it. If memory runs out, all slots are as they were before the step.
        """
        members: list[Member] = [(stack, None) for stack in self._ordered()]
        if not members:
            return {}
        places: list[Place] = [(stack, row) for stack, _ in members for row in range(len(stack.names))]
        samples = [
            samples_of_step(len(self._train), self._batch_size, seed=stack.specs[row].seed, step=stack.steps[row])
            for stack, row in places
        ]
        learned = [sum(len(self._train.learned(row)) for row in rows) for rows in samples]
        rooms: list[torch.Tensor] = []

        def losses_and_norms() -> Numbers:
            means = self._accumulate(members, samples, learned)
            if not rooms:  # all memory that the update needs is taken before anything is updated
                rooms.extend(torch.empty_like(stack.params) for stack, _ in members)
            of_stacks = [stack.gradient_norms(room) for (stack, _), room in zip(members, rooms, strict=True)]
            return torch.cat([means, torch.cat(of_stacks)], dim=1).tolist()  # type: ignore[no-any-return]

        read = self._kept_apart(places, losses_and_norms)  # the step's only wait for the device
        rates = [rate for stack, _ in members for rate in stack.learning_rates()]
        norms = iter([norm for *_, norm in read])
        for (stack, _), room in zip(members, rooms, strict=True):
            stack.optimizer_step(stack.per_slot(list(islice(norms, len(stack.names)))), room)
        if self.device.type == "cpu":
            give_freed_memory_back()
        return {
            stack.names[row]: StepResult(
                step=stack.steps[row],
                epoch=stack.steps[row] * self._batch_size / len(self._train),
                loss=read[i][0],
                accuracy=read[i][1],
                learning_rate=rates[i],
                grad_norm=read[i][2],
                tokens=int(self._train.lengths[samples[i]].sum()),
                learned=learned[i],
                skipped=read[i][2] == math.inf,
            )
            for i, (stack, row) in enumerate(places)
        }

    def eval_loss(self, names: Sequence[str]) -> dict[str, float]:
        """Mean loss of each of these slots over all learned tokens of `val`.

        Raises:
            KeyError: If there is no such slot.
        """
        for name in names:
            self._find(name)
        members: list[Member] = []
        for stack in self._ordered():
            chosen = [row for row, name in enumerate(stack.names) if name in names]
            if chosen:
                members.append((stack, None if len(chosen) == len(stack.names) else chosen))
        if not members:
            return {}
        places = [(stack, row) for stack, chosen in members for row in (chosen or range(len(stack.names)))]
        losses = self._kept_apart(places, lambda: self._eval_losses(members, len(places)))
        return {stack.names[row]: loss for (stack, row), (loss,) in zip(places, losses, strict=True)}

    def _eval_losses(self, members: Sequence[Member], num_slots: int) -> Numbers:
        totals, count = torch.zeros(num_slots, dtype=torch.float64, device=self.device), 0
        with torch.no_grad():
            size = pass_size(self.device, EVAL_ROWS * self.micro_batch_size)
            for piece in even_passes(self._val, num_slots, size, self.device):
                with self._laid_out(members, piece, train=False):
                    its = token_losses(self._hidden(piece), self._head, piece.targets, None)
                    totals += _sum_by_slot(its.losses, piece).to(totals.dtype)
                    count += piece.learned[0]  # all slots see the same rows
        return (totals / count).unsqueeze(1).tolist()  # type: ignore[no-any-return]

    def _kept_apart(self, places: Sequence[Place], compute: Callable[[], Numbers]) -> Numbers:
        """What `compute` gives for each slot, unspoilt by slots whose numbers are not finite; those get NaN.

        A product may read past the end of a row and multiply by zero what it finds there (oneDNN does with AMX if the
        inner size is no multiple of 32), and zero times NaN is NaN. So a slot's numbers count only if all other slots
        of the computation have finite ones. A slot that breaks while all other suspects compute as the base alone is
        lost, and computes as the base from then on; under a scaled loss, one whose gradient alone breaks has an
        infinite norm and sits out the rest of this step.
        """
        read = compute()
        overflowed: dict[Place, list[float]] = {}
        try:
            while suspects := {
                (stack, row): its
                for (stack, row), its in zip(places, read, strict=True)
                if not stack.silent[row] and not _finite(its)
            }:
                alone = suspects
                if len(suspects) > 1:
                    alone = {place: _alone(place, list(suspects), places, compute) for place in suspects}
                broken = [place for place, its in alone.items() if not _finite(its)]
                for stack, row in broken or suspects:
                    scale, (*means, _) = stack.loss_scales[row], alone[stack, row]
                    if scale is not None and scale.factor > 1.0 and _finite(means):
                        overflowed[stack, row] = [*means, math.inf]
                    else:
                        stack.lost[row] = True
                    stack.silence(row)
                read = compute()
        finally:
            for stack, row in overflowed:
                stack.restore(row)
        return [
            overflowed[place] if place in overflowed else [math.nan] * len(its) if place[0].lost[place[1]] else its
            for place, its in zip(places, read, strict=True)
        ]

    def _accumulate(
        self, members: Sequence[Member], samples: Sequence[Sequence[int]], learned: Sequence[int]
    ) -> torch.Tensor:
        """Add up the gradients of all passes of a step. Returns each slot's loss and accuracy, slots x 2."""
        for stack, _ in members:
            stack.grads.zero_()
        one_stack = members[0][0]
        weights = one_stack.per_slot([1.0 / max(1, count) for count in learned]).squeeze(1)
        factors = one_stack.per_slot([factor for stack, _ in members for factor in stack.loss_factors()]).squeeze(1)
        means = torch.zeros(len(weights), 2, dtype=weights.dtype, device=weights.device)
        size = pass_size(self.device, self.micro_batch_size)
        for piece in make_passes(self._train, samples, size, self.device):
            with self._laid_out(members, piece, train=True):
                hidden = self._hidden(piece)
                counts = torch.tensor(piece.learned, device=self.device)
                token_weights = (weights * factors).repeat_interleave(counts, output_size=len(piece.targets))
                its = token_losses(hidden.detach(), self._head, piece.targets, token_weights)
                for column, values in enumerate((its.losses, its.correct)):
                    means[:, column] += _sum_by_slot(values, piece) * weights
                hidden.backward(its.gradient)
        return means

    def _hidden(self, piece: Pass) -> torch.Tensor:
        """Final hidden states where the loss is taken, tokens x size."""
        states: torch.Tensor = self._decoder(input_ids=piece.ids, use_cache=False).last_hidden_state
        return states.flatten(0, 1).index_select(0, piece.positions)

    @contextmanager
    def _laid_out(self, members: Sequence[Member], piece: Pass, *, train: bool) -> Iterator[None]:
        """Tell the adapted layers which rows belong to which slots."""
        rows = piece.ids.shape[0] // len(piece.learned)
        segments, first = [], 0
        for stack, chosen in members:
            size = len(stack.names if chosen is None else chosen)
            weights = stack.weights if chosen is None else stack.views(stack.work[chosen])
            segments.append(Segment(first, first + size * rows, size, weights, stack.gradients if train else None))
            first += size * rows
        self._layout.segments = segments
        self._layout.dropout = self._dropout(members, piece, rows) if train else None
        try:
            yield
        finally:
            self._layout.segments, self._layout.dropout = [], None

    def _dropout(self, members: Sequence[Member], piece: Pass, rows: int) -> DropoutKeys | None:
        slots = [(spec, step) for stack, _ in members for spec, step in zip(stack.specs, stack.steps, strict=True)]
        if not any(spec.dropout for spec, _ in slots):
            return None
        of_rows = [slots[place // rows] for place in range(len(piece.ranks))]
        keys = [row_key(spec.seed, step, rank) for (spec, step), rank in zip(of_rows, piece.ranks, strict=True)]
        return DropoutKeys([spec.dropout for spec, _ in of_rows], keys, piece.ids.shape[1], self.device)

    def _ordered(self) -> list[SlotStack]:
        return [self._stacks[width] for width in sorted(self._stacks)]

    def _find(self, name: str) -> SlotStack:
        for stack in self._stacks.values():
            if name in stack.names:
                return stack
        raise KeyError(name)


def _finite(numbers: Sequence[float]) -> bool:
    return all(math.isfinite(number) for number in numbers)


def _alone(
    suspect: Place, suspects: Sequence[Place], places: Sequence[Place], compute: Callable[[], Numbers]
) -> list[float]:
    """What a slot computes while all other suspects compute as the base alone."""
    others = [place for place in suspects if place != suspect]
    for stack, row in others:
        stack.silence(row)
    try:
        return compute()[list(places).index(suspect)]
    finally:
        for stack, row in others:
            stack.restore(row)


def _sum_by_slot(losses: torch.Tensor, piece: Pass) -> torch.Tensor:
    """Sums over each slot's tokens, which lie together; one slot's NaN stays its own."""
    lengths = torch.tensor(piece.learned, device=losses.device)
    return torch.segment_reduce(losses, "sum", lengths=lengths, initial=0, unsafe=True)


class TokenLosses(NamedTuple):
    """What the head makes of some tokens; `correct` is 1 for a token with the largest logit, else 0."""

    losses: torch.Tensor
    correct: torch.Tensor
    gradient: torch.Tensor | None


def token_losses(
    hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor, weights: torch.Tensor | None
) -> TokenLosses:
    """Cross-entropy of each learned token, and the gradient of its weighted sum with respect to the hidden states.

    The head is frozen, so logits are needed only once: each chunk is made, used for loss and gradient, and dropped.
    Prompt and padding never reach the head. `hidden` are final hidden states, tokens x size, and `targets` the tokens
    that follow them. Losses are returned without their weights, in float32 (float64 under a float64 base), the gradient
    in the type of `hidden`; without `weights` there is none.
    """
    precise = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    losses = hidden.new_empty(hidden.shape[0], dtype=precise)
    correct = torch.empty_like(losses)
    gradient = None if weights is None else torch.empty_like(hidden)
    most = max(1, LOGITS_AT_ONCE // head.out_features)
    # Even chunks: a product of very few rows is computed by other code, whose last bits differ.
    chunk = max(1, math.ceil(len(hidden) / max(1, math.ceil(len(hidden) / most))))
    with torch.no_grad():
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits = head(hidden[part]).to(precise)
            log_sum = torch.logsumexp(logits, dim=-1, keepdim=True)
            target = targets[part].unsqueeze(1)
            of_target = logits.gather(1, target)
            losses[part] = (log_sum - of_target).squeeze(1)
            correct[part] = (of_target >= logits.amax(dim=-1, keepdim=True)).squeeze(1).to(precise)
            if weights is not None and gradient is not None:
                probabilities = logits.sub_(log_sum).exp_()
                probabilities.scatter_add_(1, target, torch.full_like(log_sum, -1.0))
                probabilities *= weights[part].unsqueeze(1)
                gradient[part] = probabilities.to(hidden.dtype) @ head.weight
    return TokenLosses(losses, correct, gradient)
