import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from builders import make_call
from report_run import BEST, WEAK, call_text, make_cases, write_run

from evals.records import AdapterSummary, Comparison, Generation, Report
from evals.report.cards import SIGNS, cards_of, compared_metrics, labels_by_word
from evals.report.told import TOLD, fails_always
from evals.report.write import write_report
from evals.stats.metrics import METRICS, share
from evals.stats.scores import score_cases
from orchestrator.core.files import dump_jsonl, read_jsonl, write_text_atomic
from orchestrator.core.records import MetricName
from orchestrator.run.paths import RunDir


def adapter(name: str, counts: Mapping[MetricName, tuple[int, int]]) -> AdapterSummary:
    metrics = {key: share(*pair) for key, pair in counts.items()}
    return AdapterSummary(id=name, is_base=name == "base", hyperparameters={}, eval_loss=None, metrics=metrics)


def compared(metric: MetricName, difference: float, p_value: float) -> Comparison:
    return Comparison(
        metric=metric, left="a", right="base", n=50, gained=1, lost=1, difference=difference, low=difference - 0.1,
        high=difference + 0.1, p_value=p_value, p_adjusted=p_value, method="exact",
    )  # fmt: skip


def test_there_is_a_card_for_each_question_and_only_for_what_is_scored() -> None:
    counts: dict[MetricName, tuple[int, int]] = {
        "no_call_accuracy": (30, 69), "tool_call_validity": (9, 10), "tool_call_accuracy": (0, 0),
        "refusal_recall": (3, 4),
    }  # fmt: skip
    found = cards_of(adapter("a", counts), None, [])
    assert [card.metric for card in found] == ["tool_call_validity", "refusal_recall", "no_call_accuracy"]
    assert {(card.word, card.tone, card.sign) for card in found} == {("", "", "")}
    assert cards_of(adapter("a", {"latency_p50_s": (1, 2)}), None, []) == []


def test_what_got_worse_stands_first_whichever_figure_it_is() -> None:
    ours = adapter("a", {"case_accuracy": (40, 50), "over_refusal_rate": (5, 20), "no_call_accuracy": (10, 50)})
    base = adapter("base", {"case_accuracy": (10, 50), "over_refusal_rate": (0, 20), "no_call_accuracy": (50, 50)})
    against = [
        compared("case_accuracy", 0.6, 0.001),
        compared("over_refusal_rate", 0.25, 0.01),
        compared("no_call_accuracy", -0.8, 0.001),
    ]
    found = cards_of(ours, base, against)
    assert [(card.metric, card.word) for card in found] == [
        ("no_call_accuracy", "worse"), ("over_refusal_rate", "worse"), ("case_accuracy", "better"),
    ]  # fmt: skip
    assert found[0].sentence == "It calls a tool in 40 of 50 cases where none is wanted; the base in 0."
    assert found[1].sentence == "It refuses 5 of 20 harmless requests; the base 0."
    assert labels_by_word(ours, against) == {
        "better": ["Cases answered as asked"],
        "worse": ["Benign refused", "No call where none is expected"],
    }


def test_what_may_be_chance_is_neither_a_gain_nor_a_loss() -> None:
    ours, base = adapter("a", {"case_accuracy": (26, 50)}), adapter("base", {"case_accuracy": (25, 50)})
    (card,) = cards_of(ours, base, [compared("case_accuracy", 0.02, 0.7)])
    assert (card.word, card.tone, card.sign) == ("may be chance", "", SIGNS["may be chance"])
    (card,) = cards_of(ours, base, [compared("case_accuracy", 0.0, 1.0)])
    assert (card.word, card.tone, card.sign) == ("no difference", "", "=")
    assert len(set(SIGNS.values())) == len(SIGNS)


def test_refusals_are_told_by_both_halves() -> None:
    ours = adapter("a", {"refusal_accuracy": (54, 57), "refusal_recall": (33, 33), "over_refusal_rate": (3, 24)})
    base = adapter("base", {"refusal_accuracy": (24, 57), "refusal_recall": (0, 33), "over_refusal_rate": (0, 24)})
    (card,) = cards_of(ours, base, [])
    assert card.sentence == (
        "It refuses 33 of 33 harmful requests; the base 0. It refuses 3 of 24 harmless requests; the base 0."
    )


@pytest.mark.parametrize("name", compared_metrics())
@pytest.mark.parametrize("n", [1, 2])
def test_every_figure_that_is_compared_has_a_sentence_whose_nouns_agree(name: MetricName, n: int) -> None:
    worse = -0.5 if METRICS[name].higher_is_better else 0.5
    ours, base = adapter("a", {name: (1, n)}), adapter("base", {name: (0, n)})
    (card, *others) = cards_of(ours, base, [compared(name, worse, 0.001)])
    assert not others
    assert (card.metric, card.tone) == (name, "bad")
    noun = re.search(rf"of {n} (?:harm\w+ )?(\w+)", card.sentence)
    assert noun is not None
    assert noun[1] in (("case", "request", "reply") if n == 1 else ("cases", "requests", "replies"))


def test_every_figure_that_is_compared_has_a_sentence() -> None:
    assert set(TOLD) == set(compared_metrics())


def with_replies(run: RunDir, adapter_id: str, text: str) -> None:
    """Let an adapter say `text` wherever no call is wanted."""
    cases = make_cases()
    wanted = {case.id for case in cases if case.kind in ("answer", "clarification")}
    replies = [
        reply.model_copy(update={"text": text, "served": None}) if reply.case_id in wanted else reply
        for reply in read_jsonl(run.generations(adapter_id), Generation)
    ]
    write_text_atomic(run.generations(adapter_id), dump_jsonl(replies))
    write_text_atomic(run.scores(adapter_id), score_cases(adapter_id, cases, replies).model_dump_json())


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run whose winner calls a tool wherever none is wanted, and whose base never does."""
    config, run = write_run(tmp_path_factory.mktemp("runs"), skills={"base": 0.1, BEST: 0.97})
    with_replies(run, "base", "It is sunny.")
    with_replies(run, BEST, call_text(make_call(city="Paris")))
    write_report(config, run)
    return run


def test_a_winner_that_pays_for_it_says_so_before_it_boasts(paid: RunDir) -> None:
    report = Report.model_validate_json((paid.report / "report.json").read_text(encoding="utf-8"))
    assert report.verdict.winner == BEST
    page = (paid.report / "report.html").read_text(encoding="utf-8")
    header = page[: page.index("</header>")]
    assert '<header class="verdict warn">' in header
    tiles = re.findall(r'<div class="tile( bad| good)?"><div><span class="label">([^<]*)<', header)
    assert tiles[0] == (" bad", "No call where none is expected")
    assert (" good", "Cases answered as asked") in tiles
    assert "It calls a tool in 45 of 45 cases where none is wanted; the base in 0." in header
    text = (paid.report / "report.md").read_text(encoding="utf-8")
    head = text[: text.index("## ")]
    assert head.index("**worse**") < head.index("better")
    assert "It calls a tool in 45 of 45 cases where none is wanted; the base in 0." in head


def test_an_adapter_below_the_base_has_cards_although_none_is_recommended(tmp_path: Path) -> None:
    config, run = write_run(tmp_path, cases=make_cases(60), skills={"base": 0.9, WEAK: 0.4})
    report = write_report(config, run)
    assert report.verdict.leader is None
    page = (run.report / "report.html").read_text(encoding="utf-8")
    header = page[: page.index("</header>")]
    assert re.search(r'<div class="tile bad"><div><span class="label">Cases answered as asked<', header)


def test_what_never_works_is_a_finding_even_where_the_base_fails_as_well() -> None:
    ours, base = adapter("a", {"no_tool_accuracy": (0, 37)}), adapter("base", {"no_tool_accuracy": (0, 37)})
    against = [compared("no_tool_accuracy", 0.0, 1.0)]
    (card,) = cards_of(ours, base, against)
    assert (card.word, card.tone, card.sign) == ("always fails", "bad", "!")
    assert card.sentence == "It says that no tool fits in 0 of 37 cases where none does; the base in 0."
    assert labels_by_word(ours, against) == {"always fails": ["Says that no tool fits"]}


@pytest.mark.parametrize(
    ("name", "counts", "fails"),
    [
        ("no_tool_accuracy", (0, 2), False),
        ("no_tool_accuracy", (1, 37), False),
        ("over_refusal_rate", (5, 5), True),
        ("over_refusal_rate", (0, 5), False),
        ("truncated_rate", (5, 5), False),
        ("case_accuracy", (0, 5), False),
    ],
)
def test_few_cases_and_figures_that_demand_nothing_never_always_fail(
    name: MetricName, counts: tuple[int, int], fails: bool
) -> None:
    assert fails_always(name, share(*counts)) is fails


def test_a_figure_whose_labels_are_not_recognised_is_neither_good_nor_bad() -> None:
    ours = adapter("a", {"refusal_recall": (0, 40)}).model_copy(update={"ceilings": {"refusal_recall": share(0, 40)}})
    (card,) = cards_of(ours, adapter("base", {"refusal_recall": (20, 40)}), [compared("refusal_recall", -0.5, 0.001)])
    assert (card.word, card.tone, card.sign) == ("not used", "", "?")
    assert card.sentence.endswith(
        " Of the expected refusals themselves 0 of 40 are recognised: this metric says nothing here."
    )
