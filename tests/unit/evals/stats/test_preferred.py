"""What learned preferences takes the place of what it was made from only if better somewhere and worse nowhere."""

import pytest
from scored_field import Field, verdict

from evals.records import Verdict
from evals.report.verdict import verdict_record
from evals.stats.decision import Decision, Outcome
from orchestrator.core.records import NO_FITTING_TOOL
from orchestrator.refusals import ReplyKind

NUM_CALLS, NUM_WITHOUT = 200, 40


def _replies(calls: range, declined: range) -> list[Verdict]:
    """200 tool calls and 40 requests that no tool fits, with the numbers of those that are answered rightly."""
    without = [
        verdict(
            f"n{number}",
            number in declined,
            kind="answer",
            tags=(NO_FITTING_TOOL,),
            valid=None,
            called=number not in declined,
            reply_kind=ReplyKind.REFUSAL if number in declined else ReplyKind.COMPLIANCE,
        )
        for number in range(NUM_WITHOUT)
    ]
    return [*(verdict(f"c{number}", number in calls) for number in range(NUM_CALLS)), *without]


def _decide(made: list[Verdict], **others: list[Verdict]) -> Decision:
    field = Field()
    field.add("sft", _replies(range(180), range(10)), 0.1)
    field.add("sft-prefer", made, None, init_from="sft", pairs=100)
    for name, verdicts in others.items():
        field.add(name, verdicts, 0.2)
    field.add("base", _replies(range(20), range(0)))
    return field.facts()


@pytest.mark.parametrize(
    ("calls", "declined", "leader", "said"),
    [
        (range(180), range(30), "sft-prefer", "takes its place: better in "),
        (range(177), range(30), "sft-prefer", "says that no tool fits (+0.50)"),
        (range(180), range(12), "sft", "is set aside: nothing shows that it is better in anything."),
        (range(170), range(30), "sft", "is set aside: worse in tool-call accuracy (-0.05)"),
        (range(175), range(30), "sft", "is set aside: worse in tool-call accuracy (-0.03), though better in "),
        (range(150), range(10), "sft", "is set aside: worse in "),
    ],
)
def test_one_of_the_two_goes_on(calls: range, declined: range, leader: str, said: str) -> None:
    decision = _decide(_replies(calls, declined))
    assert decision.leader == leader
    assert decision.outcome is Outcome.WINNER
    record = verdict_record(decision)
    assert f"sft-prefer, sft after preferences, {'takes' if leader != 'sft' else 'is set aside'}" in record.reason
    assert said in record.reason


def test_each_figure_is_compared_with_what_it_was_made_from() -> None:
    decision = _decide(_replies(range(180), range(30)))
    made = [one for one in decision.comparisons if (one.left, one.right) == ("sft-prefer", "sft")]
    by_metric = {one.metric: one for one in made}
    assert {"case_accuracy", "tool_call_accuracy", "no_tool_accuracy", "no_call_accuracy"} <= by_metric.keys()
    gain = by_metric["no_tool_accuracy"]
    assert (gain.gained, gain.lost, gain.n) == (20, 0, NUM_WITHOUT)
    assert gain.p_value is not None
    assert gain.p_adjusted is not None
    assert gain.p_value < gain.p_adjusted < 0.05
    assert decision.field is not None
    assert [one.id for one in decision.field.ranked] == ["sft-prefer"]


def test_other_adapters_compete_with_the_one_that_goes_on() -> None:
    decision = _decide(_replies(range(180), range(10)), other=_replies(range(60), range(10)))
    assert decision.field is not None
    assert [one.id for one in decision.field.ranked] == ["sft", "other"]


def test_without_a_scored_start_it_is_an_adapter_like_any_other() -> None:
    field = Field()
    field.add("sft-prefer", _replies(range(180), range(30)), None, init_from="sft", pairs=100)
    field.add("base", _replies(range(20), range(0)))
    decision = field.facts()
    assert (decision.winner, decision.preferred) == ("sft-prefer", ())
