"""Why a model does not reply as it was scored, told from how likely its tokens were."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from evals.generate.canary import Strength

NEAR_TIE = {"float32": 0.02}
NEAR_TIE_HALF = 0.5
"""How far behind in log probability a token may be that rounding put second: in float32, and in half precision, whose
logits have steps of up to an eighth."""
SAME_STRENGTH = 0.05
"""First tokens may be off by this part of what the adapter moves them by: where it is merged, its update is rounded."""


class Likelihoods(NamedTuple):
    """The token ids of a reply, and for each the log probabilities (natural) of the likeliest ones by their ids."""

    tokens: tuple[int, ...]
    likely: tuple[dict[int, float], ...]


def near_tie(dtype: str | None) -> float:
    """How far apart in log probability rounding may put what is the same."""
    return NEAR_TIE.get(dtype or "", NEAR_TIE_HALF)


def why_another(
    scored: str, said: Likelihoods, decode: Callable[[Sequence[int]], str], ends: Sequence[str], dtype: str | None
) -> tuple[str, bool]:
    """Why a greedy reply is another than the text that was scored, and whether rounding explains it.

    `decode` gives the text of tokens, `ends` are the texts that end a reply. The ids of the scored reply are not kept,
    so the first other token is one of those up to where the texts part: a tokenizer can begin the same text with a
    quote alone or with a quote and a comma.
    """
    whole = [scored + end for end in ("", *ends)]

    def agrees(tokens: Sequence[int]) -> bool:
        text = decode(tokens)
        return any(entire.startswith(text) for entire in whole)

    place = next((i for i in range(len(said.tokens)) if not agrees(said.tokens[: i + 1])), None)
    if place is None or place >= len(said.likely):
        return "it ends before or after the one that was scored", False
    likely, chosen = said.likely[place], said.tokens[place]
    if likely.get(chosen, max(likely.values())) < max(likely.values()):
        return "replies are drawn: the default temperature is not 0", False
    others = [
        (max(likely.values()) - value, i)
        for i, likely in enumerate(said.likely[: place + 1])
        for token, value in likely.items()
        if token != said.tokens[i] and agrees((*said.tokens[:i], token))
    ]
    if not others:
        what = f"what was scored is not among the {len(likely)} likeliest at token {place}"
        return f"{what}: the weights are others", False
    gap, place = min(others)
    if gap <= near_tie(dtype):
        return f"a near tie at token {place}, {gap:.2g} apart in log probability", True
    return f"at token {place} what was scored is {gap:.2g} behind in log probability: the weights are others", False


def in_strength(found: Strength, dtype: str | None) -> str | None:
    """Why first tokens are not as likely as they were with this adapter; None where rounding may explain it.

    By how much the scale is another cannot be told from them: those of a strong adapter hardly get likelier.
    """
    by_rounding = max(near_tie(dtype) / 2, SAME_STRENGTH * found.moved)
    if found.off <= by_rounding:
        return None
    said = f"first tokens are {found.off:.2g} off in log probability, where the adapter moves them by {found.moved:.2g}"
    if found.from_base <= by_rounding:
        return f"{said}: they are the base's, and the adapter is not in force"
    return f"{said}: its scale is another, or its weights are"
