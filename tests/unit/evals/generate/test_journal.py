import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.generate.engine import Adapter, Batch, EngineSettings, Loaded, Prompt
from evals.generate.journal import Journal, append_lines, engine_record, inputs_sha256, put_in_order, resume
from evals.records import CanaryProof, EngineRecord, Generation
from orchestrator.config.schema import ModelConfig
from orchestrator.core.files import read_jsonl
from orchestrator.run.paths import RunDir

PROMPTS = [Prompt(f"c{number}", [number]) for number in range(3)]
ADAPTER = Adapter("abc", 1, "/adapters/abc", "f" * 64)
SETTINGS = EngineSettings(
    base=ModelConfig(base="tiny"),
    dtype="float32",
    on_gpu=False,
    max_model_len=100,
    max_lora_rank=8,
    kv_cache_bytes=None,
    max_new_tokens=10,
    temperature=0.0,
    seed=0,
)


def reply(prompt: Prompt, text: str = "hello", **fields: object) -> Generation:
    made = Generation(case_id=prompt.case_id, text=text, finish_reason="stop", prompt_sha256=prompt.sha256)
    return made.model_copy(update=fields)


def open_journal(root: Path, settings: EngineSettings = SETTINGS) -> Journal:
    adapters: dict[str, Adapter | None] = {"base": None, "abc": ADAPTER}
    records = {
        key: engine_record(adapter, inputs_sha256(settings, "base", adapter.sha256 if adapter else None), settings, 1)
        for key, adapter in adapters.items()
    }
    return Journal(RunDir(root), records, adapters, dict.fromkeys(adapters, PROMPTS))


def stored(root: Path, key: str) -> EngineRecord:
    return EngineRecord.model_validate_json(RunDir(root).engine(key).read_text(encoding="utf-8"))


def left(journal: Journal) -> dict[str, list[str]]:
    return {work.key: [prompt.case_id for prompt in work.prompts] for work in journal.pending()}


def test_replies_are_on_disk_as_soon_as_they_are_heard_and_taken_up_again(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    assert left(journal) == {"base": ["c0", "c1", "c2"], "abc": ["c0", "c1", "c2"]}
    heard: list[int] = []
    journal.on_answer(heard.append)
    journal.answered("base", Batch([reply(PROMPTS[1])], 0.5, memory_bytes=2000))
    assert heard == [1]
    assert list(read_jsonl(RunDir(tmp_path).generations("base"), Generation)) == [reply(PROMPTS[1])]

    again = open_journal(tmp_path)
    assert again.num_resumed == 1
    assert left(again) == {"base": ["c0", "c2"], "abc": ["c0", "c1", "c2"]}
    again.answered("base", Batch([reply(PROMPTS[2]), reply(PROMPTS[0])], 0.25, memory_bytes=1000))
    assert again.close()["base"] == [reply(prompt) for prompt in PROMPTS]
    record = stored(tmp_path, "base")
    assert (record.num_resumed, record.generate_s, record.applied_as) == (1, 0.75, "base")
    assert record.memory_bytes == 2000
    assert left(open_journal(tmp_path)) == {"abc": ["c0", "c1", "c2"]}


@pytest.mark.parametrize(
    "changes",
    [{"max_new_tokens": 20}, {"temperature": 0.5}, {"seed": 1}, {"base": ModelConfig(base="other")}],
    ids=str,
)
def test_replies_under_other_settings_are_not_taken_over(tmp_path: Path, changes: dict[str, object]) -> None:
    open_journal(tmp_path).answered("base", Batch([reply(PROMPTS[0])], 0.1))
    journal = open_journal(tmp_path, SETTINGS.model_copy(update=changes))
    assert journal.num_resumed == 0
    assert not RunDir(tmp_path).generations("base").exists()


def test_sizes_of_the_engine_do_not_matter(tmp_path: Path) -> None:
    open_journal(tmp_path).answered("base", Batch([reply(PROMPTS[0])], 0.1))
    other = {"max_model_len": 500, "kv_cache_bytes": 7, "max_lora_rank": 64}
    assert open_journal(tmp_path, SETTINGS.model_copy(update=other)).num_resumed == 1


def test_an_adapters_replies_depend_on_its_content_and_its_base() -> None:
    digests = {inputs_sha256(SETTINGS, base, adapter) for base in ("a", "b") for adapter in (None, "x", "y")}
    assert len(digests) == 6


def test_load_times_add_up_and_the_weakest_proof_is_kept(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for texts in (5, 2, 8):
        proof = CanaryProof(num_prompts=8, num_texts_moved=texts, largest_shift=1.0, noise=0.0)
        journal.loaded("abc", Loaded("merged", 0.25, proof, "cpu", "float32"))
    journal.retried("abc", 3, "memory ran out")
    record = stored(tmp_path, "abc")
    assert record.canary is not None
    assert (record.load_s, record.canary.num_texts_moved, record.num_retried) == (0.75, 2, 3)
    assert record.weights_sha256 == ADAPTER.sha256


def test_what_could_not_be_asked_leaves_nothing(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.answered("abc", Batch([reply(PROMPTS[0])], 0.1))
    journal.forget("abc")
    assert set(journal.close()) == {"base"}
    assert not RunDir(tmp_path).generations("abc").exists()
    assert not RunDir(tmp_path).engine("abc").exists()


def test_replies_are_appended_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "evals" / "a" / "generations.jsonl"
    append_lines(path, [reply(PROMPTS[2])])
    append_lines(path, [reply(PROMPTS[0], "a\u2028b\n")])
    assert resume(path, PROMPTS) == [reply(PROMPTS[2]), reply(PROMPTS[0], "a\u2028b\n")]


def test_nothing_is_read_where_there_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "generations.jsonl"
    assert resume(path, PROMPTS) == []
    assert not path.exists()


def test_a_line_that_was_cut_is_dropped_and_the_next_one_starts_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "generations.jsonl"
    append_lines(path, [reply(PROMPTS[0]), reply(PROMPTS[1])])
    path.write_bytes(path.read_bytes()[:-20])
    assert resume(path, PROMPTS) == [reply(PROMPTS[0])]
    append_lines(path, [reply(PROMPTS[1])])
    assert list(read_jsonl(path, Generation)) == [reply(PROMPTS[0]), reply(PROMPTS[1])]


def test_what_does_not_answer_these_prompts_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "generations.jsonl"
    stale = reply(PROMPTS[0], prompt_sha256="0" * 64)
    lost = reply(PROMPTS[1], "", finish_reason="error", error="the engine died")
    stranger = reply(Prompt("other", [1]))
    append_lines(path, [stale, lost, stranger, reply(PROMPTS[2], "first"), reply(PROMPTS[2], "second")])
    assert resume(path, PROMPTS) == [reply(PROMPTS[2], "first")]
    assert list(read_jsonl(path, Generation)) == [reply(PROMPTS[2], "first")]


def test_a_finished_file_is_in_the_order_of_the_prompts(tmp_path: Path) -> None:
    path = tmp_path / "generations.jsonl"
    replies = [reply(prompt) for prompt in reversed(PROMPTS)]
    assert put_in_order(path, replies, PROMPTS) == replies[::-1]
    assert list(read_jsonl(path, Generation)) == replies[::-1]


@given(st.integers(0, 2000))
def test_however_a_file_is_cut_no_reply_is_lost_or_repeated(cut: int) -> None:
    prompts = [Prompt(f"c{number}", [1, 2, number]) for number in range(4)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generations.jsonl"
        append_lines(path, [reply(prompt) for prompt in prompts])
        whole = path.read_bytes()
        path.write_bytes(whole[: min(cut, len(whole))])
        kept = resume(path, prompts)
        done = {generation.case_id for generation in kept}
        append_lines(path, [reply(prompt) for prompt in prompts if prompt.case_id not in done])
        assert sorted(found.case_id for found in read_jsonl(path, Generation)) == ["c0", "c1", "c2", "c3"]
        assert len(kept) >= whole[: min(cut, len(whole))].count(b"\n")


def test_the_digest_of_a_prompt_tells_its_tokens_apart() -> None:
    assert Prompt("a", [1, 23]).sha256 != Prompt("a", [12, 3]).sha256
    assert Prompt("a", [1, 2]).sha256 == Prompt("b", [1, 2]).sha256
