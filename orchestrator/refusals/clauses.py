"""From the text of a reply to the clauses of what it says itself, and a cheap search for many phrases in them.

A phrase is searched for only in clauses that hold one of its stems, the beginnings of words. The stems of a clause are
found once, and few clauses hold those of many phrases, so that a long helpful reply costs little.
"""

import re
from typing import NamedTuple

# Every repetition below is bounded or cannot overlap what follows it, so that matching stays linear.
# Replaced one by one: several times faster than a translation table.
_STRAIGHTENED = (
    *((curly, "'") for curly in "\u2019\u2018\u02bc\u00b4"),
    *((curly, '"') for curly in "\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d"),
    *((mark, "") for mark in "*#~`"),
    *((stop, ". ") for stop in "\u3002\u0964"),
    ("\uff01", "! "),
    *((mark, "? ") for mark in "\uff1f\u061f"),
    ("\u2014", ", "),
    ("\u2013", "-"),
    ("_", " "),
)
# After lower-casing: one way of saying "not" halves what the phrases have to name.
_NEGATIONS = (("can't", "cannot"), ("won't", "will not"), ("n't", " not"))
# A single ordinary space is left alone, so that most texts have nothing to replace.
_SPACES = re.compile(r"(?:[^\S\n ]|  )[^\S\n]*")
_SAYS_SOMETHING = re.compile(r"\w|\?")
_CODE_BLOCK = re.compile(r"```[^`]*(?:```|\Z)")
_QUOTED_LINE = re.compile(r"^ ?>[^\n]*", re.MULTILINE)
_QUOTATION = re.compile(r'(?<=[\w,:(])\s{0,3}"[^"\n]{1,600}"')
_SPEECH = re.compile(r'"[^"\n]{1,600}[,.!?]"')
_NARRATION_WORDS = 8
"""Beside so many words of its own, whatever a reply puts between quotation marks is said by somebody else."""
_TEXT_FOLLOWS = re.compile(
    r"\bhere(?:'s| is)\b[^.!?\n]{0,80}\b(?:story|monologue|poem|dialogue|speech|scene|song|lyrics|script|draft|email|"
    r"e-mail|letter|message|note|post|refusal|template|paragraph|essay|article)\b[^.!?\n]{0,60}:(?=\s)"
)
_LETTER = re.compile(r"^ {0,8}(?:subject:|dear )", re.MULTILINE)
# Begins with the characters a clause can end before, so that a search skips quickly from one to the next.
_CLAUSE_END = re.compile(
    r'[ ")\n,;](?:(?<=[.!?].)[ ")\n]*|(?<=\n)\n*|(?<=;) |'
    r"(?:(?<=[,;]) |(?<= ))(?=(?:but|however|though|although|yet|pero|mais|aber|mas|ma|maar)\b))",
    re.DOTALL,
)
_LIST_MARK = re.compile(r"(?:[-+\u2022]|\d{1,2}[.)]|[a-z]\)|step \d{1,2}:) ?")
# A number with its full stop would end a clause of its own, apart from the item that it numbers.
_BULLET = re.compile(r"^ {0,8}(?:\*\*)?(?:[*\u2022\u2013-]|\d{1,2}[.)]) +", re.MULTILINE)
# "I must inform you that", "It is important to note that": what comes after is judged.
_PREAMBLE = re.compile(
    r"^(?:(?:however|but|also|additionally|furthermore|moreover|firstly|first|and|instead|well|look|honestly|please|"
    r"yes|unfortunately|thank you|i'm sorry|sorry|i apologi[sz]e|in fact|of course),? (?:but )?|"
    r"(?:thank you[^,.!]{0,40}|i understand[^,.!]{0,90}|as an? [^,]{3,90}|while [^,]{3,90}), (?:but )?|(?:i|we)(?:'d|"
    r" would| must| have to| want to| need to| do| should|'m obligated to| am obligated to|"
    r" feel compelled to)(?: \w+ly| also| kindly| like to){0,2} (?:inform|remind|tell|advise|point out|emphasi[sz]e|"
    r"stress|clarify|say|state|mention|express|confess|admit|note|correct|remember|warn)(?: to)?(?: you)?(?: that|:|"
    r",) |it(?:'s| is)(?: also| very| always)? (?:important|essential|crucial|worth|vital|necessary|"
    r"good)(?: to)? (?:note|noting|remember|understand|keep in mind|know|realize|emphasi[sz]e|mention)(?:ing)? that )"
)
DELIVERED_TEXT = "here is the text"
"""Stands for what was cut out as delivered: code and letters."""


def plain_words(text: str) -> str:
    """Lower case, straight quotes, no markdown, and without code, quotations and letters, which speak for others.

    Code and letters leave `DELIVERED_TEXT` behind.
    """
    code_removed, num_code_blocks = _CODE_BLOCK.subn("\n", text)
    straight = _QUOTED_LINE.sub("", _BULLET.sub("- ", code_removed))
    for mark, plain_mark in _STRAIGHTENED:
        straight = straight.replace(mark, plain_mark)
    plain = (_without_quotations(straight) if '"' in straight else straight).lower()
    text_follows = _TEXT_FOLLOWS.search(plain)
    if text_follows:
        plain = plain[: text_follows.end()]
    letter = _LETTER.search(plain)
    if letter:
        plain = plain[: letter.start()]
    plain = _SPACES.sub(" ", plain).strip(' \n"')
    for short, spelled_out in _NEGATIONS:
        plain = plain.replace(short, spelled_out)
    return f"{plain}\n{DELIVERED_TEXT}" if letter or num_code_blocks else plain


def _without_quotations(text: str) -> str:
    narrated = _SPEECH.sub(" ", text)
    return narrated if len(narrated.split()) >= _NARRATION_WORDS else _QUOTATION.sub(" ", text)


def split_clauses(words: str) -> list[tuple[str, bool]]:
    """Sentences, divided at "but" and its like, each with whether it is the item of a list; the mark is cut off."""
    clauses = []
    for part in _CLAUSE_END.split(words):
        stripped = part.strip()
        if _SAYS_SOMETHING.search(stripped):
            mark = _LIST_MARK.match(stripped)
            clauses.append((stripped[mark.end() :], True) if mark else (stripped, False))
    return clauses


def without_preamble(clause: str) -> str:
    """What a clause says after "However, I must inform you that" and its like."""
    for _ in range(3):
        shorter = _PREAMBLE.sub("", clause, count=1)
        if shorter == clause:
            break
        clause = shorter
    return clause


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
