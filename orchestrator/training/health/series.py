"""A trial as health checks see it: its steps, its evaluations, and what it trains with."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from orchestrator.core.records import EvalPoint, Finding, FindingName
from orchestrator.core.steps import BaseReading


class Point(NamedTuple):
    """One optimizer step; what is unknown is None."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float | None = None
    token_accuracy: float | None = None
    epoch: float = 0.0


@dataclass(frozen=True)
class Setting:
    """What a trial trains with; what is unknown is None."""

    max_steps: int
    warmup_steps: int = 0
    val_rows: int | None = None
    shared_rows: int = 0
    base: BaseReading | None = None


@dataclass(frozen=True)
class Series:
    """A trial so far. Of one that was `resumed` in another process, the beginning is unknown."""

    trial: str
    setting: Setting
    steps: list[Point] = field(default_factory=list)
    curve: list[EvalPoint] = field(default_factory=list)
    resumed: bool = False

    @property
    def now(self) -> int:
        """The latest step."""
        return max([0, *(point.step for point in self.steps[-1:]), *(point.step for point in self.curve[-1:])])

    @property
    def start_loss(self) -> float | None:
        """The loss before anything was learned: that of the first steps, whichever is largest."""
        if self.resumed:
            return None
        first = [point.loss for point in self.steps[:3] if math.isfinite(point.loss)]
        return max(first, default=None)

    @property
    def peak(self) -> float:
        """The largest loss of any step or evaluation."""
        losses = [*(point.loss for point in self.steps), *self.evals]
        return max((loss for loss in losses if math.isfinite(loss)), default=0.0)

    @property
    def windows(self) -> list[list[Point]]:
        """The steps before each evaluation, since the one before; without steps, those of the curve."""
        end, found = 0, []
        for point in self.curve:
            start = end
            while end < len(self.steps) and self.steps[end].step <= point.step:
                end += 1
            found.append(self.steps[start:end])
        return found

    @property
    def evals(self) -> list[float]:
        """Eval losses."""
        return [point.eval_loss for point in self.curve]

    @property
    def trains(self) -> list[float | None]:
        """The mean train loss before each evaluation."""
        return [point.train_loss for point in self.curve]

    def found(self, name: FindingName, evidence: str, advice: str, threshold: str, source: str, **more: Any) -> Finding:
        """A finding of this trial, now."""
        return Finding(
            name=name,
            trial=self.trial,
            step=self.now,
            evidence=evidence,
            advice=advice,
            threshold=threshold,
            source=source,
            **more,
        )
