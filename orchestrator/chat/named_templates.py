"""Chat templates that `model.chat_template` can name. Light: reads files of TRL without importing it."""

from importlib.util import find_spec
from pathlib import Path

OWN, HERMES = "own", "hermes"
"""The template that the base came with, and the one that shows everything to a base of any family."""

# Hermes' notation in ChatML: what a base without tool calls of its own can learn to write.
_HERMES = """\
{%- set system = messages[0].content if messages[0].role == 'system' else '' %}
{%- if system or tools %}
{{- '<|im_start|>system\\n' + system }}
{%- if tools %}
{{- ('\\n\\n' if system else '') + 'You can call functions. Their JSON Schemas stand here, one a line:\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\n</tools>\\nFor each call write its function and arguments as JSON in tags:\\n' }}
{{- '<tool_call>\\n{"name": <name>, "arguments": <object>}\\n</tool_call>' }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in (messages[1:] if messages[0].role == 'system' else messages) %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user' if loop.first or loop.previtem.role != 'tool' else '' }}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{{- '<|im_end|>\\n' if loop.last or loop.nextitem.role != 'tool' else '' }}
{%- elif message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}
{%- generation %}
{%- if message.reasoning_content %}{{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}{%- endif %}
{{- message.content or '' }}
{%- for call in message.tool_calls or [] %}
{%- set given = call.function.arguments %}
{{- '\\n' if message.content or not loop.first else '' }}
{{- '<tool_call>\\n{"name": ' + (call.function.name | tojson) + ', "arguments": ' }}
{{- (given if given is string else given | tojson) + '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>' }}
{%- endgeneration %}
{{- '\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
_TRAINING = "_training"


def template_names() -> tuple[str, ...]:
    """What `model.chat_template` can name beside a file: the base's own, hermes, and the families that TRL ships."""
    return (OWN, HERMES, *sorted(_family_files()))


def named_template(name: str) -> str:
    """The text of a template other than the base's own."""
    return _HERMES if name == HERMES else _family_files()[name].read_text(encoding="utf-8")


def is_template_text(value: str) -> bool:
    """Whether a setting is a template itself, as it stands in a resolved configuration."""
    return "{%" in value or "{{" in value


def _family_files() -> dict[str, Path]:
    trl = find_spec("trl")
    folders = [Path(place) / "chat_templates" for place in (trl.submodule_search_locations or ())] if trl else []
    files = (file for folder in folders for file in folder.glob("*.jinja"))
    return {file.stem: file for file in files if not file.stem.endswith(_TRAINING)}
