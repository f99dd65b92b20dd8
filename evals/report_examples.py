"""The replies that failed, chosen and put into words for a reader."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from evals.records import Case, FailureReason, Generation, Verdict
from evals.report_inputs import Scored
from evals.report_text import REASONS, Shown, shorten
from orchestrator.errors import RunConflictError

MAX_EXAMPLES = 20
"""Failing examples shown of one adapter."""


@dataclass(frozen=True)
class FailingExample:
    """One failed case. All texts are untrusted: they come from the data and the model."""

    case_id: str
    kind: str
    reason: str
    detail: Shown
    prompt: Shown
    expected: Shown
    reply: Shown


@dataclass(frozen=True)
class AdapterFailures:
    """What went wrong with one adapter's replies: `counts` by reason, most frequent first."""

    adapter_id: str
    num_cases: int
    num_failed: int
    counts: dict[FailureReason, int]
    examples: tuple[FailingExample, ...]


def adapter_failures(scored: Scored, cases: dict[str, Case]) -> AdapterFailures:
    """Count one adapter's failures and pick examples that show every reason.

    Raises:
        RunConflictError: If a verdict belongs to no known case.
    """
    failed = [verdict for verdict in scored.scores.verdicts if verdict.problem is not None]
    counts = Counter(verdict.problem.reason for verdict in failed if verdict.problem is not None)
    return AdapterFailures(
        adapter_id=scored.scores.adapter_id,
        num_cases=scored.scores.num_cases,
        num_failed=len(failed),
        counts=dict(counts.most_common()),
        examples=tuple(_example(verdict, scored, cases) for verdict in pick_varied(failed, MAX_EXAMPLES)),
    )


def pick_varied(failed: Sequence[Verdict], limit: int) -> list[Verdict]:
    """At most `limit` verdicts, taken in turn from each reason, so that a frequent one does not hide the others."""
    by_reason: defaultdict[str, list[Verdict]] = defaultdict(list)
    for verdict in failed:
        if verdict.problem is not None:
            by_reason[verdict.problem.reason].append(verdict)
    turns = [(turn, verdict) for queue in by_reason.values() for turn, verdict in enumerate(queue)]
    return [verdict for _, verdict in sorted(turns, key=lambda pair: pair[0])[:limit]]


def _example(verdict: Verdict, scored: Scored, cases: dict[str, Case]) -> FailingExample:
    case, reply = cases.get(verdict.case_id), scored.generations.get(verdict.case_id)
    if case is None or verdict.problem is None:
        raise RunConflictError(
            f"the verdict on case {verdict.case_id!r} has no case in evals/cases.jsonl",
            where=f"evals/{scored.scores.adapter_id}/scores.json",
            fix="Run the evaluate stage again",
        )
    prompt = next((message.content for message in reversed(case.messages) if message.role == "user"), "")
    return FailingExample(
        case_id=verdict.case_id,
        kind=verdict.kind,
        reason=REASONS[verdict.problem.reason],
        detail=shorten(verdict.problem.detail),
        prompt=shorten(prompt),
        expected=shorten(expected_text(case)),
        reply=shorten(_reply_text(reply)),
    )


def _reply_text(reply: Generation | None) -> str:
    if reply is None:
        return "(no reply)"
    return reply.text or (f"(no reply: {reply.error})" if reply.error else "(empty reply)")


def expected_text(case: Case) -> str:
    """What the reply to a case should have been, in words or as calls."""
    if case.expected_calls:
        return "\n".join(json.dumps(call.function.model_dump(), ensure_ascii=False) for call in case.expected_calls)
    wanted = {
        "tool_call": "a tool call",
        "refusal": "a refusal",
        "clarification": "a question for what is missing, and no call",
        "answer": "an answer in text, and no call",
    }[case.kind]
    return f"{wanted}, such as:\n{case.expected_text}" if case.expected_text else wanted
