"""Canonical samples -> token ids and labels, rendered once with the chat template that also renders evaluation.

Only what the assistant says is learned. The empty think block that some templates put before every reply is part of the
prompt at evaluation (`render_prompt`), so it is not learned either.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from orchestrator.config import RunConfig
from orchestrator.errors import DataError
from orchestrator.jsonl import read_jsonl
from orchestrator.models.base import base_folder, load_tokenizer
from orchestrator.records import JsonObject, Message, Record, Sample, ToolSpec
from orchestrator.runs import RunDir, SplitName, digest_of, write_text_atomic

IGNORED = -100
"""Label of a token that is not learned (PyTorch's cross-entropy default)."""


class TokenRow(NamedTuple):
    """One sample in tokens; both lists have the same length."""

    input_ids: list[int]
    labels: list[int]


class LeftOut(Record):
    """A sample that is not trained on, and why."""

    id: str
    source: str
    tokens: int
    reason: str


class TokenCard(Record):
    """Token counts of one part of the split; `learned_tokens` carry the loss."""

    samples: int
    tokens: int
    learned_tokens: int
    longest: int
    left_out: tuple[LeftOut, ...]


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[ToolSpec]
) -> list[int]:
    """Token ids of a conversation up to the point where the assistant speaks; thinking is switched off."""
    ids = tokenizer.apply_chat_template(
        _plain_messages(messages),
        tools=_plain_tools(tools),
        add_generation_prompt=True,
        enable_thinking=False,
        return_dict=False,
    )
    return list(ids)


def tokenize_sample(tokenizer: PreTrainedTokenizerBase, sample: Sample) -> TokenRow:
    """Token ids and labels of a sample; every assistant turn is learned, its end-of-turn token included."""
    encoded = tokenizer.apply_chat_template(
        _plain_messages(sample.messages),
        tools=_plain_tools(sample.tools),
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    ids = list(encoded["input_ids"])
    learned = list(encoded["assistant_masks"])
    _unlearn(learned, ids, _reply_prefix(tokenizer))
    return TokenRow(ids, [token if keep else IGNORED for token, keep in zip(ids, learned, strict=True)])


def _unlearn(learned: list[int], ids: list[int], prefix: list[int]) -> None:
    """Clear `learned` where an assistant turn starts with `prefix`."""
    if not prefix:
        return
    for start in range(len(ids)):
        starts_turn = learned[start] and (start == 0 or not learned[start - 1])
        if starts_turn and ids[start : start + len(prefix)] == prefix:
            learned[start : start + len(prefix)] = [0] * len(prefix)


def _reply_prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What switching thinking off adds to a prompt: the tokens of an empty think block, or nothing."""
    question = [{"role": "user", "content": "?"}]
    on, off = (
        tokenizer.apply_chat_template(question, add_generation_prompt=True, enable_thinking=thinking, return_dict=False)
        for thinking in (True, False)
    )
    return list(off[len(on) :]) if off[: len(on)] == on else []


def _plain_messages(messages: Sequence[Message]) -> list[JsonObject]:
    return [message.model_dump(mode="json", exclude_none=True) for message in messages]


def _plain_tools(tools: Sequence[ToolSpec]) -> list[JsonObject] | None:
    return [tool.model_dump(mode="json") for tool in tools] or None


def tokens_folder(run: RunDir, part: SplitName) -> Path:
    """Where the tokens of one part are kept (Arrow, memory-mapped by every worker)."""
    return run.root / "data" / "tokens" / part


def tokenize_run(config: RunConfig, run: RunDir) -> dict[SplitName, TokenCard]:
    """Tokenise train and val once for all trials, unless it is done for the same data and base.

    Writes `data/tokens/<part>/` with columns `input_ids` and `labels`, and `data/tokens/card.json`.

    Raises:
        DataError: If no sample of a part fits `data.max_length`.
        ModelNotFoundError: If the base model is not there.
    """
    folder = base_folder(config.model)
    tokenizer = load_tokenizer(folder, trust_remote_code=config.model.trust_remote_code)
    parts: tuple[SplitName, ...] = ("train", "val")
    card_path = run.root / "data" / "tokens" / "card.json"
    digest = digest_of(
        *(run.split(part) for part in parts), folder / "tokenizer.json", tokenizer.chat_template, config.data.max_length
    )
    if card_path.is_file():
        stored = json.loads(card_path.read_text(encoding="utf-8"))
        if stored.pop("digest") == digest:
            return {part: TokenCard.model_validate(stored[part]) for part in parts}
    card_path.unlink(missing_ok=True)  # whoever is cut off below must not leave a card that fits older tokens
    max_length = config.data.max_length
    cards = {part: _tokenize_part(run, part, tokenizer, max_length) for part in parts}
    content: JsonObject = {"digest": digest}
    content.update((part, card.model_dump(mode="json")) for part, card in cards.items())
    write_text_atomic(card_path, json.dumps(content, indent=2) + "\n")
    return cards


def _tokenize_part(run: RunDir, part: SplitName, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TokenCard:
    rows: list[TokenRow] = []
    left_out: list[LeftOut] = []
    for sample in read_jsonl(run.split(part), Sample):
        row = tokenize_sample(tokenizer, sample)
        reason = _why_left_out(row, max_length)
        if reason:
            left_out.append(LeftOut(id=sample.id, source=sample.source, tokens=len(row.input_ids), reason=reason))
        else:
            rows.append(row)
    if not rows:
        raise DataError(
            f"no sample of {part} can be trained on; the first is left out because it {left_out[0].reason}"
            if left_out
            else f"{part} holds no sample",
            where=str(run.split(part)),
            fix="Raise data.max_length, or give more or shorter conversations",
        )
    columns = {"input_ids": [row.input_ids for row in rows], "labels": [row.labels for row in rows]}
    Dataset.from_dict(columns).save_to_disk(tokens_folder(run, part))
    return TokenCard(
        samples=len(rows),
        tokens=sum(len(row.input_ids) for row in rows),
        learned_tokens=sum(label != IGNORED for row in rows for label in row.labels),
        longest=max(len(row.input_ids) for row in rows),
        left_out=tuple(left_out),
    )


def _why_left_out(row: TokenRow, max_length: int) -> str | None:
    if len(row.input_ids) > max_length:
        return f"has {len(row.input_ids)} tokens, more than data.max_length {max_length}"
    if all(label == IGNORED for label in row.labels):
        return "has no token of the assistant to learn"
    return None
