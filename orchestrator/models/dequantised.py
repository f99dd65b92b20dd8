"""A base's tensors as a training on the quantised base computes with them, for engines that hold no few bits."""

from pathlib import Path

import torch

from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import ModelNotFoundError
from orchestrator.models.base import BaseWeights, base_folder, compute_dtype, empty_base, stored_quantization
from orchestrator.models.quantised import Quantised, dequantised
from orchestrator.models.targets import LINEAR


class DequantisedWeights(BaseWeights):
    """The tensors of a folder, those of linear layers quantised and dequantised again whenever one is asked for.

    Attributes:
        quantised: The names of these.
    """

    def __init__(self, folder: Path, kind: Quantised, dtype: torch.dtype, *, trust_remote_code: bool) -> None:
        super().__init__(folder)
        base = empty_base(folder, trust_remote_code=trust_remote_code)
        head = base.get_output_embeddings()
        linear = [name for name, module in base.named_modules() if isinstance(module, LINEAR) and module is not head]
        self.quantised = frozenset(f"{name}.weight" for name in linear)
        self._kind, self._dtype = kind, dtype
        if missing := next((name for name in sorted(self.quantised) if self.shape(name) is None), None):
            what = f"the base's files hold no {missing}, so that the base cannot be scored as it was trained on"
            raise ModelNotFoundError(what, where=str(folder), fix="Set eval.base_precision to full")

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor on the CPU: as stored, or one of a linear layer as products use it, in the type of these."""
        stored = super().tensor(name)
        return dequantised(stored.to(self._dtype), self._kind) if name in self.quantised else stored


def weights_of(model: ModelConfig) -> BaseWeights:
    """The tensors that a base computes with: as stored, or dequantised where `model` quantises it.

    Raises:
        ModelNotFoundError: If the base is not there, or its files do not hold its linear layers.
    """
    folder = base_folder(model)
    dtype: torch.dtype = getattr(torch, compute_dtype(model.dtype))
    if model.quantization == "none" or stored_quantization(folder):
        return BaseWeights(folder, packed_as=dtype)
    return DequantisedWeights(folder, model.quantization, dtype, trust_remote_code=model.trust_remote_code)
