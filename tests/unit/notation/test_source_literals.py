"""Java and JavaScript source text as values, with what the leaderboard's own converters make of the same text."""

import time
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.notation.source_literals import read_java, read_javascript, write_source

JAVA_TEXTS: list[tuple[str, str, str | None, Any]] = [
    ("12", "integer", None, 12),
    ("12\n", "integer", None, 12),
    (" 12", "integer", None, " 12"),
    ("+12", "integer", None, "+12"),
    ("9" * 5000, "integer", None, "9" * 5000),
    ("1e2F", "float", None, 100.0),
    (".5f", "float", None, ".5f"),
    ("TRUE", "boolean", None, "TRUE"),
    ("'a'", "char", None, "'a'"),
    ("HashSet.of(1)", "Set", None, "HashSet.of(1)"),
    ("new int[]{}", "Array", "integer", []),
    ("new Object[]{1, \"a\", true, 2L, 3f, x}", "Array", None, [1, "a", True, 2, 3.0, "x"]),
    ("new int[][]{{1}}", "Array", "integer", "new int[][]{{1}}"),
    ("x = new int[]{1};", "Array", "integer", [1]),
    ("new ArrayList<>(Arrays.asList(\"a, b\"))", "ArrayList", "String", ["", ""]),
    ("new ArrayList<>(Arrays.asList(1.5, 2))", "ArrayList", "double", [1.5, 2.0]),
    ("new ArrayList<>(Arrays.asList(1_000, nan_))", "ArrayList", None, [1000, "nan_"]),
    ("new ArrayList<Integer>() {{ add(1); add(x); }}", "ArrayList", "integer", [1, "x"]),
    ("new ArrayList<Integer>() {{ add(1);", "ArrayList", "integer", []),
    ("new ArrayList<>() {{}} add(1) }}", "ArrayList", "integer", [1]),
    ("new ArrayList<List<Integer>>()", "ArrayList", "any", "new ArrayList<List<Integer>>()"),
    ("new HashMap<>() {{ put(\"a\", f(1)); }}", "HashMap", None, {"a": "f(1"}),
    ("new HashMap<>() {{ put(a, 1); }}", "HashMap", None, {}),
    ("new HashMap<>() {{ put(\"a\", 1)", "HashMap", None, {}),
    ("Map.of()", "HashMap", None, "Map.of()"),
]  # fmt: skip

JAVASCRIPT_TEXTS: list[tuple[str, str, str | None, Any]] = [
    ("12", "integer", None, 12),
    ("12n", "Bigint", None, 12),
    ("1e3", "float", None, "1e3"),
    ("'a\"", "String", None, "'a\""),
    ("12", "any", None, "12"),
    (" [1, 'a, b', true] ", "array", None, [1, "'a", "b'", True]),
    ("[1.5, x]", "array", "float", [1.5, "x"]),
    ("[1, 2].map(f)", "array", "integer", [1, 2]),
    ("x[1]", "array", "integer", "x[1]"),
    ("new Array()", "array", "integer", []),
    ("[[1, 'a'], []]", "array", "array", [[1, "a"], [""]]),
    ("[ [1] ,\n [2] ]", "array", "array", [[1], [2]]),
    ("[[1], [2]", "array", None, ["[1"]),
    ("[[1\n2]]", "array", None, "[[1\n2]]"),
    ("{a: 1, 'b': x, c: [1, 2], d: {e: true}}", "dict", None, {"a": 1, "b": "x", "c": [1, 2], "d": "{e: true"}),
    ("{a}", "dict", None, {}),
    ("{a: 1", "dict", None, "{a: 1"),
    ("{'a': ''}", "dict", None, {"a": ""}),
]

SLOW_TEXTS = [
    ("java", "HashMap", "new HashMap<>() {{" + " " * 20_000),
    ("java", "HashMap", "new HashMap<>() {{ " * 1_000),
    ("java", "ArrayList", "new ArrayList<>() {{" + " " * 20_000),
    ("java", "ArrayList", "new ArrayList<>(Arrays.asList(" * 500),
    ("javascript", "array", "[[" + "1],[" * 10_000),
    ("javascript", "array", "new Array(" + "[1]," * 10_000),
    ("javascript", "dict", "{a:" + ", " * 5_000 + "}"),
    ("javascript", "dict", "{" + "a" * 20_000 + "}"),
]


READERS = {"java": read_java, "javascript": read_javascript}
ROWS = [*(("java", *row) for row in JAVA_TEXTS), *(("javascript", *row) for row in JAVASCRIPT_TEXTS)]


@pytest.mark.parametrize(("language", "text", "word", "item_word", "value"), ROWS)
def test_a_text_is_read_by_its_type(language: str, text: str, word: str, item_word: str | None, value: Any) -> None:
    read = READERS[language](text, word, item_word)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(("language", "word", "text"), SLOW_TEXTS)
def test_a_long_text_that_never_ends_is_read_quickly(language: str, word: str, text: str) -> None:
    started = time.process_time()
    READERS[language](text, word, None)
    assert time.process_time() - started < 2.0


DOUBLES = st.floats(0, 1e6).map(lambda number: round(number, 3))
TEXTS = st.text(alphabet="abc", min_size=1, max_size=4)
WRITTEN: dict[tuple[Literal["java", "javascript"], str, str | None], st.SearchStrategy[Any]] = {
    ("java", "integer", None): st.integers(),
    ("java", "long", None): st.integers(),
    ("java", "float", None): DOUBLES,
    ("java", "double", None): DOUBLES,
    ("java", "boolean", None): st.booleans(),
    ("java", "String", None): TEXTS,
    ("java", "Array", "long"): st.lists(st.integers()),
    ("java", "Array", "String"): st.lists(TEXTS),
    ("java", "ArrayList", "String"): st.lists(TEXTS),
    ("java", "ArrayList", "char"): st.lists(TEXTS),
    ("java", "HashMap", None): st.dictionaries(TEXTS, st.integers() | TEXTS | st.booleans()),
    ("javascript", "Bigint", None): st.integers(),
    ("javascript", "float", None): DOUBLES,
    ("javascript", "Boolean", None): st.booleans(),
    ("javascript", "array", "String"): st.lists(TEXTS),
    ("javascript", "array", "integer"): st.lists(st.integers()),
    ("javascript", "array", "array"): st.lists(st.lists(st.integers() | TEXTS, min_size=1), min_size=1),
    ("javascript", "dict", None): st.dictionaries(TEXTS, st.integers() | TEXTS | st.booleans()),
}


@pytest.mark.parametrize("kind", WRITTEN, ids=str)
@given(data=st.data())
def test_what_is_written_is_read_again(
    kind: tuple[Literal["java", "javascript"], str, str | None], data: st.DataObject
) -> None:
    language, word, item_word = kind
    value = data.draw(WRITTEN[kind])
    assert READERS[language](write_source(value, word, item_word, language), word, item_word) == value
