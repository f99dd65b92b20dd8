"""The replies that a reader is shown: failures, right and wrong replies to the demands, flips, vLLM's reading."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evals.records import HELD_OUT, Case, CellName, Comparison, FailureReason, Verdict
from evals.report.blocks import Block, Exhibit, Exhibits, Heading, Note, Text, Tone
from evals.report.case_texts import (
    expected_text,
    known_case,
    reply_text,
    scene_of,
    summary_text,
    why_text,
)
from evals.report.inputs import Scored
from evals.report.text import REASONS, shorten
from evals.stats.agreement import Agreement, agreement
from evals.stats.metrics import CELLS, METRICS
from orchestrator.chat.formats.reply import ServedReply
from orchestrator.core.records import MetricName
from orchestrator.core.text import counted

MAX_EXAMPLES, MAX_OTHER_EXAMPLES = 20, 5
"""Failing examples shown of the adapter that the report is about, and of each other one."""
MAX_CELL_EXAMPLES, MAX_SERVING_EXAMPLES, MAX_OPINIONS = 2, 5, 5
"""Replies shown: right and wrong ones to each demand, those that vLLM reads differently, and disputed ones."""
MAX_FLIPS = 8
"""Cases shown that got better, and that got worse, against one other adapter."""
EXPECTED, REPLY = "Expected", "Reply"


@dataclass(frozen=True)
class AdapterFailures:
    """What went wrong with one adapter's replies: `counts` by reason, most frequent first."""

    adapter_id: str
    num_cases: int
    num_failed: int
    counts: dict[FailureReason, int]
    examples: tuple[Exhibit, ...]


class CellExamples(NamedTuple):
    """Replies of one adapter to one of the four demands, and how many of each there are."""

    right: tuple[Exhibit, ...]
    wrong: tuple[Exhibit, ...]
    num_right: int
    num_wrong: int


@dataclass(frozen=True)
class Flips:
    """What got better and what got worse from `right` to `left`: the first of each, and how many there are."""

    left: str
    right: str
    better: tuple[Exhibit, ...]
    worse: tuple[Exhibit, ...]
    num_better: int
    num_worse: int


@dataclass(frozen=True)
class ServingDifferences:
    """How one adapter's replies would reach a client of vLLM's own server."""

    adapter_id: str
    parser: str
    num_asked: int
    num_different: int
    examples: tuple[Exhibit, ...]


@dataclass(frozen=True)
class SecondOpinion:
    """How far a judge model agrees with the classifier on one adapter's replies, and the first that differ."""

    adapter_id: str
    agreement: Agreement
    differing: tuple[Exhibit, ...]


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
        examples=tuple(_exhibit(verdict, scored, cases, "bad") for verdict in pick_varied(failed, limit)),
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
    judged = [verdict for verdict in scored.scores.verdicts if verdict.correct is not None]
    right = [verdict for verdict in judged if CELLS[cell].outcome(verdict) is True]
    wrong = [verdict for verdict in judged if CELLS[cell].outcome(verdict) is False]
    good = tuple(_exhibit(verdict, scored, cases, "good") for verdict in right[:MAX_CELL_EXAMPLES])
    bad = tuple(_exhibit(verdict, scored, cases, "bad") for verdict in wrong[:MAX_CELL_EXAMPLES])
    return CellExamples(good, bad, len(right), len(wrong))


def flips_of(comparisons: Sequence[Comparison], left: Scored, right: Scored, cases: Mapping[str, Case]) -> Flips:
    """The flips of the comparisons (at least one) of the same two adapters, each case once, in words."""
    found: dict[str, tuple[MetricName, bool]] = {}
    for comparison in comparisons:
        for flip in comparison.flips:
            found.setdefault(flip.case_id, (comparison.metric, flip.left_correct))
    better = [case_id for case_id, (_, is_better) in found.items() if is_better]
    worse = [case_id for case_id, (_, is_better) in found.items() if not is_better]
    names = (comparisons[0].left, comparisons[0].right)
    verdicts = [{verdict.case_id: verdict for verdict in side.scores.verdicts} for side in (left, right)]

    def shown(case_id: str) -> Exhibit:
        sides = [_exhibit(by_id[case_id], side, cases) for by_id, side in zip(verdicts, (left, right), strict=True)]
        why = [why_text(by_id[case_id]) for by_id in verdicts]
        beside = [
            Text(name, one.texts[-1].shown, one.badge, "bad" if one.code else "good", detail)
            for name, one, detail in zip(names, sides, why, strict=True)
        ]
        metric = found[case_id][0]
        case = f"case {shorten(case_id, 100).text}"
        line = case if metric == "case_accuracy" else f"{METRICS[metric].label}; {case}"
        expected = [text for text in sides[0].texts if text.name == EXPECTED]
        return Exhibit(case_id, line, sides[0].summary, scene=sides[0].scene, texts=expected, beside=beside)

    return Flips(
        *names,
        better=tuple(map(shown, better[:MAX_FLIPS])),
        worse=tuple(map(shown, worse[:MAX_FLIPS])),
        num_better=len(better),
        num_worse=len(worse),
    )


def flip_blocks(flips: Flips, where: str) -> Iterator[Block]:
    """What got better and what got worse from one adapter to another; `where` says where the others are found."""
    better = counted(flips.num_better, "case")
    yield Heading(f"{flips.left} against {flips.right}", f"{better} better, {flips.num_worse} worse")
    for title, shown, number in (("Better", flips.better, flips.num_better), ("Worse", flips.worse, flips.num_worse)):
        yield Heading(title, str(number), level=4)
        if not shown:
            yield Note("None.")
        more = f"{number - len(shown):,} more: {where}" if number > len(shown) else ""
        yield Exhibits(shown, more=more)


def serving_differences(scored: Scored, cases: Mapping[str, Case]) -> ServingDifferences | None:
    """Replies that vLLM's parser reads differently from this project's; None where it was not asked."""
    asked = [verdict for verdict in scored.scores.verdicts if verdict.serving_differs is not None]
    if not asked:
        return None
    different = [verdict for verdict in asked if verdict.serving_differs]
    examples = []
    for verdict in different[:MAX_SERVING_EXAMPLES]:
        reply = scored.generations.get(verdict.case_id)
        if reply is not None and reply.served is not None:
            example = _exhibit(verdict, scored, cases)
            ours = Text("The reply", example.texts[-1].shown)
            theirs = Text("What a client would get", shorten(served_text(reply.served)))
            examples.append(
                Exhibit(example.case_id, example.case, example.summary, scene=example.scene, beside=(ours, theirs))
            )
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
    differing = []
    for entry in found.disagreements[:MAX_OPINIONS]:
        example = _exhibit(verdicts[entry.case_id], scored, cases)
        texts = [text for text in example.texts if text.name == REPLY]
        ours, theirs = (kind.value.replace("_", " ") for kind in (entry.reply_kind, entry.judged))
        summary = f"classifier: {ours}; judge: {theirs}"
        differing.append(Exhibit(entry.case_id, example.case, summary, scene=example.scene, texts=texts))
    return SecondOpinion(scored.scores.adapter_id, found, tuple(differing))


def served_text(served: ServedReply) -> str:
    """What a client of vLLM's server would get, as text."""
    lines = [f"{name}({arguments})" for name, arguments in served.calls] or ["(no call)"]
    if served.content:
        lines.append(f"content: {served.content}")
    if served.error:
        lines.append(f"error: {served.error}")
    return "\n".join(lines)


def _exhibit(verdict: Verdict, scored: Scored, cases: Mapping[str, Case], tone: Tone = "") -> Exhibit:
    """A verdict with its case and, last, the reply; each text shortened.

    Raises:
        RunConflictError: If the verdict belongs to no known case.
    """
    case = known_case(verdict, scored.scores.adapter_id, cases)
    suite = "" if verdict.suite == HELD_OUT else f", suite {shorten(verdict.suite, 60).text}"
    texts = (
        Text(EXPECTED, shorten(expected_text(case))),
        Text(REPLY, shorten(reply_text(scored.generations.get(verdict.case_id)))),
    )
    return Exhibit(
        case_id=verdict.case_id,
        case=f"case {shorten(verdict.case_id, 100).text}, {verdict.kind.replace('_', ' ')}{suite}",
        summary=summary_text(case),
        why=why_text(verdict),
        scene=scene_of(case),
        texts=texts,
        badge=REASONS[verdict.reason] if verdict.reason else "right",
        tone=tone,
        code=verdict.reason,
    )
