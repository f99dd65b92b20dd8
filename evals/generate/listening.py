"""Who hears what engines do."""

from collections.abc import Callable
from typing import Protocol

from evals.generate.engine import Batch, Loaded
from evals.generate.likelihoods import Likelihoods
from evals.records import Generation


class Listener(Protocol):
    """Hears what the engines do."""

    def loaded(self, key: str, loaded: Loaded) -> None:
        """An engine has a work's weights in place."""

    def answered(self, key: str, batch: Batch) -> None:
        """Replies finished."""

    def retried(self, key: str, num_prompts: int, why: str) -> None:
        """An engine died of `why`, a clause, and so many prompts are asked again."""


class Heard:
    """Keeps the replies of each work by its key, and their likelihoods by case; a `Listener`."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.replies: dict[str, list[Generation]] = {}
        self.likely: dict[str, dict[str, Likelihoods]] = {}
        self._advance = advance

    def loaded(self, key: str, loaded: Loaded) -> None:
        """See `Listener`."""

    def answered(self, key: str, batch: Batch) -> None:
        """See `Listener`."""
        self.replies.setdefault(key, []).extend(batch.generations)
        self.likely.setdefault(key, {}).update(batch.likely or {})
        self._advance(len(batch.generations))

    def retried(self, key: str, num_prompts: int, why: str) -> None:
        """See `Listener`."""
