"""Thoughts before calls and words: what the strict reader takes for them, and vLLM's reasoning parsers."""

from functools import cache
from typing import NamedTuple

import pytest
from builders import make_tool
from gold_calls import Gold
from notations import NOTATIONS, written

from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.parse import parse_reply, serving_differs
from orchestrator.chat.serving import ServingReader, serving_reader
from orchestrator.models.base import load_tokenizer
from orchestrator.toy.tiny import tiny_base_folder

pytestmark = pytest.mark.vllm

TOOLS = [make_tool("f", s={"type": "string"})]
CALL = [("f", {"s": "x"})]
FAMILY_MARKS = {
    "gemma4": ("<|channel>", "<channel|>"),
    "mistral": ("[THINK]", "[/THINK]", "[ARGS]"),
    "olmo3": ("Ġ</", "</", "think", ">"),
}
"""Marks of a family's vocabulary beside those of its calls, where they are not those of its thoughts."""
FORMATS = {row.format: name for name, row in reversed(NOTATIONS.items()) if row.format != "json" or name == "xlam"}


class Marked(NamedTuple):
    """How a format writes a call, words, and thoughts before either."""

    call: str
    words: str
    opening: str
    closing: str


@cache
def marked(format: str) -> Marked:
    notation = FORMATS[format]
    call = written(notation, Gold(TOOLS, CALL))
    for empty in ("<think>\n\n</think>\n\n", "\n<think></think>\n"):
        call = call.removeprefix(empty)
    opening, closing = REPLY_FORMATS[format].thoughts[0]
    if format == "gpt_oss":
        return Marked(call, "<|channel|>final<|message|>Hello.", opening, f"{closing}<|start|>assistant")
    if format == "muse_glimmer":
        return Marked(call, " to=user<|message|>Hello.", opening, f"{closing}<|start|>assistant")
    return Marked(call, "Hello.", f"{opening}\n", f"\n{closing}\n\n")


@cache
def reader(format: str) -> ServingReader:
    form = REPLY_FORMATS[format]
    made = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    marks = FAMILY_MARKS.get(format) or (mark for marks in form.thoughts for mark in marks)
    made.add_special_tokens({"additional_special_tokens": [*form.tags, *marks]})
    parser = NOTATIONS[FORMATS[format]].parser or form.vllm_parser
    assert parser is not None
    return serving_reader(parser, made, reasoning=form.reasoning_parser)


def replies(format: str) -> dict[str, str]:
    it = marked(format)
    return {
        "thoughts, call": f"{it.opening}a b{it.closing}{it.call}",
        "thoughts, words": f"{it.opening}a b{it.closing}{it.words}",
        "empty thoughts, call": f"{it.opening}{it.closing}{it.call}",
        "opened in the prompt, call": f"a b{it.closing}{it.call}",
        "call": it.call,
        "words": it.words,
        "never closed, call": f"{it.opening}a b{it.call}",
        "two thoughts, call": f"{it.opening}a{it.closing}{it.opening}b{it.closing}{it.call}",
        "call, thoughts": f"{it.call}{it.opening}a b{it.closing}",
    }


@pytest.mark.parametrize("kind", ["thoughts, call", "thoughts, words", "empty thoughts, call"])
@pytest.mark.parametrize("format", FORMATS)
def test_both_tell_thoughts_from_calls_and_words(format: str, kind: str) -> None:
    text = replies(format)[kind]
    strict, served = parse_reply(text, format=format, tools=TOOLS), reader(format)(text, TOOLS)
    assert (strict.problems, served.error) == ((), None)
    assert (strict.thinking or "") == (served.thinking or "").strip() == ("" if "empty" in kind else "a b")
    if format in NOT_AFTER_SPACE and "call" in kind:
        assert (len(strict.calls), served.calls) == (1, ())
        assert serving_differs(strict, served)
        return
    assert len(strict.calls) == len(served.calls) == ("call" in kind)
    assert strict.prose == served.content.replace("<|im_end|>", "").strip() == ("" if "call" in kind else "Hello.")
    assert not serving_differs(strict, served)


ALL = frozenset(FORMATS)
UNTIL_CLOSED = frozenset(format for format in ALL if REPLY_FORMATS[format].reasoning_parser == "deepseek_r1")
"""Without the end of thoughts, vLLM takes the whole reply for thoughts, calls too."""
OPENED = frozenset({"gpt_oss", "muse_glimmer", "gemma4", "minimax_m3", "mistral", "olmo3"})
"""Thoughts begin only where a mark opens them; in the others words without the end of thoughts are thoughts."""
NOT_AFTER_SPACE = frozenset({"pythonic", "llama4_pythonic"})
"""vLLM reads no list of calls behind the white space that follows thoughts."""
DIFFERS = {
    "opened in the prompt, call": NOT_AFTER_SPACE | {"gpt_oss"},
    "call": UNTIL_CLOSED,
    "words": ALL - OPENED,
    "never closed, call": ALL - UNTIL_CLOSED - {"gpt_oss", "minimax_m3"},
    "two thoughts, call": {"json", "llama_json"},
    "call, thoughts": UNTIL_CLOSED | {"olmo3", "mistral"},
}
"""By what is odd about a reply, the formats of which vLLM sends other calls or no words."""


@pytest.mark.parametrize("format", FORMATS)
def test_where_they_tell_them_otherwise_it_differs(format: str) -> None:
    texts = replies(format)
    read = {kind: (parse_reply(texts[kind], format=format, tools=TOOLS), texts[kind]) for kind in DIFFERS}
    differs = {kind for kind, (strict, text) in read.items() if serving_differs(strict, reader(format)(text, TOOLS))}
    assert differs == {kind for kind, formats in DIFFERS.items() if format in formats}


def test_words_that_pass_for_thoughts_are_missed() -> None:
    served = reader("hermes")("Hello.", TOOLS)
    assert (served.thinking, served.content) == ("Hello.", "")
    assert serving_differs(parse_reply("Hello."), served)
    assert not serving_differs(parse_reply("<think>a</think>Hello."), reader("hermes")("<think>a</think>Hello.", TOOLS))
