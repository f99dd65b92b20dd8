"""What a run left behind, read from its directory for the report."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from evals.judge.second_opinion import Judgement
from evals.records import AdapterSummary, Case, EngineRecord, FailedAdapter, Generation, Scores
from evals.stats.selected import Selection, selection_of
from orchestrator.core.errors import DataError, RunConflictError
from orchestrator.core.files import Model, parse_line, read_jsonl
from orchestrator.core.records import BASE_ADAPTER_ID, AdapterRecord, JsonObject, TrialRecord
from orchestrator.data.card import DataCard
from orchestrator.data.preferences.pair import PairsCard, read_card
from orchestrator.run.folder import Ledger, read_ledger
from orchestrator.run.happened import Happening, happenings
from orchestrator.run.paths import RunDir
from orchestrator.run.spent import BudgetRecord


@dataclass(frozen=True)
class Scored:
    """One adapter, or the base (which has no `record`), with its replies by case id and their verdicts.

    `engine` is None where nothing tells how the replies were made. `judgements` are the second opinions of a judge
    model, None where none was asked.
    """

    scores: Scores
    generations: dict[str, Generation]
    record: AdapterRecord | None
    engine: EngineRecord | None
    judgements: tuple[Judgement, ...] | None

    @property
    def num_scored(self) -> int:
        """Cases that were judged."""
        return self.scores.num_cases - self.scores.num_unscored

    def summary(self, trials: tuple[TrialRecord, ...]) -> AdapterSummary:
        """The adapter's row in the report; its trial, if known, adds what the search chose."""
        record, settings = self.record, dict[str, float | int]()
        if record is not None:
            chosen = next((trial.hyperparameters for trial in trials if trial.trial_id == record.trial_id), {})
            own = {"r": record.r, "alpha": record.alpha, "learning_rate": record.learning_rate}
            settings = {
                key: value for key, value in {**own, **chosen, "step": record.step}.items() if value is not None
            }
        return AdapterSummary(
            id=record.id if record else self.scores.adapter_id,
            is_base=record is None,
            hyperparameters=settings,
            eval_loss=record.eval_loss if record and math.isfinite(record.known_eval_loss) else None,
            metrics=self.scores.metrics,
            cells=self.scores.cells,
            inferred_kinds=self.scores.inferred_kinds,
            ceilings=self.scores.ceilings,
            source=record.source if record else None,
            init_from=record.init_from if record else None,
            pairs=record.pairs if record else None,
            use_dora=record is not None and record.use_dora,
        )


@dataclass(frozen=True)
class StoredCard:
    """`data/card.json`: its `content` as it stands, and `card`, None where `problem` says why there is none to show."""

    content: JsonObject
    card: DataCard | None
    problem: str | None


@dataclass(frozen=True)
class Preferences:
    """What an adapter learned preferences from, and the trainings on that, the kept one first."""

    card: PairsCard
    trials: tuple[TrialRecord, ...]


@dataclass(frozen=True)
class ReportInputs:
    """Everything a report is made from; `cases` by id, `in_full` the scores on the full base beside a quantised one.

    `selection` is how the search chose its adapters, None where eval loss alone did; `budget` what one with a budget
    spent.
    `preferences` are by the adapter that learned them; `happened` is what befell the run.
    """

    run: RunDir
    ledger: Ledger
    data: StoredCard
    trials: tuple[TrialRecord, ...]
    cases: dict[str, Case]
    scored: tuple[Scored, ...]
    failed: tuple[FailedAdapter, ...]
    in_full: tuple[Scores, ...] = ()
    selection: Selection | None = None
    preferences: dict[str, Preferences] = field(default_factory=dict)
    happened: tuple[Happening, ...] = ()
    budget: BudgetRecord | None = None


def read_inputs(run: RunDir) -> ReportInputs:
    """Read a run directory. Trials and the data card may be absent (the run only evaluated).

    Raises:
        RunConflictError: If nothing has been scored, or a scored adapter is no longer there or was trained again.
        DataError: If a file is missing or does not fit its record.
    """
    failed = tuple(_read(path, FailedAdapter) for path in sorted((run.root / "evals").glob("[!.]*/failure.json")))
    unusable = {failure.adapter_id for failure in failed}  # what lies beside a failure is of an earlier evaluation
    folders = sorted(path.parent for path in (run.root / "evals").glob("[!.]*/scores.json"))
    scored = tuple(_read_scored(run, folder.name) for folder in folders if folder.name not in unusable)
    if not scored:
        raise RunConflictError(
            "neither an adapter nor the base has been scored",
            where=str(run.root),
            fix="Run the evaluate stage of this configuration first",
        )
    trials = tuple(read_jsonl(run.trials, TrialRecord)) if run.trials.is_file() else ()
    learned = run.root.glob("preferences/[!.]*/trials.jsonl")
    return ReportInputs(
        run=run,
        ledger=read_ledger(run),
        data=_read_card(run.card),
        trials=trials,
        cases={case.id: case for case in read_jsonl(run.cases, Case)},
        scored=scored,
        failed=failed,
        happened=tuple(happenings(run)),
        in_full=tuple(_read(path, Scores) for path in sorted(run.full_base.root.glob("evals/[!.]*/scores.json"))),
        selection=selection_of(run, trials),
        budget=_read(run.budget, BudgetRecord) if run.budget.is_file() else None,
        preferences={path.parent.name: _read_preferences(run, path.parent.name) for path in sorted(learned)},
    )


def _read(path: Path, model: type[Model]) -> Model:
    return parse_line(path.read_text(encoding="utf-8"), model, where=str(path))


def _read_preferences(run: RunDir, adapter_id: str) -> Preferences:
    place = run.preferences(adapter_id)
    return Preferences(read_card(place), tuple(read_jsonl(place.trials, TrialRecord)))


def _read_card(path: Path) -> StoredCard:
    """The data card. One of another version stops no report: what was scored does not depend on it."""
    if not path.is_file():
        return StoredCard({}, None, "This run has no data card.")
    try:
        content = TypeAdapter(JsonObject).validate_json(path.read_bytes())
    except ValidationError:
        raise DataError("the data card is not a JSON object", where=str(path), fix="Run prepare again") from None
    try:
        return StoredCard(content, DataCard.model_validate(content), None)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        problem = (
            f"data/card.json was written by another version ({place}: {first['msg']}), so it is not shown here and "
            "nothing is said about leaks; report.json holds it as it is."
        )
        return StoredCard(content, None, problem)


def _read_scored(run: RunDir, adapter_id: str) -> Scored:
    path = run.scores(adapter_id)
    scores = _read(path, Scores)
    if scores.adapter_id != adapter_id:
        raise DataError(
            f"the scores are of adapter {scores.adapter_id!r}", where=str(path), fix="Run the evaluate stage again"
        )
    generations = {reply.case_id: reply for reply in read_jsonl(run.generations(adapter_id), Generation)}
    place, judged = run.engine(adapter_id), run.judgements(adapter_id)
    engine = _read(place, EngineRecord) if place.is_file() else None
    record = None if adapter_id == BASE_ADAPTER_ID else _read_record(run, adapter_id)
    if engine is not None and record is not None:
        engine.require_made_by(record, where=str(place))
    return Scored(
        scores,
        generations,
        record=record,
        engine=engine,
        judgements=tuple(read_jsonl(judged, Judgement)) if judged.is_file() else None,
    )


def _read_record(run: RunDir, adapter_id: str) -> AdapterRecord:
    path = run.adapter_record(adapter_id)
    if not path.is_file():
        raise RunConflictError(
            "the adapter was scored but is not there any more",
            where=str(path),
            fix=f"Run the search again, or remove {run.scores(adapter_id).parent}",
        )
    return _read(path, AdapterRecord)
