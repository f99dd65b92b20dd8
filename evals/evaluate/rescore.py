"""An evaluation without its engines: what it is made from, what it leaves, and its replies judged, once or again."""

from collections.abc import Sequence
from pathlib import Path

from evals.cases.suites import suite_files
from evals.records import Case, EngineRecord, FailedAdapter, Generation, Scores
from evals.stats.ceiling import blind_metrics, ceiling_text, ceilings_of, judge_own_replies
from evals.stats.latency import TimedReply, timings_of
from evals.stats.metrics import METRICS
from evals.stats.scores import foreign_text, score_cases
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import AdapterError, EvaluationError, RunConflictError, UnscoredAdaptersError
from orchestrator.core.files import digest_of, parse_line, read_jsonl, write_text_atomic
from orchestrator.core.progress import say
from orchestrator.core.records import BASE_ADAPTER_ID, AdapterRecord
from orchestrator.run.folder import brought_in
from orchestrator.run.paths import RunDir


def adapter_folders(run: RunDir) -> list[Path]:
    """Folders of the adapters that a run kept."""
    return sorted(run.root.glob("adapters/[!.]*"))


def gather_adapters(config: RunConfig, run: RunDir) -> dict[str, AdapterError]:
    """Bring the adapters of the configuration in; by name, why some cannot be (`outside.bring_in`).

    Raises:
        RunConflictError: If there is no adapter, or no case to score it on.
    """
    left_out: dict[str, AdapterError] = {}
    if config.eval.adapters or brought_in(run):
        from orchestrator.models.outside import bring_in  # takes seconds

        left_out = bring_in(config, run)
    if not adapter_folders(run) and not left_out:
        fix = "Run search or train first, or name adapters that exist (--adapter, eval.adapters)"
        raise RunConflictError("the run has no adapter", where=str(run.root), fix=fix)
    if not run.split("test").is_file() and not config.eval.suites:
        fix = "Run prepare, search or train first, or name suites (eval.suites)"
        raise RunConflictError("the run has no held-out samples", where=str(run.root), fix=fix)
    return left_out


def stage_digest(config: RunConfig, run: RunDir) -> str:
    """Digest of the held-out part, the suites, the adapters' files, and the settings."""
    files = [path for folder in adapter_folders(run) for path in sorted(folder.iterdir())]
    files += suite_files(config.eval.suites)
    return digest_of(run.split("test"), *files, config.eval, config.model)


def stage_outputs(run: RunDir) -> list[Path]:
    """Files that a finished evaluation has."""
    ids = (BASE_ADAPTER_ID, *(folder.name for folder in adapter_folders(run)))
    return [run.cases, *(path for id_ in ids for path in (run.scores(id_), run.generations(id_)))]


def rescore_run(config: RunConfig, run: RunDir) -> None:
    """Judge the replies of the run again, without an engine.

    Raises:
        RunConflictError: If the run has no replies, or some are of an adapter that was trained again since.
        UnscoredAdaptersError: After all others are scored, if one lacks the reply to too many cases.
    """
    found = sorted(run.root.glob("evals/*/generations.jsonl"))
    if not found or not run.cases.is_file():
        raise RunConflictError("the run has no replies", where=str(run.root), fix="Run evaluate without --rescore")
    reply_format = _reply_format(config)
    cases = list(read_jsonl(run.cases, Case))
    say_what_is_blind(cases)
    failed: list[FailedAdapter] = []
    for path in found:
        adapter_id = path.parent.name
        if lasting := _lasting_failure(run, adapter_id):
            failed.append(lasting)
            continue
        _require_own_replies(run, adapter_id)
        try:
            score_replies(config, run, adapter_id, cases, list(read_jsonl(path, Generation)), reply_format)
        except EvaluationError as error:
            failed.append(FailedAdapter.of(adapter_id, error, lacks_replies=True))
    for path in sorted(run.full_base.root.glob("evals/*/generations.jsonl")):
        replies = list(read_jsonl(path, Generation))
        score_replies(config, run.full_base, path.parent.name, cases, replies, reply_format)
    say(f"The replies of {len(found) - len(failed)} to {len(cases)} cases were judged again, read as {reply_format}.")
    keep_failures(run, failed)
    raise_failures(run, failed)


def say_what_is_blind(cases: Sequence[Case]) -> None:
    """Say on which metrics the data's own replies to the cases fail."""
    ceilings = ceilings_of(judge_own_replies(cases))
    for name in blind_metrics(ceilings):
        say(f"{METRICS[name].label}: {ceiling_text(name, ceilings[name])} (a judge could tell: eval.judge).")


def _lasting_failure(run: RunDir, adapter_id: str) -> FailedAdapter | None:
    """Why an adapter could not be evaluated, unless only replies are missing: judging again mends nothing else."""
    path = run.failure(adapter_id)
    if not path.is_file():
        return None
    failure = parse_line(path.read_text(encoding="utf-8"), FailedAdapter, where=str(path))
    return None if failure.lacks_replies else failure


def _require_own_replies(run: RunDir, adapter_id: str) -> None:
    made, adapter = run.engine(adapter_id), run.adapter_record(adapter_id)
    if made.is_file() and adapter.is_file():
        record = parse_line(adapter.read_text(encoding="utf-8"), AdapterRecord, where=str(adapter))
        engine = parse_line(made.read_text(encoding="utf-8"), EngineRecord, where=str(made))
        engine.require_made_by(record, where=str(made))


def _reply_format(config: RunConfig) -> str:
    if config.eval.reply_format != "auto":
        return config.eval.reply_format
    from orchestrator.chat.rendering import reply_format_of
    from orchestrator.models.base import base_tokenizer

    return reply_format_of(config.eval.reply_format, base_tokenizer(config.model))


def score_replies(
    config: RunConfig,
    run: RunDir,
    adapter_id: str,
    cases: Sequence[Case],
    generations: Sequence[Generation],
    reply_format: str,
) -> Scores:
    """Judge one adapter's replies and write `scores.json`.

    Raises:
        EvaluationError: If too many cases have no reply; the scores are then not written.
    """
    run.scores(adapter_id).unlink(missing_ok=True)
    timed = read_jsonl(run.latency, TimedReply) if run.latency.is_file() else ()
    timings = timings_of(adapter_id, timed)
    scores = score_cases(adapter_id, cases, generations, reply_format=reply_format, timings=timings)
    if scores.num_unscored > config.eval.max_unscored_rate * scores.num_cases:
        first = next((generation.error for generation in generations if generation.error), "there is no reply")
        raise EvaluationError(
            f"{scores.num_unscored} of {scores.num_cases} cases got no reply; the first because {first}",
            where=adapter_id,
            allowed=f"a share of {config.eval.max_unscored_rate:g} (eval.max_unscored_rate)",
        )
    if foreign := foreign_text(scores, "evaluate again with --rescore and eval.reply_format"):
        say(f"{adapter_id}: {foreign}.")
    write_text_atomic(run.scores(adapter_id), scores.model_dump_json(indent=2) + "\n")
    run.failure(adapter_id).unlink(missing_ok=True)
    return scores


def keep_failures(run: RunDir, failed: Sequence[FailedAdapter]) -> None:
    """Write `failure.json` of each, and remove its scores."""
    for failure in failed:
        run.scores(failure.adapter_id).unlink(missing_ok=True)
        write_text_atomic(run.failure(failure.adapter_id), failure.model_dump_json(indent=2) + "\n")


def raise_failures(run: RunDir, failed: Sequence[FailedAdapter]) -> None:
    """Say which adapters could not be scored.

    Raises:
        UnscoredAdaptersError: If there is one.
    """
    if failed:
        each = "; ".join(f"{failure.adapter_id}: {failure.message.rstrip('.')}" for failure in failed)
        raise UnscoredAdaptersError(f"not scored ({len(failed)}): {each}", where=str(run.root / "evals"))
