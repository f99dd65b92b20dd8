import pytest

from orchestrator.core.remember import KEPT, remembered


def test_a_function_is_called_once_for_the_same_objects() -> None:
    asked: list[tuple[list[int], ...]] = []

    @remembered
    def total(lists: tuple[list[int], ...]) -> int:
        asked.append(lists)
        return sum(map(sum, lists))

    one, equal = [1, 2], [1, 2]
    assert [total((one,)), total((one,)), total((equal,)), total((one, equal)), total(())] == [3, 3, 3, 6, 0]
    assert len(asked) == 4
    fresh = [total(([number],)) for number in range(10 * KEPT)]
    assert fresh == list(range(10 * KEPT))


def test_an_error_is_raised_again() -> None:
    @remembered
    def fail(items: tuple[int, ...]) -> int:
        raise ValueError(str(items))

    for _ in range(2):
        with pytest.raises(ValueError, match="7"):
            fail((7,))
