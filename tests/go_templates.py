"""Just enough of Go's text/template for what a Modelfile has: if, else if, range, variables, index, eq, ne, or."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

PIECE = re.compile(r'\{\{((?:"(?:\\.|[^"\\])*"|[^"])*?)\}\}')
WORD = re.compile(r'"(?:\\.|[^"\\])*"|\(|\)|[^\s()]+')
Node = tuple[Any, ...]


def render(template: str, data: dict[str, Any], dumps: Callable[[Any], str]) -> str:
    """Render `data`; keys are Go's names in lower case with `_`, and anything but a text is printed by `dumps`."""
    return "".join(_run(_parse(iter(_pieces(template)))[0], data, {"$": data}, dumps))


def _pieces(template: str) -> Iterator[tuple[str, str]]:
    place = 0
    for found in PIECE.finditer(template):
        yield "text", template[place : found.start()]
        yield "action", found[1].strip()
        place = found.end()
    yield "text", template[place:]


def _parse(pieces: Iterator[tuple[str, str]]) -> tuple[list[Node], str]:
    """The nodes up to the end of the block, and what ended it."""
    nodes: list[Node] = []
    for kind, text in pieces:
        if kind == "action" and (text == "end" or text.startswith("else")):
            return nodes, text
        if kind == "action" and text.startswith(("if ", "range ")):
            nodes.append(_block(text, pieces))
        elif text:
            nodes.append((kind, text))
    return nodes, ""


def _block(head: str, pieces: Iterator[tuple[str, str]]) -> Node:
    inside, end = _parse(pieces)
    otherwise: list[Node] = []
    if end.startswith("else if"):
        otherwise = [_block(end.removeprefix("else "), pieces)]
    elif end == "else":
        otherwise, _ = _parse(pieces)
    return head.split(" ", 1)[0], head.split(" ", 1)[1], inside, otherwise


def _run(nodes: list[Node], dot: Any, names: dict[str, Any], dumps: Callable[[Any], str]) -> Iterator[str]:
    for kind, text, *rest in nodes:
        if kind == "text":
            yield text
        elif kind == "if":
            yield from _run(rest[0] if _value(text, dot, names) else rest[1], dot, names, dumps)
        elif kind == "range":
            heads, _, over = text.rpartition(":=")
            for number, item in enumerate(_value(over.strip(), dot, names) or ()):
                names.update(zip([name.strip() for name in heads.split(",")], (number, item), strict=False))
                yield from _run(rest[0], item, names, dumps)
        elif given := re.fullmatch(r"(\$\w+) :?= (.*)", text, flags=re.DOTALL):
            names[given[1]] = _value(given[2], dot, names)
        else:
            value = _value(text, dot, names)
            yield value if isinstance(value, str) else dumps(value)


def _value(text: str, dot: Any, names: dict[str, Any]) -> Any:
    words = WORD.findall(text)
    value = _call(words, dot, names)
    assert not words, text
    return value


def _call(words: list[str], dot: Any, names: dict[str, Any]) -> Any:
    functions: dict[str, Callable[[Any, Any], Any]] = {
        "eq": lambda one, other: one == other,
        "ne": lambda one, other: one != other,
        "or": lambda one, other: one or other,
        "index": lambda items, number: items[number],
    }
    if words[0] in functions:
        function = functions[words.pop(0)]
        return function(_operand(words, dot, names), _operand(words, dot, names))
    return _operand(words, dot, names)


def _operand(words: list[str], dot: Any, names: dict[str, Any]) -> Any:
    word = words.pop(0)
    if word == "(":
        value = _call(words, dot, names)
        assert words.pop(0) == ")"
        return _fields(value, words.pop(0)) if words and words[0].startswith(".") else value
    if word in ("true", "false") or word[0] in '"0123456789':
        return json.loads(word)
    name, point, path = word.partition(".")
    return _fields(names[name] if name else dot, point + path)


def _fields(value: Any, path: str) -> Any:
    for name in filter(None, path.split(".")):
        value = value.get(re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower())
    return value
