"""The section `prefer` and what `run` trains."""

from pathlib import Path

import pytest

from orchestrator.config.load import load_config
from orchestrator.core.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("prefer.sources=[{path: synthetic}]", "the generator makes no pairs"),
        ("prefer.shares={tool_call: 0, refusal: 0, clarification: 0, answer: 0}", "leaves no kind a share"),
        ("prefer.shares={refusals: 1}", "prefer.shares.refusals"),
        ("prefer.loss=kto", "prefer.loss"),
        ("prefer.beta=0", "prefer.beta"),
        ("stages=[prefer]", "preferences go on from an adapter"),
        ("stages=[prefer, sft]", "preferences go on from an adapter"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: x\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_config(path, [setting])


def test_files_of_pairs_are_looked_for_beside_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("prefer: {sources: [{path: pairs.jsonl}]}\nstages: [sft, prefer]\n", encoding="utf-8")
    config = load_config(path)
    assert config.prefer.sources[0].path == str(tmp_path / "pairs.jsonl")
    assert config.stages == ("sft", "prefer")
    assert config.prefer.shares == {"tool_call": 1.0, "refusal": 1.0, "clarification": 1.0, "answer": 1.0}
