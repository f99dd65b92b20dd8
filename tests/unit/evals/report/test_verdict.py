import pytest
from scored_field import Field, field_of, guarded

from evals.records import AdapterSummary, Metric, WinnerVerdict
from evals.report.verdict import verdict_record
from evals.stats.decision import Outcome, decide_winner


def unscored(name: str, eval_loss: float | None) -> AdapterSummary:
    metrics = {"case_accuracy": Metric(value=None, n=0, low=None, high=None)}
    return AdapterSummary.model_validate(
        {"id": name, "is_base": False, "hyperparameters": {}, "eval_loss": eval_loss, "metrics": metrics}
    )


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
