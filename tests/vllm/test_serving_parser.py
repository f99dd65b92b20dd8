"""vLLM's own tool-call parser reads what the project's strict parser reads."""

from pathlib import Path

import pytest
from builders import assistant, make_call, make_config, make_sample, user, weather_samples, write_samples

from evals.generate import serving_parser
from evals.parity import check_parity, require_parity
from orchestrator.errors import DataError
from orchestrator.models.base import load_tokenizer
from orchestrator.models.tiny import tiny_base_folder
from orchestrator.records import FunctionCall
from orchestrator.runs import open_run

pytestmark = pytest.mark.vllm


def test_a_servers_parser_reads_calls_and_gives_none_for_what_it_cannot_read() -> None:
    parse = serving_parser("hermes", load_tokenizer(tiny_base_folder(), trust_remote_code=False))
    one = '<tool_call>\n{"name": "f", "arguments": {"n": 1.0, "s": "ü"}}\n</tool_call>'
    assert parse(one) == [FunctionCall(name="f", arguments={"n": 1.0, "s": "ü"})]
    assert parse(f"Well.\n{one}\n{one}") == [FunctionCall(name="f", arguments={"n": 1.0, "s": "ü"})] * 2
    assert parse("nothing") == []
    assert parse("<tool_call>{broken</tool_call>") == []


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
    card = check_parity(config, run)
    assert [(problem.code, problem.sample_id) for problem in card.problems] == [("serving_parser_differs", "tricky")]
    with pytest.raises(DataError, match=r"sample tricky: serving_parser_differs: turn 2.*take the tags of calls out"):
        require_parity(config, run)
