"""Java and JavaScript values as source text, read like the Berkeley Function Calling Leaderboard reads them.

Every argument of a Java or JavaScript case is text, read by the declared type word: `5L` is a number for a `long` and
text for an `integer`. Text that is no literal of its type stays as it is, for it may name a variable. The reading is as
loose as the leaderboard's, so that both agree: elements are divided at every comma, a list ends at the first bracket
that closes one, numbers between braces are what Python's `int` and `float` take. The time is linear in the text.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal

SourceLanguage = Literal["java", "javascript"]

_DECIMAL = r"-?\d+(?:\.\d+)?"
_SCIENTIFIC = rf"{_DECIMAL}(?:[eE][+-]?\d+)?"
_WHOLE = r"-?\d+"

_Number = tuple[str, Callable[[str], int | float]]
_JAVA_NUMBERS: dict[str, _Number] = {
    **dict.fromkeys(("byte", "short", "integer"), (rf"({_WHOLE})\n?", int)),
    "long": (rf"({_WHOLE})[lL]\n?", int),
    "float": (rf"({_SCIENTIFIC})[fF]\n?", float),
    "double": (rf"({_SCIENTIFIC})\n?", float),
}
_JAVASCRIPT_NUMBERS: dict[str, _Number] = {
    "integer": (rf"({_WHOLE})\n?", int),
    "Bigint": (rf"({_WHOLE})n\n?", int),
    "float": (rf"({_DECIMAL})\n?", float),
}
_BOOLEANS: Mapping[str, bool] = {"true": True, "false": False}

_LIST_OF_ITEMS = re.compile(r"new\s+ArrayList<\w*>\(Arrays\.asList\((.+?)\)\)")
_LIST_WITH_ADDS = re.compile(r"new\s+ArrayList<\w*>\(\)\s*\{\{\s*", re.DOTALL)
_EMPTY_LIST = re.compile(r"new\s+ArrayList<\w*>\(\)")
_ADDED = re.compile(r"add\((.+?)\)")
_JAVA_ARRAY = re.compile(r"new\s+\w+\[\]\s*\{(.*?)\}")
_MAP_WITH_PUTS = re.compile(r"new\s+HashMap<.*?>\s*\(\)\s*\{\s*\{?\s*", re.DOTALL)
_EMPTY_MAP = re.compile(r"new\s+HashMap<.*?>\s*\(\)")
_PUT = re.compile(r"put\(\"(.*?)\",\s*(.*?)\)")

_ROWS = r"(?:\]\s*,\s*\[|\](?!\s*\{end})|[^\]\n])*+\]\s*\{end}"
"""The rows of a list of lists, after the first one's bracket: to the first `]` that a closing bracket follows."""
_JAVASCRIPT_ROWS = re.compile(
    r"\[\s*\[" + _ROWS.replace("{end}", "]") + r"|\bnew\s+Array\(\s*\[" + _ROWS.replace("{end}", ")")
)
_JAVASCRIPT_ARRAY = re.compile(r"\[(.*?)\]|\bnew\s+Array\((.*?)\)")
_ROW = re.compile(r"\[(.*?)\]")
_JAVASCRIPT_OBJECT = re.compile(r"\{(.*?)\}")
_MEMBER = re.compile(r"([^:]+):\s*(.*?)(?:,\s*(?=[^,]+:)|$)")


def read_java(text: str, type_word: str, item_word: str | None = None) -> Any:
    """The value that Java source text stands for as an argument of a type; the text itself where it is no literal."""
    if type_word in _JAVA_NUMBERS:
        return _read_number(text, *_JAVA_NUMBERS[type_word])
    if type_word == "boolean":
        return _BOOLEANS.get(text, text)
    if type_word == "ArrayList":
        return _read_array_list(text, item_word)
    if type_word == "Array":
        found = _JAVA_ARRAY.search(text)
        return text if found is None else [_java_item(part, item_word) for part in _parts(found[1]) if part]
    return _read_hash_map(text) if type_word == "HashMap" else text


def _read_array_list(text: str, item_word: str | None) -> Any:
    found = _LIST_OF_ITEMS.search(text)
    if found is not None:
        return [_java_item(part, item_word, in_list=True) for part in _parts(found[1])]
    opening = _LIST_WITH_ADDS.search(text)
    # The content has one character at least, so that braces right after the opening ones do not end it.
    end = -1 if opening is None else text.find("}}", opening.end() + 1)
    if opening is not None and end >= 0:
        added = _ADDED.findall(text[opening.end() : end].rstrip())
        return [_java_item(part.strip(), item_word, in_list=True) for part in added]
    return [] if _EMPTY_LIST.search(text) else text


def _java_item(text: str, item_word: str | None, *, in_list: bool = False) -> Any:
    if in_list and item_word in ("char", "String"):
        return text[1:-1]
    return read_java(text, item_word) if item_word else _read_untyped_java(text)


def _read_hash_map(text: str) -> Any:
    opening = _MAP_WITH_PUTS.search(text)
    end = -1 if opening is None else text.find("}", opening.end())
    if opening is not None and end >= 0:
        puts = _PUT.findall(text[opening.end() : end].rstrip())
        return {key: _read_untyped_java(value.strip()) for key, value in puts}
    return {} if _EMPTY_MAP.search(text) else text


def _read_untyped_java(text: str) -> Any:
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text.startswith('"') and text.endswith('"'):
        return text[1:-1]
    for word in ("long", "float"):
        if re.fullmatch(_JAVA_NUMBERS[word][0], text):
            return _read_number(text, *_JAVA_NUMBERS[word])
    return _python_number(text)


def read_javascript(text: str, type_word: str, item_word: str | None = None) -> Any:
    """The value that JavaScript source text stands for as an argument of a type; the text itself where it is none."""
    if type_word in _JAVASCRIPT_NUMBERS:
        return _read_number(text, *_JAVASCRIPT_NUMBERS[type_word])
    if type_word == "Boolean":
        return _BOOLEANS.get(text, text)
    if type_word == "String":
        return text[1:-1] if _is_quoted(text) else text
    if type_word == "array":
        return _read_javascript_array(text.strip(), item_word)
    return _read_javascript_object(text.strip()) if type_word == "dict" else text


def _read_javascript_array(text: str, item_word: str | None) -> Any:
    rows = _JAVASCRIPT_ROWS.match(text)
    if rows is not None:
        found = _ROW.findall(rows[0])
        found[0] = found[0].strip().removeprefix("[")
        return [[_read_untyped_javascript(part) for part in _parts(row.strip())] for row in found]
    array = _JAVASCRIPT_ARRAY.match(text)
    if array is None:
        return text
    content = (array[1] if array[1] is not None else array[2]).strip()
    parts = _parts(content) if content else []
    return [read_javascript(part, item_word) if item_word else _read_untyped_javascript(part) for part in parts]


def _read_javascript_object(text: str) -> Any:
    found = _JAVASCRIPT_OBJECT.match(text)
    if found is None:
        return text
    members = _MEMBER.findall(found[1]) if ":" in found[1] else []
    return {key.strip().strip("'\""): _member_value(value.strip()) for key, value in members}


def _member_value(text: str) -> Any:
    if text.startswith("[") and text.endswith("]"):
        return _read_javascript_array(text, None)
    if text.startswith("{") and text.endswith("}"):
        return _read_javascript_object(text)
    return _read_untyped_javascript(text.strip("'\""))


def _read_untyped_javascript(text: str) -> Any:
    text = text.strip()
    return text[1:-1] if _is_quoted(text) else _BOOLEANS.get(text, _python_number(text))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _is_quoted(text: str) -> bool:
    return any(text.startswith(quote) and text.endswith(quote) for quote in ("'", '"'))


def _read_number(text: str, pattern: str, kind: Callable[[str], int | float]) -> Any:
    with suppress(ValueError):  # more digits than Python converts
        if found := re.fullmatch(pattern, text):
            return kind(found[1])
    return text


def _python_number(text: str) -> Any:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def write_source(value: Any, type_word: str, item_word: str | None, language: SourceLanguage) -> str:
    """Source text that `read_java` or `read_javascript` reads as the value, where there is one. Text stays as it is."""
    if isinstance(value, str):
        return value
    return _write_java(value, type_word, item_word) if language == "java" else _write_javascript(value, type_word)


def _write_java(value: Any, type_word: str, item_word: str | None) -> str:
    if isinstance(value, dict):
        puts = " ".join(f'put("{key}", {_write_untyped(part)});' for key, part in value.items())
        return f"new HashMap<String, Object>() {{{{ {puts} }}}}"
    if isinstance(value, list):
        parts = ", ".join(_write_java_item(part, item_word, type_word) for part in value)
        if type_word == "ArrayList":
            return f"new ArrayList<>(Arrays.asList({parts}))" if value else "new ArrayList<>()"
        return f"new Object[]{{{parts}}}"
    return _write_scalar(value, {"long": "L", "float": "f"}.get(type_word, ""))


def _write_java_item(value: Any, item_word: str | None, type_word: str) -> str:
    if isinstance(value, str) and type_word == "ArrayList" and item_word in ("char", "String"):
        return f"'{value}'" if item_word == "char" else f'"{value}"'
    return value if isinstance(value, str) else _write_java(value, item_word or "", None)


def _write_javascript(value: Any, type_word: str) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_write_untyped(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_write_untyped(part) for part in value) + "]"
    return _write_scalar(value, {"Bigint": "n"}.get(type_word, ""))


def _write_untyped(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else _write_javascript(value, "")


def _write_scalar(value: Any, suffix: str) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value}{suffix}"
