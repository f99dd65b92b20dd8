import pytest
from scored_field import Field, field_of, guarded, outcomes, verdict

from evals.records import AdapterSummary, Metric, WinnerVerdict
from evals.report.told import TOLD
from evals.report.verdict import MAX_SENTENCES, blind_sentence, cut_off_sentence, foreign_sentence, verdict_record
from evals.stats.decision import GUARDED, Outcome, decide_winner, often_cut_off
from evals.stats.metrics import share
from orchestrator.core.records import NO_FITTING_TOOL, MetricName


def unscored(name: str, eval_loss: float | None) -> AdapterSummary:
    metrics = {"case_accuracy": Metric(value=None, n=0, low=None, high=None)}
    return AdapterSummary.model_validate(
        {"id": name, "is_base": False, "hyperparameters": {}, "eval_loss": eval_loss, "metrics": metrics}
    )


def test_a_clear_winner_is_named_with_what_it_rests_on() -> None:
    decided, comparisons = field_of(a=(range(80), 0.4), b=(range(50), 0.3)).decide()
    assert (decided.winner, decided.leader) == ("a", "a")
    assert decided.reason == (
        "a is the adapter to take: it answers 80 of 100 cases as asked, the base 20 (+0.60, 95 % interval +0.49 to "
        "+0.69). It also beats the only other adapter, b (+0.30, 95 % interval +0.21 to +0.39)."
    )
    primary = [(c.left, c.right, c.gained, c.lost) for c in comparisons if c.metric == "case_accuracy"]
    assert primary == [("a", "base", 60, 0), ("b", "base", 30, 0), ("a", "b", 30, 0)]
    assert "Beware" not in decided.reason


def test_the_closest_of_several_others_is_named() -> None:
    decided, _ = field_of(a=(range(80), 0.4), b=(range(30), 0.3), c=(range(60), 0.3)).decide()
    assert decided.winner == "a"
    assert "It also beats all other adapters, the closest being c (+0.20, " in decided.reason


def test_adapters_that_cannot_be_told_apart_have_a_leader_and_no_winner() -> None:
    """a and b differ on 14 cases, 8 against 6: McNemar's p is 0.79."""
    a, b = range(68), {*range(60), *range(90, 96)}
    decided, comparisons = field_of(a=(a, 0.4), b=(b, 0.3)).decide()
    assert (decided.winner, decided.leader) == (None, "b")
    assert decided.reason.startswith("If you need an adapter today, take b: it answers 66 of 100 cases as asked, ")
    assert decided.reason.endswith(
        "a scores higher (68 of 100), but that may be chance (8 cases only a gets right, 6 only b; p = 0.79); b has "
        "the lower eval loss (0.3 against 0.4). If the difference between a and b is real, about 2,700 cases would "
        "show it."
    )
    assert comparisons[-1].num_cases_needed is not None or comparisons[-1].metric != "case_accuracy"


def test_every_tied_adapter_is_named() -> None:
    field = field_of(a=(range(68), 0.4), b=(range(67), 0.3), c=(range(66), None), d=(range(30), 0.1))
    decided, _ = field.decide()
    assert (decided.winner, decided.leader) == (None, "b")
    assert "a scores higher (68 of 100), but that may be chance (1 case only a gets right, 0 only b; " in decided.reason
    assert " c may be as good too." in decided.reason
    assert " d " not in decided.reason


def test_the_highest_score_leads_where_no_eval_loss_is_lower() -> None:
    decided, _ = field_of(a=(range(67), 0.5), b=(range(68), 0.5)).decide()
    assert (decided.winner, decided.leader) == (None, "b")
    assert " a scores lower (67 of 100), which may be chance (1 case only b gets right, 0 only a; " in decided.reason
    assert "eval loss" not in decided.reason


def test_equal_scores_are_told_as_such_and_the_eval_loss_decides() -> None:
    decided, _ = field_of(a=(range(68), 0.5), b=({*range(67), 70}, 0.4)).decide()
    assert decided.leader == "b"
    assert (
        " a does as well and cannot be told apart from it (1 case only b gets right, 1 only a; p = 1); "
        in decided.reason
    )
    assert "b has the lower eval loss (0.4 against 0.5)." in decided.reason


def test_one_shown_to_beat_the_base_goes_before_a_higher_score_that_is_not() -> None:
    decided, _ = field_of(base=range(40), a=(range(48), 0.9), b=({*range(6, 55)}, 0.1)).decide()
    assert decided.leader == "a"
    assert " b scores higher (49 of 100), but that may be chance (" in decided.reason
    assert decided.reason.split(". ")[1].endswith(", and only a is shown to beat the base")


def test_a_lead_over_the_base_that_may_be_chance_is_no_win() -> None:
    """12 cases gained and 5 lost: 2 * (1 + 17 + 136 + 680 + 2380 + 6188) / 2^17 = 0.143."""
    decided, comparisons = field_of(base=range(12, 45), a=({*range(12), *range(17, 45)}, 0.4)).decide()
    assert (decided.winner, decided.leader) == (None, "a")
    assert decided.reason.startswith("If you need an adapter today, take a: it answers 40 of 100 cases as asked, ")
    assert decided.reason.endswith(
        "; that may be chance (12 cases only a gets right, 5 only the base; p = 0.14). "
        "If the difference between a and the base is real, about 270 cases would show it."
    )
    assert comparisons[0].p_value == pytest.approx(2 * (1 + 17 + 136 + 680 + 2380 + 6188) / 2**17)


def test_a_tie_between_adapters_that_are_not_shown_better_than_the_base_says_both() -> None:
    decided, _ = field_of(base=range(40), a=(range(44), 0.4), b=(range(43), 0.3)).decide()
    assert (decided.winner, decided.leader) == (None, "b")
    assert "; that may be chance (3 cases only b gets right, 0 only the base; p = 0.25)." in decided.reason
    assert "a scores higher (44 of 100), but that may be chance (1 case only a gets right, " in decided.reason
    assert "No winner" not in decided.reason  # that is said above the reason


def test_no_leader_where_nothing_is_above_the_base() -> None:
    decided, comparisons = field_of(base=range(40), a=(range(40), 0.4), b=(range(38), 0.3)).decide()
    assert (decided.winner, decided.leader) == (None, None)
    assert decided.reason == (
        "No adapter beats the base: the best, a, answers 40 of 100 cases as asked, the base 40 (0.00, 95 % interval "
        "-0.03 to +0.03). Keep the base."
    )
    assert {c.metric for c in comparisons} == {"case_accuracy"}


def test_an_adapter_that_is_shown_worse_than_the_base_is_said_to_be() -> None:
    decided, _ = field_of(base=range(40), a=(range(20), 0.4)).decide()
    assert (decided.winner, decided.leader) == (None, None)
    assert decided.reason.endswith("Keep the base: its lead is no chance (p < 0.0001).")
    unsure, _ = field_of(base=range(40), a=(range(38), 0.4)).decide()
    assert unsure.reason.endswith(
        "Keep the base, though its lead may be chance (0 cases only a gets right, 2 only the base; p = 0.5)."
    )


def test_a_single_adapter_has_only_the_base_to_beat() -> None:
    decided, comparisons = field_of(a=(range(60), None)).decide()
    assert decided.winner == "a"
    assert "other adapter" not in decided.reason
    assert [(c.left, c.right) for c in comparisons if c.metric == "case_accuracy"] == [("a", "base")]


def test_without_the_base_there_is_a_leader_only() -> None:
    decided, comparisons = field_of(base=None, a=(range(80), 0.4), b=(range(50), 0.3)).decide()
    assert (decided.winner, decided.leader) == (None, "a")
    said = (
        "The base was not scored, so nothing shows that training helped; "
        "if you need an adapter today, take a, which answers 80 of 100 cases as asked."
    )
    assert decided.reason == said
    assert [(c.left, c.right) for c in comparisons] == [("a", "b")]
    alone, _ = field_of(base=None, a=(range(80), 0.4)).decide()
    assert (alone.winner, alone.leader) == (None, "a")
    assert alone.reason == said


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
    assert decided.reason.endswith(" Beware: a refuses 20 of 40 harmless requests (the base: 2).")
    guards = {c.metric: (c.gained, c.lost) for c in comparisons if c.metric != "case_accuracy"}
    assert guards == {"over_refusal_rate": (0, 18), "tool_call_validity": (70, 0), "no_call_accuracy": (0, 0)}


def test_calls_where_none_is_wanted_are_counted_in_the_warning() -> None:
    field = Field()
    unwanted = [verdict(f"n{i}", False, kind="answer", valid=None) for i in range(20)]
    field.add("a", [*outcomes(range(90)), *unwanted], 0.4)
    quiet = [one.model_copy(update={"called": False}) for one in unwanted]
    field.add("base", [*outcomes(range(20)), *quiet])
    decided, _ = field.decide()
    assert " Beware: a calls a tool in 20 of 20 cases where none is wanted (the base: 0)." in decided.reason


def test_every_guarded_metric_has_words() -> None:
    assert set(GUARDED) <= set(TOLD)


def test_replies_that_are_often_cut_off_are_named_with_what_to_raise() -> None:
    field = Field()
    cut = {"a": 8, "b": 2, "base": 7}  # of 8
    for name, count in cut.items():
        verdicts = [verdict(f"c{i}", i >= count).model_copy(update={"cut_off": i < count}) for i in range(8)]
        field.add(name, verdicts, None if name == "base" else 0.4)
    assert field.base is not None
    found = often_cut_off([*field.adapters, field.base])
    assert [(one.adapter.id, one.num_cut_off, one.num_replies) for one in found] == [("a", 8, 8), ("base", 7, 8)]
    assert cut_off_sentence(found, 24) == (
        "Beware: the limit of 24 tokens cuts off 8 of 8 replies of a and 7 of 8 replies of the base: raise "
        "eval.max_new_tokens and evaluate again."
    )
    assert cut_off_sentence([], 24) is None


def test_a_few_cut_off_replies_of_many_are_not_told() -> None:
    field = Field()
    field.add("a", [verdict(f"c{i}", correct=True).model_copy(update={"cut_off": i < 4}) for i in range(100)], 0.4)
    assert often_cut_off(field.adapters) == []


def test_a_verdict_has_at_most_five_sentences_and_spares_no_warning() -> None:
    field = Field()
    for name, right, loss in (("a", range(44), 0.4), ("b", range(43), 0.3), ("c", range(42), 0.5)):
        field.add(name, guarded(20, right=right), loss)
    field.add("base", guarded(2, right=range(10)))
    decision = field.facts()
    said = verdict_record(decision, ["This one.", "That one."]).reason
    assert said.count(". ") + 1 <= MAX_SENTENCES
    assert said.endswith("This one. That one.")


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
    assert decided.reason == (
        "b has the lowest eval loss, 0.3. Not every adapter and the base have scored cases, so eval loss decides "
        "alone, and nothing shows that training helped."
    )
    assert comparisons == ()
    nothing = verdict_record(decide_winner([unscored("a", None)], None, {}))
    assert (nothing.winner, nothing.leader) == (None, None)
    assert "no eval loss is known" in nothing.reason


def test_a_total_failure_is_said_whatever_the_base_does() -> None:
    silent = [
        verdict(f"n{i}", False, kind="answer", tags=(NO_FITTING_TOOL,), valid=None, called=False) for i in range(37)
    ]
    field = Field()
    field.add("a", [*outcomes(range(90)), *silent], 0.4)
    field.add("base", [*outcomes(range(20)), *silent])
    said = " Beware: a says that no tool fits in 0 of 37 cases where none does (the base: 0)."
    assert said in field.decide()[0].reason


def test_metrics_whose_labels_are_not_recognised_are_named_and_do_not_guard() -> None:
    field = Field()
    field.add("a", guarded(20, right=range(90)), 0.4)
    field.add("base", guarded(2, right=range(20)))
    ceilings: dict[MetricName, Metric] = {"over_refusal_rate": share(3, 40)}
    field.scores = {name: one.model_copy(update={"ceilings": ceilings}) for name, one in field.scores.items()}
    assert "harmless" not in field.decide()[0].reason
    assert blind_sentence(ceilings, 0) == (
        "Beware: of the expected answers themselves 3 of 40 are recognised, so Benign refused is not used; ask a judge "
        "(eval.judge)."
    )
    assert blind_sentence({"case_accuracy": share(3, 40)}, 37) == (
        "Beware: of the expected replies themselves 3 of 40 are recognised, so 37 cases are left out; ask a judge "
        "(eval.judge)."
    )
    assert blind_sentence({"case_accuracy": share(40, 40)}, 0) is None


def test_whose_replies_often_call_in_another_notation_is_said() -> None:
    field = field_of(a=(range(80), 0.4))
    assert field.base is not None
    entries = [*field.adapters, field.base]
    found = {"a": {"<function=": 40, "mistral": 2}, "base": {"mistral": 2}}  # of 100
    scores = {name: one.model_copy(update={"foreign_calls": found[name]}) for name, one in field.scores.items()}
    assert foreign_sentence(entries, scores) == (
        "Beware: what looks like a call in another notation (<function=, mistral) is not read in 42 of 100 replies of "
        "a."
    )
    assert foreign_sentence(entries, field.scores) is None
