"""Dropout as a function of slot, step, layer, token and channel, so that it is the same in whatever company.

A stateful generator would give a slot other masks when its neighbours or the padding change. Here every element hashes
its own coordinates (the mixer is "lowbias32" from the public study of integer hashes by Wellons, 2018).
"""

from collections.abc import Sequence

import numpy as np
import torch

_TOP = 1 << 31


class DropoutKeys:
    """The keys of one pass. `rates` and `row_keys` have one entry for each row of the batch."""

    def __init__(self, rates: Sequence[float], row_keys: Sequence[int], length: int, device: torch.device) -> None:
        rows = torch.from_numpy(np.array(row_keys, dtype=np.uint32).view(np.int32)).to(device)
        places = torch.arange(length, dtype=torch.int32, device=device)
        self._tokens = _mix(rows.unsqueeze(1) + _mix(places))
        self._limits = torch.tensor([int(rate * _TOP) for rate in rates], dtype=torch.int64, device=device)
        self._scales = torch.tensor([1.0 / (1.0 - rate) for rate in rates], dtype=torch.float64, device=device)

    def multiplier(self, layer: int, channels: int, rows: slice, dtype: torch.dtype) -> torch.Tensor:
        """Zero where dropped and 1 / (1 - rate) elsewhere, rows x length x channels."""
        places = torch.arange(channels, dtype=torch.int32, device=self._tokens.device)
        columns = _mix(places + (layer + 1) * 0x10001)
        drawn = _mix(self._tokens[rows].unsqueeze(2) ^ columns) & (_TOP - 1)
        limits = self._limits[rows].clamp(max=_TOP - 1).to(torch.int32)
        kept = drawn >= limits.view(-1, 1, 1)
        return kept * self._scales[rows].to(dtype).view(-1, 1, 1)


def row_key(seed: int, step: int, rank: int) -> int:
    """The key of a row: the slot's seed, the step, and the row's place in the slot's batch."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


def _mix(value: torch.Tensor) -> torch.Tensor:
    """A 32-bit integer hash; int32 arithmetic wraps around."""
    value = (value ^ (value >> 16 & 0xFFFF)) * 0x7FEB352D
    value = (value ^ (value >> 15 & 0x1FFFF)) * (0x846CA68B - (1 << 32))
    return value ^ (value >> 16 & 0xFFFF)
