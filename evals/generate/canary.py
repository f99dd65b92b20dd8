"""Proof that an adapter takes effect: on one small batch of prompts its output must differ from the base's.

An engine that silently ignores an adapter gives the base's scores, and nobody notices. Greedy text can change with the
batch it is made in, so base and adapter answer the same batch, and two passes of the base are the measure of noise.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from evals.records import CanaryProof
from orchestrator.core.errors import AdapterError, InertAdapterError

NUM_CANARIES, CANARY_TOKENS = 8, 8
"""Prompts in the batch, and the tokens that each is continued by."""
CANARY_LOGPROBS = 20
"""Likeliest first tokens whose log probabilities are compared; the most that vLLM gives by default."""

T = TypeVar("T")


class Trace(NamedTuple):
    """What a model did with one prompt: its greedy tokens, and log probabilities of the likeliest first tokens."""

    tokens: tuple[int, ...]
    first: dict[int, float]


def pick_canaries(prompts: Sequence[T]) -> list[T]:
    """Up to `NUM_CANARIES` prompts, evenly spaced over the given order."""
    step = max(1, math.ceil(len(prompts) / NUM_CANARIES))
    return list(prompts[::step])


def prove_applied(
    adapter_id: str, traces: Sequence[Trace], *, base: Sequence[Trace], base_again: Sequence[Trace]
) -> CanaryProof:
    """Compare an adapter's traces with the base's on the same batch.

    Raises:
        AdapterError: If the adapter makes probabilities that are not finite.
        InertAdapterError: If no text moved and no log probability moved further than between two passes of the base.
    """
    noise = _largest_shift(base, base_again)
    shift = _largest_shift(base, traces)
    if not math.isfinite(shift):
        raise AdapterError(
            "the adapter makes the model's probabilities infinite or NaN", where=adapter_id, fix="Train it again"
        )
    stable = [one.tokens == other.tokens for one, other in zip(base, base_again, strict=True)]
    moved = sum(steady and one.tokens != other.tokens for steady, one, other in zip(stable, base, traces, strict=True))
    if shift <= noise and not moved:
        raise InertAdapterError(
            f"the adapter changes nothing: on {len(traces)} prompts every greedy text is the base's, and log "
            f"probabilities move by {shift:.2g}, where the base itself moves by {noise:.2g}",
            where=adapter_id,
            fix="Train it again with a higher learning rate or more steps, and look at its loss curve",
        )
    return CanaryProof(num_prompts=len(traces), num_texts_moved=moved, largest_shift=shift, noise=noise)


def weakest(proofs: Sequence[CanaryProof]) -> CanaryProof | None:
    """The proof with the smallest effect, None without any."""
    return min(proofs, key=lambda proof: (proof.num_texts_moved, proof.largest_shift), default=None)


def _largest_shift(left: Sequence[Trace], right: Sequence[Trace]) -> float:
    """The largest difference over the tokens that one side gives; the other's is at most at the edge of its list."""
    pairs = [(one.first, other.first) for one, other in zip(left, right, strict=True)]
    if not all(math.isfinite(value) for pair in pairs for side in pair for value in side.values()):
        return math.nan
    return max((_shift(one, other) for pair in pairs for one, other in (pair, pair[::-1])), default=0.0)


def _shift(left: dict[int, float], right: dict[int, float]) -> float:
    edge = min(right.values(), default=0.0)
    shifts = (abs(value - right.get(token, min(value, edge))) for token, value in left.items())
    return max(shifts, default=0.0)
