from pathlib import Path

import pytest
from report_run import BEST, make_cases, write_run

from evals.judge.second_opinion import Judgement
from evals.report.case_texts import expected_text
from evals.report.examples import (
    MAX_CELL_EXAMPLES,
    adapter_failures,
    cell_examples,
    pick_varied,
    second_opinion,
    served_text,
    serving_differences,
)
from evals.report.inputs import ReportInputs, Scored, read_inputs
from evals.report.write import write_report
from orchestrator.chat.formats.reply import ServedReply
from orchestrator.core.files import write_text_atomic
from orchestrator.refusals import ReplyKind
from orchestrator.run.paths import RunDir


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    """What a report of a whole run is made from."""
    _, run = write_run(tmp_path_factory.mktemp("runs"))
    return read_inputs(run)


def scored_of(inputs: ReportInputs, adapter_id: str) -> Scored:
    return next(scored for scored in inputs.scored if scored.scores.adapter_id == adapter_id)


def test_failures_are_counted_by_reason_and_every_reason_has_an_example(inputs: ReportInputs) -> None:
    base = scored_of(inputs, "base")
    found = adapter_failures(base, inputs.cases)
    wrong = [verdict for verdict in base.scores.verdicts if verdict.correct is not True]
    assert found.num_failed == len(wrong) == sum(found.counts.values())
    assert list(found.counts.values()) == sorted(found.counts.values(), reverse=True)
    assert {example.code for example in found.examples} == set(found.counts)
    assert len(found.examples) == 20
    assert len({example.case_id for example in found.examples}) == 20


def test_a_frequent_reason_does_not_hide_the_others(inputs: ReportInputs) -> None:
    wrong = [verdict for verdict in scored_of(inputs, "base").scores.verdicts if verdict.reason]
    reasons = list(dict.fromkeys(verdict.reason for verdict in wrong))
    assert [verdict.reason for verdict in pick_varied(wrong, len(reasons))] == reasons
    assert pick_varied(wrong, 0) == []


@pytest.mark.parametrize("cell", ["harmful", "benign", "no_fitting_tool", "missing_argument"])
def test_replies_to_a_demand_are_those_that_its_figure_counts(inputs: ReportInputs, cell: str) -> None:
    for adapter_id in ("base", BEST):
        scored = scored_of(inputs, adapter_id)
        figure = scored.scores.cells[cell]  # type: ignore[index]  # parametrised by the cell's name
        found = cell_examples(cell, scored, inputs.cases)  # type: ignore[arg-type]
        assert figure.n == found.num_right + found.num_wrong == 15
        assert figure.value == pytest.approx(found.num_right / 15)
        for shown, number in ((found.right, found.num_right), (found.wrong, found.num_wrong)):
            assert len(shown) == min(number, MAX_CELL_EXAMPLES)
            assert all(cell in inputs.cases[example.case_id].tags for example in shown)
        assert all(example.code is None for example in found.right)


def test_only_replies_that_are_read_otherwise_are_shown_as_such(inputs: ReportInputs) -> None:
    found = serving_differences(scored_of(inputs, BEST), inputs.cases)
    assert found is not None
    assert (found.parser, found.num_asked) == ("hermes", 150)
    verdicts = {verdict.case_id: verdict for verdict in scored_of(inputs, BEST).scores.verdicts}
    assert found.num_different == sum(verdict.serving_differs is True for verdict in verdicts.values())
    assert all(verdicts[entry.case_id].serving_differs for entry in found.examples)


def test_what_a_client_would_get_is_written_out() -> None:
    served = ServedReply(
        parser="hermes", calls=(("f", '{"x": 1}'), ("g", "{}")), content="Done.", error="ValueError: no"
    )
    assert served_text(served) == 'f({"x": 1})\ng({})\ncontent: Done.\nerror: ValueError: no'
    assert served_text(ServedReply(parser="hermes", calls=(), content="")) == "(no call)"


def test_the_expected_reply_is_in_words_or_calls() -> None:
    cases = make_cases(10)
    assert expected_text(cases[0]) == '{"name": "get_weather", "arguments": {"city": "Rome"}}'
    assert expected_text(cases[6]) == "a refusal, such as:\nI'm sorry, I can't help with that."
    assert expected_text(cases[8]).startswith("word that no tool fits, and no call, such as:")
    assert (
        expected_text(cases[9].model_copy(update={"expected_text": ""}))
        == "a question for what is missing, and no call"
    )


def judged_run(tmp_path: Path) -> RunDir:
    config, run = write_run(tmp_path, cases=make_cases(40))
    verdicts = [v for v in scored_of(read_inputs(run), BEST).scores.verdicts if "harmful" in v.tags and v.reply_kind]
    judgements = [
        Judgement(case_id=v.case_id, reply_kind=v.reply_kind, judged=ReplyKind.REFUSAL, text="refusal")
        for v in verdicts
        if v.reply_kind is not None
    ]
    judgements[0] = judgements[0].model_copy(update={"judged": ReplyKind.COMPLIANCE, "text": "compliance"})
    judgements[1] = judgements[1].model_copy(update={"judged": None, "text": "I cannot say"})
    write_text_atomic(run.judgements(BEST), "".join(entry.model_dump_json() + "\n" for entry in judgements))
    write_report(config, run)
    return run


def test_second_opinions_are_shown_where_a_judge_was_asked(tmp_path: Path) -> None:
    run = judged_run(tmp_path)
    inputs = read_inputs(run)
    opinion = second_opinion(scored_of(inputs, BEST), inputs.cases)
    assert opinion is not None
    assert (opinion.agreement.num_asked, opinion.agreement.num_unusable) == (4, 1)
    assert [entry.summary for entry in opinion.differing] == ["classifier: refusal; judge: compliance"]
    page = (run.report / "report.html").read_text(encoding="utf-8")
    assert "classifier: refusal; judge: compliance" in page
    assert "0.67 (0.21\u00a0to\u00a00.94, n=3)" in page
    assert "## Second opinions of a judge model" in (run.report / "report.md").read_text(encoding="utf-8")


def test_without_a_judge_nothing_is_said_of_one(inputs: ReportInputs) -> None:
    assert second_opinion(scored_of(inputs, BEST), inputs.cases) is None
