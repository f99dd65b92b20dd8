import pytest

from evals.records import AdapterSummary, CanaryProof, Comparison, EngineRecord, Flip, Metric
from evals.report.view import headline_metrics, oriented, proof_text
from orchestrator.core.records import MetricName


def test_a_comparison_turned_round_says_the_same_from_the_other_side() -> None:
    flips = (Flip(case_id="a", left_correct=True), Flip(case_id="b", left_correct=False))
    entry = Comparison(
        metric="case_accuracy", left="x", right="y", n=50, gained=9, lost=2, difference=0.14, low=-0.02, high=0.3,
        p_value=0.06, p_adjusted=0.12, method="exact", num_cases_needed=70, flips=flips,
    )  # fmt: skip
    turned = oriented(entry, "y")
    assert (turned.left, turned.right, turned.gained, turned.lost) == ("y", "x", 2, 9)
    assert (turned.difference, turned.low, turned.high) == (-0.14, -0.3, 0.02)
    assert [(flip.case_id, flip.left_correct) for flip in turned.flips] == [("a", False), ("b", True)]
    assert (turned.p_value, turned.p_adjusted, turned.n, turned.num_cases_needed) == (0.06, 0.12, 50, 70)
    assert oriented(turned, "x") == entry
    assert oriented(entry, "x") is entry


def adapter(*scored: MetricName) -> AdapterSummary:
    known, unknown = Metric(value=0.5, n=4, low=0.2, high=0.8), Metric(value=None, n=0, low=None, high=None)
    metrics: dict[MetricName, Metric] = {"refusal_accuracy": unknown, **dict.fromkeys(scored, known)}
    return AdapterSummary(id="a", is_base=False, hyperparameters={}, eval_loss=None, metrics=metrics)


def test_three_figures_stand_at_the_top_and_only_scored_ones() -> None:
    assert headline_metrics(
        adapter("tool_call_validity", "tool_call_accuracy", "case_accuracy", "no_tool_accuracy")
    ) == [
        "case_accuracy",
        "tool_call_accuracy",
        "tool_call_validity",
    ]
    assert headline_metrics(adapter("latency_p50_s")) == []


@pytest.mark.parametrize(
    ("canary", "said"),
    [
        (None, "no proof"),
        (CanaryProof(num_prompts=4, num_texts_moved=0, largest_shift=0.01, noise=0.01), "no effect seen"),
        (
            CanaryProof(num_prompts=4, num_texts_moved=0, largest_shift=0.5, noise=0.01),
            "0 of 4 replies moved; log probabilities by up to 0.5, by 0.01 between two passes of the base",
        ),
        (
            CanaryProof(num_prompts=4, num_texts_moved=3, largest_shift=0.0, noise=0.0),
            "3 of 4 replies moved; log probabilities by up to 0, by 0 between two passes of the base",
        ),
    ],
)
def test_what_is_proved_of_an_adapter(canary: CanaryProof | None, said: str) -> None:
    engine = EngineRecord(
        adapter_id="a",
        inputs_sha256="0",
        weights_sha256="1",
        applied_as="merged",
        canary=canary,
        device="cpu",
        num_engines=1,
    )
    assert proof_text(engine, is_base=False) == said
    assert proof_text(engine, is_base=True) == "untouched"
