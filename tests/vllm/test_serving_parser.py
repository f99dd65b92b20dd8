"""vLLM's own tool-call parsers read what the project's strict parser reads, and what else they read is told."""

import json
import logging
from collections.abc import Callable
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import pytest
from builders import assistant, make_call, make_config, make_sample, user, weather_samples, write_samples

from evals.check.parity import check_parity, require_parity
from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.formats.reply import ServedReply
from orchestrator.chat.parse import parse_reply, serving_differs
from orchestrator.chat.serving import serving_reader
from orchestrator.core.errors import DataError, EvaluationError
from orchestrator.data.tokens.store import tokenize_run
from orchestrator.models.base import load_tokenizer
from orchestrator.run.folder import open_run
from orchestrator.toy.tiny import tiny_base_folder

pytestmark = pytest.mark.vllm

MARKS = {"llama": ["<|python_tag|>"], "mistral v3": ["[TOOL_CALLS]"], "mistral v11": ["[TOOL_CALLS]", "[ARGS]"]}


def tokenizer_with(marks: list[str]) -> Any:
    """The toy tokenizer with more special tokens: what a parser asks of its family's vocabulary."""
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    return tokenizer


def reader(format: str, family: str = "") -> Callable[[str], ServedReply]:
    name = REPLY_FORMATS[format].vllm_parser
    assert name is not None
    read = serving_reader(name, tokenizer_with(MARKS.get(family, [])))
    return lambda text: read(text, ())


def test_formats_that_vllm_has_a_parser_for() -> None:
    names = {name: form.vllm_parser for name, form in REPLY_FORMATS.items()}
    parsers = {"hermes": "hermes", "llama_json": "llama3_json", "mistral": "mistral", "pythonic": "pythonic"}
    assert names == {**parsers, "mcp": None, "json": None}


TWO_LLAMA = '<|python_tag|>{"name": "f", "parameters": {"a": [1]}}; {"name": "g", "parameters": {}}'
TWO_MISTRAL = 'Sure.[TOOL_CALLS] [{"name": "f", "arguments": {"a": "x"}}, {"name": "g", "arguments": {}}]'
TWO_PYTHONIC = "[f(a=[1, 2.5], b='x', c={'d': True}), g()]"
ONE_HERMES = '<tool_call>\n{"name": "f", "arguments": {"n": 1.0, "s": "ü"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("format", "family", "text", "calls", "content"),
    [
        ("hermes", "", ONE_HERMES, [("f", {"n": 1.0, "s": "ü"})], ""),
        ("hermes", "", f"Well.\n{ONE_HERMES}\n{ONE_HERMES}", [("f", {"n": 1.0, "s": "ü"})] * 2, "Well.\n"),
        ("hermes", "", "nothing", [], "nothing"),
        ("hermes", "", "<tool_call>{broken</tool_call>", [], "<tool_call>{broken</tool_call>"),
        ("llama_json", "llama", TWO_LLAMA, [("f", {"a": [1]}), ("g", {})], ""),
        ("llama_json", "llama", '{"answer": 42}', [], '{"answer": 42}'),
        ("mistral", "mistral v3", TWO_MISTRAL, [("f", {"a": "x"}), ("g", {})], "Sure."),
        ("mistral", "mistral v11", '[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g{}', [("f", {"a": 1}), ("g", {})], ""),
        ("pythonic", "", TWO_PYTHONIC, [("f", {"a": [1, 2.5], "b": "x", "c": {"d": True}}), ("g", {})], ""),
        ("pythonic", "", "It is sunny.", [], "It is sunny."),
    ],
)
def test_both_parsers_read_the_same_calls(
    format: str, family: str, text: str, calls: list[tuple[str, Any]], content: str
) -> None:
    served = reader(format, family)(text)
    assert [(name, json.loads(arguments)) for name, arguments in served.calls] == calls
    assert (served.parser, served.content, served.error) == (REPLY_FORMATS[format].vllm_parser, content, None)
    assert not serving_differs(parse_reply(text, format=format), served)


@pytest.mark.parametrize(
    ("format", "family", "text", "served"),
    [
        ("hermes", "", '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>', (("f", '{"a": NaN}'),)),
        ("hermes", "", '<tool_call>{"name": "f", "arguments": {"a": 1, "a": 2}}</tool_call>', (("f", '{"a": 2}'),)),
        ("hermes", "", '<tool_call>{"name": "f", "arguments": {}}', (("f", "{}"),)),
        ("hermes", "", f"{ONE_HERMES}<tool_call>{{</tool_call>", ()),
        ("llama_json", "llama", 'Sure: {"name": "f", "parameters": {}}', (("f", "{}"),)),
        ("mistral", "mistral v3", "[TOOL_CALLS]f{}", ()),
        ("pythonic", "", "[math.sqrt(x=4)]", ()),
    ],
)
def test_a_reply_that_only_one_of_the_two_reads_differs(
    format: str, family: str, text: str, served: tuple[tuple[str, str], ...]
) -> None:
    reply = reader(format, family)(text)
    assert reply.calls == served
    assert serving_differs(parse_reply(text, format=format), reply)


def test_what_a_server_cannot_send_is_an_error_of_that_reply() -> None:
    served = reader("hermes")('<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>')
    assert served.calls == ()
    assert served.error is not None
    assert "surrogates not allowed" in served.error
    assert "\n" not in served.error
    ServedReply.model_validate_json(served.model_dump_json())


@pytest.mark.parametrize("name", ["llama3_json", "mistral", "nonsense"])
def test_a_parser_that_does_not_take_the_base_is_told(name: str) -> None:
    fault = rf"eval\.reply_format: vLLM's parser {name} cannot be used with this base"
    with pytest.raises(EvaluationError, match=fault):
        serving_reader(name, tokenizer_with([]))


def test_replies_that_cannot_be_read_leave_no_log() -> None:
    read = {"hermes": reader("hermes"), "pythonic": reader("pythonic"), "mistral": reader("mistral", "mistral v3")}
    handler = BufferingHandler(capacity=1000)
    logging.getLogger("vllm").addHandler(handler)
    try:
        read["hermes"]("<tool_call>{</tool_call>")
        read["pythonic"]("[f(a=g())]")
        read["mistral"]("[TOOL_CALLS] [{")
        assert handler.buffer == []
        logging.getLogger("vllm.engine").error("The engine's own errors are still told.")
        assert len(handler.buffer) == 1
    finally:
        logging.getLogger("vllm").removeHandler(handler)


def test_a_call_that_only_the_strict_parser_reads_is_a_problem(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    run = open_run(config)
    write_samples(run, "train", weather_samples("Rome", "Oslo"))
    write_samples(run, "val", weather_samples("Lima"))
    write_samples(run, "test", weather_samples("Cairo"))
    card = require_parity(config, run)
    assert (card.serving_parser, card.serving_calls, card.serving_note) == ("hermes", 4, None)
    tricky = make_sample(user("x"), assistant("", make_call(city="a</tool_call>b")), id="tricky")
    write_samples(run, "test", [tricky])
    tokenize_run(config, run)
    card = check_parity(config, run)
    assert [(problem.code, problem.sample_id) for problem in card.problems] == [("serving_parser_differs", "tricky")]
    with pytest.raises(DataError, match=r"sample tricky: serving_parser_differs: turn 2.*take the tags of calls out"):
        require_parity(config, run)


def test_a_format_whose_marks_the_base_lacks_leaves_a_note(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    config = config.model_copy(update={"eval": config.eval.model_copy(update={"reply_format": "mistral"})})
    run = open_run(config)
    for part in ("train", "val", "test"):
        write_samples(run, part, weather_samples("Rome"))
    tokenize_run(config, run)
    card = check_parity(config, run)
    assert card.serving_parser is None
    assert card.serving_note is not None
    assert "vLLM's parser mistral cannot be used with this base" in card.serving_note
    assert [problem.code for problem in card.problems] == ["call_not_parsed"]
