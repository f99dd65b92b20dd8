"""Chat templates: the one that renders training also renders evaluation, so both see the same tokens."""

import json
import re
from datetime import date, datetime, time
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
            fix="Set model.chat_template, to hermes for example, or use an instruction-tuned model as model.base",
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
    except Exception:  # noqa: BLE001 - an unknown template may fail in any way here; prove_template checks it
        return own
    finally:
        tokenizer.chat_template = given


_ASKS_DATE = re.compile(r"\b(?:strftime_now|date_string)\b")
_DATE_CODE = re.compile(r"(?<!\{)%-?[A-Za-z]")
"""Parts of the format of a date; `{%-` opens a statement."""
_WRITTEN_DATE = "{{#- The date that is shown is {} -#}}"
_LLAMA_DATE = "%d %b %Y"
"""How templates that know `date_string` write it."""


def dated_template(template: str, day: date | None) -> str:
    """The template with `day` in place of today, if it shows a date at all; None leaves it the clock.

    A client's own `date_string` is still obeyed.
    """
    if day is None or _ASKS_DATE.search(template) is None:
        return template
    moment = datetime.combine(day, time())
    codes = {code: moment.strftime(code) for code in sorted(set(_DATE_CODE.findall(template)))}
    steps = "".join(f" | replace({json.dumps(code)}, {json.dumps(text)})" for code, text in codes.items())
    now = f"{{%- macro strftime_now(format) -%}}{{{{ format{steps} }}}}{{%- endmacro %}}"
    default = f'date_string if date_string is defined else "{moment.strftime(_LLAMA_DATE)}"'
    return f"{_WRITTEN_DATE.format(day)}{now}{{%- set date_string = {default} %}}\n{template}"


def written_date(template: str) -> date | None:
    """The date that `dated_template` wrote into a template, None where there is none."""
    found = re.search(re.escape(_WRITTEN_DATE.format("@")).replace("@", r"(\d{4}-\d{2}-\d{2})"), template)
    return date.fromisoformat(found[1]) if found else None


_PRINTS_CALL = re.compile(r"(?:function['\"]?\]?|\b(?:tool_)?calls?|\btc)\s*\|\s*tojson")
"""A call or its function printed as JSON, key by key as it is given."""
_CALLS_IN_ORDER = (
    "{%- set shown = namespace(messages=[]) %}{%- for message in messages %}"
    "{%- if message.tool_calls %}{%- set kept = namespace(calls=[]) %}{%- for call in message.tool_calls %}"
    "{%- set id = {'id': call.id} if call.id is defined else {} %}"
    "{%- set named = dict(name=call.function.name, arguments=call.function.arguments) %}"
    "{%- set kept.calls = kept.calls + [dict(dict(type='function', **id), function=named)] %}{%- endfor %}"
    "{%- set message = dict(message, tool_calls=kept.calls) %}{%- endif %}"
    "{%- set shown.messages = shown.messages + [message] %}{%- endfor %}{%- set messages = shown.messages %}"
)
"""Puts the keys of calls into the order of `records.ToolCall`; `vllm serve` gives arguments before the name."""


def served_template(template: str, *, thinking: bool) -> str:
    """A template that renders without any argument what `template` renders with `enable_thinking` as given.

    Many templates think unless they are told not to, and a server's clients seldom say. Theirs is still obeyed. Calls
    that are printed as JSON have their keys in one order, whatever the server's.
    """
    default = "true" if thinking else "false"
    ordered = _CALLS_IN_ORDER if _PRINTS_CALL.search(template) else ""
    # The line break ends the line for what follows, as at the start of a file, and is not rendered.
    given = f"{{%- set enable_thinking = enable_thinking if enable_thinking is defined else {default} %}}"
    return f"{given}{ordered}\n{template}"


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
