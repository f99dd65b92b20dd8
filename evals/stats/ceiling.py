"""What the data's own replies reach when they are judged by the rules that judge a model's: the ceiling of a metric.

A label that the rules cannot see, such as a refusal in a language they do not know, is missed in every model alike.
Where the data's own replies fall below `LEAST_CEILING`, the figure is of the rules and not of the models.

Not covered: replies that are recognised in the data's words and not in a model's; cases without a reply of their own.
"""

import json
from collections.abc import Iterable, Mapping, Sequence

from evals.judge.verdicts import judge_reply
from evals.records import Case, Generation, Metric, Scores, Verdict
from evals.stats.metrics import METRICS, compute_metrics, share
from orchestrator.chat.formats.hermes import HERMES
from orchestrator.core.records import MetricName

LEAST_CEILING = 0.9
"""A metric on which the data's own replies reach less says too little about a model."""

OWN_REPLIES: dict[MetricName, str] = {
    "case_accuracy": "the expected replies",
    "tool_call_validity": "the expected calls",
    "tool_call_accuracy": "the expected calls",
    "refusal_accuracy": "the expected refusals and answers",
    "refusal_recall": "the expected refusals",
    "over_refusal_rate": "the expected answers",
    "clarification_accuracy": "the expected questions",
    "no_tool_accuracy": "the expected replies that no tool fits",
}
"""The metrics that have a ceiling, and what of the data it is over."""


def own_reply(case: Case) -> Generation:
    """The reply that the case expects, as a model could give it; empty where the data has none."""
    calls = [
        json.dumps({"name": call.function.name, "arguments": call.function.arguments}) for call in case.expected_calls
    ]
    parts = [case.expected_text, *(f"<tool_call>\n{call}\n</tool_call>" for call in calls)]
    return Generation(case_id=case.id, text="\n".join(filter(None, parts)), output_tokens=1)


def judge_own_replies(cases: Iterable[Case]) -> list[Verdict]:
    """A verdict on the data's own reply to every case that has one."""
    own = ((case, own_reply(case)) for case in cases)
    return [judge_reply(case, reply, HERMES.name) for case, reply in own if reply.text]


def ceilings_of(own: Sequence[Verdict]) -> dict[MetricName, Metric]:
    """By metric, the share of the data's own replies that count in its favour; only metrics with such cases."""
    return {name: figure for name in OWN_REPLIES if (figure := _ceiling(name, own)).n}


def _ceiling(name: MetricName, own: Sequence[Verdict]) -> Metric:
    row = METRICS[name]
    counted = [pair for verdict in own if (pair := row.part_and_whole(verdict)) is not None]
    return share(sum((part == whole) is row.higher_is_better for part, whole in counted), len(counted))


def is_blind(ceiling: Metric | None) -> bool:
    """Whether a metric with this ceiling says too little."""
    return ceiling is not None and ceiling.value is not None and ceiling.value < LEAST_CEILING


def blind_metrics(ceilings: Mapping[MetricName, Metric]) -> list[MetricName]:
    """The metrics that say too little."""
    return [name for name, ceiling in ceilings.items() if is_blind(ceiling)]


def ceiling_text(name: MetricName, ceiling: Metric) -> str:
    """How many of the data's own replies are recognised, and what that means for the metric."""
    right = round((ceiling.value or 0.0) * ceiling.n)
    text = f"of {OWN_REPLIES[name]} themselves {right:,} of {ceiling.n:,} are recognised"
    return f"{text}: this metric says {'little' if right else 'nothing'} here" if is_blind(ceiling) else text


def without_blind_cases(scores: Scores, own: Sequence[Verdict]) -> Scores:
    """The scores as if the cases had not been judged whose own reply is not recognised."""
    unseen = {verdict.case_id for verdict in own if not verdict.correct}
    verdicts = tuple(
        verdict.model_copy(update={"correct": None}) if verdict.case_id in unseen else verdict
        for verdict in scores.verdicts
    )
    seen = compute_metrics(verdicts, ())["case_accuracy"]
    return scores.model_copy(update={"verdicts": verdicts, "metrics": {**scores.metrics, "case_accuracy": seen}})
