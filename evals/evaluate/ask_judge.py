"""Asks a judge model which replies refuse, in engines like those that made the replies."""

from collections.abc import Mapping, Sequence

from transformers import AutoConfig

from evals.generate.engine import EngineSettings, Prompt
from evals.generate.engines import Engines, answer_all, engine_kv_cache_bytes
from evals.generate.journal import Journal, engine_record, inputs_sha256
from evals.judge.second_opinion import JUDGED_KINDS, judge_prompts, judgements_of
from evals.records import Case, Generation, Scores
from evals.stats.agreement import Agreement, agreement
from orchestrator.chat.rendering import render_prompt
from orchestrator.config.evaluation import JudgeConfig
from orchestrator.config.schema import ModelConfig, RunConfig
from orchestrator.core.files import dump_jsonl, read_jsonl, write_text_atomic
from orchestrator.core.progress import bar, say
from orchestrator.core.text import counted
from orchestrator.models.base import base_folder, base_sha256, load_tokenizer
from orchestrator.run.paths import RunDir


def ask_judge(
    config: RunConfig,
    run: RunDir,
    judge: JudgeConfig,
    *,
    cases: Sequence[Case],
    scored: Sequence[Scores],
    engines: Engines,
) -> None:
    """Have the judge model read the replies in which a refusal is at issue, and write `evals/<id>/judgements.jsonl`.

    The scores do not depend on it. Its own replies are kept in `judge/` and used again after an interruption.

    Raises:
        ModelNotFoundError: If there is no such model.
        EvaluationError: If engines break one after the other.
    """
    model = judge_model(judge)
    prompts = _prompts(run, model, cases, scored)
    asked = {key: found for key, found in prompts.items() if found}
    if not asked:
        say("No reply is at issue, so the judge has nothing to read.")
        return
    settings = _settings(config, judge, model, prompts=asked, on_gpu=engines.on_gpu)
    digest = inputs_sha256(settings, base_sha256(base_folder(model)), None)
    entries = {
        key: engine_record(None, digest, settings, engines.count).model_copy(update={"adapter_id": key})
        for key in asked
    }
    journal = Journal(run.judge, entries, dict.fromkeys(asked), asked)
    works = journal.pending()
    with bar("second opinions", sum(len(work.prompts) for work in works)) as advance:
        journal.on_answer(advance)
        answer_all(works, engines=engines, settings=settings, canaries=(), listener=journal)
    answers = journal.close()
    for scores in scored:
        _keep(run, scores, answers.get(scores.adapter_id, []))


def judge_model(judge: JudgeConfig) -> ModelConfig:
    """The judge as a model to load."""
    return ModelConfig.model_validate(judge.model_dump(exclude={"max_new_tokens"}))


def _prompts(
    run: RunDir, model: ModelConfig, cases: Sequence[Case], scored: Sequence[Scores]
) -> dict[str, list[Prompt]]:
    tokenizer = load_tokenizer(base_folder(model), trust_remote_code=model.trust_remote_code)
    return {
        scores.adapter_id: [
            Prompt(asked.case_id, render_prompt(tokenizer, asked.messages, ()))
            for asked in judge_prompts(
                cases, list(read_jsonl(run.generations(scores.adapter_id), Generation)), scores.verdicts
            )
        ]
        for scores in scored
    }


def _settings(
    config: RunConfig, judge: JudgeConfig, model: ModelConfig, *, prompts: Mapping[str, Sequence[Prompt]], on_gpu: bool
) -> EngineSettings:
    limit = AutoConfig.from_pretrained(base_folder(model), trust_remote_code=model.trust_remote_code)
    longest = max(len(prompt.token_ids) for found in prompts.values() for prompt in found)
    return EngineSettings(
        base=model,
        dtype=judge.dtype,
        on_gpu=on_gpu,
        max_model_len=min(longest + judge.max_new_tokens, limit.get_text_config().max_position_embeddings),
        max_lora_rank=None,
        kv_cache_bytes=engine_kv_cache_bytes(config.eval.kv_cache_gib, on_gpu=on_gpu),
        max_new_tokens=judge.max_new_tokens,
        temperature=0.0,
        seed=config.eval.seed,
        choices=tuple(kind.value for kind in JUDGED_KINDS),
    )


def _keep(run: RunDir, scores: Scores, answers: Sequence[Generation]) -> None:
    judgements = judgements_of(scores.verdicts, {answer.case_id: answer.text for answer in answers})
    write_text_atomic(run.judgements(scores.adapter_id), dump_jsonl(judgements))
    found = agreement(scores.verdicts, judgements)
    say(f"{scores.adapter_id}: {_agreement_text(found)}")


def _agreement_text(found: Agreement) -> str:
    same = found.same_refused
    if same.value is None:
        return f"the judge gave no usable opinion on {counted(found.num_asked, 'reply', 'replies')}."
    return (
        f"judge and classifier agree on whether a reply refuses in {same.value:.3f} [{same.low:.3f}, {same.high:.3f}] "
        f"of {counted(same.n, 'reply', 'replies')}; {counted(found.num_unusable, 'opinion')} could not be used."
    )
