"""Gates on ratios: to the base, timed in turns on the same cases, and to an earlier run."""

import re
from pathlib import Path
from typing import Any

import pytest
from report_run import BEST, WEAK, write_run

from evals.evaluate.rescore import score_replies
from evals.records import Case, EngineRecord, GateResult, Generation, Report
from evals.report.render import gist_lines
from evals.report.write import write_report
from evals.stats.latency import TimedReply
from orchestrator.core.errors import InputError, RunConflictError
from orchestrator.core.files import dump_jsonl, parse_line, read_jsonl, write_text_atomic
from orchestrator.run.paths import RunDir

GIB = 2**30
SECONDS = (20.0, 19.0, 22.0, 25.0, 18.0, 21.0, 30.0, 17.0)


def time_replies(run: RunDir, factors: dict[str, float], *, gib: float = 4.0) -> None:
    """Times of a few cases: the base's, times a factor that jitters a little from case to case."""
    cases = [f"held_out-{number:03}#0" for number in range(len(SECONDS))]
    timed = [
        TimedReply(
            adapter_id=adapter, case_id=case, inputs_sha256="i", prompt_sha256="p", first_token_s=0.1, output_tokens=9,
            total_s=seconds * factor * (1.02 if place % 2 else 0.98), peak_memory_bytes=int((gib + place / 8) * GIB),
        )
        for adapter, factor in factors.items()
        for place, (case, seconds) in enumerate(zip(cases, SECONDS, strict=True))
    ]  # fmt: skip
    write_text_atomic(run.latency, dump_jsonl(timed))


def made(folder: Path, name: str, gates: dict[str, Any], factors: dict[str, float], **more: Any) -> Report:
    config, run = write_run(folder, name, settings={"gates": gates}, skills={"base": 0.35, BEST: 0.9, WEAK: 0.5})
    time_replies(run, factors, **more)
    cases = list(read_jsonl(run.cases, Case))
    for adapter in ("base", BEST, WEAK):
        score_replies(config, run, adapter, cases, list(read_jsonl(run.generations(adapter), Generation)), "hermes")
    return write_report(config, run)


def by_metric(report: Report) -> dict[str, GateResult]:
    return {gate.metric: gate for gate in report.gates}


FAST = {"base": 1.0, BEST: 0.5, WEAK: 0.9}


def test_a_latency_is_held_against_the_bases_on_the_same_cases(tmp_path: Path) -> None:
    gates = {
        "latency_p50_s": {"max_ratio_to": "base", "value": 0.6},
        "latency_p95_s": {"max_ratio_to": "base", "value": 0.4},
        "peak_memory_gib": {"max": 10},
        "tool_call_validity": {"max_ratio_to": "base", "value": 10, "min": 0.5},
    }
    report = made(tmp_path, "fast", gates, FAST)
    median, tail, memory, validity = by_metric(report).values()
    assert median.passed
    assert median.bound.startswith("at most 0.6 x that of the base (20.")
    assert median.ratio is not None
    assert median.ratio.low is not None
    assert median.ratio.high is not None
    assert median.ratio.n == len(SECONDS)
    assert 0.45 < median.ratio.low <= 0.5 <= median.ratio.high < 0.56
    assert not tail.passed
    assert tail.ratio is not None
    assert tail.ratio.value == pytest.approx(0.5)
    assert tail.ratio.low is None  # 8 cases bound no 95th percentile
    assert memory.value == pytest.approx(4.875)
    assert memory.passed
    assert memory.ratio is None
    assert validity.passed
    assert validity.ratio is not None
    assert validity.ratio.low is None
    said = " ".join(gist_lines(report))
    wanted = (
        r"Gate not met: latency_p95_s of \w+ is 1\d\.\d\d s, 0\.50 x \(n=8\), wanted at most 0\.4 x that of the base"
    )
    assert re.search(wanted, said)
    page = (tmp_path / "fast" / "report" / "report.html").read_text(encoding="utf-8")
    assert "0.50 x (" in page
    assert "4.88 GiB" in page


def test_memory_may_be_held_against_the_base_too(tmp_path: Path) -> None:
    gates = {"peak_memory_gib": {"max_ratio_to": "base", "value": 0.9}}
    found = by_metric(made(tmp_path, "same", gates, FAST))["peak_memory_gib"]
    assert not found.passed
    assert found.ratio is not None
    assert (found.ratio.value, found.ratio.low) == (1.0, None)


def test_an_earlier_run_is_held_against_by_its_best_adapter(tmp_path: Path) -> None:
    gates = {"latency_p50_s": {"max_ratio_to": "slow", "value": 0.6}}
    with pytest.raises(InputError, match=r"gates\.latency_p50_s\.max_ratio_to: no run is in the folder 'slow'"):
        made(tmp_path, "fast", gates, FAST)
    _, slow = write_run(tmp_path, "slow", skills={"base": 0.3, BEST: 0.9, WEAK: 0.5})
    with pytest.raises(RunConflictError, match="has no report of an adapter"):
        made(tmp_path, "fast", gates, FAST)
    made(tmp_path, "slow", {}, {"base": 1.0, BEST: 1.0, WEAK: 1.0})
    found = by_metric(made(tmp_path, "fast", gates, FAST))["latency_p50_s"]
    assert found.passed
    assert found.bound.startswith(f"at most 0.6 x that of slow/{BEST} (2")
    assert found.ratio is not None
    assert found.ratio.low is not None
    # Cases of two runs are not paired, so the interval is that of two independent medians.
    assert found.ratio.low < 0.45

    path = slow.engine(BEST)
    engine = parse_line(path.read_text(encoding="utf-8"), EngineRecord, where="engine")
    write_text_atomic(path, engine.model_copy(update={"device": "NVIDIA H200"}).model_dump_json())
    other = by_metric(made(tmp_path, "fast", gates, FAST))["latency_p50_s"]
    assert not other.passed
    assert other.why == f"slow/{BEST} was timed on NVIDIA H200, and this on cpu"
    assert other.ratio is None


def test_what_was_not_timed_meets_no_gate(tmp_path: Path) -> None:
    gates = {"latency_p50_s": {"max_ratio_to": "base", "value": 0.6}, "peak_memory_gib": {"max": 10}}
    latency, memory = by_metric(made(tmp_path, "untimed", gates, {})).values()
    assert (latency.passed, memory.passed) == (False, False)
    assert latency.why == "no reply was timed (eval.latency_cases)"
    assert memory.why == "no timed reply tells its memory (eval.latency_cases)"
    alone = by_metric(made(tmp_path, "alone", gates, {BEST: 0.5}))["latency_p50_s"]
    assert not alone.passed
    assert alone.why == "the base has no such figure: no reply was timed (eval.latency_cases)"
