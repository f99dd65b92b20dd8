import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.records import Comparison, Scores, Verdict
from evals.stats.comparison import compare, conversation_of, holm, num_cases_needed, pair_verdicts, sign_flip_p
from orchestrator.core.records import BENIGN, MetricName
from orchestrator.refusals import ReplyKind


def verdict(case_id: str, correct: bool | None, **fields: Any) -> Verdict:
    settled: dict[str, Any] = {
        "suite": "held_out",
        "kind": "tool_call",
        "tags": (),
        "valid": correct,
        "reason": None if correct else "not_scored" if correct is None else "no_call",
        "reply_kind": None if correct is None else ReplyKind.COMPLIANCE,
        "called": correct,
        "cut_off": False,
    }
    return Verdict(case_id=case_id, correct=correct, **{**settled, **fields})


def scores(adapter_id: str, verdicts: Sequence[Verdict]) -> Scores:
    return Scores(
        adapter_id=adapter_id,
        num_cases=len(verdicts),
        num_unscored=sum(v.correct is None for v in verdicts),
        metrics={},
        cells={},
        suites={},
        verdicts=tuple(verdicts),
    )


def answers(adapter_id: str, outcomes: Sequence[bool | None], *, turns: int = 1) -> Scores:
    """One verdict an outcome; each `turns` of them are one conversation."""
    return scores(adapter_id, [verdict(f"s{i // turns}#{i % turns}", ok) for i, ok in enumerate(outcomes)])


def table(gained: int, lost: int, same: int = 0) -> tuple[Scores, Scores]:
    left = [True] * gained + [False] * lost + [True] * same
    right = [False] * gained + [True] * lost + [True] * same
    return answers("left", left), answers("right", right)


def figures(comparison: Comparison) -> tuple[float, float, float]:
    assert comparison.difference is not None
    assert comparison.low is not None
    assert comparison.high is not None
    return comparison.difference, comparison.low, comparison.high


def compare_scores(left: Scores, right: Scores, metric: MetricName) -> Comparison:
    return compare([pair_verdicts(left, right, metric)])[0]


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    [
        (8, 2, 2 * (1 + 10 + 45) / 2**10),
        (5, 0, 2 / 2**5),
        (0, 6, 2 / 2**6),
        (3, 3, 1.0),
        (0, 0, 1.0),
        (7, 3, 2 * (1 + 10 + 45 + 120) / 2**10),
    ],
)
def test_p_is_that_of_mcnemars_exact_test(gained: int, lost: int, p_value: float) -> None:
    comparison = compare_scores(*table(gained, lost, same=9), "case_accuracy")
    assert comparison.p_value == pytest.approx(p_value)
    assert comparison.p_adjusted == comparison.p_value
    assert (comparison.n, comparison.gained, comparison.lost) == (gained + lost + 9, gained, lost)
    assert comparison.difference == pytest.approx((gained - lost) / (gained + lost + 9))


@pytest.mark.parametrize(
    ("leads", "p_value"),
    [
        ([2, 1], 2 / 4),  # sums 3, 1, -1, -3: two of four as far out as 3
        ([3, -1, 1], 6 / 8),  # 5, 3, 3, 1 and their negatives: six of eight as far out as 3
        ([2, 2, 0, 3], 2 / 8),
        ([2, -2], 1.0),
    ],
)
def test_a_conversation_with_several_flips_has_one_sign(leads: list[int], p_value: float) -> None:
    assert sign_flip_p(leads) == pytest.approx(p_value)


@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=40))
def test_the_size_that_all_leads_share_does_not_matter(leads: list[int]) -> None:
    """Ties the sum over signs to the binomial test: with sizes of one the latter is used."""
    assert sign_flip_p([2 * lead for lead in leads]) == pytest.approx(sign_flip_p(leads))


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=20)
def test_cases_on_which_both_agree_do_not_change_p(gained: int, lost: int, same: int, more: int) -> None:
    few = compare_scores(*table(gained, lost, same), "case_accuracy")
    many = compare_scores(*table(gained, lost, same + more), "case_accuracy")
    if few.n:
        assert few.p_value == many.p_value


outcome_pairs = st.lists(st.tuples(st.sampled_from([True, False, None]), st.booleans()), min_size=1, max_size=40)


@given(outcome_pairs, st.integers(1, 4))
@settings(max_examples=30)
def test_exchanging_the_sides_mirrors_everything(pairs: list[tuple[bool | None, bool]], turns: int) -> None:
    left = answers("left", [one for one, _ in pairs], turns=turns)
    right = answers("right", [other for _, other in pairs], turns=turns)
    there, back = compare_scores(left, right, "case_accuracy"), compare_scores(right, left, "case_accuracy")
    assert there.n == back.n == sum(one is not None for one, _ in pairs)
    assert (there.gained, there.lost, there.p_value) == (back.lost, back.gained, back.p_value)
    assert there.num_cases_needed == back.num_cases_needed
    assert [(flip.case_id, flip.left_correct) for flip in there.flips] == [
        (flip.case_id, not flip.left_correct) for flip in back.flips
    ]
    if there.n:
        (difference, low, high), mirrored = figures(there), figures(back)
        assert mirrored == pytest.approx((-difference, -high, -low))
        assert -1 <= low <= difference <= high <= 1


def test_the_interval_is_mirrored_to_the_last_draw() -> None:
    left, right = table(18, 9, 173)
    _, low, high = figures(compare_scores(left, right, "case_accuracy"))
    assert figures(compare_scores(right, left, "case_accuracy"))[1:] == pytest.approx((-high, -low), abs=1e-12)


def test_unscored_cases_of_either_side_are_left_out_and_flips_keep_the_order_of_cases() -> None:
    left = answers("left", [True, None, False, True, True])
    right = answers("right", [False, True, True, None, True])
    comparison = compare_scores(left, right, "case_accuracy")
    assert comparison.n == 3
    assert [(flip.case_id, flip.left_correct) for flip in comparison.flips] == [("s0#0", True), ("s2#0", False)]


def test_without_a_shared_case_nothing_is_claimed() -> None:
    left, right = answers("left", [None, True]), answers("right", [True, None])
    comparison = compare_scores(left, right, "case_accuracy")
    assert comparison.n == 0
    assert (comparison.difference, comparison.low, comparison.high, comparison.p_value) == (None,) * 4
    assert (comparison.p_adjusted, comparison.num_cases_needed) == (None, None)
    assert comparison.method == "not compared: no case was scored for both"


def test_better_is_told_by_the_metric_and_the_difference_is_left_minus_right() -> None:
    kinds = {"left": [ReplyKind.COMPLIANCE] * 4, "right": [ReplyKind.REFUSAL] * 3 + [ReplyKind.COMPLIANCE]}
    sides = [
        scores(name, [verdict(f"s{i}", True, kind="answer", tags=(BENIGN,), reply_kind=k) for i, k in enumerate(given)])
        for name, given in kinds.items()
    ]
    comparison = compare_scores(sides[0], sides[1], "over_refusal_rate")
    assert (comparison.gained, comparison.lost, comparison.difference) == (3, 0, -0.75)


def test_a_conversation_is_the_case_id_up_to_its_last_mark() -> None:
    assert [conversation_of(name) for name in ("a", "a#0", "a#b#1")] == ["a", "a", "a#b"]


def test_many_flips_in_one_conversation_are_one_piece_of_evidence() -> None:
    left, right = [True] * 20 + [True, False], [False] * 20 + [False, True]
    apart = compare_scores(answers("left", left), answers("right", right), "case_accuracy")
    together = compare_scores(answers("left", left, turns=20), answers("right", right, turns=20), "case_accuracy")
    assert apart.p_value == pytest.approx(2 * (1 + 22) / 2**22)
    assert together.p_value == 1.0  # the first conversation leads by 20, the second by 0
    assert "over 22 conversations" in apart.method
    assert "over 2 conversations" in together.method


def test_conversations_that_flip_as_one_need_more_cases() -> None:
    """Six conversations gained, four lost, ten alike, four turns each: four times the cases of single turns."""
    left, right = (
        [ok for ok in whole for _ in range(4)] for whole in ([True] * 16 + [False] * 4, [False] * 6 + [True] * 14)
    )
    together = compare_scores(answers("left", left, turns=4), answers("right", right, turns=4), "case_accuracy")
    assert together.num_cases_needed == num_cases_needed(0.3, 0.2, design_effect=4.0)


def test_holm_by_hand() -> None:
    # Sorted: 0.005 * 4, 0.01 * 3, 0.03 * 2, then 0.04 * 1, which may not be below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert holm([None, 0.04]) == [None, 0.04]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    for p_value, adjusted in zip(p_values, holm(list(p_values)), strict=True):
        assert adjusted is not None
        assert p_value <= adjusted <= min(1.0, p_value * len(p_values)) or math.isclose(adjusted, p_value)


def test_what_is_asked_together_is_corrected_together() -> None:
    clear, close = table(8, 0, 20), table(9, 5, 20)
    alone = [compare([pair_verdicts(*sides, "case_accuracy")])[0] for sides in (clear, close)]
    both = compare([pair_verdicts(*sides, "case_accuracy") for sides in (clear, close)])
    assert both[0].p_adjusted == pytest.approx(2 * 2 / 2**8)
    assert both[1].p_adjusted == both[1].p_value == alone[1].p_value
    assert both[0].num_cases_needed is None  # shown
    assert alone[1].num_cases_needed is not None
    assert both[1].num_cases_needed is not None
    assert both[1].num_cases_needed > alone[1].num_cases_needed > 34  # a stricter level needs more


def test_comparisons_that_cannot_be_made_do_not_weigh_on_the_others() -> None:
    empty = pair_verdicts(answers("left", [None]), answers("right", [True]), "case_accuracy")
    made = pair_verdicts(*table(9, 5, 20), "case_accuracy")
    assert compare([made, empty])[0] == compare([made])[0]
    assert compare([]) == ()


def test_needed_cases_by_hand() -> None:
    # Connor's formula for 0.25 and 0.10: (1.95996 sqrt(0.35) + 0.84162 sqrt(0.35 - 0.0225))^2 / 0.0225 = 119.7
    assert num_cases_needed(0.25, 0.10) == 120
    assert num_cases_needed(0.10, 0.25) == 120
    assert num_cases_needed(0.25, 0.10, design_effect=2.0) == 240
    assert num_cases_needed(0.2, 0.2) is None


@pytest.mark.parametrize(("gained", "lost"), [(0.25, 0.10), (0.08, 0.03), (0.30, 0.22), (0.10, 0.0)])
def test_the_promised_number_of_cases_shows_the_difference_four_times_in_five(gained: float, lost: float) -> None:
    n = num_cases_needed(gained, lost)
    assert n is not None
    tables = np.random.default_rng(7).multinomial(n, [gained, lost, 1 - gained - lost], size=1000)
    shown = [sign_flip_p([1] * won + [-1] * gone) < 0.05 for won, gone, _ in tables.tolist()]
    assert 0.74 <= np.mean(shown) <= 0.86


def moody(rng: np.random.Generator, num: int, turns: int, lead: float) -> tuple[list[bool], list[bool]]:
    """Outcomes of conversations with a mood: in each, one side (at `lead` 0 either alike) does better on every turn."""
    sides = rng.random(num) < 0.5 + lead
    chances = np.repeat(np.where(sides, 0.9, 0.5), turns), np.repeat(np.where(sides, 0.5, 0.9), turns)
    left, right = ((rng.random(num * turns) < chance).tolist() for chance in chances)
    return left, right


def test_chance_alone_is_called_real_at_most_once_in_twenty_times() -> None:
    rng = np.random.default_rng(11)
    tables = rng.multinomial(60, [0.15, 0.15, 0.7], size=1000)
    false_alarms = [sign_flip_p([1] * won + [-1] * gone) < 0.05 for won, gone, _ in tables.tolist()]
    assert 0.01 < np.mean(false_alarms) <= 0.05


def test_dependent_cases_raise_no_more_false_alarms() -> None:
    rng = np.random.default_rng(12)
    naive, ours = [], []
    for _ in range(500):
        left, right = moody(rng, num=20, turns=8, lead=0.0)
        flips = np.array(left, dtype=int) - np.array(right, dtype=int)
        naive.append(sign_flip_p(flips.tolist()) < 0.05)
        ours.append(sign_flip_p(flips.reshape(20, 8).sum(axis=1).tolist()) < 0.05)
    assert np.mean(ours) <= 0.07  # 0.05 and two standard errors
    assert np.mean(naive) > 0.15  # what taking each case for itself would do


def test_the_interval_holds_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(13)
    held = {"single": 0, "turns": 0}
    for _ in range(150):
        won, gone, same = rng.multinomial(50, [0.12, 0.04, 0.84]).tolist()
        _, low, high = figures(compare_scores(*table(won, gone, same), "case_accuracy"))
        held["single"] += low <= 0.08 <= high
        ours, theirs = moody(rng, num=30, turns=4, lead=0.2)
        sides = answers("left", ours, turns=4), answers("right", theirs, turns=4)
        _, low, high = figures(compare_scores(*sides, "case_accuracy"))
        held["turns"] += low <= 0.4 * 0.4 <= high  # 70 % of conversations favour the left by 0.4, 30 % the right
    assert 0.91 * 150 <= held["single"] <= 0.99 * 150
    assert 0.91 * 150 <= held["turns"] <= 0.99 * 150


def test_no_flip_at_all_is_no_certainty() -> None:
    difference, low, high = figures(compare_scores(*table(0, 0, 20), "case_accuracy"))
    assert difference == 0
    assert low < -0.05 < 0.05 < high


@pytest.mark.parametrize("metric", ["latency_p50_s", "output_tokens_mean", "argument_recall"])
def test_only_shares_of_cases_are_compared(metric: MetricName) -> None:
    with pytest.raises(ValueError, match=f"{metric} is no share of cases"):
        compare_scores(*table(1, 1), metric)
