from hypothesis import given
from hypothesis import strategies as st

from evals.generate.dealing import MAX_CHUNK_CASES, Chunk, Work, WorkQueue
from evals.generate.engine import Prompt


def make_work(key: str, num_prompts: int) -> Work:
    return Work(key, None, [Prompt(f"{key}{number}", [number]) for number in range(num_prompts)])


def ids(chunk: Chunk | None) -> list[str]:
    assert chunk is not None
    return [prompt.case_id for prompt in chunk.prompts]


def test_one_engine_gets_all_of_a_work_before_the_next() -> None:
    queue = WorkQueue([make_work("a", 3), make_work("b", 2)], num_engines=1)
    first = queue.deal(None)
    assert ids(first) == ["a0", "a1", "a2"]
    assert ids(queue.deal("a")) == ["b0", "b1"]
    assert queue.deal("b") is None


def test_a_chunk_is_no_larger_than_an_engine_works_on_at_a_time() -> None:
    queue = WorkQueue([make_work("a", MAX_CHUNK_CASES + 1)], num_engines=1)
    assert len(ids(queue.deal(None))) == MAX_CHUNK_CASES
    assert len(ids(queue.deal("a"))) == 1


def test_engines_stay_with_their_adapter_and_spread_over_adapters() -> None:
    queue = WorkQueue([make_work("a", 4), make_work("b", 4)], num_engines=2)
    one, other = queue.deal(None), queue.deal(None)
    assert (ids(one), ids(other)) == (["a0", "a1"], ["b0", "b1"])
    assert ids(queue.deal("b")) == ["b2", "b3"]
    assert ids(queue.deal("b")) == ["a2", "a3"]  # nothing of b is left, so the second engine helps with a
    assert queue.deal("a") is None


def test_what_a_dead_engine_left_is_asked_once_more_one_by_one_and_then_given_up() -> None:
    queue = WorkQueue([make_work("a", 4)], num_engines=1)
    chunk = queue.deal(None)
    assert chunk is not None
    assert queue.take_back(chunk, chunk.prompts[1:]) == []
    retries = []
    while (retry := queue.deal("a")) is not None:
        assert retry.is_retry
        assert len(retry.prompts) == 1
        retries.append(retry)
    assert [ids(retry) for retry in retries] == [["a1"], ["a2"], ["a3"]]
    assert queue.take_back(retries[0], retries[0].prompts) == list(retries[0].prompts)
    assert queue.deal("a") is None


def test_a_dropped_work_is_asked_no_more() -> None:
    queue = WorkQueue([make_work("a", 4), make_work("b", 1)], num_engines=2)
    begun = queue.deal(None)
    assert begun is not None
    queue.drop("a")
    assert queue.take_back(begun, begun.prompts) == []
    assert not queue.is_empty()
    assert ids(queue.deal("a")) == ["b0"]
    assert queue.deal(None) is None
    assert queue.is_empty()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 4))
def test_every_prompt_is_dealt_exactly_once_whoever_asks(sizes: list[int], engines: int) -> None:
    works = [make_work(f"w{number}-", size) for number, size in enumerate(sizes)]
    queue = WorkQueue(works, engines)
    dealt: list[str] = []
    current: list[str | None] = [None] * engines
    turn = 0
    while (chunk := queue.deal(current[turn % engines])) is not None:
        dealt += ids(chunk)
        current[turn % engines] = chunk.key
        if turn % 2:
            queue.finish(chunk)
        turn += 1
    assert sorted(dealt) == sorted(prompt.case_id for work in works for prompt in work.prompts)
