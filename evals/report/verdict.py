"""A decision in at most five sentences. Names of adapters stand as they are: whoever shows a sentence escapes it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from evals.records import AdapterSummary, Comparison, Metric, Scores, WinnerVerdict
from evals.report.text import difference_interval, difference_value, loss_text, p_text
from evals.report.told import FAILS, TOLD, word_of
from evals.stats.ceiling import OWN_REPLIES, blind_metrics
from evals.stats.decision import PRIMARY, CutOff, Decision, Field, Outcome, is_often, is_significant, loss_or_inf
from evals.stats.metrics import METRICS, value_text
from evals.stats.preferred import preferred_text
from orchestrator.core.records import MetricName
from orchestrator.core.text import counted

MAX_SENTENCES = 5
WARNING = "Beware:"
"""How a sentence begins that speaks against the adapter."""


class _Said(NamedTuple):
    """A sentence; one that can be spared is left out where there are too many."""

    text: str
    can_be_spared: bool = False


def verdict_record(decision: Decision, warnings: Sequence[str] = ()) -> WinnerVerdict:
    """The verdict as it is stored; `warnings` are sentences that should make a reader doubt the figures."""
    made = map(_Said, map(preferred_text, decision.preferred))
    said = [*_sentences(decision), *made, *map(_Said, warnings)]
    for sentence in [one for one in reversed(said) if one.can_be_spared][: max(0, len(said) - MAX_SENTENCES)]:
        said.remove(sentence)
    return WinnerVerdict(winner=decision.winner, leader=decision.leader, reason=" ".join(one.text for one in said))


def headline(verdict: WinnerVerdict) -> str:
    """The verdict in a few words; its reason does not repeat them."""
    if verdict.winner:
        return f"Take adapter {verdict.winner}"
    return f"No winner; the leader is {verdict.leader}" if verdict.leader else "No winner"


def cut_off_sentence(cut_off: Sequence[CutOff], limit: int) -> str | None:
    """Whose replies are often cut off at `limit` tokens, and what to raise; None where nobody's are."""
    if not cut_off:
        return None
    whose = _listed(
        [
            f"{one.num_cut_off:,} of {counted(one.num_replies, 'reply', 'replies')} of {_name(one.adapter)}"
            for one in cut_off
        ]
    )
    limit_text = counted(limit, "token")
    return f"{WARNING} the limit of {limit_text} cuts off {whose}: raise eval.max_new_tokens and evaluate again."


def blind_sentence(ceilings: Mapping[MetricName, Metric], num_left_out: int) -> str | None:
    """Which metrics the verdict does not use, and how many cases, since the data's own replies are not recognised."""
    blind = blind_metrics(ceilings)
    if not blind:
        return None
    named = [name for name in blind if name != PRIMARY]
    shown = ceilings[(named or blind)[0]]
    text = f"{WARNING} of {OWN_REPLIES[(named or blind)[0]]} themselves {_count_text(shown)} are recognised"
    labels = _listed([METRICS[name].label for name in named]) if named else ""
    unused = [f"{labels} {'is' if len(named) == 1 else 'are'} not used"] if named else []
    if PRIMARY in blind:
        unused.append(f"{counted(num_left_out, 'case')} {'is' if num_left_out == 1 else 'are'} left out")
    return f"{text}, so {_listed(unused)}; ask a judge (eval.judge)."


def foreign_sentence(entries: Sequence[AdapterSummary], scores: Mapping[str, Scores]) -> str | None:
    """Whose replies often seem to call in another notation than they are read in; None where nobody's do."""
    found = [(_name(entry), scores[entry.id]) for entry in entries]
    often = [(name, one) for name, one in found if is_often(sum(one.foreign_calls.values()), one.num_cases)]
    if not often:
        return None
    counts = [f"{sum(one.foreign_calls.values()):,} of {one.num_cases:,} replies of {name}" for name, one in often]
    names = ", ".join(dict.fromkeys(notation for _, one in often for notation in one.foreign_calls))
    return f"{WARNING} what looks like a call in another notation ({names}) is not read in {_listed(counts)}."


def _sentences(decision: Decision) -> Iterator[_Said]:
    """What to do, what speaks against it, and how sure that is."""
    outcome, subject, field = decision.outcome, decision.subject, decision.field
    if subject is None:
        cause = {
            Outcome.NO_ADAPTER_SCORED: "No adapter was scored",
            Outcome.NOTHING_KNOWN: "No case was scored for every adapter and no eval loss is known",
        }[outcome]
        yield _Said(f"{cause}, so none can be recommended.")
        return
    if field is None:
        yield _Said(f"{_name(subject)} has the lowest eval loss, {loss_text(subject.eval_loss)}.")
        missing = "Not every adapter and the base have scored cases"
        yield _Said(f"{missing}, so eval loss decides alone, and nothing shows that training helped.")
        return
    yield from map(_Said, _lead(outcome, field, subject))
    yield from map(_Said, _failings(decision, subject, field))
    if outcome is Outcome.WINNER:
        yield from map(_Said, _ahead_of_the_others(field))
    elif outcome is not Outcome.NOT_ABOVE_BASE:
        yield from _tied(outcome, field, subject)
    yield from (_Said(text, can_be_spared=True) for text in _same_replies(decision, field))


def _lead(outcome: Outcome, field: Field, subject: AdapterSummary) -> Iterator[str]:
    scored = subject.metrics[field.primary]
    score = TOLD[field.primary].does(scored)
    if field.base is None:
        unknown = "The base was not scored, so nothing shows that training helped"
        yield f"{unknown}; if you need an adapter today, take {_name(subject)}, which {score}."
        return
    against = field.against_base[subject.id]
    figures = f"{score}, {TOLD[field.primary].base_does(field.base.metrics[field.primary], scored)}"
    if outcome is Outcome.NOT_ABOVE_BASE:
        yield f"No adapter beats the base: the best, {_name(subject)}, {figures} ({_difference(against)})."
        if is_significant(against):
            yield f"Keep the base: its lead is no chance ({p_text(against.p_adjusted)})."
        elif against.difference:
            yield f"Keep the base, though its lead may be chance ({_flips(field, against)})."
        else:
            yield "Keep the base."
        return
    if outcome is Outcome.WINNER:
        yield f"{_name(subject)} is the adapter to take: it {figures} ({_difference(against)})."
        return
    unsure = f"; that may be chance ({_flips(field, against)})" if outcome is Outcome.NOT_SHOWN_BETTER else ""
    yield f"If you need an adapter today, take {_name(subject)}: it {figures} ({_difference(against)}){unsure}."


def _ahead_of_the_others(field: Field) -> Iterator[str]:
    if not field.against_best:
        return
    closest = max(field.against_best.values(), key=lambda comparison: comparison.p_adjusted or 0.0)
    others = "the only other adapter," if len(field.against_best) == 1 else "all other adapters, the closest being"
    yield f"It also beats {others} {_name(_entry(field, closest.right))} ({_difference(closest)})."


def _tied(outcome: Outcome, field: Field, leader: AdapterSummary) -> Iterator[_Said]:
    """Who cannot be told apart from the leader, why it leads all the same, and how many cases would settle it."""
    rivals, best = field.rivals(), field.ranked[0]
    compared = None
    if rivals:
        other = best if leader in rivals else rivals[0]
        compared = field.against_best[leader.id if leader in rivals else other.id]
        yield _Said(f"{_name(other)} {_beside(field, other, leader, compared)}{_why_before(field, leader, other)}.")
        rest = [_name(rival) for rival in rivals if rival not in (leader, other)]
        if rest:
            yield _Said(f"{_listed(rest)} may be as good too.", can_be_spared=True)
    asked = field.against_base[leader.id] if outcome is Outcome.NOT_SHOWN_BETTER else compared
    if asked and asked.num_cases_needed is not None:
        # Two significant digits: the count is an estimate from an estimate.
        needed = int(float(f"{asked.num_cases_needed:.2g}"))
        pair = f"{_name(_entry(field, asked.left))} and {_name(_entry(field, asked.right))}"
        text = f"If the difference between {pair} is real, about {needed:,} cases would show it."
        yield _Said(text, can_be_spared=True)


def _beside(field: Field, other: AdapterSummary, leader: AdapterSummary, compared: Comparison) -> str:
    theirs, ours = (entry.metrics[field.primary].value or 0.0 for entry in (other, leader))
    score, flips = f"({_count_text(other.metrics[field.primary])})", _flips(field, compared)
    if theirs == ours:
        return f"does as well and cannot be told apart from it ({flips})"
    if theirs > ours:
        return f"scores higher {score}, but that may be chance ({flips})"
    return f"scores lower {score}, which may be chance ({flips})"


def _why_before(field: Field, leader: AdapterSummary, other: AdapterSummary) -> str:
    """Why the leader goes before an adapter that it cannot be told apart from; see `Field.order`."""
    name = _name(leader)
    if field.is_better_than_base(leader) and not field.is_better_than_base(other):
        return f", and only {name} is shown to beat the base"
    if field.is_above_base(leader) and not field.is_above_base(other):
        return f", and only {name} scores above the base"
    if loss_or_inf(leader) < loss_or_inf(other):
        return f"; {name} has the lower eval loss ({loss_text(leader.eval_loss)} against {loss_text(other.eval_loss)})"
    return ""


def _same_replies(decision: Decision, field: Field) -> Iterator[str]:
    for one, same in decision.same_replies.items():
        verb = "gives" if len(same) == 1 else "give"
        names = _listed([_name(_entry(field, id_)) for id_ in same])
        yield f"{names} {verb} the same reply as {_name(_entry(field, one))} in every case."


def _failings(decision: Decision, leader: AdapterSummary, field: Field) -> Iterator[str]:
    """Where the leader is worse than the base, and what it never does as it should, whatever the base does."""
    worse = [guard.metric for guard in decision.guards_worse]
    failed = [name for name in TOLD if word_of(name, leader, None) == FAILS and name not in worse]
    losses = [
        _loss(name, leader.metrics[name], field.base.metrics.get(name) if field.base else None)
        for name in (*worse, *failed)
    ]
    if losses:
        yield f"{WARNING} {_name(leader)} {_listed(losses)}."


def _loss(name: MetricName, ours: Metric, theirs: Metric | None) -> str:
    if name not in TOLD:
        base = "" if theirs is None else f" (the base: {value_text(name, theirs.value)})"
        return f"has {value_text(name, ours.value)} in {METRICS[name].label}{base}"
    told = TOLD[name]
    beside = "" if theirs is None or theirs.value is None else f" (the base: {told.count(theirs):,})"
    return f"{told.does(ours)}{beside}"


def _name(entry: AdapterSummary) -> str:
    return "the base" if entry.is_base else entry.id


def _entry(field: Field, adapter_id: str) -> AdapterSummary:
    entries = [*field.ranked, *([field.base] if field.base else [])]
    return next(entry for entry in entries if entry.id == adapter_id)


def _count(metric: Metric) -> int:
    return round((metric.value or 0.0) * metric.n)


def _count_text(metric: Metric) -> str:
    return f"{_count(metric):,} of {metric.n:,}"


def _difference(comparison: Comparison) -> str:
    return f"{difference_value(comparison)}, 95 % interval {difference_interval(comparison)}"


def _flips(field: Field, comparison: Comparison) -> str:
    gained = counted(comparison.gained, "case")
    left, right = (_name(_entry(field, side)) for side in (comparison.left, comparison.right))
    return f"{gained} only {left} gets right, {comparison.lost:,} only {right}; {p_text(comparison.p_adjusted)}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
