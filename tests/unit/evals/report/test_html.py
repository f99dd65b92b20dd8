import html
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import get_args

import pytest
from report_run import BEST, BROKEN, SECOND, WEAK, make_cases, write_run

from evals.records import CanaryProof, CellName, EngineRecord, Generation, Report, Scores
from evals.report.render import gist_lines, gist_table, verdict_lines
from evals.report.text import ending_text
from evals.report.verdict import WARNING
from evals.report.write import write_report
from evals.stats.metrics import METRICS
from orchestrator.config.schema import RunConfig
from orchestrator.core.files import write_text_atomic
from orchestrator.core.records import TrialRecord
from orchestrator.core.text import duration_text
from orchestrator.run.paths import RunDir


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run of three adapters with its report."""
    gates = {"tool_call_validity": {"min": 0.9}, "refusal_recall": {"min": 0.7}}
    config, run = write_run(tmp_path_factory.mktemp("runs"), settings={"gates": gates})
    write_report(config, run)
    return run


def read(run: RunDir, suffix: str) -> str:
    """A form of the report, its no-break spaces as plain ones."""
    return (run.report / f"report.{suffix}").read_text(encoding="utf-8").replace("\u00a0", " ")


def test_the_best_adapter_of_a_whole_run_wins_and_leads_the_report(whole: RunDir) -> None:
    report = Report.model_validate_json(read(whole, "json"))
    assert (report.verdict.winner, report.verdict.leader) == (BEST, BEST)
    assert [adapter.id for adapter in report.adapters] == [BEST, SECOND, WEAK, "base"]
    assert {name: cell.n for name, cell in report.adapters[0].cells.items()} == dict.fromkeys(get_args(CellName), 15)
    assert [failure.adapter_id for failure in report.failed_adapters] == [BROKEN]
    assert [gate.passed for gate in report.gates] == [True, True]
    assert report.other_run is None


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_terminal_of_any_width_gets_the_figures_and_a_short_verdict(width: int, whole: RunDir) -> None:
    report = Report.model_validate_json(read(whole, "json"))
    table = gist_table(report, width)
    assert max(sum(map(len, row)) + 2 * (len(row) - 1) for row in table) <= max(width, 60)
    head, *rows = table
    assert head[1] == BEST
    assert head[-1] == "base"
    assert len(set(head)) == len(head)
    assert {row[0].partition(" (")[0] for row in rows} >= {"r", "learning rate", "Cases answered as asked"}
    assert any("[" in cell for row in gist_table(report, 200) for cell in row)
    lines = verdict_lines(report, width)
    assert len(lines) <= 5
    assert all(len(line) <= width for line in lines)
    assert " ".join(lines).startswith(f"Take adapter {BEST}.")
    long = "A " + "very " * 30 + "long one. It goes on and on. " + "And on. " * 90 + f"{WARNING} it is worse."
    verdict = report.verdict.model_copy(update={"reason": long})
    warned = " ".join(verdict_lines(report.model_copy(update={"verdict": verdict}), width))
    assert f"{WARNING} it is worse." in warned
    assert warned.endswith("The report says more.")


def test_the_winner_comes_with_the_command_that_serves_it(whole: RunDir) -> None:
    report = Report.model_validate_json(read(whole, "json"))
    assert report.serve_command is not None
    assert report.serve_command.adapter_id == BEST
    words = shlex.split(report.serve_command.command)
    assert words[words.index("--model") + 1] == "/cache/tiny-base"
    assert f"{BEST}={whole.adapter(BEST)}" in words
    assert f"Serve {BEST}: {report.serve_command.command}" in list(gist_lines(report))
    nobody = write_report(RunConfig.model_validate_json(whole.config.read_text()), unlike_recorded(whole))
    assert nobody.serve_command is None


def test_an_adapter_made_elsewhere_stands_with_its_source_and_what_is_unknown_of_it(tmp_path: Path) -> None:
    config, run = write_run(tmp_path)
    known = json.loads(run.adapter_record(BEST).read_text(encoding="utf-8"))
    trained = ("learning_rate", "eval_loss", "step", "trial_id")
    taken = {key: value for key, value in known.items() if key not in trained}
    write_text_atomic(run.adapter_record(BEST), json.dumps({**taken, "source": "somebody/their-adapter"}))
    report = write_report(config, run)
    assert report.verdict.winner == BEST
    (row,) = (adapter for adapter in report.adapters if adapter.id == BEST)
    assert (row.source, row.eval_loss, set(row.hyperparameters)) == ("somebody/their-adapter", None, {"r", "alpha"})
    lines = [line for line in read(run, "md").splitlines() if line.count("|") > 4]  # one cell for each adapter
    unknown = [
        line.split("|")[2].strip() for line in lines if re.match(r"\| (Eval loss|learning.{1,2}rate|step) ", line)
    ]
    assert unknown == ["-", "-", "-"]
    assert "somebody/their-adapter" in read(run, "html")


def unlike_recorded(run: RunDir) -> RunDir:
    """A copy whose replies were recorded by a version that did not say what vLLM loaded."""
    older = RunDir(run.root.with_name("older"))
    shutil.copytree(run.root, older.root)
    engine = json.loads(older.engine(BEST).read_text(encoding="utf-8"))
    write_text_atomic(older.engine(BEST), json.dumps({k: v for k, v in engine.items() if k != "base"}))
    return older


def test_the_figures_at_the_top_stand_beside_the_base_with_their_paired_difference(whole: RunDir) -> None:
    report = Report.model_validate_json(read(whole, "json"))
    compared = {entry.metric: entry for entry in report.comparisons if (entry.left, entry.right) == (BEST, "base")}
    page = read(whole, "html")
    header = page[: page.index("</header>")]
    assert f"<h1>Take adapter <code>{BEST}</code>" in header
    for name in ("case_accuracy", "tool_call_accuracy", "refusal_accuracy"):
        metric, before, entry = report.adapters[0].metrics[name], report.adapters[-1].metrics[name], compared[name]
        assert metric.value is not None
        assert before.value is not None
        assert entry.difference == pytest.approx(metric.value - before.value)
        assert METRICS[name].label in header
        assert f"n={metric.n}" in header
        assert f"base <strong>{before.value:.2f}</strong>" in header
        assert f"difference <strong>+{entry.difference:.2f}</strong> " in header
        assert "p &lt; 0.0001, paired, n=" in header


def test_what_changed_is_shown_with_both_replies(whole: RunDir) -> None:
    report = Report.model_validate_json(read(whole, "json"))
    entry = next(e for e in report.comparisons if (e.metric, e.right) == ("case_accuracy", "base") and e.left == BEST)
    page = read(whole, "html")
    flips = page[page.index('id="flips"') : page.index('id="failures"')]
    assert f"{entry.gained} cases better, {entry.lost} worse" in flips
    assert f"{entry.gained - 8:,} more: their ids are in report.json" in flips
    first = next(flip.case_id for flip in entry.flips if flip.left_correct)
    block = flips[flips.index(f"case {first}") :]
    block = block[: block.index('<details class="case">')]
    replies = {
        name: Generation.model_validate_json(line).text
        for name in (BEST, "base")
        for line in lines_of(whole, name, first)
    }
    assert [html.unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", block, flags=re.DOTALL)][-2:] == [
        replies[BEST],
        replies["base"],
    ]
    assert f"<code>{SECOND}</code>" in flips, "the runner-up is there too"


def lines_of(run: RunDir, adapter_id: str, case_id: str) -> list[str]:
    lines = run.generations(adapter_id).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if json.loads(line)["case_id"] == case_id]


def test_each_demand_has_its_figure_and_right_and_wrong_replies(whole: RunDir) -> None:
    scores = Scores.model_validate_json(whole.scores(BEST).read_text(encoding="utf-8"))
    page = read(whole, "html")
    demands = page[page.index('id="demands"') : page.index('id="flips"')]
    assert re.findall(r"<strong>([^<]*)</strong> <span class=\"muted\">(should [^<]*)<", demands) == [
        ("Harmful request", "should refuse"),
        ("Benign look-alike", "should comply"),
        ("No fitting tool", "should say so, call nothing"),
        ("Missing argument", "should ask for it"),
    ]
    counts = [(int(right), int(wrong)) for right, wrong in re.findall(r"(\d+) right, (\d+) wrong", demands)]
    assert counts == [
        (round((cell.value or 0.0) * cell.n), cell.n - round((cell.value or 0.0) * cell.n))
        for cell in scores.cells.values()
    ]
    assert any(wrong for _, wrong in counts)


def test_adapters_that_failed_are_named_with_their_error_in_all_three_forms(whole: RunDir) -> None:
    for suffix in ("html", "md", "json"):
        text = read(whole, suffix)
        assert BROKEN in text
        assert "the file ends after 412 bytes" in text


def test_replies_that_vllm_reads_otherwise_are_counted_and_shown(whole: RunDir) -> None:
    scores = Scores.model_validate_json(whole.scores("base").read_text(encoding="utf-8"))
    different = sum(verdict.serving_differs is True for verdict in scores.verdicts)
    page = read(whole, "html")
    serving = page[page.index('id="serving"') : page.index('id="search"')]
    assert 0 < different < 150
    assert f"{different / 150:.2f} (" in serving
    assert f"5 of {different} replies; all are in evals/base/generations.jsonl" in serving
    assert "(no call)\ncontent: " in serving


def test_cost_and_proof_say_what_was_recorded(whole: RunDir) -> None:
    page = read(whole, "html")
    trials = [TrialRecord.model_validate_json(line) for line in whole.trials.read_text(encoding="utf-8").splitlines()]
    seconds = sum(trial.device_s or 0.0 for trial in trials)
    engine = page[page.index('id="engine"') : page.index('id="data"')]
    assert f"{duration_text(seconds)} of training over 12 trials. 2 min 44 s of engine time over 4 sets" in engine
    assert engine.count('<span class="badge good">applied</span> 7 of 8 replies moved') == 3
    assert "untouched" in engine


def test_each_trial_stands_with_what_it_cost_and_why_it_ended(whole: RunDir) -> None:
    trials = [TrialRecord.model_validate_json(line) for line in whole.trials.read_text(encoding="utf-8").splitlines()]
    page, markdown = read(whole, "html"), read(whole, "md")
    table = page[page.index("<th>Ended</th>") : page.index('id="engine"')]
    for trial in trials:
        row = table[table.index(f'<td class="name">{trial.trial_id}</td>') :].split("</tr>")[0]
        cells = [html.unescape(re.sub(r"<.*?>", "", cell)) for cell in re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL)]
        assert trial.device_s is not None
        cost = [f"{trial.steps}", f"{trial.tokens:,}", duration_text(trial.device_s)]
        assert cells[1].startswith(ending_text(trial))
        assert cells[7:10] == cost
        (line,) = [line for line in markdown.splitlines() if line.startswith(f"| {trial.trial_id} ")]
        assert f"| {ending_text(trial)} |" in line
        assert f"| {' | '.join(cost)} |" in line
    assert {ending_text(trial) for trial in trials} == {
        "finished", "failed", "stopped: lagging", "stopped: no improvement",
    }  # fmt: skip


def test_trials_of_an_earlier_version_are_shown_with_what_they_say(tmp_path: Path) -> None:
    config, run = write_run(tmp_path)
    old = {"steps", "tokens", "device_s", "stop_reason"}
    records = [json.loads(line) for line in run.trials.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps({key: value for key, value in record.items() if key not in old}) for record in records]
    write_text_atomic(run.trials, "\n".join(lines) + "\n")
    report = write_report(config, run)
    assert {trial.tokens for trial in report.search.trials} == {None}
    page = read(run, "html")
    assert "<td>stopped early</td>" in page
    assert f"{duration_text(sum(record['duration_s'] for record in records))} of device time in all" in page
    assert "None" not in page[page.index('id="search"') : page.index('id="engine"')]


def test_an_adapter_without_proof_or_without_effect_is_said_to_be_so(tmp_path: Path) -> None:
    config, run = write_run(tmp_path, cases=make_cases(20))
    for adapter_id, shift in ((SECOND, 0.001), (WEAK, None)):
        made = EngineRecord.model_validate_json(run.engine(adapter_id).read_text(encoding="utf-8"))
        canary = (
            None if shift is None else CanaryProof(num_prompts=8, num_texts_moved=0, largest_shift=shift, noise=0.001)
        )
        write_text_atomic(run.engine(adapter_id), made.model_copy(update={"canary": canary}).model_dump_json())
    write_report(config, run)
    page = read(run, "html")
    assert page.count('<span class="badge bad">no effect seen</span>') == 1
    assert page.count('<span class="badge bad">no proof</span>') == 1
    assert page.count('<span class="badge good">applied</span>') == 1


def test_a_page_has_each_id_once_and_every_link_leads_to_one(whole: RunDir) -> None:
    page = read(whole, "html")
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    links = re.findall(r'\shref="([^"]*)"', page)
    assert links
    assert {link.removeprefix("#") for link in links if link.startswith("#")} <= set(ids)
    assert {link for link in links if not link.startswith("#")} == {"cases.html"}


def test_the_page_stays_small(whole: RunDir) -> None:
    assert len(read(whole, "html")) < 400_000


def test_without_a_winner_the_gates_are_held_against_the_leader(tmp_path: Path) -> None:
    gates = {"gates": {"tool_call_validity": {"min": 0.2}}}
    config, run = write_run(tmp_path, skills={"base": 0.35, BEST: 0.8, SECOND: 0.8}, settings=gates)
    report = write_report(config, run)
    leader = report.verdict.leader
    assert report.verdict.winner is None
    assert leader in (BEST, SECOND)
    assert report.adapters[0].id == leader
    assert report.gates[0].value == report.adapters[0].metrics["tool_call_validity"].value
    assert report.gates[0].passed
    page = read(run, "html")
    assert f"<h1>No winner <small>the leader is <code>{leader}</code>" in page
    assert f"Without a winner the gates are held against {leader}, the leader." in page
    text = read(run, "md")
    assert text.startswith(f"# No winner; the leader is {leader}\n")
    assert f"Without a winner the gates are held against {leader}, the leader." in text
    assert f"{leader} (leader)" in text


def test_no_adapter_above_the_base_leaves_the_gates_unmet(tmp_path: Path) -> None:
    gates = {"gates": {"tool_call_validity": {"min": 0.1}}}
    config, run = write_run(tmp_path, cases=make_cases(60), skills={"base": 0.9, WEAK: 0.5}, settings=gates)
    report = write_report(config, run)
    assert (report.verdict.winner, report.verdict.leader) == (None, None)
    assert [(gate.value, gate.passed) for gate in report.gates] == [(None, False)]
    assert "Without a winner or a leader no gate can be met." in read(run, "html")


def test_what_lies_beside_a_failure_is_not_shown_as_a_score(tmp_path: Path) -> None:
    config, run = write_run(tmp_path, cases=make_cases(20))
    write_text_atomic(run.failure(WEAK), run.failure(BROKEN).read_text(encoding="utf-8").replace(BROKEN, WEAK))
    report = write_report(config, run)
    assert [adapter.id for adapter in report.adapters] == [BEST, SECOND, "base"]
    assert [failure.adapter_id for failure in report.failed_adapters] == [WEAK, BROKEN]


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    config, run = write_run(tmp_path, cases=make_cases(20))
    write_report(config, run)
    first = read(run, "html")
    write_report(config, run)
    assert read(run, "html") == first


def test_cases_whose_label_was_inferred_from_words_are_told_apart(tmp_path: Path) -> None:
    """Every tenth case asks for a clarification; without its tag and with an inferred kind it is no labelled case."""
    cases = [
        case.model_copy(update={"kind_inferred": True, "tags": ()}) if case.kind == "clarification" else case
        for case in make_cases(60)
    ]
    num = sum(case.kind == "clarification" for case in cases)
    config, run = write_run(tmp_path, cases=cases)
    report = write_report(config, run)
    for adapter in report.adapters:
        assert adapter.metrics["clarification_accuracy"].n == 0
        assert adapter.inferred_kinds["clarification"].n == num == 6
    asked = round((report.adapters[0].inferred_kinds["clarification"].value or 0) * 6)
    line = f"Replies that ask: {report.adapters[0].id} {asked} of 6,"
    for suffix in ("html", "md"):
        assert "6 cases of kind clarification not counted above" in read(run, suffix)
        assert line in read(run, suffix)
