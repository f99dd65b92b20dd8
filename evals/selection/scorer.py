"""Adapters out of a search, asked validation cases by one warm vLLM engine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from evals.evaluate.fanout import rendered_cases
from evals.generate.engine import EngineSettings, Prompt, adapters_for_engine
from evals.generate.engines import Engines, answer_all
from evals.generate.journal import Journal, engine_records
from evals.generate.settings import settings_of_run
from evals.records import Case, EngineRecord, Scores
from evals.stats.scores import score_cases
from orchestrator.chat.rendering import reply_format_of
from orchestrator.config.schema import RunConfig
from orchestrator.core.files import parse_line
from orchestrator.models.adapters import SavedTrial, keep_adapter
from orchestrator.models.base import base_folder, base_sha256, base_tokenizer
from orchestrator.run.paths import RunDir


class Asking(NamedTuple):
    """The cases of a search with their prompts, and how an engine is to answer them."""

    cases: tuple[Case, ...]
    prompts: Mapping[str, Prompt]
    settings: EngineSettings
    tokenizer: PreTrainedTokenizerBase
    reply_format: str
    base_sha256: str

    @classmethod
    def of(cls, config: RunConfig, cases: Sequence[Case], *, on_gpu: bool) -> "Asking":
        """Those of a configuration, without the cases that its chat template cannot show.

        Raises:
            DataError: If it can show too few of them.
        """
        tokenizer = base_tokenizer(config.model)
        shown, prompts = rendered_cases(config, tokenizer, cases)
        ranks = [*config.search.space.r, config.lora.r]
        merges = config.lora.use_dora
        settings = settings_of_run(config, tokenizer, prompts, ranks=ranks, on_gpu=on_gpu, merges=merges)
        return cls(
            cases=tuple(shown),
            prompts={prompt.case_id: prompt for prompt in prompts},
            settings=settings,
            tokenizer=tokenizer,
            reply_format=reply_format_of(config.eval.reply_format, tokenizer),
            base_sha256=base_sha256(base_folder(config.model)),  # reads all of the base, so once for all that is asked
        )


def ask(
    config: RunConfig, run: RunDir, asking: Asking, saved: Sequence[SavedTrial], cases: Sequence[Case], engines: Engines
) -> dict[str, Scores]:
    """What each adapter makes of some of the cases, by trial; one that cannot be loaded is left out.

    Replies are kept in `run`, and none is asked for twice. The engine stays warm for the next call.

    Raises:
        EvaluationError: If engines break one after the other.
    """
    prompts = [asking.prompts[case.id] for case in cases if case.id in asking.prompts]
    kept = {key_of(one): _kept(config, run, asking, one) for one in saved}
    adapters = {adapter.id: adapter for adapter in adapters_for_engine(kept)}
    settings, base, limit = asking.settings, asking.base_sha256, config.eval.max_model_len
    records = engine_records(adapters, settings, base=base, num_engines=1, max_model_len=limit)
    journal = Journal(run, records, adapters, dict.fromkeys(adapters, prompts))
    works = journal.pending()
    if works:
        try:
            failed = answer_all(
                works, engines=engines, settings=asking.settings, canaries=(), listener=journal, keep_one=True
            )
        finally:
            engines.reuse()
        for failure in failed:
            journal.forget(failure.adapter_id)
    trials = {key_of(one): one.trial for one in saved}
    shown = [case for case in cases if case.id in asking.prompts]
    return {
        trials[key]: score_cases(trials[key], shown, replies, reply_format=asking.reply_format)
        for key, replies in journal.close().items()
    }


def engine_seconds(run: RunDir) -> float:
    """Seconds that engines spent on the replies that lie in `run`, loading adapters included."""
    places = sorted(run.root.glob("evals/*/engine.json"))
    made = [parse_line(place.read_text(encoding="utf-8"), EngineRecord, where=str(place)) for place in places]
    return round(sum(record.load_s + record.generate_s for record in made), 3)


def key_of(one: SavedTrial) -> str:
    """The name of a checkpoint, which no other step of the trial has."""
    return f"{one.trial}-step-{one.step}"


def _kept(config: RunConfig, run: RunDir, asking: Asking, one: SavedTrial) -> tuple[Path, str]:
    """A copy of the adapter that stays while it is asked, and its digest."""
    record = one.record.model_copy(update={"trial_id": key_of(one)})
    adapter = keep_adapter(one.folder, run, record, model=config.model, tokenizer=asking.tokenizer)
    return run.adapter(adapter.id), adapter.sha256
