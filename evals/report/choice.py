"""What a search's objective and constraints mean for the verdict."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evals.records import AdapterSummary, GateResult, Scores
from evals.report.gates import Measured, check_gates
from evals.report.inputs import ReportInputs
from evals.stats.decision import PRIMARY
from evals.stats.metrics import METRICS
from evals.stats.objective import Aim, Gap, compare_sides
from evals.stats.selected import Selection
from orchestrator.config.schema import Gate, RunConfig
from orchestrator.core.records import JsonObject, MetricName


@dataclass(frozen=True)
class Choice:
    """An objective with constraints, and how the search chose by them; nothing follows where eval loss chose."""

    aim: Aim
    selection: Selection | None

    def candidates(self, adapters: Sequence[AdapterSummary], scores: Mapping[str, Scores]) -> list[AdapterSummary]:
        """Who may win: not who was kept to be held against the others, and those that meet the constraints, if any do.

        The constraints are those of the search, here on the held-out cases.
        """
        if self.selection is None:
            return list(adapters)
        held = self.selection.held_against
        found = [one for one in adapters if one.id != held] or list(adapters)
        return [one for one in found if not self.aim.missed(scores[one.id])] or found

    def gates(self, chosen: Measured | None) -> Iterator[GateResult]:
        """The constraints, held against the winner on the held-out cases as gates are."""
        if self.selection is not None:
            bounds = {name: Gate(min=bound.min, max=bound.max) for name, bound in self.aim.constraints.items()}
            yield from check_gates(bounds, chosen, {})

    @property
    def primary(self) -> MetricName:
        """The outcome that decides on held-out cases: the objective if it is one share and more is better."""
        first, *more = self.aim.weights or (PRIMARY,)
        is_plain = not more and METRICS[first].outcome is not None and METRICS[first].higher_is_better
        return first if self.selection is not None and is_plain else PRIMARY

    @property
    def warning(self) -> str | None:
        """That no adapter of the search met the constraints."""
        return self.selection.unmet if self.selection else None

    def record(self, scores: Mapping[str, Scores]) -> JsonObject | None:
        """The selection with what came of it on the held-out cases."""
        if self.selection is None:
            return None
        gap = self.on_held_out(scores)
        stored = self.selection.model_dump(mode="json")
        return {**stored, "decided_by": self.primary, "held_out": gap.model_dump(mode="json") if gap else None}

    def on_held_out(self, scores: Mapping[str, Scores]) -> Gap | None:
        """The first kept against what eval loss would have taken first; None where that is the same, or not scored."""
        if self.selection is None:
            return None
        taken, by_loss = self.selection.kept[0], self.selection.by_loss[0]
        if taken == by_loss or not {taken, by_loss} <= scores.keys():
            return None
        return compare_sides(self.aim.weights or {self.primary: 1.0}, scores[taken], scores[by_loss])


def choice_of(config: RunConfig, inputs: ReportInputs) -> Choice:
    """That of a run."""
    return Choice(Aim.of(config.search), inputs.selection)
