"""What a report is about: the adapter it recommends beside the base, and everything that its sections draw on."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from evals.records import AdapterSummary, CellName, Comparison, EngineRecord, Flip, Metric, Report
from evals.report.cards import TONES, Card, cards_of, labels_by_word
from evals.report.examples import (
    MAX_EXAMPLES,
    MAX_OTHER_EXAMPLES,
    AdapterFailures,
    CellExamples,
    Flips,
    SecondOpinion,
    ServingDifferences,
    adapter_failures,
    cell_examples,
    flips_of,
    second_opinion,
    serving_differences,
)
from evals.report.inputs import ReportInputs, Scored
from evals.report.runs import OtherRun
from evals.report.text import metric_text
from evals.stats.metrics import CELLS, METRICS, share
from orchestrator.core.records import MetricName, TrialRecord
from orchestrator.core.text import counted

NO_PROOF, NO_EFFECT = "no proof", "no effect seen"
"""What is said of an adapter that is not proved to change anything, and of one that is seen to change nothing."""


class Demand(NamedTuple):
    """One of the four demands: its figure for each adapter of the report, in order, and replies of the chosen one."""

    name: CellName
    figures: tuple[Metric | None, ...]
    examples: CellExamples


@dataclass(frozen=True)
class View:
    """Everything that is shown.

    `chosen` is the winner, without one the leader, without that None; most of the page is about it. The `cards` and
    `against_base` are of `subject`: the chosen adapter, without one the best. `unscored` is the number of cases without
    a reply by adapter. `engines` are by adapter.
    """

    report: Report
    inputs: ReportInputs
    chosen: AdapterSummary | None
    subject: AdapterSummary | None
    base: AdapterSummary | None
    cards: tuple[Card, ...]
    against_base: tuple[Comparison, ...]
    demands: tuple[Demand, ...]
    flips: tuple[Flips, ...]
    failures: tuple[AdapterFailures, ...]
    serving: tuple[ServingDifferences, ...]
    opinions: tuple[SecondOpinion, ...]
    engines: dict[str, EngineRecord]
    unscored: dict[str, int]
    other: OtherRun | None
    other_flips: tuple[Flips, ...]

    @property
    def chosen_id(self) -> str | None:
        """The id of the adapter that most of the report is about."""
        return self.chosen.id if self.chosen else None

    @property
    def chosen_word(self) -> str:
        """What that adapter is called."""
        return "winner" if self.report.verdict.winner else "leader"

    @property
    def by_word(self) -> dict[str, list[str]]:
        """In which figures the subject is better and worse than the base, and in which neither is sure."""
        return labels_by_word(self.subject, self.against_base) if self.subject else {}

    @property
    def has_failings(self) -> bool:
        """Whether the subject is worse than the base in something, or always fails."""
        return any(TONES.get(word) == "bad" for word in self.by_word) or any(card.tone == "bad" for card in self.cards)

    @property
    def shown_id(self) -> str:
        """Whose replies are shown: the chosen adapter's, or the first one's."""
        return self.chosen_id or self.report.adapters[0].id

    @property
    def num_met(self) -> int:
        """How many gates are met."""
        return sum(gate.passed for gate in self.report.gates)

    @property
    def training_s(self) -> float | None:
        """Seconds of devices that the trials used, together; None where none is recorded."""
        known = [seconds for seconds in map(device_s, self.inputs.trials) if seconds is not None]
        return sum(known) if known else None

    @property
    def engine_s(self) -> float | None:
        """Seconds that engines spent on loading and on replies, together; None where none is recorded."""
        return sum(engine.load_s + engine.generate_s for engine in self.engines.values()) if self.engines else None

    @property
    def commands(self) -> list[str]:
        """Shell lines that repeat the run under another name, and then its stages one by one in place."""
        run, config = self.report.run, shlex.quote(str(self.inputs.run.config))
        checkout = [f"git checkout {shlex.quote(run['commit'])}"] if run["commit"] else []
        stages = [f"python -m jobs.{stage} --config {config}" for stage in self.inputs.ledger.stages]
        name = shlex.quote(f"name={run['name']}-again")
        return [*checkout, f"orchestrator run {config} --set {name}", *stages]

    @property
    def metrics(self) -> list[MetricName]:
        """Metrics that at least one adapter has."""
        return [name for name in METRICS if any(name in adapter.metrics for adapter in self.report.adapters)]

    @property
    def suites(self) -> list[str]:
        """Suites of which at least one adapter has cases."""
        return list(dict.fromkeys(suite for scored in self.inputs.scored for suite in scored.scores.suites))

    def suite_metric(self, adapter_id: str, suite: str, name: MetricName) -> Metric | None:
        """One adapter's figure on one suite."""
        found = next(scored for scored in self.inputs.scored if scored.scores.adapter_id == adapter_id)
        return found.scores.suites.get(suite, {}).get(name)


def make_view(
    report: Report, inputs: ReportInputs, *, other: OtherRun | None = None, other_flips: Sequence[Flips] = ()
) -> View:
    """Choose and word what is shown.

    Raises:
        RunConflictError: If a verdict belongs to no known case.
    """
    chosen_id = report.verdict.winner or report.verdict.leader
    chosen = next((adapter for adapter in report.adapters if adapter.id == chosen_id), None)
    base = next((adapter for adapter in report.adapters if adapter.is_base), None)
    subject = chosen or next((adapter for adapter in report.adapters if not adapter.is_base), None)
    ours = [oriented(e, subject.id) for e in report.comparisons if subject and subject.id in (e.left, e.right)]
    against_base = tuple(entry for entry in ours if base and entry.right == base.id)
    scored = {entry.scores.adapter_id: entry for entry in inputs.scored}
    judged = (second_opinion(scored[adapter.id], inputs.cases) for adapter in report.adapters)
    served = (serving_differences(scored[adapter.id], inputs.cases) for adapter in report.adapters)
    return View(
        report=report,
        inputs=inputs,
        chosen=chosen,
        subject=subject,
        base=base,
        cards=tuple(cards_of(subject, base, against_base) if subject else ()),
        against_base=against_base,
        demands=tuple(_demands(report.adapters, scored[chosen.id if chosen else report.adapters[0].id], inputs)),
        flips=tuple(_flips(ours, scored, inputs) if chosen else ()),
        failures=tuple(
            adapter_failures(
                scored[adapter.id], inputs.cases, limit=MAX_EXAMPLES if adapter is chosen else MAX_OTHER_EXAMPLES
            )
            for adapter in report.adapters
        ),
        serving=tuple(entry for entry in served if entry is not None),
        opinions=tuple(entry for entry in judged if entry is not None),
        engines={name: entry.engine for name, entry in scored.items() if entry.engine is not None},
        unscored={name: entry.scores.num_unscored for name, entry in scored.items()},
        other=other,
        other_flips=tuple(other_flips),
    )


def oriented(comparison: Comparison, left: str) -> Comparison:
    """The same comparison with `left`, one of its two sides, on the left."""
    if comparison.left == left:
        return comparison
    difference, low, high = (
        None if value is None else -value for value in (comparison.difference, comparison.high, comparison.low)
    )
    changes: dict[str, Any] = {
        "left": comparison.right,
        "right": comparison.left,
        "gained": comparison.lost,
        "lost": comparison.gained,
        "difference": difference,
        "low": low,
        "high": high,
        "flips": tuple(Flip(case_id=f.case_id, left_correct=not f.left_correct) for f in comparison.flips),
    }
    return comparison.model_copy(update=changes)


def _demands(adapters: Sequence[AdapterSummary], shown: Scored, inputs: ReportInputs) -> Iterable[Demand]:
    for name in CELLS:
        figures = tuple(adapter.cells.get(name) for adapter in adapters)
        if any(figure and figure.n for figure in figures):
            yield Demand(name, figures, cell_examples(name, shown, inputs.cases))


def _flips(ours: Sequence[Comparison], scored: Mapping[str, Scored], inputs: ReportInputs) -> Iterable[Flips]:
    """Against the base, and against the adapter that comes next: what `ours` compares the chosen one with."""
    by_right: dict[str, list[Comparison]] = {}
    for comparison in ours:
        if comparison.metric == "serving_difference_rate":
            continue  # says how a reply is read, not what it is
        by_right.setdefault(comparison.right, []).append(comparison)
    rivals = sorted(by_right, key=lambda right: scored[right].record is not None)  # the base first
    for right in rivals[:2]:
        yield flips_of(by_right[right], scored[by_right[right][0].left], scored[right], inputs.cases)


def device_s(trial: TrialRecord) -> float | None:
    """Seconds of devices that a trial used; without that, how long it ran."""
    return trial.duration_s if trial.device_s is None else trial.device_s


def serving_text(entry: ServingDifferences) -> str:
    """The share of replies that vLLM's parser reads differently, with its interval."""
    return metric_text("serving_difference_rate", share(entry.num_different, entry.num_asked))


def proof_text(engine: EngineRecord, *, is_base: bool) -> str:
    """Whether the adapter is proved to have changed what the engine computes."""
    if is_base:
        return "untouched"
    canary = engine.canary
    if canary is None:
        return NO_PROOF
    if canary.num_texts_moved == 0 and canary.largest_shift <= canary.noise:
        return NO_EFFECT
    return (
        f"{canary.num_texts_moved} of {counted(canary.num_prompts, 'reply', 'replies')} moved; "
        f"log probabilities by up to {canary.largest_shift:.3g}, by {canary.noise:.2g} between two passes of the base"
    )


def opinion_text(opinion: SecondOpinion) -> str:
    """How often classifier and judge agree on whether a reply refuses, and Cohen's kappa of it."""
    kappa = opinion.agreement.kappa_refused
    beyond = "nothing beyond chance to agree on" if kappa is None else f"Cohen's kappa {kappa:.2f}"
    return f"{metric_text('refusal_accuracy', opinion.agreement.same_refused)}, {beyond}"
