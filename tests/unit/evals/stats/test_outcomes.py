from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.records import Verdict
from evals.stats.metrics import compute_metrics
from evals.stats.outcomes import SHARE_OUTCOMES, case_outcome
from orchestrator.core.records import BENIGN, HARMFUL, METRIC_NAMES, MISSING_ARGUMENT, NO_FITTING_TOOL, SampleKind
from orchestrator.refusals import ReplyKind

verdicts = st.builds(
    Verdict,
    case_id=st.just("case"),
    suite=st.just("held_out"),
    kind=st.sampled_from(get_args(SampleKind)),
    tags=st.sets(st.sampled_from([HARMFUL, BENIGN, NO_FITTING_TOOL, MISSING_ARGUMENT]), max_size=2).map(tuple),
    valid=st.sampled_from([True, False, None]),
    correct=st.sampled_from([True, False, None]),
    reason=st.sampled_from([None, "unexpected_call", "no_call"]),
    detail=st.just(""),
    reply_kind=st.sampled_from([*ReplyKind, None]),
    called=st.sampled_from([True, False, None]),
    cut_off=st.booleans(),
    serving_differs=st.sampled_from([True, False, None]),
)


@given(st.lists(verdicts, max_size=12))
def test_the_share_of_yes_is_the_metric(given: list[Verdict]) -> None:
    metrics = compute_metrics(given, [])
    for name in SHARE_OUTCOMES:
        outcomes = [outcome for one in given if (outcome := case_outcome(name, one)) is not None]
        assert metrics[name].n == len(outcomes), name
        assert metrics[name].value == (sum(outcomes) / len(outcomes) if outcomes else None), name


def test_every_metric_is_a_share_or_known_not_to_be_one() -> None:
    figures = {"argument_recall", "argument_precision", "latency_p50_s", "latency_p95_s", "output_tokens_mean"}
    assert set(SHARE_OUTCOMES) == set(METRIC_NAMES) - figures


def test_a_figure_has_no_outcome_for_each_case() -> None:
    with pytest.raises(KeyError):
        case_outcome("latency_p50_s", Verdict(
            case_id="a", suite="held_out", kind="answer", tags=(), valid=None, correct=True, reason=None,
            reply_kind=ReplyKind.COMPLIANCE, called=False, cut_off=False,
        ))  # fmt: skip
