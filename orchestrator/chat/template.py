"""Chat templates: the one that renders training also renders evaluation, so both see the same tokens."""

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase
from trl.chat_template_utils import get_training_chat_template, has_generation_markers, qwen3_chat_template

from orchestrator.core.errors import InputError


def qwen3_template() -> str:
    """The chat template that Qwen3 models ship with."""
    return str(qwen3_chat_template)


def own_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The template that the tokenizer came with; of several named ones, the one for tools.

    Raises:
        InputError: If it has none.
    """
    templates = tokenizer.chat_template
    own = templates.get("tool_use", templates.get("default")) if isinstance(templates, dict) else templates
    if not own:
        raise InputError(
            "the tokenizer has no chat template",
            where=str(tokenizer.name_or_path),
            fix="Use an instruction-tuned model as model.base",
        )
    return str(own)


def training_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's own template, or its training variant where one is known.

    A training variant marks the assistant's turns, and renders a turn the same whatever follows it.

    Raises:
        InputError: If the tokenizer has no chat template.
    """
    given, own = tokenizer.chat_template, own_template(tokenizer)
    tokenizer.chat_template = own  # one text, which is compared with the known ones
    try:
        return str(get_training_chat_template(tokenizer) or own)
    except Exception:  # noqa: BLE001 - an unknown template may fail in any way here; rendering.prove_template checks it
        return own
    finally:
        tokenizer.chat_template = given


def served_template(template: str, *, thinking: bool) -> str:
    """A template that renders without any argument what `template` renders with `enable_thinking` as given.

    Many templates think unless they are told not to, and a server's clients seldom say. Theirs is still obeyed.
    """
    default = "true" if thinking else "false"
    # The line break ends the line for what follows, as at the start of a file, and is not rendered.
    return f"{{%- set enable_thinking = enable_thinking if enable_thinking is defined else {default} %}}\n{template}"


def is_marked(template: str) -> bool:
    """Whether the template marks which of its output is the assistant's."""
    return bool(has_generation_markers(template))


def stop_token_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens at which vLLM ends a reply: the tokenizer's end of sequence and those of the model's generation config.

    That file is where the tokenizer was loaded from; without one vLLM reads the model's own config.
    """
    found: list[Any] = [tokenizer.eos_token_id]
    folder = Path(tokenizer.name_or_path)
    for name in ("generation_config.json", "config.json"):
        if tokenizer.name_or_path and (folder / name).is_file():
            given = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
            found += given if isinstance(given, list) else [given]
            break
    return frozenset(token for token in found if isinstance(token, int))
