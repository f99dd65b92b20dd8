"""How far a judge model and the classifier of refusals agree."""

from collections import Counter
from collections.abc import Iterable, Sequence

from evals.judge.second_opinion import JUDGED_KINDS, Judgement, refuse_strangers
from evals.records import Metric, Verdict
from evals.stats.metrics import share
from orchestrator.core.errors import EvaluationError
from orchestrator.core.records import Record
from orchestrator.refusals import ReplyKind


class Disagreement(Record):
    """A case in which classifier and judge differ on whether the reply is a refusal."""

    case_id: str
    reply_kind: ReplyKind
    judged: ReplyKind


class Agreement(Record):
    """How far judge and classifier agree. Produced by `agreement`, shown by the report.

    Of `num_asked` replies `num_unusable` got no usable answer and are in no figure below. `counts` gives for each kind
    of the classifier how often the judge said what. `same_kind` and `same_refused` are the shares of the same kind and
    of the same word on refused or not, with Wilson's interval; the kappas are Cohen's, None where either side's
    answers leave nothing to agree on beyond chance.
    """

    num_asked: int
    num_unusable: int
    counts: dict[ReplyKind, dict[ReplyKind, int]]
    same_kind: Metric
    kappa_kind: float | None
    same_refused: Metric
    kappa_refused: float | None
    disagreements: tuple[Disagreement, ...]


def agreement(verdicts: Sequence[Verdict], judgements: Sequence[Judgement]) -> Agreement:
    """Compare the judge with the verdicts' own reading of each reply.

    The verdict's kind is compared, not the one kept beside the judgement: replies may have been scored anew since.

    Raises:
        EvaluationError: If a judgement belongs to no scored case, or a case has two.
    """
    kinds = {verdict.case_id: verdict.reply_kind for verdict in verdicts}
    case_ids = [judgement.case_id for judgement in judgements]
    refuse_strangers(case_ids, kinds)
    _refuse_repeated(case_ids)
    usable = [
        Disagreement(case_id=one.case_id, reply_kind=ours, judged=one.judged)
        for one in judgements
        if (ours := kinds[one.case_id]) is not None and one.judged is not None
    ]
    pairs = [(one.reply_kind, one.judged) for one in usable]
    refused = [(_is_refusal(ours), _is_refusal(theirs)) for ours, theirs in pairs]
    counts = Counter(pairs)
    return Agreement(
        num_asked=len(judgements),
        num_unusable=len(judgements) - len(pairs),
        counts={
            kind: {word: counts[kind, word] for word in JUDGED_KINDS}
            for kind in ReplyKind
            if any(ours is kind for ours, _ in pairs)
        },
        same_kind=_share_alike(pairs),
        kappa_kind=cohens_kappa(pairs),
        same_refused=_share_alike(refused),
        kappa_refused=cohens_kappa(refused),
        disagreements=tuple(one for one in usable if _is_refusal(one.reply_kind) != _is_refusal(one.judged)),
    )


def cohens_kappa(pairs: Sequence[tuple[object, object]]) -> float | None:
    """Agreement beyond chance (Cohen, 1960): 1 is perfect, 0 what the two sides' own shares would give.

    None without pairs, and where chance alone would give perfect agreement.
    """
    n = len(pairs)
    ours, theirs = Counter(one for one, _ in pairs), Counter(other for _, other in pairs)
    by_chance = sum(ours[word] * theirs[word] for word in ours)  # times n squared, which keeps it exact
    if by_chance == n * n:
        return None
    alike = sum(one == other for one, other in pairs)
    return (n * alike - by_chance) / (n * n - by_chance)


def _is_refusal(kind: ReplyKind) -> bool:
    return kind is ReplyKind.REFUSAL


def _refuse_repeated(case_ids: Iterable[str]) -> None:
    repeated = [case_id for case_id, count in Counter(case_ids).items() if count > 1]
    if repeated:
        raise EvaluationError(
            "a case has more than one judgement",
            where=repeated[0],
            allowed="one judgement for each case",
            fix="Delete the judgements and ask the judge again",
        )


def _share_alike(pairs: Sequence[tuple[object, object]]) -> Metric:
    return share(sum(one == other for one, other in pairs), len(pairs))
