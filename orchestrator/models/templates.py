"""Chat templates: the one that renders training also renders evaluation, so both see the same tokens."""

from transformers import PreTrainedTokenizerBase
from trl.chat_template_utils import get_training_chat_template, qwen3_chat_template

from orchestrator.errors import InputError


def qwen3_template() -> str:
    """The chat template that Qwen3 models ship with."""
    return str(qwen3_chat_template)


def training_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's own template, or its training variant: prefix-preserving, assistant turns marked.

    Raises:
        InputError: If the tokenizer has no chat template, or one for which no marked variant is known.
    """
    if not tokenizer.chat_template:
        raise InputError(
            "the tokenizer has no chat template",
            where=str(tokenizer.name_or_path),
            fix="Use an instruction-tuned model as model.base",
        )
    try:
        return str(get_training_chat_template(tokenizer) or tokenizer.chat_template)
    except ValueError:
        raise InputError(
            "the chat template does not mark the assistant's turns and no marked variant of it is known",
            where=str(tokenizer.name_or_path),
            allowed="templates with {% generation %} markers, and those of Qwen 2.5 and 3, Llama 3, Gemma and others",
            fix="Put {% generation %} and {% endgeneration %} around the assistant's text in the tokenizer's template",
        ) from None
