"""`generations.jsonl` while it grows: replies are appended as they finish, and taken up again after a cut."""

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from evals.generate.engine import Prompt
from evals.records import Generation
from orchestrator.core.files import write_text_atomic
from orchestrator.core.jsonl import dump_jsonl


def resume(path: Path, prompts: Sequence[Prompt]) -> list[Generation]:
    """The replies to these very prompts that a file holds, one for each case; the file is left with exactly these.

    A last line that was cut in the middle of writing, replies to other prompts, second replies to one case and cases
    without a reply are dropped, so that they are asked again.
    """
    wanted = {prompt.case_id: prompt.sha256 for prompt in prompts}
    kept: dict[str, Generation] = {}
    for generation in _whole_lines(path):
        if wanted.get(generation.case_id) == generation.prompt_sha256 and generation.has_reply:
            kept.setdefault(generation.case_id, generation)
    if path.is_file():
        write_text_atomic(path, dump_jsonl(kept.values()))
    return list(kept.values())


def _whole_lines(path: Path) -> Iterable[Generation]:
    if not path.is_file():
        return
    for line in path.read_bytes().split(b"\n"):
        try:
            yield Generation.model_validate(json.loads(line))
        except (ValueError, ValidationError):
            continue


def append(path: Path, generations: Sequence[Generation]) -> None:
    """Add replies at the end of a file; they are on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(dump_jsonl(generations))
        file.flush()
        os.fsync(file.fileno())


def put_in_order(path: Path, generations: Iterable[Generation], prompts: Sequence[Prompt]) -> list[Generation]:
    """Write the file anew in the order of the prompts, whole or not at all."""
    by_case = {generation.case_id: generation for generation in generations}
    ordered = [by_case[prompt.case_id] for prompt in prompts if prompt.case_id in by_case]
    write_text_atomic(path, dump_jsonl(ordered))
    return ordered
