"""Proof that an adapter takes effect: on one small batch of prompts its output must differ from the base's.

An engine that silently ignores an adapter gives the base's scores, and nobody notices. Greedy text can change with the
batch it is made in, so base and adapter answer the same batch, and two passes of the base are the measure of noise.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple, TypeVar

from evals.records import CanaryProof, FirstTokens
from orchestrator.core.errors import AdapterError, InertAdapterError
from orchestrator.core.records import Record

NUM_CANARIES, CANARY_TOKENS = 8, 8
"""Prompts in the batch, and the tokens that each is continued by."""
CANARY_LOGPROBS = 20
"""Likeliest first tokens whose log probabilities are compared; the most that vLLM gives by default."""

KEPT_TOKENS = 5
"""Likeliest first tokens of an adapter that a proof keeps of each prompt."""

T = TypeVar("T")


class Trace(NamedTuple):
    """What a model did with the prompt of a case: greedy tokens, and log probabilities of the likeliest first ones."""

    case_id: str
    tokens: tuple[int, ...]
    first: dict[int, float]
    prompt_sha256: str | None = None


class Strength(Record):
    """How strongly an adapter is in force: mean differences in the natural log probability of likely first tokens.

    `off` is how far they are from those that were scored, `from_base` from those of the base, and `moved` how far these
    two are apart.
    """

    off: float
    from_base: float
    moved: float


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
    first = {one.case_id: _kept(one.first, of_base.first) for one, of_base in zip(traces, base, strict=True)}
    return CanaryProof(num_prompts=len(traces), num_texts_moved=moved, largest_shift=shift, noise=noise, first=first)


def _kept(adapted: dict[int, float], base: dict[int, float]) -> FirstTokens:
    likeliest = sorted(adapted, key=lambda token: -adapted[token])[:KEPT_TOKENS]
    return {token: (round(_at_most(base, token, adapted[token]), 4), round(adapted[token], 4)) for token in likeliest}


def measure_strength(scored: Mapping[str, FirstTokens], traces: Sequence[Trace]) -> Strength | None:
    """Hold an adapter's traces against what a proof kept of it; None if it kept none of their cases."""
    found = [
        (of_base, of_adapter, _at_most(trace.first, token, of_adapter))
        for trace in traces
        for token, (of_base, of_adapter) in scored.get(trace.case_id, {}).items()
    ]
    if not found:
        return None
    return Strength(
        off=fmean(abs(now - of_adapter) for _, of_adapter, now in found),
        from_base=fmean(abs(now - of_base) for of_base, _, now in found),
        moved=fmean(abs(of_adapter - of_base) for of_base, of_adapter, _ in found),
    )


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
    shifts = (abs(value - _at_most(right, token, value)) for token, value in left.items())
    return max(shifts, default=0.0)


def _at_most(likeliest: dict[int, float], token: int, elsewhere: float) -> float:
    """A token's log probability; for one that is not among the likeliest, the one nearest to what it is elsewhere."""
    return likeliest.get(token, min(elsewhere, min(likeliest.values(), default=0.0)))
