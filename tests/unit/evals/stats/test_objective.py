"""A search's objective on adapters that were scored on the same cases: figures, paired tests, and who is kept."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_field import Field, verdict

from evals.records import Scores, Verdict
from evals.stats.comparison import sign_flip_p
from evals.stats.objective import EXACT, Aim, compare_sides, front_of, weights_text
from evals.stats.selection import Asked, in_order, stand
from orchestrator.config.schema import SearchConfig
from orchestrator.core.records import BENIGN
from orchestrator.refusals import ReplyKind


def calls(right: Iterable[int], n: int = 64) -> list[Verdict]:
    wanted = set(right)
    return [verdict(f"c{number}", number in wanted) for number in range(n)]


def answers(called: Iterable[int], n: int = 32, **fields: object) -> list[Verdict]:
    """Cases that ask for no call, of which some are called."""
    wrong = set(called)
    kind = {"kind": "answer", "valid": None, "tags": (BENIGN,), **fields}
    return [verdict(f"a{number}", number not in wrong, called=number in wrong, **kind) for number in range(n)]


def scored(name: str, verdicts: list[Verdict]) -> Scores:
    field = Field()
    field.add(name, verdicts)
    return field.scores[name]


def aim(**search: object) -> Aim:
    return Aim.of(SearchConfig.model_validate(search))


def asked(name: str, loss: float, verdicts: list[Verdict]) -> Asked:
    return Asked(name, loss, scored(name, verdicts))


def test_an_objective_is_the_weighted_sum_in_which_lower_may_be_better() -> None:
    both = aim(objective={"tool_call_accuracy": 2, "over_refusal_rate": 1})
    refused = answers(range(8), reply_kind=ReplyKind.REFUSAL)
    assert both.value(scored("a", [*calls(range(48)), *refused])) == pytest.approx(2 * 0.75 - 1.0)
    assert both.text == "2 tool_call_accuracy - over_refusal_rate"
    assert both.value(scored("a", calls(range(48)))) is None  # no benign case
    assert aim(objective="over_refusal_rate").value(scored("a", refused)) == -1.0
    assert aim().value(scored("a", refused)) is None
    assert aim().text == "eval_loss"


def test_a_constraint_that_has_no_case_is_missed() -> None:
    bounds = aim(constraints={"over_refusal_rate": {"max": 0.05}, "tool_call_accuracy": {"min": 0.5}})
    assert bounds.missed(scored("a", calls(range(40)))) == {"over_refusal_rate": 1.0}
    assert bounds.missed(scored("a", [*calls(range(16)), *answers([])])) == {"tool_call_accuracy": pytest.approx(0.25)}


@pytest.mark.parametrize(("gained", "lost"), [(5, 0), (8, 2), (0, 6), (3, 3), (0, 0)])
def test_one_share_is_tested_as_by_mcnemar_where_every_exchange_is_tried(gained: int, lost: int) -> None:
    left, right = scored("l", calls(range(gained))), scored("r", calls(range(gained, gained + lost)))
    gap = compare_sides({"tool_call_accuracy": 1.0}, left, right)
    assert gap is not None
    assert gained + lost <= EXACT
    assert gap.p_value == pytest.approx(sign_flip_p([1] * gained + [-1] * lost))
    assert gap.difference == pytest.approx((gained - lost) / 64)
    assert gap.low <= gap.difference <= gap.high


def test_a_weighted_sum_weighs_each_share_over_its_own_cases() -> None:
    left = scored("l", [*calls(range(32)), *answers([])])
    right = scored("r", [*calls(range(64)), *answers(range(32))])
    gap = compare_sides({"tool_call_accuracy": 1.0, "no_call_accuracy": 3.0}, left, right)
    assert gap is not None
    assert gap.difference == pytest.approx(-0.5 + 3.0)
    assert gap.p_value < 0.001
    assert gap.of == weights_text({"tool_call_accuracy": 1.0, "no_call_accuracy": 3.0})
    assert compare_sides({"refusal_recall": 1.0}, left, right) is None


def test_turns_of_one_conversation_are_exchanged_as_one() -> None:
    many = [verdict(f"talk#{number}", True) for number in range(20)]
    gap = compare_sides(
        {"case_accuracy": 1.0}, scored("l", many), scored("r", [verdict(v.case_id, False) for v in many])
    )
    assert gap is not None
    assert gap.n == 1
    assert gap.p_value == 1.0


def test_the_lowest_loss_is_not_kept_where_its_calls_are_shown_to_be_broken() -> None:
    trap = asked("trap", 0.10, calls(range(2)))
    good, better = asked("good", 0.20, calls(range(50))), asked("better", 0.30, calls(range(52)))
    there = [trap, good, better]
    objective = aim(objective="tool_call_accuracy")
    ordered = in_order(objective, there, is_final=True)
    assert [one.id for one in ordered] == ["good", "better", "trap"]  # two cases may be chance, so eval loss decides
    assert stand(objective, there).behind == {"trap"}
    assert [one.id for one in in_order(objective, there, is_final=False)] == ["good", "better", "trap"]
    assert [one.id for one in in_order(aim(), there, is_final=True)] == ["trap", "good", "better"]


def test_adapters_that_meet_the_constraints_come_first_and_the_nearest_of_those_that_do_not() -> None:
    bound = aim(objective="tool_call_accuracy", constraints={"no_call_accuracy": {"min": 0.9}})
    calls_always = asked("calls-always", 0.1, [*calls(range(64)), *answers(range(32))])
    nearly = asked("nearly", 0.2, [*calls(range(60)), *answers(range(5))])
    meets = asked("meets", 0.3, [*calls(range(20)), *answers(range(2))])
    found = in_order(bound, [calls_always, nearly, meets], is_final=True)
    assert [one.id for one in found] == ["meets", "nearly", "calls-always"]
    assert [one.id for one in in_order(bound, [calls_always, nearly], is_final=True)] == ["nearly", "calls-always"]
    # While they train only what a paired test shows counts: `nearly` may meet it yet, and `calls-always` is far off.
    assert [one.id for one in in_order(bound, [calls_always, meets], is_final=False)] == ["meets", "calls-always"]
    assert stand(bound, [nearly, meets]).behind == frozenset()


@given(st.dictionaries(st.text(max_size=3), st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1))
def test_the_front_is_whoever_nobody_beats_and_holds_each_best_sum(values: dict[str, tuple[int, int]]) -> None:
    front = front_of({name: tuple(map(float, own)) for name, own in values.items()})
    for name, own in values.items():
        beaten = any(a >= own[0] and b >= own[1] and (a, b) != own for a, b in values.values())
        assert (name in front) is not beaten
    best = max(map(sum, values.values()))
    assert {name for name, own in values.items() if sum(own) == best} <= front


def test_the_front_comes_before_the_rest_and_its_best_sum_first() -> None:
    several = aim(objective=["tool_call_accuracy", "no_call_accuracy"])
    assert several.text == "the Pareto front of tool_call_accuracy and no_call_accuracy"
    calls_well = asked("calls well", 0.5, [*calls(range(64)), *answers(range(16))])
    keeps_quiet = asked("keeps quiet", 0.3, [*calls(range(8)), *answers([])])
    beaten = asked("beaten", 0.1, [*calls(range(4)), *answers(range(16))])
    standing = stand(several, [beaten, keeps_quiet, calls_well])
    assert standing.best == "calls well"
    assert standing.front == {"calls well", "keeps quiet"}
    assert "keeps quiet" in standing.behind
    assert [one.id for one in in_order(several, [beaten, keeps_quiet, calls_well], is_final=True)] == [
        "calls well",
        "keeps quiet",
        "beaten",
    ]
    bound = aim(objective=["tool_call_accuracy", "no_call_accuracy"], constraints={"no_call_accuracy": {"min": 0.9}})
    assert stand(bound, [beaten, keeps_quiet, calls_well]).front == {"keeps quiet"}
    assert several.values(scored("a", [*calls(range(32)), *answers(range(16))])) == (0.5, 0.5)


def test_who_gave_no_replies_is_judged_by_loss_at_a_rung_and_comes_last_in_the_end() -> None:
    silent = Asked("silent", 0.1, None)
    there = [silent, asked("good", 0.2, calls(range(50))), asked("bad", 0.05, calls([]))]
    objective = aim(objective="tool_call_accuracy")
    assert [one.id for one in in_order(objective, there, is_final=False)] == ["silent", "good", "bad"]
    assert [one.id for one in in_order(objective, there, is_final=True)] == ["good", "bad", "silent"]
    assert stand(objective, [silent]).best is None
