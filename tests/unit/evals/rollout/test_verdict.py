"""The verdict on simulated logs; error rates under continuous looking are held in test_sequential."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from evals.rollout.outcomes import Outcome
from evals.rollout.plan import Plan
from evals.rollout.verdict import TABLE_HEAD, Rollout, judge_log, verdict_lines, verdict_rows

PLAN = Plan(
    old="trial-1", new="trial-2", old_share=0.8, new_share=0.9, difference=0.1, low=0.05, high=0.15, measured="",
    margin=0.05, at_most=600, one_look=400, on_average=370, pessimistic=2000, harms=(),
)  # fmt: skip


def simulated(
    num_cases: int,
    *,
    success: tuple[float, float] = (0.8, 0.8),
    over_refusal: tuple[float, float] = (0.05, 0.05),
    latency_s: tuple[float, float] = (1.0, 1.0),
    seed: int = 1,
) -> list[Outcome]:
    """Outcomes of a 50/50 split, each pair of figures those of old and new."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(num_cases):
        is_new = bool(rng.random() < 0.5)
        found.append(
            Outcome(
                id=f"r{number}",
                arm="new" if is_new else "old",
                success=bool(rng.random() < success[is_new]),
                over_refusal=bool(rng.random() < over_refusal[is_new]) if number % 2 else None,
                latency_s=float(latency_s[is_new] * rng.lognormal(0, 0.5)),
            )
        )
    return found


def text(found: Rollout) -> str:
    return " ".join(verdict_lines(found, PLAN))


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        (simulated(40), "not_yet"),
        (simulated(400), "not_yet"),
        (simulated(3000, success=(0.8, 0.9)), "better"),
        (simulated(3000, success=(0.9, 0.8)), "worse"),
        (simulated(12000), "no_difference_that_matters"),
        (simulated(3000, success=(0.8, 0.9), over_refusal=(0.02, 0.2)), "worse"),
        (simulated(3000, success=(0.8, 0.9), latency_s=(1.0, 1.6)), "worse"),
        (simulated(12000, latency_s=(1.0, 0.5)), "no_difference_that_matters"),
    ],
)
def test_a_log_ends_in_one_of_four_verdicts(outcomes: Sequence[Outcome], state: str) -> None:
    found = judge_log(outcomes, PLAN)
    assert found.state == state
    assert found.warnings == ()
    assert text(found).startswith(f"Verdict: {state.replace('_', ' ')}.")
    assert (found.more_cases is not None) == (state == "not_yet" and len(outcomes) > 100)


def test_what_is_worse_is_named() -> None:
    found = judge_log(simulated(3000, success=(0.8, 0.9), over_refusal=(0.02, 0.2)), PLAN)
    assert "It is worse on: Refused and should not be." in text(found)
    assert {metric.metric: metric.state for metric in found.metrics}["success"] == "better"


def test_a_difference_that_is_shown_and_does_not_matter_does_not_matter() -> None:
    found = judge_log(simulated(20000, success=(0.93, 0.955)), PLAN)
    assert found.metrics[0].low is not None
    assert found.metrics[0].low > 0
    assert found.state == "no_difference_that_matters"


def test_latencies_are_compared_as_a_ratio_of_typical_ones() -> None:
    outcomes = simulated(3000, latency_s=(2.0, 1.2))
    latency = judge_log(outcomes, PLAN).metrics[-1]
    logs = {arm: [math.log(o.latency_s or 0) for o in outcomes if o.arm == arm] for arm in ("old", "new")}
    assert latency.old == pytest.approx(math.exp(np.mean(logs["old"])))
    assert latency.difference == pytest.approx((latency.new or 0) / (latency.old or 1))
    assert latency.low is not None
    assert latency.high is not None
    assert latency.low < 0.6 < latency.high
    assert latency.state == "better"


def test_metrics_that_are_not_logged_are_not_told() -> None:
    plain = [outcome.model_copy(update={"over_refusal": None, "latency_s": None}) for outcome in simulated(400)]
    found = judge_log(plain, PLAN)
    assert [metric.metric for metric in found.metrics] == ["success"]
    ((*cells,),) = verdict_rows(found)
    assert len(cells) == len(TABLE_HEAD)


def test_outcomes_that_are_not_known_yet_are_counted_and_decide_nothing() -> None:
    outcomes = simulated(3000, success=(0.8, 0.9))
    late = [
        outcome.model_copy(update={"success": None}) if number % 3 == 0 else outcome
        for number, outcome in enumerate(outcomes)
    ]
    found = judge_log(late, PLAN)
    assert found.waiting_old + found.waiting_new == 1000
    assert found.metrics[0].n_old + found.metrics[0].n_new == 2000
    assert found.warnings == ()
    assert f"Not known yet: {found.waiting_old:,} successes of old, {found.waiting_new:,} of new." in text(found)


def test_failures_that_are_known_later_in_one_arm_are_warned_of() -> None:
    outcomes = [
        outcome.model_copy(update={"success": None}) if outcome.arm == "new" and outcome.success is False else outcome
        for outcome in simulated(3000)
    ]
    assert "Beware: The arms wait for outcomes unequally often" in text(judge_log(outcomes, PLAN))


def test_a_split_that_is_none_is_warned_of() -> None:
    outcomes = [outcome for number, outcome in enumerate(simulated(3000)) if outcome.arm == "old" or number % 3]
    assert "are no 50/50 split. Find out what is lost" in text(judge_log(outcomes, PLAN))


def test_a_user_counts_once_in_the_split_and_all_of_its_requests_together() -> None:
    rng = np.random.default_rng(2)
    outcomes = []
    for user in range(300):
        is_new, share = user % 2 == 0, rng.beta(1.6, 0.4)
        outcomes += [
            Outcome(
                id=f"{user}-{number}", arm="new" if is_new else "old", unit=f"u{user}",
                success=bool(rng.random() < share),
            )
            for number in range(40 if user < 20 and is_new else 8)
        ]  # fmt: skip
    found = judge_log(outcomes, PLAN)
    assert found.warnings == ()  # 150 users each, if far more requests of new
    alone = judge_log([outcome.model_copy(update={"unit": None}) for outcome in outcomes], PLAN)
    assert "no 50/50 split" in text(alone)
    wide, narrow = ((one.metrics[0].high or 0) - (one.metrics[0].low or 0) for one in (found, alone))
    assert wide > 1.5 * narrow


def test_of_a_few_users_nothing_is_said() -> None:
    outcomes = [
        outcome.model_copy(update={"unit": f"{outcome.arm}-{number % 10}"})
        for number, outcome in enumerate(simulated(4000, success=(0.5, 0.9)))
    ]
    found = judge_log(outcomes, PLAN)
    assert found.state == "not_yet"
    assert "At least 30 users or conversations with a known success are needed in each arm." in text(found)
