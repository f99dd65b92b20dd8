"""The gates of a configuration: bounds on the winner's figures and on their ratio to the base or an earlier run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from evals.generate.other_run import reported_run
from evals.records import AdapterSummary, EngineRecord, GateResult, Metric
from evals.stats.ceiling import ceiling_text, is_blind
from evals.stats.latency import TimedReply, quantile_ratio, timings_of
from evals.stats.metrics import METRICS, value_text
from orchestrator.config.schema import Gate
from orchestrator.core.files import parse_line, read_jsonl
from orchestrator.core.records import BASE_ADAPTER_ID, MetricName
from orchestrator.run.paths import RunDir


@dataclass(frozen=True)
class Measured:
    """An adapter with its figures, its timed replies, and what they were timed on (None: not recorded)."""

    label: str
    summary: AdapterSummary
    timed: tuple[TimedReply, ...] = ()
    device: str | None = None

    def values(self, name: MetricName) -> dict[str, float]:
        """The metric's value of each timed reply, by case; none for a metric of other things."""
        of_timing = METRICS[name].of_timing
        if of_timing is None:
            return {}
        found = {t.reply.case_id: of_timing(t) for t in timings_of(self.summary.id, self.timed)}
        return {case_id: value for case_id, value in found.items() if value is not None}


def measured(run: RunDir, summary: AdapterSummary, *, label: str) -> Measured:
    """An adapter of a run with what the run knows of its times."""
    timed = tuple(read_jsonl(run.latency, TimedReply)) if run.latency.is_file() else ()
    path = run.engine(summary.id)
    engine = parse_line(path.read_text(encoding="utf-8"), EngineRecord, where=str(path)) if path.is_file() else None
    return Measured(label, summary, timed, engine.device if engine else None)


def earlier_run(run: RunDir, name: str, metric: MetricName) -> Measured:
    """The best adapter of the run that a gate on `metric` names.

    Raises:
        InputError: If there is no such run.
        RunConflictError: If it has no report of an adapter.
    """
    other, report, best = reported_run(name, run, where=f"gates.{metric}.max_ratio_to")
    summary = next(adapter for adapter in report.adapters if adapter.id == best)
    return measured(other, summary, label=f"{other.root.name}/{best}")


def references(run: RunDir, gates: Mapping[MetricName, Gate], base: AdapterSummary | None) -> dict[str, Measured]:
    """What gates set figures against, by its name in them; the base is left out where it was not scored."""
    found = {BASE_ADAPTER_ID: measured(run, base, label="the base")} if base else {}
    for metric, gate in gates.items():
        name = gate.max_ratio_to
        if name is not None and name != BASE_ADAPTER_ID and name not in found:
            found[name] = earlier_run(run, name, metric)
    return found


def check_gates(
    gates: Mapping[MetricName, Gate], chosen: Measured | None, against: Mapping[str, Measured]
) -> Iterator[GateResult]:
    """Hold the winner, or without one the leader, against every gate. Without either, or a score, none is met."""
    for name, gate in gates.items():
        metric = chosen.summary.metrics.get(name) if chosen else None
        if chosen is None or metric is None or metric.value is None:
            why = metric.why if metric else "no adapter can be held against it"
            yield GateResult(metric=name, bound=_bound_text(name, gate, None), value=None, passed=False, why=why)
            continue
        other = against.get(gate.max_ratio_to) if gate.max_ratio_to else None
        ceiling = chosen.summary.ceilings.get(name)
        blind = ceiling_text(name, ceiling) if ceiling and is_blind(ceiling) else ""
        problem = _no_ratio(name, gate, chosen, other)
        limit = _limit(name, gate, other)
        is_within = (gate.min is None or metric.value >= gate.min) and (gate.max is None or metric.value <= gate.max)
        yield GateResult(
            metric=name,
            bound=_bound_text(name, gate, other),
            value=metric.value,
            passed=is_within and not problem and (limit is None or metric.value <= limit),
            why=problem or blind,
            ratio=_ratio(name, chosen, other) if other and not problem else None,
        )


def _limit(name: MetricName, gate: Gate, other: Measured | None) -> float | None:
    figure = other.summary.metrics.get(name) if other else None
    known = figure.value if figure else None
    return None if known is None or gate.value is None else gate.value * known


def _no_ratio(name: MetricName, gate: Gate, chosen: Measured, other: Measured | None) -> str:
    """Why a gate's ratio cannot be told; empty where it can, or where it asks for none."""
    if gate.max_ratio_to is None:
        return ""
    if other is None:
        return "the base was not scored"
    figure = other.summary.metrics.get(name)
    if figure is None or figure.value is None:
        return f"{other.label} has no such figure" + (f": {figure.why}" if figure and figure.why else "")
    if METRICS[name].of_timing is not None and other.device != chosen.device:
        return f"{other.label} was timed on {other.device or 'an unknown device'}, and this on {chosen.device}"
    return ""


def _ratio(name: MetricName, chosen: Measured, other: Measured) -> Metric | None:
    ours, theirs = chosen.summary.metrics[name], other.summary.metrics[name]
    if not ours.value or not theirs.value:
        return None
    interval = quantile_ratio(
        chosen.values(name), other.values(name), METRICS[name].quantile, is_paired=other.label == "the base"
    )
    low, high = interval or (None, None)
    return Metric(value=ours.value / theirs.value, n=ours.n, low=low, high=high)


def _bound_text(name: MetricName, gate: Gate, other: Measured | None) -> str:
    bounds = (("at least", gate.min), ("at most", gate.max))
    said = [f"{word} {bound:g}" for word, bound in bounds if bound is not None]
    if gate.max_ratio_to is not None:
        figure = other.summary.metrics.get(name) if other else None
        known = f" ({value_text(name, figure.value)})" if figure and figure.value is not None else ""
        said.append(f"at most {gate.value:g} x that of {other.label if other else gate.max_ratio_to}{known}")
    return " and ".join(said)


def ratio_text(gate: GateResult) -> str:
    """The ratio with its interval and number of replies: `0.58 x (0.51 to 0.66, n=16)`; empty where there is none."""
    if gate.ratio is None or gate.ratio.value is None:
        return ""
    bounds = "" if gate.ratio.low is None else f"{gate.ratio.low:.2f} to {gate.ratio.high:.2f}, "
    return f"{gate.ratio.value:.2f} x ({bounds}n={gate.ratio.n})"
