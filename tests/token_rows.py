"""Token ids of single samples."""

from transformers import PreTrainedTokenizerBase

from orchestrator.chat.rendering import ChatFormat, chat_format
from orchestrator.core.errors import DataError
from orchestrator.core.records import Sample
from orchestrator.data.card import LeftOut
from orchestrator.data.tokens.tokenize import TokenRow, TokenRows, tokenize_samples


def tokenize_sample(tokenizer: PreTrainedTokenizerBase, sample: Sample, *, thinking: bool = False) -> TokenRow:
    """The one row of a sample of any length, in which every turn of the assistant is learned.

    Raises:
        DataError: If the sample cannot be trained on, with the reason.
    """
    (row,) = tokens_of(chat_format(tokenizer, thinking=thinking), sample).rows
    return row


def tokens_of(form: ChatFormat, sample: Sample) -> TokenRows:
    """All rows of a sample; raises as `tokenize_sample`."""
    tokens = next(tokenize_samples(form, [sample], max_length=None)).tokens
    if isinstance(tokens, LeftOut):
        raise DataError(f"{tokens.reason}: {tokens.detail}", where=f"sample {sample.id}")
    return tokens


def learned_texts(form: ChatFormat, sample: Sample) -> list[list[str]]:
    """By row, what is learned."""
    rows = tokens_of(form, sample).rows
    return [form.decode_batch([row.input_ids[span.start : span.end] for span in row.spans]) for row in rows]
