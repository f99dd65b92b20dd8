"""A public suite of JSON documents, if it is here: what is valid is read, what is invalid is refused, in every format.

ORCHESTRATOR_JSON_SUITE names the folder `test_parsing` of github.com/nst/JSONTestSuite: `y_*.json` are valid,
`n_*.json` invalid, and `i_*.json` are left to the reader.
"""

import os
from pathlib import Path

import pytest

from orchestrator.chat.parse import parse_reply
from orchestrator.notation.strict_json import StrictJsonError, parse

PLACES: list[tuple[str, str]] = [
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": DOCUMENT}}</tool_call>'),
    ("llama_json", '{"name": "f", "parameters": {"a": DOCUMENT}}'),
    ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {"a": DOCUMENT}}]'),
    ("mistral", '[TOOL_CALLS]f[ARGS]{"a": DOCUMENT}'),
    (
        "mcp",
        '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "f", "arguments": {"a": DOCUMENT}}}',
    ),
    ("json", '[{"name": "f", "arguments": {"a": DOCUMENT}}]'),
]


def documents(prefix: str) -> list[tuple[str, str]]:
    """Names and texts of the documents of one sort; bytes that are not UTF-8 become U+FFFD or lone surrogates."""
    folder = os.environ.get("ORCHESTRATOR_JSON_SUITE")
    if folder is None:
        pytest.skip("ORCHESTRATOR_JSON_SUITE does not name the folder of a JSON parsing suite")
    contents = {path.name: path.read_bytes() for path in sorted(Path(folder).glob(f"{prefix}_*.json"))}
    assert len(contents) > 20
    return [
        (name, content.decode("utf-8", errors))
        for name, content in contents.items()
        for errors in ("replace", "surrogateescape")
    ]


def is_strict(text: str) -> bool:
    try:
        parse(text)
    except StrictJsonError:
        return False
    return True


def test_valid_documents_are_read_whole_and_as_an_argument() -> None:
    for name, text in documents("y"):
        if "duplicated_key" in name:
            continue
        assert is_strict(text), name
        for format, place in PLACES:
            reply = parse_reply(place.replace("DOCUMENT", text), format=format)
            assert reply.problems == (), (name, format)
            assert reply.calls[0].function.arguments == {"a": parse(text)}, (name, format)


def test_duplicated_keys_are_refused_though_the_grammar_allows_them() -> None:
    twice = [text for name, text in documents("y") if "duplicated_key" in name]
    assert twice
    assert not any(is_strict(text) for text in twice)


def test_invalid_documents_are_refused_whole_and_as_an_argument() -> None:
    for name, text in documents("n"):
        assert not is_strict(text), name
        for format, place in PLACES:
            reply = parse_reply(place.replace("DOCUMENT", text), format=format)
            assert (reply.calls, len(reply.problems)) == ((), 1), (name, format)


def test_whatever_the_reader_may_decide_makes_no_reply_raise() -> None:
    for name, text in documents("i"):
        for format, place in PLACES:
            reply = parse_reply(place.replace("DOCUMENT", text), format=format)
            assert len(reply.calls) + len(reply.problems) == 1, (name, format)
