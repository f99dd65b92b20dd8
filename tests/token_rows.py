"""Token ids of single samples."""

from transformers import PreTrainedTokenizerBase

from orchestrator.chat.rendering import chat_format
from orchestrator.core.errors import DataError
from orchestrator.core.records import Sample
from orchestrator.data.card import LeftOut
from orchestrator.data.tokens.tokenize import TokenRow, tokenize_samples


def tokenize_sample(tokenizer: PreTrainedTokenizerBase, sample: Sample, *, thinking: bool = False) -> TokenRow:
    """Token ids and labels of a sample of any length; every turn of the assistant is learned that can be.

    Raises:
        DataError: If the sample cannot be trained on, with the reason.
    """
    form = chat_format(tokenizer, thinking=thinking)
    row = next(tokenize_samples(form, [sample], max_length=None)).row
    if isinstance(row, LeftOut):
        raise DataError(f"{row.reason}: {row.detail}", where=f"sample {sample.id}")
    return row
