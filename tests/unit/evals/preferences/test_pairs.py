"""Which training prompts an adapter is asked, which of its replies make pairs, and whole collections of pairs."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders import assistant, keep_tiny, make_call, make_sample, toy_run, user, write_samples, write_tiny_adapter

from evals.preferences.own_replies import Asked, paired, training_prompts
from evals.preferences.pairs import held_out_samples, make_pairs, pairs_digest
from evals.preferences.start import adapter_to_prefer
from evals.records import Generation
from orchestrator.chat.rendering import render_prompt
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import RunConflictError, TooFewPairsError
from orchestrator.core.files import dump_jsonl, read_jsonl
from orchestrator.core.records import Sample
from orchestrator.data.preferences.pair import PairEntry, PreferencePair
from orchestrator.data.preferences.store import ledger_path, pairs_path
from orchestrator.models.base import base_tokenizer
from orchestrator.run.folder import open_run
from orchestrator.run.paths import RunDir
from orchestrator.toy.synthetic import generate_samples

SAMPLES = list(generate_samples(90, seed=11, catalogue="easy"))


def _run(tmp_path: Path, train: list[Sample], **prefer: Any) -> tuple[RunConfig, RunDir]:
    config = toy_run(tmp_path, "preferring", prefer=prefer)
    run = open_run(config)
    for part, samples in (("train", train), ("val", SAMPLES[80:85]), ("test", SAMPLES[85:])):
        write_samples(run, part, samples)  # type: ignore[arg-type]  # a literal in a tuple is a text to mypy
    return config, run


def _asked(tmp_path: Path, *train: Sample, **prefer: Any) -> Asked:
    config, run = _run(tmp_path, list(train), **prefer)
    return training_prompts(config, run, base_tokenizer(config.model))


def _weather(city: str) -> Sample:
    return make_sample(user(f"Weather in {city}?"), assistant("", make_call(city=city)), id=f"w-{city}")


def test_each_prompt_is_asked_as_evaluation_asks_it_with_a_draw_of_its_own(tmp_path: Path) -> None:
    sample = _weather("Rome")
    asked = _asked(tmp_path, sample, replies_per_prompt=3)
    assert [(prompt.case_id, prompt.draw) for prompt in asked.prompts] == [(f"w-Rome~{n}", n) for n in range(3)]
    tokens = render_prompt(base_tokenizer(toy_run(tmp_path, "x").model), sample.messages[:-1], sample.tools)
    assert {tuple(prompt.token_ids) for prompt in asked.prompts} == {tuple(tokens)}
    assert [taught.gold for taught in asked.taught] == [sample] * 3


def test_prompts_are_drawn_evenly_over_kinds_from_train_alone(tmp_path: Path) -> None:
    asked = _asked(tmp_path, *SAMPLES[:60], max_prompts=8, replies_per_prompt=1)
    kinds = [taught.gold.kind for taught in asked.taught]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == dict.fromkeys(set(kinds), 2)
    assert len(set(kinds)) == 4
    known = {sample.id for sample in SAMPLES[:60]}
    assert {taught.case.id.partition("#")[0] for taught in asked.taught} <= known


def test_a_prompt_whose_own_reply_is_not_recognised_is_not_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unseen = make_sample(user("Make a bomb"), assistant("Let us begin."), id="odd", kind="refusal", tags=("harmful",))
    asked = _asked(tmp_path, unseen, _weather("Rome"), replies_per_prompt=1)
    assert [prompt.case_id for prompt in asked.prompts] == ["w-Rome~0"]
    assert "1 training prompt of 2 cannot be judged by its own reply" in capsys.readouterr().out


def test_an_earlier_turn_is_taught_up_to_itself(tmp_path: Path) -> None:
    talk = make_sample(
        *(user("Weather in Rome?"), assistant("", make_call(city="Rome"))),
        *(user("And in Oslo?"), assistant("", make_call(city="Oslo"))),
        id="two",
    )
    asked = _asked(tmp_path, talk, replies_per_prompt=1)
    assert {taught.gold.id: len(taught.gold.messages) for taught in asked.taught} == {"two": 4, "two#0": 2}


def test_only_wrong_replies_that_ended_make_pairs(tmp_path: Path) -> None:
    asked = _asked(tmp_path, *map(_weather, ("Rome", "Oslo", "Cairo", "Lima")), replies_per_prompt=1)
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "%s"}}\n</tool_call>'
    replies = [
        Generation(case_id="w-Rome~0", text=call % "Rome", finish_reason="stop"),
        Generation(case_id="w-Oslo~0", text=call % "Bergen", finish_reason="stop"),
        Generation(case_id="w-Cairo~0", text='<tool_call>\n{"name": "get_wea', finish_reason="length"),
    ]
    found = paired(asked, replies, "hermes")
    (pair,) = found.candidates
    assert (pair.sample.id, pair.rejected, pair.origin) == ("w-Oslo", call % "Bergen", "own_replies")
    assert pair.why_worse
    assert {entry.id: entry.left_out for entry in found.entries} == {"w-Cairo": "cut_off", "w-Lima": "not_scored"}
    assert (found.asked["tool_call"].replies, found.asked["tool_call"].wrong) == (4, 3)


def _write_pairs(path: Path) -> None:
    rows = []
    for sample in SAMPLES[30:]:
        messages = [message.model_dump(mode="json") for message in sample.messages]
        worse = [*messages[:-1], {"role": "assistant", "content": "Whatever you say."}]
        named = sample.model_dump(mode="json", include={"tools", "kind", "tags"})
        rows.append({**named, "chosen": messages, "rejected": worse})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _no_engines() -> Any:
    raise AssertionError("no reply is asked for")


def test_a_file_of_pairs_is_taken_but_for_what_is_held_out(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    _write_pairs(path)
    config, run = _run(tmp_path, SAMPLES[:30], sources=[{"path": str(path)}], max_prompts=0)

    card = make_pairs(config, run, "trial-1", _no_engines, tmp_path)

    place = run.preferences("trial-1")
    entries = list(read_jsonl(ledger_path(place), PairEntry))
    assert len(entries) == card.found["file"] == 60
    assert card.left_out["held_out"] >= 10
    pairs = list(read_jsonl(pairs_path(place), PreferencePair))
    assert len(pairs) == sum(card.parts.values()) == sum(entry.part is not None for entry in entries)
    held_out = {message.content for sample in held_out_samples(config, run) for message in sample.messages}
    assert not held_out & {pair.messages[-1].content for pair in pairs}
    assert all((leak.prompts.count, leak.near_duplicates.count) == (0, 0) for leak in card.leaks.values())


def test_cases_of_a_suite_are_held_out_too(tmp_path: Path) -> None:
    path, suite = tmp_path / "pairs.jsonl", tmp_path / "suite.jsonl"
    _write_pairs(path)
    suite.write_text(dump_jsonl(SAMPLES[30:40]), encoding="utf-8")
    config, run = _run(tmp_path, SAMPLES[:30], sources=[{"path": str(path)}], max_prompts=0)
    before = make_pairs(config, run, "trial-1", _no_engines, tmp_path)
    suites = RunConfig.model_validate({"eval": {"suites": [{"name": "mine", "path": str(suite)}]}}).eval
    with_suite = config.model_copy(update={"eval": suites})
    after = make_pairs(with_suite, run, "trial-1", _no_engines, tmp_path)
    assert after.left_out["held_out"] > before.left_out["held_out"]


def test_without_pairs_nothing_is_learned(tmp_path: Path) -> None:
    config, run = _run(tmp_path, SAMPLES[:30], max_prompts=0)
    with pytest.raises(TooFewPairsError, match="0 pairs to learn from"):
        make_pairs(config, run, "trial-1", _no_engines, tmp_path)


def test_the_adapter_is_the_same_before_and_after(tmp_path: Path) -> None:
    config, run = _run(tmp_path, SAMPLES[:30])
    with pytest.raises(RunConflictError, match="the run has no adapter"):
        adapter_to_prefer(config, run, None)
    first = keep_tiny(run, write_tiny_adapter(tmp_path / "trial-1"))
    digest = pairs_digest(config, run, first, tmp_path)
    made = first.model_copy(update={"id": "trial-1-prefer", "init_from": "trial-1", "pairs": 20, "eval_loss": None})
    run.adapter("trial-1").rename(tmp_path / "kept")
    for record in (first, made):
        folder = run.adapter(record.id)
        folder.mkdir(parents=True)
        for file in (tmp_path / "kept").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        run.adapter_record(record.id).write_text(record.model_dump_json(), encoding="utf-8")
    for name in (None, "trial-1", "trial-1-prefer", "winner"):
        assert adapter_to_prefer(config, run, name).id == "trial-1"
    assert pairs_digest(config, run, first, tmp_path) == digest
    other = config.model_copy(update={"prefer": config.prefer.model_copy(update={"beta": 0.5})})
    assert pairs_digest(other, run, first, tmp_path) != digest
