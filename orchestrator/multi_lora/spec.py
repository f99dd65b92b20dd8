"""What trains in a slot. Without torch, so that a trial's client stays light."""

import math
from dataclasses import dataclass
from typing import Literal

Schedule = Literal["cosine", "linear", "constant_with_warmup"]


@dataclass(frozen=True)
class SlotSpec:
    """One adapter to train, and how. `seed` decides initial weights, data order and dropout; nothing else is random."""

    rank: int
    alpha: float
    learning_rate: float
    max_steps: int
    warmup_steps: int = 0
    schedule: Schedule = "cosine"
    dropout: float = 0.0
    use_rslora: bool = False
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0

    @property
    def scale(self) -> float:
        """The factor on B A: alpha / r (arXiv 2106.09685), or alpha / sqrt(r) (rsLoRA, arXiv 2312.03732)."""
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)
