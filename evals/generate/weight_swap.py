"""Adapters on an engine that takes no LoRA requests: their merged matrices are put into it while it runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import AdapterError, EvaluationError


class WeightSwap:
    """Puts the merged matrices of adapters into a running engine, and the base's back bit by bit.

    The base's are those that are stored, or dequantised ones where adapters are scored on a quantised base.

    vLLM packs weights after loading, so they are replaced by its own `reload_weights`, which takes tensors under the
    names of the checkpoint; what is not named stays.
    """

    def __init__(self, llm: Any, base: ModelConfig) -> None:
        from orchestrator.models.dequantised import DequantisedWeights, weights_of

        self._llm, self._base = llm, weights_of(base)
        self._in_force: str | None = None
        self._adapted: frozenset[str] = frozenset()
        if isinstance(self._base, DequantisedWeights):
            names = self._base.with_siblings(self._base.quantised)
            self._reload((name, self._base.tensor(name)) for name in names)

    def use(self, folder: str | None, sha256: str | None) -> bool:
        """Bring the engine to an adapter's weights, or (None) back to the base's. False where they are in place.

        Raises:
            AdapterError: If the adapter cannot be loaded or is not `sha256`; the engine keeps the weights that it had.
        """
        from orchestrator.models.adapters import load_adapter, merged_tensor

        if sha256 == self._in_force:
            return False
        weights = load_adapter(Path(folder), self._base) if folder is not None else None
        if folder is not None and weights is not None and weights.sha256 != sha256:
            raise changed_adapter(folder)
        adapted = frozenset(weights.pairs) if weights else frozenset[str]()
        self._in_force = "half replaced"
        # vLLM fuses matrices of one module, such as queries, keys and values, and replaces only all of them at once.
        names = self._base.with_siblings(self._adapted | adapted)
        self._adapted |= adapted
        tensors = (
            (name, merged_tensor(weights, self._base, name) if weights and name in adapted else self._base.tensor(name))
            for name in names
        )
        self._reload(tensors)
        self._in_force, self._adapted = sha256, adapted
        return True

    def _reload(self, tensors: Iterator[tuple[str, Any]]) -> None:
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": tensors})
        reset_prefix_cache(self._llm)


def reset_prefix_cache(llm: Any) -> None:
    """Forget cached prefixes: they hold states that other weights computed."""
    if not llm.reset_prefix_cache():
        raise EvaluationError("the engine kept cached prefixes of other weights")


def changed_adapter(folder: str) -> AdapterError:
    """The error of an adapter that is not the one that was asked for."""
    return AdapterError(
        "the adapter's files changed since the evaluation began",
        where=folder,
        fix="Restore the folder or train it again",
    )
