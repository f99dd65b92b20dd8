"""The pairs of a preference training on disk: texts, tokens, what was left out, and a card with the audit for leaks.

All of it lies in `run.preferences(adapter)`: `pairs.jsonl` (those of train first), `ledger.jsonl`, `card.json`, and the
tokens where a run has those of its samples.
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from datasets import Dataset, disable_progress_bars

from orchestrator.core.errors import TooFewPairsError
from orchestrator.core.files import dump_jsonl, read_jsonl, write_text_atomic
from orchestrator.core.records import Sample, SampleKind
from orchestrator.core.text import counted
from orchestrator.data.card import HeldOutName, LeakCard, Overlap
from orchestrator.data.clean.duplicates import shingles, signature, similar_to
from orchestrator.data.preferences.choose import Choice, Shown
from orchestrator.data.preferences.pair import PAIR_PARTS, AskedCard, PairsCard, card_path
from orchestrator.data.split.leaks import audit_leaks
from orchestrator.data.tokens.store import tokens_folder
from orchestrator.run.paths import RunDir

Name = TypeVar("Name", bound=str)
LEAST_PAIRS = 16
"""Fewer pairs teach nothing that would be shown."""


def pairs_path(place: RunDir) -> Path:
    """One `PreferencePair` a line."""
    return place.root / "pairs.jsonl"


def ledger_path(place: RunDir) -> Path:
    """One `PairEntry` a line, for every pair that was found."""
    return place.root / "ledger.jsonl"


def write_pairs(
    choice: Choice, adapter_id: str, asked: Mapping[SampleKind, AskedCard], run: RunDir, *, threshold: float
) -> PairsCard:
    """Write what was chosen for an adapter of the run, and audit it against the run's held-out parts.

    Raises:
        TooFewPairsError: If fewer than `LEAST_PAIRS` pairs are left, or none for the eval loss; the ledger says why.
    """
    place = run.preferences(adapter_id)
    place.root.mkdir(parents=True, exist_ok=True)
    chosen = [one for part in PAIR_PARTS for one in choice.parts[part]]
    write_text_atomic(pairs_path(place), dump_jsonl(one.pair for one in chosen))
    write_text_atomic(ledger_path(place), dump_jsonl(choice.entries))
    card = PairsCard(
        adapter_id=adapter_id,
        asked=dict(asked),
        found=_counts(entry.origin for entry in choice.entries),
        kept=_counts(entry.origin for entry in choice.entries if entry.part),
        left_out=_counts(entry.left_out for entry in choice.entries if entry.left_out),
        parts={part: len(choice.parts[part]) for part in PAIR_PARTS},
        kinds=choice.kinds,
        leaks=_leaks(chosen, run, place, threshold),
        alone=_counts("good" if one.candidate.label else "bad" for one in chosen if one.candidate.label is not None),
    )
    write_text_atomic(card_path(place), card.model_dump_json(indent=2) + "\n")
    if len(chosen) < LEAST_PAIRS or not all(choice.parts.values()):
        raise _too_few(len(chosen), card, place)
    disable_progress_bars()
    for part in PAIR_PARTS:
        folder = tokens_folder(place, part)
        shutil.rmtree(folder, ignore_errors=True)
        Dataset.from_list([one.tokens._asdict() for one in choice.parts[part]]).save_to_disk(folder)
    return card


def _counts(names: Iterable[Name]) -> dict[Name, int]:
    return dict(Counter(names).most_common())


def _leaks(chosen: Sequence[Shown], run: RunDir, place: RunDir, threshold: float) -> dict[HeldOutName, LeakCard]:
    held_out: tuple[HeldOutName, ...] = ("val", "test")
    pairs = [one.candidate.sample for one in chosen]
    near = {part: _near(pairs, list(read_jsonl(run.split(part), Sample)), threshold) for part in held_out}
    return audit_leaks({"train": pairs_path(place), **{part: run.split(part) for part in held_out}}, near)


def _near(pairs: Sequence[Sample], held_out: Sequence[Sample], threshold: float) -> Overlap:
    if not pairs or not held_out:
        return Overlap(count=0, n=len(held_out))
    samples = [*pairs, *held_out]
    signatures = np.stack([signature(shingles(sample)) for sample in samples])
    rows = range(len(pairs), len(samples))
    found = similar_to(rows, range(len(pairs)), signatures, threshold, lambda row: shingles(samples[row]))
    example = next((f"{samples[row].id} and {samples[pair].id}" for row, pair in found.items()), None)
    return Overlap(count=len(found), n=len(held_out), example=example)


def _too_few(kept: int, card: PairsCard, place: RunDir) -> TooFewPairsError:
    replies, wrong = (sum(getattr(one, name) for one in card.asked.values()) for name in ("replies", "wrong"))
    why = ", ".join(f"{reason} x {count}" for reason, count in card.left_out.items())
    asked = f"; the adapter gave {wrong} wrong replies of {replies}" if replies else ""
    return TooFewPairsError(
        f"{counted(kept, 'pair')} to learn from{asked}{f'; left out: {why}' if why else ''}",
        where=str(ledger_path(place)),
        allowed=f"at least {LEAST_PAIRS}, some of which prefer.val gives the eval loss",
        fix="Raise prefer.max_prompts or prefer.replies_per_prompt, or name files of pairs (prefer.sources)",
    )
