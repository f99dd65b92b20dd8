"""What was found out about objects is kept: rows of a source mostly offer the same tools, and hundreds take long."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

KEPT = 32
"""Results kept of each function, the latest ones: several sources take turns, each with a few lists of tools."""


class _Same(Generic[Item]):
    """A tuple that equals another of the very same objects. It keeps them alive, so that no other takes their ids."""

    def __init__(self, items: tuple[Item, ...]) -> None:
        self.items = items
        self._ids = tuple(map(id, items))

    def __hash__(self) -> int:
        return hash(self._ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._ids == other._ids


def remembered(function: Callable[[tuple[Item, ...]], Result]) -> Callable[[tuple[Item, ...]], Result]:
    """A function of immutable objects that is not called again for the very same ones; errors are not kept."""

    @lru_cache(maxsize=KEPT)
    def of(same: _Same[Item]) -> Result:
        return function(same.items)

    return wraps(function)(lambda items: of(_Same(items)))
