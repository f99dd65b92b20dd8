import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal, get_args

import pytest

from evals.records import (
    Case,
    EngineRecord,
    FailureReason,
    Generation,
    Metric,
    Report,
    Scores,
    Verdict,
)
from evals.report.render import gist_lines
from evals.report.text import REASONS
from evals.report.write import write_report
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DataError, RunConflictError
from orchestrator.core.files import digest_of, dump_jsonl, write_text_atomic
from orchestrator.core.records import (
    AdapterRecord,
    EvalPoint,
    FunctionCall,
    Message,
    MetricName,
    PlannedRun,
    SampleKind,
    ToolCall,
    TrialRecord,
    TrialStatus,
)
from orchestrator.run.folder import Ledger, StageEntry, record_plan
from orchestrator.run.happened import note
from orchestrator.run.paths import RunDir

FIRST, SECOND = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"
HOSTILE = (
    "</pre></details><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>"
    "\x1b[31m\u202e | `tick` | [link](http://evil.example) **bold** @someone $x$\n# heading\n" + "y" * 5000
)

Figures = dict[MetricName, tuple[float | None, int, float | None, float | None]]
CLEAR: Figures = {
    "tool_call_validity": (0.95, 180, 0.91, 0.97),
    "tool_call_accuracy": (0.71, 180, 0.64, 0.77),
    "refusal_accuracy": (0.93, 90, 0.86, 0.97),
    "latency_p50_s": (0.512, 180, None, None),
}
ZERO: Figures = {
    "tool_call_validity": (0.0, 180, 0.0, 0.02),
    "tool_call_accuracy": (0.0, 180, 0.0, 0.02),
    "refusal_accuracy": (0.10, 90, 0.05, 0.18),
}


def make_run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "demo")
    entry = StageEntry(status="done", input_digest="d", started_at="2025-01-02T03:04:05+00:00", duration_s=61.5)
    later = StageEntry(status="running", input_digest="d", started_at="2025-01-02T03:05:07+00:00")
    ledger = Ledger(stages={"search": entry, "report": later}, versions={"ray": "2.60.0"}, commit="c0ffee")
    write_text_atomic(run.ledger, ledger.model_dump_json(indent=2))
    write_text_atomic(run.card, json.dumps({"counts": {"train": 80, "test": 10}, "sources": ["<b>mine</b>"]}))
    write_text_atomic(run.root / "evals" / "cases.jsonl", dump_jsonl([make_case()]))
    return run


def make_case() -> Case:
    return Case(
        id="case-1",
        messages=(
            Message(role="system", content="Be brief."),
            Message(role="user", content="first question"),
            Message(role="assistant", content="first answer"),
            Message(role="user", content="Weather in Bergen?"),
        ),
        tools=(),
        kind="tool_call",
        tags=(),
        expected_calls=(ToolCall(function=FunctionCall(name="get_weather", arguments={"city": "Bergen"})),),
        expected_text="",
    )


def make_verdict(
    reason: FailureReason = "not_json", *, case_id: str = "case-1", kind: SampleKind = "tool_call"
) -> Verdict:
    return Verdict(
        case_id=case_id, suite="held_out", kind=kind, tags=(), valid=False,
        correct=None if reason == "not_scored" else False, reason=reason, detail="line 1 <i>", reply_kind=None,
        called=True, cut_off=False,
    )  # fmt: skip


def add_scores(
    run: RunDir,
    adapter_id: str,
    figures: Figures,
    *,
    num_unscored: int = 0,
    reply: str = "",
    verdicts: tuple[Verdict, ...] = (),
) -> None:
    metrics = {name: Metric(value=v, n=n, low=low, high=high) for name, (v, n, low, high) in figures.items()}
    scores = Scores(
        adapter_id=adapter_id,
        num_cases=300,
        num_unscored=num_unscored,
        metrics=metrics,
        cells={},
        suites={},
        verdicts=verdicts,
    )
    write_text_atomic(run.scores(adapter_id), scores.model_dump_json())
    generation = Generation(
        case_id="case-1", text=reply, finish_reason="stop", prompt_tokens=9, output_tokens=3, latency_s=0.5
    )
    write_text_atomic(run.generations(adapter_id), dump_jsonl([generation]))


def add_adapter(run: RunDir, adapter_id: str, *, eval_loss: float, r: int = 16) -> None:
    record = AdapterRecord(
        id=adapter_id, base="tiny", r=r, alpha=32, target_modules=("q_proj",), sha256=adapter_id * 4,
        learning_rate=0.005, eval_loss=eval_loss, step=100, trial_id=f"trial-{adapter_id[0]}",
    )  # fmt: skip
    write_text_atomic(run.adapter(adapter_id) / "adapter.json", record.model_dump_json(indent=2))


def make_trial(name: str, status: TrialStatus, losses: tuple[float, ...], adapter_id: str | None) -> TrialRecord:
    finite = [loss for loss in losses if math.isfinite(loss)]
    return TrialRecord(
        trial_id=name,
        status=status,
        hyperparameters={"r": 16, "alpha": 32, "learning_rate": 0.005},
        curve=tuple(EvalPoint(step=10 * (index + 1), eval_loss=loss) for index, loss in enumerate(losses)),
        best_eval_loss=min(finite) if finite and adapter_id else None,
        best_step=10 if finite and adapter_id else None,
        adapter_id=adapter_id,
        duration_s=12.0,
        error=None if adapter_id else "loss is <nan>",
    )


def write_trials(run: RunDir, trials: list[TrialRecord]) -> None:
    # Not `model_dump_json`, which writes a diverged loss as null.
    write_text_atomic(run.trials, "".join(json.dumps(trial.model_dump()) + "\n" for trial in trials))


def make_config(**changes: object) -> RunConfig:
    return RunConfig.model_validate({"name": "demo", "model": {"base": "tiny"}, **changes})


def with_two_adapters(tmp_path: Path, first: Figures, second: Figures, base: Figures | None = ZERO) -> RunDir:
    """The first adapter has the higher eval loss."""
    run = make_run(tmp_path)
    add_adapter(run, FIRST, eval_loss=0.4)
    add_adapter(run, SECOND, eval_loss=0.3)
    add_scores(run, FIRST, first)
    add_scores(run, SECOND, second)
    if base is not None:
        add_scores(run, "base", base)
    return run


def accuracy(value: float, low: float, high: float, n: int = 180) -> Figures:
    return {"tool_call_accuracy": (value, n, low, high)}


def test_report_json_holds_the_figures_of_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add_adapter(run, FIRST, eval_loss=0.25)
    add_scores(run, FIRST, CLEAR)
    add_scores(run, "base", ZERO)
    trials = [
        make_trial("trial-a", "completed", (0.5, 0.25), FIRST).model_copy(
            update={"stop_reason": "finished", "steps": 20, "tokens": 4096, "device_s": 3.0}
        ),
        make_trial("trial-x", "stopped_early", (0.9,), "cccccccccccccccc"),
        make_trial("trial-y", "diverged", (2.0, math.nan), None),
        make_trial("trial-z", "failed", (), None),
    ]
    write_trials(run, trials)
    config = make_config()
    returned = write_report(config, run)
    stored = json.loads((run.report / "report.json").read_text())
    assert Report.model_validate(stored) == returned
    assert stored["run"] == {
        "name": "demo",
        "profile": "balanced",
        "base_model": "tiny",
        "base_revision": None,
        "chat_template": "own",
        "config_digest": digest_of(config),
        "commit": "c0ffee",
        "versions": {"ray": "2.60.0"},
        "started_at": "2025-01-02T03:04:05+00:00",
    }
    assert stored["verdict"]["winner"] == FIRST
    assert [(a["id"], a["is_base"], a["eval_loss"]) for a in stored["adapters"]] == [
        (FIRST, False, 0.25),
        ("base", True, None),
    ]
    assert stored["adapters"][0]["hyperparameters"] == {"r": 16, "alpha": 32, "learning_rate": 0.005, "step": 100}
    assert stored["adapters"][0]["metrics"]["tool_call_accuracy"] == {
        "value": 0.71,
        "n": 180,
        "low": 0.64,
        "high": 0.77,
    }
    trials = stored["search"].pop("trials")
    assert stored["search"] == {"num_trials": 4, "num_stopped_early": 1, "num_failed": 2}
    assert [trial["trial_id"] for trial in trials] == ["trial-a", "trial-x", "trial-y", "trial-z"]
    assert trials[0] == {
        "trial_id": "trial-a",
        "adapter_id": FIRST,
        "hyperparameters": {"r": 16, "alpha": 32, "learning_rate": 0.005},
        "best_eval_loss": 0.25,
        "stop_reason": "finished",
        "steps": 20,
        "tokens": 4096,
        "device_s": 3.0,
    }
    assert (trials[1]["stop_reason"], trials[1]["tokens"]) == (None, None)
    assert stored["timings_s"] == {"search": 61.5}
    assert stored["data"]["counts"] == {"train": 80, "test": 10}
    assert stored["gates"] == []


def test_adapter_without_one_scored_case_is_no_candidate(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add_adapter(run, FIRST, eval_loss=0.1)
    add_scores(run, FIRST, {"tool_call_accuracy": (None, 0, None, None)}, num_unscored=300)
    add_scores(run, "base", ZERO)
    report = write_report(make_config(), run)
    assert report.verdict.winner is None
    assert report.verdict.reason == "No adapter was scored, so none can be recommended."
    assert [adapter.id for adapter in report.adapters] == [FIRST, "base"]


def test_nothing_scored_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(RunConflictError, match="neither an adapter nor the base has been scored") as caught:
        write_report(make_config(), run)
    assert caught.value.exit_code == 3
    assert not run.report.exists()


def test_scores_of_a_missing_adapter_are_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add_scores(run, FIRST, CLEAR)
    with pytest.raises(RunConflictError, match="not there any more"):
        write_report(make_config(), run)


def test_scores_of_an_adapter_that_was_trained_again_are_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add_scores(run, "base", ZERO)
    add_scores(run, FIRST, CLEAR)
    add_adapter(run, FIRST, eval_loss=0.5)
    record = AdapterRecord.model_validate_json(run.adapter_record(FIRST).read_text(encoding="utf-8"))
    made = EngineRecord(
        adapter_id=FIRST,
        inputs_sha256="",
        weights_sha256=record.sha256,
        applied_as="merged",
        device="cpu",
        num_engines=1,
    )
    run.engine(FIRST).write_text(made.model_dump_json(), encoding="utf-8")
    write_report(make_config(), run)
    run.adapter_record(FIRST).write_text(
        record.model_copy(update={"sha256": "0" * 64}).model_dump_json(), encoding="utf-8"
    )
    with pytest.raises(RunConflictError, match="trained again since"):
        write_report(make_config(), run)


def test_verdict_without_its_case_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add_scores(run, "base", ZERO, verdicts=(make_verdict(case_id="case-2"),))
    with pytest.raises(RunConflictError, match="'case-2' has no case in"):
        write_report(make_config(), run)


def test_case_without_a_reply_is_shown_as_such(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add_scores(run, "base", ZERO, num_unscored=1, verdicts=(make_verdict("not_scored"),))
    write_text_atomic(run.generations("base"), "")
    write_report(make_config(), run)
    assert "<pre>(no reply)</pre>" in run_file(tmp_path, "html")
    assert "| did not come from the engine | `not_scored` | 1 |" in run_file(tmp_path, "md")


def test_broken_data_card_is_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add_scores(run, "base", ZERO)
    write_text_atomic(run.card, "[1]")
    with pytest.raises(DataError, match="the data card is not a JSON object"):
        write_report(make_config(), run)


def test_scores_in_another_adapters_folder_are_an_error(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add_scores(run, "base", ZERO)
    write_text_atomic(run.scores(FIRST), run.scores("base").read_text())
    with pytest.raises(DataError, match="the scores are of adapter 'base'"):
        write_report(make_config(), run)


def test_gates_are_held_against_the_winner(tmp_path: Path) -> None:
    gates = {
        "tool_call_accuracy": {"min": 0.71},
        "refusal_accuracy": {"min": 0.95},
        "latency_p50_s": {"max": 1.0, "min": 0.1},
        "over_refusal_rate": {"max": 0.1},
    }
    report = write_report(make_config(gates=gates), with_two_adapters(tmp_path, ZERO, CLEAR))
    assert [(gate.metric, gate.bound, gate.value, gate.passed) for gate in report.gates] == [
        ("tool_call_accuracy", "at least 0.71", 0.71, True),
        ("refusal_accuracy", "at least 0.95", 0.93, False),
        ("latency_p50_s", "at least 0.1 and at most 1", 0.512, True),
        ("over_refusal_rate", "at most 0.1", None, False),
    ]
    assert "2 of 4 met" in run_file(tmp_path, "html")
    assert "| Refusal accuracy | at least 0.95 | 0.93 (0.86 to 0.97, n=90) | **not met** |" in run_file(tmp_path, "md")


def run_file(tmp_path: Path, suffix: str) -> str:
    return (tmp_path / "demo" / "report" / f"report.{suffix}").read_text(encoding="utf-8")


class Page(HTMLParser):
    """What a browser would see: tags, addresses and the text of each `pre`."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.pres: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag == "pre":
            self.inside = True
            self.pres.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre":
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.pres[-1] += data


def hostile_report(tmp_path: Path) -> Page:
    run = make_run(tmp_path)
    add_scores(run, "base", ZERO, reply=HOSTILE, verdicts=(make_verdict(),))
    write_trials(run, [make_trial("trial-<u>", "failed", (math.inf, 0.5), None)])
    write_report(make_config(), run)
    page = Page()
    page.feed(run_file(tmp_path, "html"))
    return page


def test_hostile_text_is_only_text_in_the_page(tmp_path: Path) -> None:
    page = hostile_report(tmp_path)
    assert not page.tags & {"script", "img", "b", "i", "u", "iframe", "link"}
    assert not any(name.startswith("on") for name, _ in page.attributes)
    reply = page.pres[5]
    assert reply.startswith("</pre></details><script>alert(1)</script>")
    assert "\\x1b[31m\\u202e" in reply
    text = run_file(tmp_path, "html")
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", text)
    assert len(reply) < 2100
    assert f"{len(HOSTILE) - 2000:,} more characters are not shown." in text


def test_page_is_self_contained(tmp_path: Path) -> None:
    page = hostile_report(tmp_path)
    addresses = [value for name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert addresses
    assert {address for address in addresses if not str(address).startswith("#")} == {"cases.html"}
    css = re.findall(r"<style>(.*?)</style>", run_file(tmp_path, "html"), flags=re.DOTALL)
    assert len(css) == 1
    assert "url(" not in css[0]
    assert "@import" not in css[0]


def test_example_shows_every_turn_the_expected_reply_and_why(tmp_path: Path) -> None:
    page = hostile_report(tmp_path)
    assert page.pres[:5] == [
        "Be brief.", "first question", "first answer", "Weather in Bergen?",
        '{"name": "get_weather", "arguments": {"city": "Bergen"}}',
    ]  # fmt: skip
    text = run_file(tmp_path, "html")
    assert [f"<h4>Turn {n}, {role}</h4>" in text for n, role in enumerate(("system", "user", "assistant", "user"), 1)]
    why = "Wrong: the reply should be the expected call, but it made a call that is not JSON: line 1 &lt;i&gt;."
    assert why in text
    assert '<code class="muted">not_json</code>' in text
    assert "No tool was on offer." in text


def test_hostile_text_is_literal_in_markdown(tmp_path: Path) -> None:
    hostile_report(tmp_path)
    text = run_file(tmp_path, "md")
    (reply,) = [line for line in text.splitlines() if line.startswith("  - Reply:")]
    assert reply.startswith("  - Reply: <code>&lt;/pre&gt;&lt;/details&gt;&lt;script&gt;alert(1)&lt;/script&gt;")
    assert r"\| \`tick\` \| \[link\](http:\/\/evil.example) \*\*bold\*\*" in reply
    assert reply.endswith("yyy (shortened)</code>")
    assert "<script" not in text
    assert "<u>" not in text
    assert "\n# heading" not in text
    assert "http://" not in text


def test_markdown_tables_have_as_many_cells_as_their_head(tmp_path: Path) -> None:
    run = with_two_adapters(tmp_path, CLEAR, ZERO)
    write_trials(run, [make_trial("a|b", "completed", (0.5,), FIRST)])
    write_report(make_config(), run)
    widths = []
    for block in run_file(tmp_path, "md").split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        if rows:
            widths.append({len(re.findall(r"(?<!\\)\|", row)) for row in rows})
    assert [len(width) for width in widths] == [1, 1, 1]


PLAN = PlannedRun(
    device="this CPU", trials=2, steps=100, expected_steps=150, device_s=300.0, is_measured=True,
    memory_low=2 * 10**9, memory_expected=3 * 10**9, memory_high=4 * 10**9, serving_bytes=2 * 10**9,
)  # fmt: skip


def test_a_finished_run_is_held_against_its_plan(tmp_path: Path) -> None:
    run = with_two_adapters(tmp_path, CLEAR, ZERO)
    record_plan(run, PLAN)
    full = make_trial("full", "completed", (0.5,), FIRST)
    full = full.model_copy(update={"steps": 100, "device_s": 150.0, "memory_bytes": 2_500_000_000})
    cut = make_trial("cut", "stopped_early", (0.6,), SECOND)
    cut = cut.model_copy(update={"steps": 25, "device_s": 50.0, "memory_bytes": 1_000_000_000})
    write_trials(run, [full, cut])
    engine = EngineRecord(
        adapter_id=FIRST, inputs_sha256="", weights_sha256=FIRST * 4, applied_as="merged", device="cpu",
        num_engines=1, memory_bytes=4 * 10**9,
    )  # fmt: skip
    write_text_atomic(run.engine(FIRST), engine.model_dump_json())
    write_report(make_config(), run)
    page = run_file(tmp_path, "md")
    assert "Planned for this CPU before training began; its time from a few real steps." in page
    for row in (
        "| Steps of a full training | 100 | 100 | +0% |",
        "| Steps of 2 trials | 150 | 125 | +20% |",
        "| Device time of all trials | 5 min 00 s | 3 min 20 s | +50% |",
        "| Memory of a training process | 3.0 GB | 2.5 GB | +20% |",
        "| Memory of an evaluation engine | 2.0 GB | 4.0 GB | -50% |",
    ):
        assert row in page
    assert "Plan and run" in run_file(tmp_path, "html")


def test_what_a_run_did_not_record_is_said_and_without_a_plan_nothing_is(tmp_path: Path) -> None:
    run = with_two_adapters(tmp_path, CLEAR, ZERO)
    write_trials(run, [make_trial("old", "completed", (0.5,), FIRST)])
    write_report(make_config(), run)
    assert "Plan and run" not in run_file(tmp_path, "md")
    record_plan(run, PLAN.model_copy(update={"is_measured": False}))
    write_report(make_config(), run)
    page = run_file(tmp_path, "md")
    assert "its time from a stated rate, which may be off by half." in page
    assert "| Memory of a training process | 3.0 GB | not recorded |  |" in page


def test_examples_of_failures_show_every_reason_and_say_how_many_there_are(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    verdicts = (*(make_verdict("no_call") for _ in range(30)), make_verdict("unknown_tool"))
    add_scores(run, "base", ZERO, reply="hello", verdicts=verdicts)
    write_report(make_config(), run)
    text = run_file(tmp_path, "html")
    assert text.count('<p class="why">') == 5
    assert text.count('<code class="muted">unknown_tool</code>') == 1
    assert "5 of 31 failed cases, every reason in turn; all are in evals/base/scores.json" in text
    assert "31 of 300" in text
    assert "| made no call | `no_call` | 30 |" in run_file(tmp_path, "md")


def test_cut_off_replies_are_in_the_verdict(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add_scores(run, "base", {**ZERO, "truncated_rate": (1.0, 8, 0.68, 1.0)})
    reason = write_report(make_config(), run).verdict.reason
    assert "cuts off 8 of 8 replies of the base: raise eval.max_new_tokens" in reason


def test_a_terminal_says_why_a_figure_is_not_scored(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add_scores(run, "base", ZERO)
    report = write_report(make_config(), run)
    unscored = Metric(value=None, n=0, low=None, high=None, why="no scored case has the tag harmful or benign")
    base = report.adapters[0].model_copy(update={"metrics": {"refusal_accuracy": unscored}})
    lines = list(gist_lines(report.model_copy(update={"adapters": (base,)})))
    assert "Refusal accuracy is not scored: no scored case has the tag harmful or benign." in lines


def test_every_reason_has_a_name() -> None:
    assert tuple(REASONS) == get_args(FailureReason)


@pytest.mark.parametrize(("status", "is_told"), [("done", False), ("running", True), ("failed", True)])
def test_the_verdict_says_where_the_evaluation_was_cut_off(
    status: Literal["done", "running", "failed"], is_told: bool, tmp_path: Path
) -> None:
    run = make_run(tmp_path)
    add_scores(run, "base", {"case_accuracy": (0.5, 300, 0.4, 0.6)})
    entry = StageEntry(status=status, input_digest="d", started_at="2025-01-02T03:04:05+00:00")
    write_text_atomic(run.ledger, Ledger(stages={"evaluate": entry}).model_dump_json())
    assert ("The evaluation was cut off" in write_report(RunConfig(name="demo"), run).verdict.reason) == is_told


def test_what_befell_the_run_is_told_only_where_something_did(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    add_scores(run, "base", CLEAR)
    write_report(RunConfig(), run)
    assert "What happened" not in (run.report / "report.md").read_text(encoding="utf-8")
    note(run.root, "trial-2: its process died, after step 12. <b>It</b> was started again.")
    write_report(RunConfig(), run)
    assert "What happened" in (run.report / "report.md").read_text(encoding="utf-8")
    page = (run.report / "report.html").read_text(encoding="utf-8")
    assert "trial-2: its process died, after step 12. &lt;b&gt;It&lt;/b&gt; was started again." in page
