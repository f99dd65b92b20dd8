"""Adapters and a base that were scored on the same cases, for tests of the decision and of its sentences."""

from collections.abc import Sequence
from typing import Any

from evals.records import AdapterSummary, Comparison, Scores, Verdict, WinnerVerdict
from evals.report.verdict import verdict_record
from evals.stats.decision import Decision, decide_winner
from evals.stats.metrics import compute_metrics
from orchestrator.core.records import BENIGN
from orchestrator.refusals import ReplyKind


def verdict(case_id: str, correct: bool, **fields: Any) -> Verdict:
    settled: dict[str, Any] = {"kind": "tool_call", "tags": (), "valid": correct, "reply_kind": ReplyKind.COMPLIANCE}
    settled["called"] = True
    return Verdict(
        case_id=case_id,
        suite="held_out",
        correct=correct,
        reason=None if correct else "no_call",
        cut_off=False,
        **{**settled, **fields},
    )


class Field:
    """Adapters and base that were scored on the same cases."""

    def __init__(self) -> None:
        self.adapters: list[AdapterSummary] = []
        self.base: AdapterSummary | None = None
        self.scores: dict[str, Scores] = {}

    def add(self, name: str, verdicts: Sequence[Verdict], eval_loss: float | None = None, **fields: Any) -> None:
        metrics = compute_metrics(verdicts, [])
        self.scores[name] = Scores(
            adapter_id=name,
            num_cases=len(verdicts),
            num_unscored=0,
            metrics=metrics,
            cells={},
            suites={},
            verdicts=tuple(verdicts),
        )
        summary = AdapterSummary(
            id=name, is_base=name == "base", hyperparameters={}, eval_loss=eval_loss, metrics=metrics, **fields
        )
        if summary.is_base:
            self.base = summary
        else:
            self.adapters.append(summary)

    def decide(self, **fields: Any) -> tuple[WinnerVerdict, tuple[Comparison, ...]]:
        decision = self.facts(**fields)
        return verdict_record(decision), decision.comparisons

    def facts(self, **fields: Any) -> Decision:
        return decide_winner(self.adapters, self.base, self.scores, **fields)


def outcomes(right: set[int] | range, n: int = 100) -> list[Verdict]:
    return [verdict(f"c{number}", number in right) for number in range(n)]


def field_of(base: range | None = range(20), **right: tuple[set[int] | range, float | None]) -> Field:
    """Adapters by the numbers of the cases (of 100) they get right, with their eval loss."""
    field = Field()
    for name, (cases, eval_loss) in right.items():
        field.add(name, outcomes(cases), eval_loss)
    if base is not None:
        field.add("base", outcomes(base))
    return field


def guarded(refused: int, *, right: range) -> list[Verdict]:
    """100 tool calls, and 40 benign questions of which the first `refused` are refused."""
    kinds = [ReplyKind.REFUSAL if number < refused else ReplyKind.COMPLIANCE for number in range(40)]
    benign = [
        verdict(
            f"b{i}", k is ReplyKind.COMPLIANCE, kind="answer", tags=(BENIGN,), valid=None, reply_kind=k, called=False
        )
        for i, k in enumerate(kinds)
    ]
    return [*outcomes(right), *benign]
