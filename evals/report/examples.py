"""The replies that a reader is shown, chosen and put into words: failures, both sides of the cells, flips, parsers."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evals.records import Case, CellName, Comparison, FailureReason, Generation, Verdict
from evals.report.inputs import Scored
from evals.report.text import REASONS, Shown, shorten
from evals.stats.agreement import Agreement, agreement
from evals.stats.metrics import compute_cells
from orchestrator.chat.reply import ServedReply
from orchestrator.core.errors import RunConflictError
from orchestrator.core.records import NO_FITTING_TOOL, MetricName
from orchestrator.refusals import ReplyKind

MAX_EXAMPLES, MAX_OTHER_EXAMPLES = 20, 5
"""Failing examples shown of the adapter that the report is about, and of each other one."""
MAX_CELL_EXAMPLES = 2
"""Right and wrong replies shown for each of the four demands."""
MAX_FLIPS = 8
"""Cases shown that got better, and that got worse, against one other adapter."""
MAX_SERVING_EXAMPLES = 5
MAX_OPINIONS = 5
"""Replies shown of one adapter on which classifier and judge model differ."""


@dataclass(frozen=True)
class Example:
    """One case with its reply. All texts are untrusted: they come from the data and the model."""

    case_id: str
    suite: str
    kind: str
    reason: str
    code: FailureReason | None
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
    examples: tuple[Example, ...]


class CellExamples(NamedTuple):
    """Replies of one adapter to one of the four demands, and how many of each there are."""

    right: tuple[Example, ...]
    wrong: tuple[Example, ...]
    num_right: int
    num_wrong: int


@dataclass(frozen=True)
class FlipExample:
    """A case that two adapters answer differently. All texts are untrusted."""

    case_id: str
    metric: MetricName
    kind: str
    prompt: Shown
    expected: Shown
    left: Example
    right: Example


@dataclass(frozen=True)
class Flips:
    """What got better and what got worse from `right` to `left`: the first of each, and how many there are."""

    left: str
    right: str
    comparisons: tuple[Comparison, ...]
    better: tuple[FlipExample, ...]
    worse: tuple[FlipExample, ...]
    num_better: int
    num_worse: int


@dataclass(frozen=True)
class ServingExample:
    """A reply that vLLM's own parser reads otherwise. All texts are untrusted."""

    example: Example
    served: Shown
    parser: str


@dataclass(frozen=True)
class ServingDifferences:
    """How one adapter's replies would reach a client of vLLM's own server."""

    adapter_id: str
    parser: str
    num_asked: int
    num_different: int
    examples: tuple[ServingExample, ...]


@dataclass(frozen=True)
class DifferingOpinion:
    """A reply that classifier and judge model call differently. All texts of the example are untrusted."""

    example: Example
    classifier: str
    judge: str


@dataclass(frozen=True)
class SecondOpinion:
    """How far a judge model agrees with the classifier on one adapter's replies, and the first that differ."""

    adapter_id: str
    agreement: Agreement
    differing: tuple[DifferingOpinion, ...]


def adapter_failures(scored: Scored, cases: Mapping[str, Case], *, limit: int = MAX_EXAMPLES) -> AdapterFailures:
    """Count one adapter's failures and pick at most `limit` examples that show every reason.

    Raises:
        RunConflictError: If a verdict belongs to no known case.
    """
    failed = [verdict for verdict in scored.scores.verdicts if verdict.reason is not None]
    counts = Counter(verdict.reason for verdict in failed if verdict.reason is not None)
    return AdapterFailures(
        adapter_id=scored.scores.adapter_id,
        num_cases=scored.scores.num_cases,
        num_failed=len(failed),
        counts=dict(counts.most_common()),
        examples=tuple(make_example(verdict, scored, cases) for verdict in pick_varied(failed, limit)),
    )


def pick_varied(failed: Sequence[Verdict], limit: int) -> list[Verdict]:
    """At most `limit` verdicts, taken in turn from each reason, so that a frequent one does not hide the others."""
    by_reason: defaultdict[str, list[Verdict]] = defaultdict(list)
    for verdict in failed:
        if verdict.reason is not None:
            by_reason[verdict.reason].append(verdict)
    turns = [(turn, verdict) for queue in by_reason.values() for turn, verdict in enumerate(queue)]
    return [verdict for _, verdict in sorted(turns, key=lambda pair: pair[0])[:limit]]


def cell_examples(cell: CellName, scored: Scored, cases: Mapping[str, Case]) -> CellExamples:
    """Right and wrong replies to one of the four demands, as its figure counts them."""
    # The figure over one case alone says whether the case belongs to the demand, and whether the reply meets it.
    answers = [(verdict, compute_cells([verdict])[cell].value) for verdict in scored.scores.verdicts]
    right = [verdict for verdict, share in answers if share == 1.0]
    wrong = [verdict for verdict, share in answers if share == 0.0]

    def shown(verdicts: Sequence[Verdict]) -> tuple[Example, ...]:
        return tuple(make_example(verdict, scored, cases) for verdict in verdicts[:MAX_CELL_EXAMPLES])

    return CellExamples(shown(right), shown(wrong), len(right), len(wrong))


def flips_of(comparisons: Sequence[Comparison], left: Scored, right: Scored, cases: Mapping[str, Case]) -> Flips:
    """The flips of the comparisons (at least one) of the same two adapters, each case once, in words."""
    found: dict[str, tuple[MetricName, bool]] = {}
    for comparison in comparisons:
        for flip in comparison.flips:
            found.setdefault(flip.case_id, (comparison.metric, flip.left_correct))
    better = [case_id for case_id, (_, is_better) in found.items() if is_better]
    worse = [case_id for case_id, (_, is_better) in found.items() if not is_better]
    ours = {verdict.case_id: verdict for verdict in left.scores.verdicts}
    theirs = {verdict.case_id: verdict for verdict in right.scores.verdicts}

    def shown(case_id: str) -> FlipExample:
        here = make_example(ours[case_id], left, cases)
        there = make_example(theirs[case_id], right, cases)
        return FlipExample(case_id, found[case_id][0], here.kind, here.prompt, here.expected, here, there)

    return Flips(
        left=comparisons[0].left,
        right=comparisons[0].right,
        comparisons=tuple(comparisons),
        better=tuple(map(shown, better[:MAX_FLIPS])),
        worse=tuple(map(shown, worse[:MAX_FLIPS])),
        num_better=len(better),
        num_worse=len(worse),
    )


def serving_differences(scored: Scored, cases: Mapping[str, Case]) -> ServingDifferences | None:
    """Replies that vLLM's parser reads otherwise than this project's; None where it was not asked."""
    asked = [verdict for verdict in scored.scores.verdicts if verdict.serving_differs is not None]
    if not asked:
        return None
    different = [verdict for verdict in asked if verdict.serving_differs]
    examples = []
    for verdict in different[:MAX_SERVING_EXAMPLES]:
        reply = scored.generations.get(verdict.case_id)
        if reply is not None and reply.served is not None:
            example = make_example(verdict, scored, cases)
            examples.append(ServingExample(example, shorten(served_text(reply.served)), reply.served.parser))
    served = (reply.served for reply in scored.generations.values())
    parser = next((reading.parser for reading in served if reading is not None), "unknown")
    return ServingDifferences(scored.scores.adapter_id, parser, len(asked), len(different), tuple(examples))


def second_opinion(scored: Scored, cases: Mapping[str, Case]) -> SecondOpinion | None:
    """How far a judge model agrees on which replies refuse; None where none was asked.

    Raises:
        EvaluationError: If a judgement belongs to no scored case.
    """
    if scored.judgements is None:
        return None
    verdicts = {verdict.case_id: verdict for verdict in scored.scores.verdicts}
    found = agreement(scored.scores.verdicts, scored.judgements)
    differing = tuple(
        DifferingOpinion(
            make_example(verdicts[entry.case_id], scored, cases), _words(entry.reply_kind), _words(entry.judged)
        )
        for entry in found.disagreements[:MAX_OPINIONS]
    )
    return SecondOpinion(scored.scores.adapter_id, found, differing)


def _words(kind: ReplyKind) -> str:
    return kind.value.replace("_", " ")


def served_text(served: ServedReply) -> str:
    """What a client of vLLM's server would get, as text."""
    lines = [f"{name}({arguments})" for name, arguments in served.calls] or ["(no call)"]
    if served.content:
        lines.append(f"content: {served.content}")
    if served.error:
        lines.append(f"error: {served.error}")
    return "\n".join(lines)


def make_example(verdict: Verdict, scored: Scored, cases: Mapping[str, Case]) -> Example:
    """A verdict with its case and reply, each text shortened.

    Raises:
        RunConflictError: If the verdict belongs to no known case.
    """
    case = cases.get(verdict.case_id)
    if case is None:
        raise RunConflictError(
            f"the verdict on case {verdict.case_id!r} has no case in evals/cases.jsonl",
            where=f"evals/{scored.scores.adapter_id}/scores.json",
            fix="Run the evaluate stage again",
        )
    prompt = next((message.content for message in reversed(case.messages) if message.role == "user"), "")
    return Example(
        case_id=verdict.case_id,
        suite=verdict.suite,
        kind=verdict.kind,
        reason=REASONS[verdict.reason] if verdict.reason else "right",
        code=verdict.reason,
        detail=shorten(verdict.detail),
        prompt=shorten(prompt),
        expected=shorten(expected_text(case)),
        reply=shorten(_reply_text(scored.generations.get(verdict.case_id))),
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
    if NO_FITTING_TOOL in case.tags:
        wanted = "word that no tool fits, and no call"
    return f"{wanted}, such as:\n{case.expected_text}" if case.expected_text else wanted
