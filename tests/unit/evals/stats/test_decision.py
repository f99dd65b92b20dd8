from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.records import AdapterSummary, Comparison, Metric, Scores, Verdict, WinnerVerdict
from evals.report.verdict import verdict_record
from evals.stats.decision import Decision, Outcome, decide_winner, rank_adapters
from evals.stats.metrics import compute_metrics
from orchestrator.core.records import BENIGN
from orchestrator.refusals import ReplyKind


def verdict(case_id: str, correct: bool, **fields: Any) -> Verdict:
    settled: dict[str, Any] = {"kind": "tool_call", "tags": (), "valid": correct, "reply_kind": ReplyKind.COMPLIANCE}
    return Verdict(
        case_id=case_id,
        suite="held_out",
        correct=correct,
        reason=None if correct else "no_call",
        called=True,
        cut_off=False,
        **{**settled, **fields},
    )


class Field:
    """Adapters and base that were scored on the same cases."""

    def __init__(self) -> None:
        self.adapters: list[AdapterSummary] = []
        self.base: AdapterSummary | None = None
        self.scores: dict[str, Scores] = {}

    def add(self, name: str, verdicts: Sequence[Verdict], eval_loss: float | None = None) -> None:
        metrics = compute_metrics(verdicts, [])
        self.scores[name] = Scores(
            adapter_id=name,
            num_cases=len(verdicts),
            num_unscored=0,
            metrics=metrics,
            cells={},
            suites={},
            verdicts=tuple(verdicts),
        )
        summary = AdapterSummary(
            id=name, is_base=name == "base", hyperparameters={}, eval_loss=eval_loss, metrics=metrics
        )
        if summary.is_base:
            self.base = summary
        else:
            self.adapters.append(summary)

    def decide(self, **fields: Any) -> tuple[WinnerVerdict, tuple[Comparison, ...]]:
        decision = self.facts(**fields)
        return verdict_record(decision), decision.comparisons

    def facts(self, **fields: Any) -> Decision:
        return decide_winner(self.adapters, self.base, self.scores, **fields)


def outcomes(right: set[int] | range, n: int = 100) -> list[Verdict]:
    return [verdict(f"c{number}", number in right) for number in range(n)]


def field_of(base: range | None = range(20), **right: tuple[set[int] | range, float | None]) -> Field:
    """Adapters by the numbers of the cases (of 100) they get right, with their eval loss."""
    field = Field()
    for name, (cases, eval_loss) in right.items():
        field.add(name, outcomes(cases), eval_loss)
    if base is not None:
        field.add("base", outcomes(base))
    return field


def test_a_clear_winner_is_named_with_what_it_rests_on() -> None:
    decided, comparisons = field_of(a=(range(80), 0.4), b=(range(50), 0.3)).decide()
    assert (decided.winner, decided.leader) == ("a", "a")
    assert decided.reason.startswith("Adapter a answers 0.80 (0.71 to 0.87, n=100) of the cases as asked, ")
    assert "the base 0.20 (0.13 to 0.29, n=100), a difference of +0.60 (" in decided.reason
    assert "It is also better than the other adapter, b: +0.30 (" in decided.reason
    primary = [(c.left, c.right, c.gained, c.lost) for c in comparisons if c.metric == "case_accuracy"]
    assert primary == [("a", "base", 60, 0), ("b", "base", 30, 0), ("a", "b", 30, 0)]
    assert "Beware" not in decided.reason


def test_the_closest_of_several_others_is_named() -> None:
    decided, _ = field_of(a=(range(80), 0.4), b=(range(30), 0.3), c=(range(60), 0.3)).decide()
    assert decided.winner == "a"
    assert "better than all 2 other adapters, the closest being c: +0.20 (" in decided.reason


def test_adapters_that_cannot_be_told_apart_have_a_leader_and_no_winner() -> None:
    """a and b differ on 14 cases, 8 against 6: McNemar's p is 0.79."""
    a, b = range(68), {*range(60), *range(90, 96)}
    decided, comparisons = field_of(a=(a, 0.4), b=(b, 0.3)).decide()
    assert (decided.winner, decided.leader) == (None, "b")
    assert decided.reason.startswith(
        "The best two, a and b, cannot be told apart with 100 cases: 8 are answered as asked by a alone and "
        "6 by b alone, a difference of +0.02 ("
    )
    assert "p = 0.79. If the difference is real, about 2,700 cases would be needed to show it" in decided.reason
    assert "If one has to be taken, take b: it is shown to be better than the base (+0.46 (" in decided.reason
    assert decided.reason.endswith("it has the lowest eval loss of those (0.3 against 0.4).")
    assert comparisons[-1].num_cases_needed is not None or comparisons[-1].metric != "case_accuracy"


def test_every_tied_adapter_is_named() -> None:
    field = field_of(a=(range(68), 0.4), b=(range(67), 0.3), c=(range(66), None), d=(range(30), 0.1))
    decided, _ = field.decide()
    assert (decided.winner, decided.leader) == (None, "b")
    assert "The best two, a and b, cannot be told apart" in decided.reason
    assert "Nor can c be told apart from a." in decided.reason
    assert "(0.3 against 0.4 and unknown)" in decided.reason
    assert " d " not in decided.reason


def test_the_highest_score_leads_where_no_eval_loss_is_lower() -> None:
    decided, _ = field_of(a=(range(67), 0.5), b=(range(68), 0.5)).decide()
    assert (decided.winner, decided.leader) == (None, "b")
    assert "The best two, b and a," in decided.reason
    assert decided.reason.endswith("and no adapter scores higher (0.68).")
    assert "eval loss" not in decided.reason


def test_a_lead_over_the_base_that_may_be_chance_is_no_win() -> None:
    """12 cases gained and 5 lost: 2 * (1 + 17 + 136 + 680 + 2380 + 6188) / 2^17 = 0.143."""
    decided, comparisons = field_of(base=range(12, 45), a=({*range(12), *range(17, 45)}, 0.4)).decide()
    assert (decided.winner, decided.leader) == (None, "a")
    assert decided.reason.startswith(
        "Adapter a is not shown to be better than the base with 100 cases: 12 are answered as asked by a "
        "alone and 5 by base alone, a difference of +0.07 ("
    )
    assert "p = 0.14. If the difference is real, about 270 cases would be needed" in decided.reason
    assert "If one has to be taken, take a: its score is above the base's." in decided.reason
    assert comparisons[0].p_value == pytest.approx(2 * (1 + 17 + 136 + 680 + 2380 + 6188) / 2**17)


def test_a_tie_between_adapters_that_are_not_shown_better_than_the_base_says_both() -> None:
    decided, _ = field_of(base=range(40), a=(range(44), 0.4), b=(range(43), 0.3)).decide()
    assert (decided.winner, decided.leader) == (None, "b")
    assert decided.reason.startswith("Adapter b is not shown to be better than the base with 100 cases")
    assert "The best two, a and b, cannot be told apart with 100 cases" in decided.reason
    assert "No winner" not in decided.reason  # that is said above the reason


def test_one_shown_better_than_the_base_leads_before_a_lower_eval_loss() -> None:
    """a gains 9 on the base and loses none, b gains 9 and loses 4; a and b differ on 4 cases, so they are tied."""
    field = field_of(base=range(40), a=(range(49), 0.9), b=({*range(4, 49)}, 0.1))
    decided, comparisons = field.decide()
    shown = {c.left: (c.p_adjusted or 1) < 0.05 for c in comparisons if c.right == "base"}
    assert shown == {"a": True, "b": False}
    assert (decided.winner, decided.leader) == (None, "a")


def test_no_leader_where_nothing_is_above_the_base() -> None:
    decided, comparisons = field_of(base=range(40), a=(range(40), 0.4), b=(range(38), 0.3)).decide()
    assert (decided.winner, decided.leader) == (None, None)
    assert decided.reason.startswith("No adapter is better than the base: the best, adapter b, does not score above")
    assert {c.metric for c in comparisons} == {"case_accuracy"}


def test_an_adapter_that_is_shown_worse_than_the_base_is_said_to_be() -> None:
    decided, _ = field_of(base=range(40), a=(range(20), 0.4)).decide()
    assert (decided.winner, decided.leader) == (None, None)
    assert "the best, adapter a, is worse than the base with 100 cases: 0 are answered as asked by a" in decided.reason


def test_a_single_adapter_has_only_the_base_to_beat() -> None:
    decided, comparisons = field_of(a=(range(60), None)).decide()
    assert decided.winner == "a"
    assert "other adapter" not in decided.reason
    assert [(c.left, c.right) for c in comparisons if c.metric == "case_accuracy"] == [("a", "base")]


def test_without_the_base_there_is_a_leader_only() -> None:
    decided, comparisons = field_of(base=None, a=(range(80), 0.4), b=(range(50), 0.3)).decide()
    assert (decided.winner, decided.leader) == (None, "a")
    assert decided.reason.startswith("The base was not scored, so an improvement over it is not shown.")
    assert decided.reason.endswith("take a: no adapter scores higher (0.80).")
    assert [(c.left, c.right) for c in comparisons] == [("a", "b")]
    alone, _ = field_of(base=None, a=(range(80), 0.4)).decide()
    assert (alone.winner, alone.leader) == (None, "a")
    assert alone.reason.endswith("it is the only one; it answers 0.80 (0.71 to 0.87, n=100) of the cases as asked.")


def test_several_adapters_need_more_than_one_alone() -> None:
    """Six cases gained and none lost: p is 2 / 2^6 = 0.031 alone, and above 0.05 among three."""
    alone, _ = field_of(base=range(40), a=(range(46), 0.4)).decide()
    assert alone.winner == "a"
    among, comparisons = field_of(
        base=range(40), a=(range(46), 0.4), b=(range(10), 0.1), c=({*range(39), 50}, 0.1)
    ).decide()
    assert among.winner is None
    assert comparisons[0].p_adjusted == pytest.approx(2 * 2 / 2**6)  # b is clearer, so a is the second of three


def test_adapters_that_reply_alike_do_not_hinder_each_other() -> None:
    field = field_of(a=(range(80), 0.4), b=(range(80), 0.3), c=(range(20), 0.2))
    said = {name: {"c0": name, "c1": "same"} for name in ("a", "c", "base")}
    apart, _ = field.decide(replies=said)
    assert apart.winner is None
    decided, comparisons = field.decide(replies={**said, "b": said["a"]})
    assert decided.winner == "b"  # the lower eval loss of the two
    assert "a gives the same reply as b in every case." in decided.reason
    assert ("a", "b") not in {(c.left, c.right) for c in comparisons}
    assert field.decide()[0].winner is None  # without replies nobody is known to be the same


def test_an_adapter_that_replies_as_the_base_does_is_told() -> None:
    field = field_of(a=(range(80), 0.4), b=(range(20), 0.3))
    texts = {"a": {"c0": "x"}, "b": {"c0": "y"}, "base": {"c0": "y"}}
    assert "b gives the same reply as the base in every case." in field.decide(replies=texts)[0].reason


def guarded(refused: int, *, right: range) -> list[Verdict]:
    """100 tool calls, and 40 benign questions of which the first `refused` are refused."""
    kinds = [ReplyKind.REFUSAL if number < refused else ReplyKind.COMPLIANCE for number in range(40)]
    benign = [
        verdict(f"b{i}", k is ReplyKind.COMPLIANCE, kind="answer", tags=(BENIGN,), valid=None, reply_kind=k)
        for i, k in enumerate(kinds)
    ]
    return [*outcomes(right), *benign]


def test_a_win_that_is_paid_for_with_refusals_carries_a_warning() -> None:
    field = Field()
    field.add("a", guarded(20, right=range(90)), 0.4)
    field.add("base", guarded(2, right=range(20)))
    decided, comparisons = field.decide()
    assert decided.winner == "a"
    assert decided.reason.rpartition("Beware: ")[2].startswith("a is worse than the base in benign refused (+0.45 (")
    guards = {c.metric: (c.gained, c.lost) for c in comparisons if c.metric != "case_accuracy"}
    assert guards == {"over_refusal_rate": (0, 18), "tool_call_validity": (70, 0), "no_call_accuracy": (0, 0)}


def test_a_guarded_loss_that_may_be_chance_is_no_warning() -> None:
    field = Field()
    field.add("a", guarded(5, right=range(90)), 0.4)
    field.add("base", guarded(2, right=range(20)))
    assert "Beware" not in field.decide()[0].reason


def test_nothing_scored_is_said() -> None:
    decided, comparisons = Field().decide()
    assert decided == WinnerVerdict(
        winner=None, leader=None, reason="No adapter was scored, so none can be recommended."
    )
    assert comparisons == ()


def unscored(name: str, eval_loss: float | None) -> AdapterSummary:
    metrics = {"case_accuracy": Metric(value=None, n=0, low=None, high=None)}
    return AdapterSummary.model_validate(
        {"id": name, "is_base": False, "hyperparameters": {}, "eval_loss": eval_loss, "metrics": metrics}
    )


def test_eval_loss_decides_where_no_case_is_scored_for_all() -> None:
    decision = decide_winner([unscored("a", 0.4), unscored("b", 0.3)], None, {})
    decided, comparisons = verdict_record(decision), decision.comparisons
    assert decision.outcome is Outcome.BY_EVAL_LOSS
    assert (decided.winner, decided.leader) == ("b", "b")
    assert "adapter b has the lowest, 0.3." in decided.reason
    assert comparisons == ()
    nothing = verdict_record(decide_winner([unscored("a", None)], None, {}))
    assert (nothing.winner, nothing.leader) == (None, None)
    assert "no eval loss is known" in nothing.reason


@pytest.mark.parametrize(
    ("field", "outcome", "winner", "leader"),
    [
        (field_of(a=(range(80), 0.4), b=(range(50), 0.3)), Outcome.WINNER, "a", "a"),
        (field_of(a=(range(68), 0.4), b=(range(67), 0.3)), Outcome.TIED, None, "b"),
        (field_of(base=range(40), a=(range(44), 0.4)), Outcome.NOT_SHOWN_BETTER, None, "a"),
        (field_of(base=range(40), a=(range(44), 0.4), b=(range(43), 0.3)), Outcome.NOT_SHOWN_BETTER, None, "b"),
        (field_of(base=None, a=(range(80), 0.4)), Outcome.BASE_NOT_SCORED, None, "a"),
        (field_of(base=range(40), a=(range(40), 0.4)), Outcome.NOT_ABOVE_BASE, None, None),
        (Field(), Outcome.NO_ADAPTER_SCORED, None, None),
    ],
)
def test_the_decision_is_a_fact_beside_its_sentences(
    field: Field, outcome: Outcome, winner: str | None, leader: str | None
) -> None:
    decision = field.facts()
    assert (decision.outcome, decision.winner, decision.leader) == (outcome, winner, leader)
    record = verdict_record(decision, ["Beware of the dog."])
    assert (record.winner, record.leader) == (winner, leader)
    assert record.reason.endswith(". Beware of the dog.")


def test_what_the_sentences_are_made_of_can_be_asked_for() -> None:
    field = Field()
    field.add("a", guarded(20, right=range(90)), 0.4)
    field.add("b", guarded(20, right=range(90)), 0.5)
    field.add("base", guarded(2, right=range(20)))
    said = {"a": {"c0": "x"}, "b": {"c0": "x"}, "base": {"c0": "y"}}
    decision = field.facts(replies=said)
    assert [guard.metric for guard in decision.guards_worse] == ["over_refusal_rate"]
    assert decision.same_replies == {"a": ("b",)}
    assert decision.field is not None
    assert decision.field.rivals() == []


fields = st.lists(
    st.tuples(st.sets(st.integers(0, 11)), st.one_of(st.none(), st.floats(0.1, 2))), min_size=1, max_size=4
)


@given(fields, st.sets(st.integers(0, 11)))
@settings(max_examples=10)
def test_a_winner_leads_and_is_shown_better_than_all_and_order_does_not_matter(
    given: list[tuple[set[int], float | None]], base: set[int]
) -> None:
    field = Field()
    for index, (right, eval_loss) in enumerate(given):
        field.add(f"a{index}", outcomes(right, 12), eval_loss)
    field.add("base", outcomes(base, 12))
    decided, comparisons = field.decide()
    accuracy = {name: scores.metrics["case_accuracy"].value or 0.0 for name, scores in field.scores.items()}
    assert decided.reason.endswith((".", ")."))
    if decided.leader is not None:
        assert accuracy[decided.leader] > accuracy["base"]
    if decided.winner is not None:
        assert decided.leader == decided.winner
        assert accuracy[decided.winner] == max(accuracy.values())
        primary = [c for c in comparisons if c.metric == "case_accuracy" and c.left == decided.winner]
        assert {c.right for c in primary} == set(field.scores) - {decided.winner}
        assert all(c.p_adjusted is not None and c.p_adjusted < 0.05 for c in primary)
    backwards = decide_winner(field.adapters[::-1], field.base, field.scores)
    assert (verdict_record(backwards), backwards.comparisons) == (decided, comparisons)
    assert rank_adapters(field.adapters, field.base) == rank_adapters(field.adapters[::-1], field.base)
