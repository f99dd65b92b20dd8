"""How far the single words of a reply speak for turning away, whatever the phrases."""

import re
from collections.abc import Sequence

from orchestrator.refusals.word_weights import CONSTANT, WEIGHTS

_WORD = re.compile(r"[a-z']+|\d+")
_FIGURE = "0"
_OPENING = "^"


def marked_words(clauses: Sequence[str]) -> set[str]:
    """The different words of a reply; those of its first clause are marked, since they tell more. Figures are one word.

    Args:
        clauses: In lower case, at least one.
    """
    opening = {_OPENING + word for word in _words(clauses[0])}
    return opening | _words("\n".join(clauses[1:]))


def word_score(clauses: Sequence[str]) -> float:
    """The sum of the weights of the words, above 0 for a reply that turns away."""
    # In order, because the sum of floats depends on it.
    return CONSTANT + sum(WEIGHTS.get(word, 0.0) for word in sorted(marked_words(clauses)))


def _words(text: str) -> set[str]:
    return {_FIGURE if word[0].isdigit() else word for word in _WORD.findall(text)}
