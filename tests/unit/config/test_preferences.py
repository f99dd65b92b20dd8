"""The section `prefer` and what `run` trains."""

from pathlib import Path

import pytest

from orchestrator.config.load import load_config
from orchestrator.config.preferences import SFT_WEIGHT, PreferConfig
from orchestrator.core.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("prefer.sources=[{path: synthetic}]", "the generator makes no pairs"),
        ("prefer.shares={tool_call: 0, refusal: 0, clarification: 0, answer: 0}", "leaves no kind a share"),
        ("prefer.shares={refusals: 1}", "prefer.shares.refusals"),
        ("prefer.loss=grpo", "prefer.loss"),
        ("prefer.loss=[sigmoid, grpo]", "prefer.loss"),
        ("prefer.loss=[]", "prefer.loss"),
        ("prefer.beta=0", "prefer.beta"),
        ("prefer.beta=[0.1, 0]", "prefer.beta"),
        ("prefer={loss: kto, sft_weight: 0.2}", "TRL's kto has no term for it"),
        ("prefer.loss=[sigmoid, kto]", "kto learns from single replies and the others from pairs"),
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


def test_lists_give_every_combination_once() -> None:
    prefer = PreferConfig.model_validate({"loss": ["sigmoid", "ipo"], "beta": [0.1, 0.3, 0.1], "learning_rate": 1e-5})
    assert prefer.learnings == [
        ("sigmoid", 0.1, 1e-5, SFT_WEIGHT),
        ("sigmoid", 0.3, 1e-5, SFT_WEIGHT),
        ("ipo", 0.1, 1e-5, SFT_WEIGHT),
        ("ipo", 0.3, 1e-5, SFT_WEIGHT),
    ]
    assert not prefer.takes_replies_alone
    assert PreferConfig(loss="kto").takes_replies_alone
    assert PreferConfig(loss="kto").learnings[0].sft_weight == 0.0
    assert PreferConfig().learnings == [("sigmoid", 0.1, None, SFT_WEIGHT)]
    assert PreferConfig(sft_weight=0.0).learnings[0].sft_weight == 0.0


def test_a_resolved_configuration_is_one_itself() -> None:
    prefer = PreferConfig.model_validate({"loss": ["kto"], "beta": [0.1, 0.3]})
    assert PreferConfig.model_validate_json(prefer.model_dump_json()) == prefer
