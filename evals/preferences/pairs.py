"""The pairs that an adapter learns from: those of the data, those of the user's files, and its own wrong replies."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from evals.cases.suites import read_suite, suite_files
from evals.generate.engines import Engines
from evals.preferences.own_replies import OwnReplies, own_wrong_replies
from orchestrator.chat.rendering import chat_format
from orchestrator.config.schema import RunConfig
from orchestrator.core.files import digest_of, read_jsonl
from orchestrator.core.records import AdapterRecord, Message, Sample
from orchestrator.data.preferences.choose import choose_pairs
from orchestrator.data.preferences.pair import Candidate, PairsCard
from orchestrator.data.preferences.rows import pairs_of_sources
from orchestrator.data.preferences.store import write_pairs
from orchestrator.data.prepare.prepare import AUDITED_SIMILARITY, data_digest
from orchestrator.models.base import base_tokenizer
from orchestrator.run.paths import RunDir

OpenEngines = Callable[[], AbstractContextManager[Engines]]
"""Opens engines where some are needed."""


def make_pairs(config: RunConfig, run: RunDir, adapter_id: str, open_engines: OpenEngines, base_dir: Path) -> PairsCard:
    """Collect the pairs for an adapter of the run, choose among them, and write them to `run.preferences(adapter_id)`.

    Relative paths of sources start at `base_dir`.

    Raises:
        TooFewPairsError: If too few are left.
        DataError: If a file cannot be read.
        AdapterError: If the adapter cannot be loaded or changes nothing.
        EvaluationError: If engines break one after the other.
    """
    tokenizer = base_tokenizer(config.model)
    form = chat_format(tokenizer, thinking=config.data.thinking, reply_format=config.eval.reply_format)
    own = OwnReplies([], [], {})
    if config.prefer.max_prompts:
        with open_engines() as engines:
            own = own_wrong_replies(config, run, adapter_id, tokenizer, engines)
    found = [*pairs_of_sources(config, run, base_dir), *own.candidates, *own.entries]
    threshold = config.data.near_duplicate_threshold or AUDITED_SIMILARITY
    choice = choose_pairs(
        form,
        [one for one in found if isinstance(one, Candidate)],
        held_out_samples(config, run),
        config.prefer,
        max_length=config.data.max_length,
        threshold=threshold,
    )
    choice.entries += [one for one in found if not isinstance(one, Candidate)]
    return write_pairs(choice, adapter_id, own.asked, run, threshold=threshold)


def pairs_digest(config: RunConfig, run: RunDir, record: AdapterRecord, base_dir: Path) -> str:
    """Digest of what decides the pairs and what an adapter learns from them.

    Raises:
        DataError: If a file of pairs is missing.
    """
    sources = (*config.data.sources, *config.prefer.sources)
    rows = data_digest(config.data.model_copy(update={"sources": sources}), base_dir=base_dir)
    parts = [run.split(part) for part in ("train", "val", "test")]
    replies = config.eval.model_dump(include={"max_new_tokens", "max_model_len", "reply_format", "turns"})
    learning = [config.model, config.prefer.model_copy(update={"sources": ()}), config.train, config.lora.dropout]
    return digest_of(record.sha256, rows, *parts, *suite_files(config.eval.suites), replies, *learning)


def held_out_samples(config: RunConfig, run: RunDir) -> list[Sample]:
    """Everything that no pair may know: val, test, and the cases of the suites."""
    samples = [sample for part in ("val", "test") for sample in read_jsonl(run.split(part), Sample)]
    for suite in config.eval.suites:
        for case in read_suite(suite, turns=config.eval.turns):
            reply = Message(role="assistant", content=case.expected_text, tool_calls=case.expected_calls)
            messages = (*case.messages, reply)
            given = {"id": case.id, "messages": messages, "tools": case.tools, "kind": case.kind, "source": suite.name}
            samples.append(Sample(**given))
    return samples
