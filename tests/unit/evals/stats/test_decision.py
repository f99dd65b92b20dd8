import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_field import Field, field_of, guarded, outcomes

from evals.report.verdict import verdict_record
from evals.stats.decision import Outcome, decide_winner, rank_adapters


def test_one_shown_better_than_the_base_leads_before_a_lower_eval_loss() -> None:
    """a gains 9 on the base and loses none, b gains 9 and loses 4; a and b differ on 4 cases, so they are tied."""
    field = field_of(base=range(40), a=(range(49), 0.9), b=({*range(4, 49)}, 0.1))
    decided, comparisons = field.decide()
    shown = {c.left: (c.p_adjusted or 1) < 0.05 for c in comparisons if c.right == "base"}
    assert shown == {"a": True, "b": False}
    assert (decided.winner, decided.leader) == (None, "a")


def test_several_adapters_need_more_than_one_alone() -> None:
    """Six cases gained and none lost: p is 2 / 2^6 = 0.031 alone, and above 0.05 among three."""
    alone, _ = field_of(base=range(40), a=(range(46), 0.4)).decide()
    assert alone.winner == "a"
    among, comparisons = field_of(
        base=range(40), a=(range(46), 0.4), b=(range(10), 0.1), c=({*range(39), 50}, 0.1)
    ).decide()
    assert among.winner is None
    assert comparisons[0].p_adjusted == pytest.approx(2 * 2 / 2**6)  # b is clearer, so a is the second of three


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
