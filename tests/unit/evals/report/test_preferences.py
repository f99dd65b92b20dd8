"""What the report says of preferences: the pairs, what was tried, and the adapter before and after."""

from pathlib import Path

import pytest
from report_run import BEST, SECOND, make_cases, write_run

from evals.records import Report
from evals.report.write import write_report
from orchestrator.core.files import dump_jsonl, write_text_atomic
from orchestrator.core.records import AdapterRecord, TrialRecord
from orchestrator.data.card import LeakCard, Overlap
from orchestrator.data.preferences.pair import AskedCard, KindCard, PairsCard, card_path

NOTHING = Overlap(count=0, n=9)
CARD = PairsCard(
    adapter_id=BEST,
    asked={"tool_call": AskedCard(replies=300, wrong=41), "refusal": AskedCard(replies=120, wrong=7)},
    found={"data": 60, "own_replies": 48},
    kept={"own_replies": 40, "data": 33},
    left_out={"near_duplicate": 20, "held_out": 15},
    parts={"train": 66, "val": 7},
    kinds={
        "tool_call": KindCard(found=50, wanted=40, kept=40, chosen_longer=20, chosen_shorter=20, tokens=(31.5, 18.25)),
        "refusal": KindCard(found=33, wanted=40, kept=33, chosen_longer=0, chosen_shorter=0, tokens=None),
    },
    leaks={"test": LeakCard(prompts=NOTHING, arguments=NOTHING, tools=NOTHING, near_duplicates=NOTHING)},
    alone={"good": 12, "bad": 21},
)  # fmt: skip


def _trial(name: str, beta: float, loss: float, adapter: str | None) -> TrialRecord:
    settings = {"r": 8, "alpha": 16, "learning_rate": 1e-5, "beta": beta}
    return TrialRecord(
        trial_id=name, status="completed", hyperparameters=settings, curve=(), best_eval_loss=loss, best_step=12,
        adapter_id=adapter, stop_reason="finished", pairs=66, loss="kto",
    )  # fmt: skip


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, str]:
    """A run whose second adapter was made from the best by preferences, of two settings the one with the lower loss."""
    config, run = write_run(tmp_path_factory.mktemp("runs"), cases=make_cases(80), skills={"base": 0.2, BEST: 0.5,
                                                                                          SECOND: 0.95})  # fmt: skip
    path = run.adapter_record(SECOND)
    record = AdapterRecord.model_validate_json(path.read_text(encoding="utf-8"))
    write_text_atomic(path, record.model_copy(update={"init_from": BEST, "pairs": 66}).model_dump_json())
    place = run.preferences(BEST)
    write_text_atomic(card_path(place), CARD.model_dump_json())
    trials = [_trial(SECOND, 0.5, 0.41, SECOND), _trial(f"{SECOND}-1", 0.1, 0.44, None)]
    write_text_atomic(place.trials, dump_jsonl(trials))
    report = write_report(config, run)
    return report, (run.report / "report.md").read_text(encoding="utf-8")


def test_the_pairs_are_counted_by_source_and_kind_and_what_was_left_out_says_why(reported: tuple[Report, str]) -> None:
    report, text = reported
    assert report.pairs == (CARD,)
    section = text.split("## Preferences")[1].split("\n## ")[0]
    assert "| rows of the data | 60 | 33 |" in section
    assert "| the adapter's own wrong replies | 48 | 40 |" in section
    assert "| tool\\_call | 300 | 41 | 50 | 40 | 40 | 20 | 20 | 31.5 and 18.2 |" in section
    assert "| `near_duplicate` | 20 |" in section
    assert "12 good, 21 bad" in section
    assert "No held-out conversation asks the same as a pair" in section


def test_the_adapter_is_compared_with_what_it_was_before(reported: tuple[Report, str]) -> None:
    report, text = reported
    section = text.split("## Preferences")[1]
    assert f"{BEST} before and after" in section
    (gap,) = (
        one for one in report.comparisons if (one.left, one.right, one.metric) == (SECOND, BEST, "tool_call_accuracy")
    )
    assert gap.difference is not None
    assert gap.difference > 0.2
    assert f"| Tool-call accuracy | {gap.n} | +" in section


def test_what_was_tried_is_listed_with_the_one_that_is_kept(reported: tuple[Report, str]) -> None:
    section = reported[1].split("What was tried")[1]
    rows = [line for line in section.splitlines() if line.startswith("| `kto`")]
    assert [row.split("|")[5].strip() for row in rows[:2]] == ["0.5", "0.1"]
    assert ["kept" in row for row in rows[:2]] == [True, False]


def test_a_run_without_preferences_says_nothing_of_them(tmp_path: Path) -> None:
    config, run = write_run(tmp_path, cases=make_cases(20))
    report = write_report(config, run)
    assert "pairs" not in report.model_dump()
    assert "## Preferences" not in (run.report / "report.md").read_text(encoding="utf-8")
