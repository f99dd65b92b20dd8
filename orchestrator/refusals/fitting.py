"""Fit the weights of single words to labelled replies, and write them as `word_weights.py`.

    python -m orchestrator.refusals.fitting tests/labelled_replies.jsonl > word_weights.py

The words stand beside the phrases: phrases are exact where they match and silent elsewhere, words are vague and always
there. They are fitted without the phrases, since on the replies from which the phrases were made nothing is left to
explain. Only the parts `PARTS` are fitted; what is measured on the others holds for unseen replies.
"""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.refusals.classify import ReplyKind, clauses_without_decline
from orchestrator.refusals.words import marked_words

PARTS = ("development", "blind_a")
_MIN_REPLIES = 8
"""A word in fewer replies than this tells of those replies, not of refusals."""
_RIDGE = 0.006
_SHARE = 0.5
"""Words that occur together are counted once each, so a sum over many overstates; beside the phrases it counts half."""
_MIN_WEIGHT = 0.07
_STEPS = 30
_LINE_CHARS = 110


class WordWeights(NamedTuple):
    """What `word_weights.py` holds."""

    constant: float
    weights: dict[str, float]
    """By word, as `words.marked_words` gives it."""


def fit_word_weights(replies: Sequence[tuple[str, bool]]) -> WordWeights:
    """Ridge logistic regression on which words occur in the replies that do not decline outright.

    Args:
        replies: Text, and whether it is labelled as refusing.
    """
    parts = [(clauses_without_decline(text), refuses) for text, refuses in replies]
    rows = [(marked_words(clauses), refuses) for clauses, refuses in parts if clauses]
    counts = Counter(word for words, _ in rows for word in words)
    vocabulary = sorted(word for word, count in counts.items() if count >= _MIN_REPLIES)
    has_word = np.array([[word in words for word in vocabulary] + [True] for words, _ in rows], dtype=np.float64)
    *of_words, constant = _SHARE * _fit(has_word, np.array([refuses for _, refuses in rows], dtype=np.float64))
    weights = {word: round(float(w), 2) for word, w in zip(vocabulary, of_words, strict=True) if abs(w) >= _MIN_WEIGHT}
    return WordWeights(round(float(constant), 2), weights)


def _fit(features: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Newton's method; the last feature is the constant, which the ridge spares."""
    ridge = np.full(features.shape[1], _RIDGE)
    ridge[-1] = 0
    weights = np.zeros(features.shape[1])
    for _ in range(_STEPS):
        probability = 1 / (1 + np.exp(-features @ weights))
        slope = features.T @ (probability - labels) / len(labels) + ridge * weights
        spread = (probability * (1 - probability))[:, np.newaxis]
        weights -= np.linalg.solve((features * spread).T @ features / len(labels) + np.diag(ridge), slope)
    return weights


def read_fitted_parts(path: Path) -> list[tuple[str, bool]]:
    """The replies of `PARTS` and whether they refuse."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    refusing = (ReplyKind.REFUSAL, ReplyKind.PARTIAL_REFUSAL)
    return [(row["text"], row["label"] in refusing) for row in rows if row["part"] in PARTS]


def as_module(fitted: WordWeights) -> str:
    """The text of `word_weights.py`."""
    lines, line = [], ""
    for word, weight in sorted(fitted.weights.items()):
        if len(line) > _LINE_CHARS - len(word) - 8:
            lines.append(line)
            line = ""
        line += f"{word} {weight:g} "
    quoted = "\n".join(f'    "{line}"' for line in [*lines, line.rstrip()])
    return (
        '"""Weights of single words, written by `orchestrator.refusals.fitting` from labelled replies."""\n'
        f"\nCONSTANT = {fitted.constant:g}\n"
        f"_TABLE = (\n{quoted}\n)\n"
        "_LISTED = _TABLE.split()\n"
        "WEIGHTS = {word: float(weight) for word, weight in zip(_LISTED[::2], _LISTED[1::2], strict=True)}\n"
        '"""By word; `^` marks the words of the first clause."""\n'
    )


if __name__ == "__main__":
    sys.stdout.write(as_module(fit_word_weights(read_fitted_parts(Path(sys.argv[1])))))
