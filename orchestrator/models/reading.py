"""What an untouched base makes of the rows that it is about to be trained on."""

import inspect
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from orchestrator.core.files import write_text_atomic
from orchestrator.core.steps import BaseReading

Rows = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Token ids and labels of each."""
ROWS = 16
"""Rows read: a second or two, and enough that their mean says more than their spread."""
LEAST_SHARED = 2
"""Tokens that prompts must end in alike before they count as the mark of a reply."""


def note_reading(model: PreTrainedModel, rows: Rows, path: Path) -> None:
    """Write what a base makes of the first of these rows, unless that is written already or the base cannot tell."""
    if path.is_file() or "logits_to_keep" not in inspect.signature(model.forward).parameters:
        return
    write_text_atomic(path, read_base(model, rows[:ROWS]).model_dump_json() + "\n")


def read_base(model: PreTrainedModel, rows: Rows) -> BaseReading:
    """The base's losses on some rows, given as token ids and labels; labels below 0 carry no loss.

    The mark of a reply are the tokens in which all prompts end (`<|im_start|>assistant` and the like): a base that was
    trained on a chat template finds its marks all but certain, whatever the conversation is about.
    """
    marks = _mark_length(rows)
    replies, marked = [], []
    for ids, labels in rows:
        learned = [place for place, label in enumerate(labels) if label >= 0 and place]
        if not learned:
            continue
        mark = [place for place in range(learned[0] - marks, learned[0]) if place > 0]
        losses = _losses_at(model, ids, [*mark, *learned])
        marked.append(losses[: len(mark)])
        replies.append(losses[len(mark) :])
    return BaseReading(
        rows=len(replies),
        loss=_mean(replies),
        mark_loss=_mean(marked) if marks >= LEAST_SHARED else None,
        guess_loss=math.log(model.config.get_text_config().vocab_size),
    )


def _losses_at(model: PreTrainedModel, ids: Sequence[int], places: Sequence[int]) -> torch.Tensor:
    """Losses of the tokens at these places, none of which is the first."""
    tokens = torch.tensor([list(ids)], device=model.device)
    before = torch.tensor(places, device=model.device) - 1
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False, logits_to_keep=before).logits[0].float()
    return torch.nn.functional.cross_entropy(logits, tokens[0, before + 1], reduction="none").cpu()


def _mark_length(rows: Rows) -> int:
    """How many tokens the prompts of the first replies end in alike."""
    prompts = []
    for ids, labels in rows:
        first = next((place for place, label in enumerate(labels) if label >= 0), 0)
        prompts.append(list(ids[:first])[::-1])
    length = 0
    for tokens in zip(*prompts, strict=False):
        if len(set(tokens)) > 1:
            break
        length += 1
    return length


def _mean(parts: Sequence[torch.Tensor]) -> float:
    return float(torch.cat(list(parts)).mean()) if parts else math.nan
