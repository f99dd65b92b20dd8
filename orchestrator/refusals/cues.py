"""Searching for many phrases in many clauses, cheaply.

A phrase is looked for only in clauses that hold one of its stems, the beginnings of words. The stems of a clause are
found once, and few clauses hold those of many phrases, so that a long helpful reply costs little.
"""

import re
from typing import NamedTuple

STEM_CHARS = 5
_STEM = re.compile(rf"([a-z]{{1,{STEM_CHARS}}})[a-z]*")


class Cue(NamedTuple):
    """A pattern that can match only where one of `stems` occurs."""

    stems: frozenset[str]
    pattern: re.Pattern[str]


def stems_of(text: str) -> frozenset[str]:
    """The beginnings of the words of a text in lower case; "n't" leaves "t"."""
    return frozenset(_STEM.findall(text))


def any_of(*patterns: str) -> re.Pattern[str]:
    """One pattern that matches where any of `patterns` does.

    Those that begin at a word boundary share one, so that a search gives up at most places after one step.
    """
    at_words = [pattern.removeprefix(r"\b") for pattern in patterns if pattern.startswith(r"\b")]
    others = [f"(?:{pattern})" for pattern in patterns if not pattern.startswith(r"\b")]
    shared = [rf"\b(?:{'|'.join(at_words)})"] if at_words else []
    return re.compile("|".join(others + shared))


def any_at_word(*patterns: str) -> re.Pattern[str]:
    """One pattern that matches where any of `patterns`, all of which begin with a word, does at the start of a word."""
    return re.compile(rf"\b(?:{'|'.join(patterns)})")


def cue(words: str, *patterns: str) -> Cue:
    """A cue for `patterns`, each of which needs one of `words`."""
    return Cue(stems_of(words), any_of(*patterns))


class Cues:
    """Many cues, found by their stems."""

    def __init__(self, *cues: Cue) -> None:
        self.cues = cues
        self._patterns_by_stem: dict[str, list[re.Pattern[str]]] = {}
        for stems, pattern in cues:
            for stem in stems:
                self._patterns_by_stem.setdefault(stem, []).append(pattern)
        self._stems = frozenset(self._patterns_by_stem)

    def found_in(self, clause: str, stems: frozenset[str]) -> bool:
        """Whether any of the patterns occurs in a clause whose stems are `stems`."""
        tried: list[re.Pattern[str]] = []
        for stem in stems & self._stems:
            for pattern in self._patterns_by_stem[stem]:
                if pattern not in tried:
                    if pattern.search(clause):
                        return True
                    tried.append(pattern)
        return False
