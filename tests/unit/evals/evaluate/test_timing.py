"""Rounds of timed replies: which cases, what is kept over an interruption, and what a dead engine costs."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from evals.evaluate import timing
from evals.evaluate.timing import CASES_A_TURN, Timekeeper, cases_to_time, time_replies
from evals.generate.engine import Adapter, EngineSettings, Prompt, Timed
from evals.generate.engines import Engines
from evals.records import Case
from evals.stats.latency import TimedReply
from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import EvaluationError
from orchestrator.core.files import dump_jsonl, read_jsonl
from orchestrator.core.records import Message
from orchestrator.run.paths import RunDir

ADAPTER = Adapter("a", 1, "somewhere", "0a")
ASKED: dict[str, tuple[Adapter | None, str]] = {"base": (None, "d0"), "a": (ADAPTER, "d1")}
PROMPTS = [Prompt(f"c{number}", [number, 7]) for number in range(6)]
SETTINGS = EngineSettings(
    base=ModelConfig(base="tiny"), dtype="float32", on_gpu=False, max_model_len=8, max_lora_rank=8,
    kv_cache_bytes=None, max_new_tokens=4, temperature=0.0, seed=0,
)  # fmt: skip
ENGINES = Engines(1, on_gpu=False, actor_class=None)
Turn = tuple[str, tuple[str, ...]]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    (tmp_path / "evals").mkdir()
    return RunDir(tmp_path)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> list[list[Turn]]:
    """The rounds that engines were asked for, in their order; an engine itself is started in tests/vllm."""
    seen: list[list[Turn]] = []

    def time_alone(
        _engines: Engines, _settings: EngineSettings, turns: Sequence[tuple[Adapter | None, Sequence[Prompt]]]
    ) -> list[list[Timed]]:
        seen.append([(adapter.id if adapter else "base", tuple(p.case_id for p in asked)) for adapter, asked in turns])
        return [[Timed(prompt.case_id, 0.1, 0.3, 5) for prompt in asked] for _, asked in turns]

    monkeypatch.setattr(timing, "time_alone", time_alone)
    return seen


def stored(run: RunDir) -> list[tuple[str, str]]:
    return [(reply.adapter_id, reply.case_id) for reply in read_jsonl(run.latency, TimedReply)]


def test_rounds_go_there_and_back(run: RunDir, rounds: list[list[Turn]]) -> None:
    time_replies(Timekeeper(run, ASKED, PROMPTS), SETTINGS, ENGINES)
    assert CASES_A_TURN == 4
    assert rounds == [
        [("base", ("c0", "c1", "c2", "c3")), ("a", ("c0", "c1", "c2", "c3"))],
        [("a", ("c4", "c5")), ("base", ("c4", "c5"))],
    ]
    assert set(stored(run)) == {(key, prompt.case_id) for key in ASKED for prompt in PROMPTS}
    assert len(stored(run)) == 12
    time_replies(Timekeeper(run, ASKED, PROMPTS), SETTINGS, ENGINES)
    assert len(rounds) == 2  # nothing is left


def test_adapters_of_requests_take_turns_case_by_case(run: RunDir, rounds: list[list[Turn]]) -> None:
    time_replies(Timekeeper(run, ASKED, PROMPTS[:2]), SETTINGS.model_copy(update={"on_gpu": True}), ENGINES)
    assert rounds == [[("base", ("c0",)), ("a", ("c0",))], [("a", ("c1",)), ("base", ("c1",))]]


def test_only_whole_rounds_of_the_same_inputs_are_kept(run: RunDir, rounds: list[list[Turn]]) -> None:
    time_replies(Timekeeper(run, ASKED, PROMPTS), SETTINGS, ENGINES)
    rows = list(read_jsonl(run.latency, TimedReply))
    cut = [row for row in rows if (row.adapter_id, row.case_id) != ("a", "c5")]
    run.latency.write_text(dump_jsonl(cut) + '{"adapter_id": "a", "case_', encoding="utf-8")
    changed = [*PROMPTS[:4], PROMPTS[4]._replace(token_ids=[99]), PROMPTS[5]]
    time_replies(Timekeeper(run, ASKED, changed), SETTINGS, ENGINES)
    assert rounds[2:] == [[("base", ("c4", "c5")), ("a", ("c4", "c5"))]]
    other = {**ASKED, "b": (ADAPTER._replace(id="b"), "d2")}
    time_replies(Timekeeper(run, other, changed), SETTINGS, ENGINES)
    assert [turn for turn, _ in rounds[3]] == ["base", "a", "b"]  # all again, so that all bear the same load
    assert len(stored(run)) == 18


def test_a_round_is_asked_again_whole_when_its_engine_died(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    deaths = [EvaluationError("its process ended")]

    def dies_once(
        _engines: Engines, _settings: EngineSettings, turns: Sequence[tuple[Adapter | None, Sequence[Prompt]]]
    ) -> list[list[Timed]]:
        if deaths:
            raise deaths.pop()
        return [[Timed(prompt.case_id, 0.1, 0.3, 5) for prompt in asked] for _, asked in turns]

    monkeypatch.setattr(timing, "time_alone", dies_once)
    time_replies(Timekeeper(run, ASKED, PROMPTS[:4]), SETTINGS, ENGINES)
    assert not deaths
    assert len(stored(run)) == 8


def test_replies_that_cannot_be_timed_are_told_and_end_nothing(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def dies(*_given: object) -> list[list[Timed]]:
        raise EvaluationError("its process ended")

    monkeypatch.setattr(timing, "time_alone", dies)
    time_replies(Timekeeper(run, ASKED, PROMPTS), SETTINGS, ENGINES)
    assert "The latency of 6 cases was not measured: its process ended" in capsys.readouterr().out
    assert stored(run) == []


def test_without_cases_nothing_is_timed_and_nothing_stays(run: RunDir, rounds: list[list[Turn]]) -> None:
    time_replies(Timekeeper(run, ASKED, PROMPTS), SETTINGS, ENGINES)
    time_replies(Timekeeper(run, ASKED, []), SETTINGS, ENGINES)
    assert not run.latency.exists()
    assert len(rounds) == 2


def test_cases_are_drawn_evenly_over_kinds_among_those_that_fit() -> None:
    kinds = ["tool_call"] * 8 + ["refusal"] * 2
    cases = [
        Case.model_validate(
            {
                "id": f"c{number}", "messages": [Message(role="user", content="x")], "tools": [], "kind": kind,
                "tags": [], "expected_calls": [], "expected_text": "",
            }
        )
        for number, kind in enumerate(kinds)
    ]  # fmt: skip
    prompts = [Prompt(case.id, [1] * (8 if number == 0 else 3)) for number, case in enumerate(cases)]
    drawn = cases_to_time(cases, prompts, SETTINGS, count=4, seed=0)
    assert len(drawn) == 4
    assert {"c8", "c9"} <= {prompt.case_id for prompt in drawn}
    everything = cases_to_time(cases, prompts, SETTINGS, count=99, seed=0)
    assert "c0" not in {prompt.case_id for prompt in everything}  # it leaves no room for a reply
    assert cases_to_time(cases, prompts, SETTINGS, count=0, seed=0) == []
