"""What a search may look for, and what is refused, each with what would be allowed."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.load import load_config
from orchestrator.config.objective import Bound
from orchestrator.config.schema import SearchConfig
from orchestrator.core.errors import ConfigError

DEMO = Path(__file__).resolve().parents[3] / "configs" / "demo.yaml"


def test_a_search_by_eval_loss_is_dumped_as_before_there_were_objectives() -> None:
    search = SearchConfig()
    assert not search.wants_scores
    assert not {"objective", "constraints", "cases"} & search.model_dump(mode="json").keys()


@pytest.mark.parametrize(
    ("given", "objective"),
    [
        ("search.objective=tool_call_accuracy", "tool_call_accuracy"),
        ("search.objective={refusal_recall: 2, truncated_rate: 1}", {"refusal_recall": 2, "truncated_rate": 1}),
        ("search.objective=[tool_call_accuracy, over_refusal_rate]", ("tool_call_accuracy", "over_refusal_rate")),
        ("search.objective=eval_loss", "eval_loss"),
    ],
)  # fmt: skip
def test_one_metric_several_with_weights_or_eval_loss(given: str, objective: Any) -> None:
    search = load_config(DEMO, [given]).search
    assert search.objective == objective
    assert search.wants_scores == (objective != "eval_loss")
    assert SearchConfig.model_validate(search.model_dump(mode="json")) == search


def test_constraints_alone_want_scores() -> None:
    search = load_config(
        DEMO, ["search.constraints={output_tokens_mean: {max: 90}, no_tool_accuracy: {min: 0.6}}"]
    ).search
    assert search.wants_scores
    assert search.constraints == {"output_tokens_mean": Bound(max=90), "no_tool_accuracy": Bound(min=0.6)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("search.objective=accuracy", "no metric is called 'accuracy'; known are eval_loss, case_accuracy"),
        ("search.objective={tool_call_accuracy: 1, accuracy: 1}", "no metric is called 'accuracy'"),
        ("search.objective={tool_call_accuracy: 0}", "search.objective.tool_call_accuracy: 0 is not allowed here"),
        ("search.objective={tool_call_accuracy: -1}", "Allowed: a number above 0"),
        ("search.objective={}", "an empty mapping weighs nothing"),
        ("search.objective={eval_loss: 1, case_accuracy: 1}", "eval_loss is no share of cases"),
        ("search.objective=[tool_call_accuracy]", "a list holds two or more different shares"),
        ("search.objective=[case_accuracy, case_accuracy]", "a list holds two or more different shares"),
        ("search.objective=[case_accuracy, eval_loss]", "eval_loss is no share of cases, so it is on no front"),
        ("search.objective=[case_accuracy, accuracy]", "no metric is called 'accuracy'"),
        ("search.objective=latency_p50_s", "needs replies that are timed one at a time"),
        ("search.objective=output_tokens_mean", "bound it in search.constraints"),
        ("search.objective=3", "3 is not allowed here. Allowed: eval_loss, or case_accuracy"),
        ("search.constraints={accuracy: {max: 1}}", "search.constraints.accuracy: there is no such key"),
        ("search.constraints={peak_memory_gib: {max: 1}}", "set a gate on it"),
        ("search.constraints={refusal_recall: {}}", "a constraint needs min, max or both"),
        ("search.constraints={refusal_recall: {min: 0.9, max: 0.1}}", "min 0.9 is above max 0.1"),
        ("search.constraints={refusal_recall: {min: 95}}", "can meet 95 in refusal_recall: shares run from 0 to 1"),
        ("search.constraints={refusal_recall: {max: -1}}", "no adapter can meet -1 in refusal_recall"),
        ("search.cases=0", "Allowed: a whole number at least 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_what_is_allowed(given: str, said: str) -> None:
    with pytest.raises(ConfigError) as told:
        load_config(DEMO, [given])
    assert said in str(told.value)
    assert given.split("=", maxsplit=1)[0] in str(told.value)
