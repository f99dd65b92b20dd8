import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from evals.generate.engine import Prompt
from evals.generate.journal import append, put_in_order, resume
from evals.records import Generation
from orchestrator.core.files import read_jsonl

PROMPTS = [Prompt(f"c{number}", [1, 2, number]) for number in range(4)]


def reply(prompt: Prompt, text: str = "hello", **fields: object) -> Generation:
    made = Generation(case_id=prompt.case_id, text=text, finish_reason="stop", prompt_sha256=prompt.sha256)
    return made.model_copy(update=fields)


def test_replies_are_appended_and_taken_up_again(tmp_path: Path) -> None:
    path = tmp_path / "evals" / "a" / "generations.jsonl"
    append(path, [reply(PROMPTS[2])])
    append(path, [reply(PROMPTS[0], "a\u2028b\n")])
    assert resume(path, PROMPTS) == [reply(PROMPTS[2]), reply(PROMPTS[0], "a\u2028b\n")]


def test_nothing_is_taken_up_where_there_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "generations.jsonl"
    assert resume(path, PROMPTS) == []
    assert not path.exists()


def test_a_line_that_was_cut_is_dropped_and_the_next_one_starts_on_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "generations.jsonl"
    append(path, [reply(PROMPTS[0]), reply(PROMPTS[1])])
    path.write_bytes(path.read_bytes()[:-20])
    assert resume(path, PROMPTS) == [reply(PROMPTS[0])]
    append(path, [reply(PROMPTS[1])])
    assert list(read_jsonl(path, Generation)) == [reply(PROMPTS[0]), reply(PROMPTS[1])]


def test_what_does_not_answer_these_prompts_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "generations.jsonl"
    stale = reply(PROMPTS[0], prompt_sha256="0" * 64)
    lost = reply(PROMPTS[1], "", finish_reason="error", error="the engine died")
    stranger = reply(Prompt("other", [1]))
    append(path, [stale, lost, stranger, reply(PROMPTS[2], "first"), reply(PROMPTS[2], "second")])
    assert resume(path, PROMPTS) == [reply(PROMPTS[2], "first")]
    assert list(read_jsonl(path, Generation)) == [reply(PROMPTS[2], "first")]


def test_a_finished_file_is_in_the_order_of_the_prompts(tmp_path: Path) -> None:
    path = tmp_path / "generations.jsonl"
    replies = [reply(prompt) for prompt in reversed(PROMPTS)]
    assert put_in_order(path, replies, PROMPTS) == replies[::-1]
    assert list(read_jsonl(path, Generation)) == replies[::-1]


@given(st.integers(0, 2000))
def test_however_a_file_is_cut_no_reply_is_lost_or_repeated(cut: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generations.jsonl"
        append(path, [reply(prompt) for prompt in PROMPTS])
        whole = path.read_bytes()
        path.write_bytes(whole[: min(cut, len(whole))])
        kept = resume(path, PROMPTS)
        done = {generation.case_id for generation in kept}
        append(path, [reply(prompt) for prompt in PROMPTS if prompt.case_id not in done])
        assert sorted(found.case_id for found in read_jsonl(path, Generation)) == ["c0", "c1", "c2", "c3"]
        assert len(kept) >= whole[: min(cut, len(whole))].count(b"\n")


def test_the_digest_of_a_prompt_tells_its_tokens_apart() -> None:
    assert Prompt("a", [1, 23]).sha256 != Prompt("a", [12, 3]).sha256
    assert Prompt("a", [1, 2]).sha256 == Prompt("b", [1, 2]).sha256
