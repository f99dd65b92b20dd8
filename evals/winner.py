"""Which adapter to take, by one rule that can be read in full here (and in `docs/artifacts.md`).

1. The basis is `tool_call_accuracy` and `refusal_accuracy`, as far as every adapter and the base are scored on them;
   an adapter's score is their mean. Scored on neither: the basis is `tool_call_validity`. Not on that either: the
   lowest eval loss wins, and the base, which has none, is not compared.
2. Adapters whose score is not above the base's drop out. If none is left, there is no winner.
3. The adapters that cannot be told apart from the best (their 95 % intervals overlap) are ordered by eval loss.

The base is compared by point value; the reason says so when the intervals overlap. Not covered: cost, latency, and
the paired comparison of two adapters case by case, which would need fewer cases than comparing intervals.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from evals.records import AdapterSummary, WinnerVerdict
from evals.report_text import METRICS, loss_text, metric_text, unit_text
from orchestrator.records import MetricName

BASES: tuple[tuple[MetricName, ...], ...] = (("tool_call_accuracy", "refusal_accuracy"), ("tool_call_validity",))
"""What adapters are ranked by: the first group with a metric that everyone is scored on."""


class Estimate(NamedTuple):
    """A score with its 95 % interval."""

    value: float
    low: float
    high: float


def decide_winner(adapters: Sequence[AdapterSummary], base: AdapterSummary | None) -> WinnerVerdict:
    """Name the adapter to take among those of which at least one case was scored, or say why there is none.

    Args:
        adapters: The scored adapters, without the base.
        base: The base, or None where it was not scored.
    """
    if not adapters:
        return WinnerVerdict(winner=None, reason="No adapter was scored, so none can be recommended.")
    basis = _basis([*adapters, base] if base else adapters)
    if not basis:
        return _by_eval_loss(adapters)
    ranked = rank_adapters(adapters, base)
    best = ranked[0]
    better = [a for a in ranked if base is None or _estimate(a, basis).value > _estimate(base, basis).value]
    if not better:
        reason = f"No adapter is better than the base: the best, adapter {best.id}, has {_figures(best, base, basis)}."
        return WinnerVerdict(winner=None, reason=reason)
    peers = [a for a in better if _overlap(_estimate(a, basis), _estimate(best, basis))]
    winner = min(peers, key=_eval_loss)
    sentences = [
        f"Adapter {winner.id} has {_figures(winner, base, basis)}.",
        *_against_base(winner, base, basis),
        *_against_peers(winner, peers, basis),
    ]
    return WinnerVerdict(winner=winner.id, reason=" ".join(sentences))


def rank_adapters(adapters: Sequence[AdapterSummary], base: AdapterSummary | None) -> list[AdapterSummary]:
    """Adapters by score, best first; equal scores by eval loss, then id."""
    basis = _basis([*adapters, base] if base else adapters)
    return sorted(adapters, key=lambda a: (-_estimate(a, basis).value if basis else 0.0, _eval_loss(a), a.id))


def _basis(everyone: Sequence[AdapterSummary]) -> tuple[MetricName, ...]:
    for group in BASES:
        shared = tuple(name for name in group if all(_is_scored(entry, name) for entry in everyone))
        if shared:
            return shared
    return ()


def _is_scored(entry: AdapterSummary, name: MetricName) -> bool:
    metric = entry.metrics.get(name)
    return metric is not None and metric.value is not None


def _estimate(entry: AdapterSummary, basis: tuple[MetricName, ...]) -> Estimate:
    """Mean over the basis. Its interval adds the distances to the bounds in quadrature, as independent errors do.

    With one metric it is that metric's own interval; this is the MOVER construction (Zou and Donner, 2008).
    """
    values, below, above = [], [], []
    for name in basis:
        metric = entry.metrics[name]
        value = metric.value if metric.value is not None else math.nan
        values.append(value)
        below.append(value - (metric.low if metric.low is not None else value))
        above.append((metric.high if metric.high is not None else value) - value)
    mean = sum(values) / len(basis)
    return Estimate(mean, mean - math.hypot(*below) / len(basis), mean + math.hypot(*above) / len(basis))


def _overlap(one: Estimate, other: Estimate) -> bool:
    return one.low <= other.high and other.low <= one.high


def _eval_loss(entry: AdapterSummary) -> float:
    return math.inf if entry.eval_loss is None else entry.eval_loss


def _num_cases(entry: AdapterSummary, basis: tuple[MetricName, ...]) -> int:
    return sum(entry.metrics[name].n for name in basis)


def _by_eval_loss(adapters: Sequence[AdapterSummary]) -> WinnerVerdict:
    winner = min(adapters, key=lambda a: (_eval_loss(a), a.id))
    if winner.eval_loss is None:
        reason = "No tool call and no refusal was scored and no eval loss is known, so no adapter can be recommended."
        return WinnerVerdict(winner=None, reason=reason)
    reason = (
        "No metric of tool calls or refusals is scored for every adapter and the base, so eval loss decides: "
        f"adapter {winner.id} has the lowest, {loss_text(winner.eval_loss)}. "
        "The base has no eval loss, so an improvement over it is not shown."
    )
    return WinnerVerdict(winner=winner.id, reason=reason)


def _figures(entry: AdapterSummary, base: AdapterSummary | None, basis: tuple[MetricName, ...]) -> str:
    parts = [f"{METRICS[name].label.lower()} {metric_text(name, entry.metrics[name])}" for name in basis]
    text = " and ".join(parts)
    if len(basis) > 1:
        text += f", mean {unit_text(_estimate(entry, basis).value)}"
    if base is None:
        return text
    text += ", against " + " and ".join(metric_text(name, base.metrics[name]) for name in basis)
    if len(basis) > 1:
        text += f", mean {unit_text(_estimate(base, basis).value)},"
    return text + " for the base"


def _against_base(winner: AdapterSummary, base: AdapterSummary | None, basis: tuple[MetricName, ...]) -> list[str]:
    if base is None:
        return ["The base was not scored, so an improvement over it is not shown."]
    if not _overlap(_estimate(winner, basis), _estimate(base, basis)):
        return []
    return [f"With {_num_cases(winner, basis)} cases this lead over the base may be chance: the intervals overlap."]


def _against_peers(winner: AdapterSummary, peers: Sequence[AdapterSummary], basis: tuple[MetricName, ...]) -> list[str]:
    others = [peer for peer in peers if peer.id != winner.id]
    if not others:
        return []
    named = ", ".join(f"{peer.id} ({unit_text(_estimate(peer, basis).value)})" for peer in others)
    start = f"It cannot be told apart from {named} with {_num_cases(winner, basis)} cases: the intervals overlap"
    losses = " and ".join(loss_text(peer.eval_loss) for peer in others)
    if _eval_loss(winner) < min(_eval_loss(peer) for peer in others):
        return [f"{start}; the lower eval loss was taken ({loss_text(winner.eval_loss)} against {losses})."]
    return [f"{start}, and no eval loss is lower; the higher score was taken."]
