"""How many tokens one pass of a training holds. Imports nothing, for the multi-LoRA engine's sake."""

from dataclasses import dataclass
from typing import Literal

Runner = Literal["multi_lora", "isolated"]

CPU_PASS_TOKENS = 1536
"""Tokens of a slot in one pass on a CPU, for each thread: a pass that exceeds the caches is slower."""


@dataclass(frozen=True)
class PassShape:
    """One forward and backward pass: `rows` of all slots together, padded to `length`; `learned` tokens carry loss."""

    rows: int
    length: int
    learned: int

    @property
    def tokens(self) -> int:
        """Tokens with padding."""
        return self.rows * self.length

    def of_slots(self, slots: int) -> "PassShape":
        """The same with as many rows for each of so many slots."""
        return PassShape(slots * self.rows, self.length, slots * self.learned)


def largest_pass(
    runner: Runner, *, on_gpu: bool, micro_batch: int, longest: int, threads: int, learned_share: float
) -> PassShape:
    """The pass with most tokens, of one slot, that rows of up to `longest` tokens can make.

    The multi-LoRA engine puts fewer rows into a pass on a CPU than a micro batch has.
    """
    rows, length = micro_batch, longest
    most = CPU_PASS_TOKENS * threads
    if runner == "multi_lora" and not on_gpu and rows * longest > most:
        rows = max(1, most // longest)
        if rows < micro_batch and (rows + 1) * (most // (rows + 1)) > rows * longest:
            rows, length = rows + 1, most // (rows + 1)  # one more of somewhat shorter rows holds more tokens
    return PassShape(rows, length, max(1, round(rows * length * learned_share)))
