"""Replies with calls, and how they break: made by a seeded generator, thousands in a second."""

import random
import re
from typing import Any

from builders import make_tool
from gold_calls import Gold

from orchestrator.chat.parse import CALL_MARKS, END_OF_TURN, THOUGHTS
from orchestrator.core.records import JsonObject

_TEXTS = (
    "",
    "3",
    "-1.5",
    "true",
    "null",
    "{}",
    '["a"]',
    "Oslo",
    'say "hi"',
    "it's",
    "a < b",
    "Ünï 苏",
    " x ",
    "{",
    "a, b",
    "x=1)",
)
_NAMES = ("f", "get_weather", "lookUp2", "a_b")
_KEYS = ("city", "n", "s", "q_1", "from_", "zone")
_FOREIGN = (*CALL_MARKS, *END_OF_TURN, *(mark for marks in THOUGHTS for mark in marks))
_INSERTED = (
    *(
        "Hello. ",
        "\n",
        " ",
        "\n\n",
        "0",
        '"',
        "'",
        "\\",
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        ",",
        ":",
        "=",
        ";",
        "<",
        ">",
        "/",
    ),
    *("None", "true", "NaN", '{"a": 1}', "ü", "\u00a0", "\ufeff", "```", "assistant", "to=f", "<b>"),
)
_PART = re.compile(r"</?[^<>\s]{1,40}>|<[|｜][^<>\s]{1,40}[|｜]>|\[/?[A-Z_]+\]|\w+|\s+|.", re.DOTALL)


def _leaf(rng: random.Random) -> Any:
    return rng.choice([rng.choice(_TEXTS), rng.randrange(-99, 99), rng.choice([0.5, -2.25, 1e30]), True, False, None])


def _inner(rng: random.Random, depth: int = 2) -> Any:
    kind = rng.randrange(4) if depth else 0
    if kind == 1:
        return [_inner(rng, depth - 1) for _ in range(rng.randrange(3))]
    if kind == 2:
        return {key: _inner(rng, depth - 1) for key in rng.sample(_KEYS, rng.randrange(3))}
    return _leaf(rng)


def _typed(rng: random.Random) -> tuple[JsonObject, Any]:
    made: list[tuple[JsonObject, Any]] = [
        ({"type": "string"}, rng.choice(_TEXTS)),
        ({}, rng.choice(_TEXTS)),
        ({"type": "integer"}, rng.randrange(-99, 99)),
        ({"type": "number"}, rng.choice([0.5, -2.25, 7])),
        ({"type": "boolean"}, rng.random() < 0.5),
        ({"enum": [1, 2, 3]}, rng.choice([1, 2, 3])),
        ({"type": "object"}, {key: _inner(rng) for key in rng.sample(_KEYS, rng.randrange(3))}),
        ({"type": "array", "items": {}}, [_inner(rng) for _ in range(rng.randrange(3))]),
    ]
    return rng.choice(made)


def golds(rng: random.Random, max_calls: int) -> Gold:
    """One to `max_calls` calls of tools that have the schemas of what is given to them."""
    tools, calls = [], []
    for name in rng.sample(_NAMES, rng.randint(1, min(max_calls, len(_NAMES)))):
        given = {key: _typed(rng) for key in rng.sample(_KEYS, rng.randrange(4))}
        tools.append(make_tool(name, **{key: schema for key, (schema, _) in given.items()}))
        calls.append((name, {key: value for key, (_, value) in given.items()}))
    return Gold(tools, calls)


def mutated(rng: random.Random, text: str) -> str:
    """The text after one to three of the ways in which replies break."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        text = _mutated_once(rng, text)
    return text


def _mutated_once(rng: random.Random, text: str) -> str:
    parts = _PART.findall(text)
    if not parts:
        return rng.choice(_INSERTED)
    at, how = rng.randrange(len(parts)), rng.randrange(9)
    tags = [n for n, part in enumerate(parts) if len(part) > 2 and part[0] in "<["] or [at]
    if how == 0:
        parts = parts[:at]
    elif how == 1:
        del parts[at]
    elif how == 2:
        parts.insert(at, parts[at])
    elif how == 3:
        other = rng.randrange(len(parts))
        parts[at], parts[other] = parts[other], parts[at]
    elif how == 4:
        parts.insert(at, rng.choice(_FOREIGN))
    elif how == 5:
        parts.insert(at, rng.choice(_INSERTED))
    elif how == 6:
        parts[rng.choice(tags)] = rng.choice(["", *(parts[n] for n in tags), rng.choice(_FOREIGN)])
    elif how == 7:
        tag = rng.choice(tags)
        parts.insert(tag, parts[tag])
    else:
        start, end = sorted((at, rng.randrange(len(parts) + 1)))
        parts[start:end] = parts[start:end] * rng.choice([0, 2])
    return "".join(parts)
