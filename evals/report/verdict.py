"""A decision in sentences. Names of adapters stand as they are: whoever shows a sentence escapes it."""

from collections.abc import Sequence

from evals.records import AdapterSummary, Comparison, WinnerVerdict
from evals.report.text import chance_text, difference_text, loss_text, metric_text, signed_text, value_text
from evals.stats.decision import PRIMARY, Decision, Field, Outcome, is_significant, loss_or_inf
from evals.stats.metrics import METRICS


def verdict_record(decision: Decision, warnings: Sequence[str] = ()) -> WinnerVerdict:
    """The verdict as it is stored; `warnings` are sentences that should make a reader doubt the figures."""
    sentences = [*_sentences(decision), *warnings]
    return WinnerVerdict(winner=decision.winner, leader=decision.leader, reason=" ".join(sentences))


def headline(verdict: WinnerVerdict) -> str:
    """The verdict in a few words; its reason does not repeat them."""
    if verdict.winner:
        return f"Take adapter {verdict.winner}"
    return f"No winner; the leader is {verdict.leader}" if verdict.leader else "No winner"


def _sentences(decision: Decision) -> list[str]:
    """What the decision rests on, and what to do where there is no winner."""
    outcome, subject, field = decision.outcome, decision.subject, decision.field
    if subject is None:
        cause = {
            Outcome.NO_ADAPTER_SCORED: "No adapter was scored",
            Outcome.NOTHING_KNOWN: "No case was scored for every adapter and no eval loss is known",
        }[outcome]
        return [f"{cause}, so none can be recommended."]
    if field is None:
        return [
            "Cases are not scored for every adapter and the base, so eval loss decides: "
            f"adapter {subject.id} has the lowest, {loss_text(subject.eval_loss)}. "
            "The base has no eval loss, so an improvement over it is not shown."
        ]
    if outcome is Outcome.WINNER:
        sentences = [f"Adapter {subject.id} {_figures(field, subject)}.", *_ahead_of_the_others(field)]
    elif outcome is Outcome.NOT_ABOVE_BASE:
        sentences = [_not_above_base(subject, field.against_base[subject.id])]
    else:
        sentences = _without_winner(outcome, field, subject)
    return [*sentences, *_same_replies(decision, field), *_guards_worse(decision, subject)]


def _without_winner(outcome: Outcome, field: Field, leader: AdapterSummary) -> list[str]:
    sentences = []
    if outcome is Outcome.BASE_NOT_SCORED:
        sentences.append("The base was not scored, so an improvement over it is not shown.")
    if outcome is Outcome.NOT_SHOWN_BETTER:
        claim = f"Adapter {leader.id} is not shown to be better than the base"
        sentences.append(claim + _evidence(field.against_base[leader.id]))
    rivals = field.rivals()
    if rivals:
        best, rival = field.ranked[0], leader if leader in rivals else rivals[0]
        claim = f"The best two, {best.id} and {rival.id}, cannot be told apart"
        sentences.append(claim + _evidence(field.against_best[rival.id]))
        rest = [other.id for other in rivals if other is not rival]
        if rest:
            sentences.append(f"Nor can {_listed(rest)} be told apart from {best.id}.")
    return [*sentences, f"If one has to be taken, take {leader.id}: {_why_leading(field, leader)}."]


def _not_above_base(best: AdapterSummary, against_base: Comparison) -> str:
    claim = "is worse than the base" if is_significant(against_base) else "does not score above the base"
    return f"No adapter is better than the base: the best, adapter {best.id}, {claim}{_evidence(against_base)}"


def _figures(field: Field, adapter: AdapterSummary) -> str:
    text = f"answers {metric_text(PRIMARY, adapter.metrics[PRIMARY])} of the cases as asked"
    if field.base is None:
        return text
    base = metric_text(PRIMARY, field.base.metrics[PRIMARY])
    return f"{text}, the base {base}, a difference of {difference_text(field.against_base[adapter.id])}"


def _ahead_of_the_others(field: Field) -> list[str]:
    if not field.against_best:
        return []
    closest = max(field.against_best.values(), key=lambda comparison: comparison.p_adjusted or 0.0)
    num_others = len(field.against_best)
    others = "the other adapter," if num_others == 1 else f"all {num_others} other adapters, the closest being"
    return [f"It is also better than {others} {closest.right}: {difference_text(closest)}."]


def _evidence(comparison: Comparison) -> str:
    """Counts, difference, p and the cases that would be needed: the end of a sentence, and perhaps one more."""
    if comparison.difference is None or comparison.low is None or comparison.high is None:
        return ": no case was scored for both."
    text = (
        f" with {comparison.n:,} cases: {comparison.gained} are answered as asked by {comparison.left} alone and "
        f"{comparison.lost} by {comparison.right} alone, a difference of {signed_text(comparison.difference)} "
        f"({signed_text(comparison.low)} to {signed_text(comparison.high)}), {chance_text(comparison)}."
    )
    if comparison.num_cases_needed is None:
        return text
    # Two significant digits: the count is an estimate from an estimate.
    needed = f"about {int(float(f'{comparison.num_cases_needed:.2g}')):,} cases would be needed to show it (power 80 %)"
    return f"{text} If the difference is real, {needed}."


def _why_leading(field: Field, leader: AdapterSummary) -> str:
    reasons = []
    if field.is_better_than_base(leader):
        reasons.append(f"it is shown to be better than the base ({difference_text(field.against_base[leader.id])})")
    elif field.is_above_base(leader):
        reasons.append("its score is above the base's")
    tied = [other for other in field.tied() if other is not leader]
    if field.rivals() and loss_or_inf(leader) < min(map(loss_or_inf, tied)):
        losses = " and ".join(loss_text(other.eval_loss) for other in tied)
        reasons.append(f"it has the lowest eval loss of those ({loss_text(leader.eval_loss)} against {losses})")
    if len(field.ranked) > 1 and leader is field.ranked[0]:
        reasons.append(f"no adapter scores higher ({value_text(PRIMARY, leader.metrics[PRIMARY].value)})")
    return " and ".join(reasons) if reasons else f"it is the only one; it {_figures(field, leader)}"


def _same_replies(decision: Decision, field: Field) -> list[str]:
    base_id = field.base.id if field.base else None
    return [
        f"{_listed(same)} {'gives' if len(same) == 1 else 'give'} the same reply as "
        f"{'the base' if one == base_id else one} in every case."
        for one, same in decision.same_replies.items()
    ]


def _guards_worse(decision: Decision, leader: AdapterSummary) -> list[str]:
    worse = [f"{METRICS[guard.metric].label.lower()} ({difference_text(guard)})" for guard in decision.guards_worse]
    return [f"Beware: {leader.id} is worse than the base in {_listed(worse)}."] if worse else []


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
