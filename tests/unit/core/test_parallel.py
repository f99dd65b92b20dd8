import os
from collections.abc import Iterator

import pytest

from orchestrator.core.parallel import INLINE_CHUNKS, map_chunks


def negate(numbers: list[int]) -> list[int]:
    return [-number for number in numbers]


def pid_of_each(numbers: list[int]) -> list[int]:
    return [os.getpid() for _ in numbers]


def fail_at_ninety(numbers: list[int]) -> list[int]:
    if 90 in numbers:
        raise ValueError("ninety")
    return numbers


@pytest.mark.parametrize("count", [0, 1, 10, 40, 41, 95])
def test_results_come_in_order_whatever_the_number_of_chunks(count: int) -> None:
    chunks = list(map_chunks(negate, range(count), chunk_size=10))
    assert [number for chunk in chunks for number in chunk] == [-number for number in range(count)]
    assert all(len(chunk) == 10 for chunk in chunks[:-1])


def test_few_chunks_stay_in_this_process_and_many_do_not() -> None:
    few = {pid for chunk in map_chunks(pid_of_each, range(10 * INLINE_CHUNKS), chunk_size=10) for pid in chunk}
    assert few == {os.getpid()}
    many = {pid for chunk in map_chunks(pid_of_each, range(10 * INLINE_CHUNKS + 1), chunk_size=10) for pid in chunk}
    assert os.getpid() not in many or os.cpu_count() == 1


def test_what_the_work_raises_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="ninety"):
        list(map_chunks(fail_at_ninety, range(100), chunk_size=10))


def test_a_fast_reader_is_held_back() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = map_chunks(negate, endless(), chunk_size=10)
    assert next(results)[0] == -1
    assert taken < 10 * 50
    results.close()  # type: ignore[attr-defined]  # a generator, typed as what callers need
