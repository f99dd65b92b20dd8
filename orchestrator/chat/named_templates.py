"""Chat templates that `model.chat_template` can name. Light: reads files of TRL without importing it."""

from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from orchestrator.core.errors import ConfigError

CONFIG_KEY = "model.chat_template"
OWN, HERMES, FILE = "own", "hermes", "file"
"""The base's own template, one that shows everything to a base of any family, and the name of any other."""

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
_MAX_BYTES = 2**20
"""Those of families have at most a tenth of it."""


def template_names() -> tuple[str, ...]:
    """What `model.chat_template` can name beside a file: the base's own, hermes, and the families that TRL ships."""
    return (OWN, HERMES, *sorted(_family_files()))


def template_label(setting: str) -> str:
    """The name of what `model.chat_template` is set to; `FILE` where it is the text of one."""
    return FILE if is_template_text(setting) else setting


def named_template(setting: str) -> str:
    """The text of a template other than the base's own: of a name, or the setting itself if it is a template.

    Raises:
        ConfigError: If there is none of that name.
    """
    if is_template_text(setting):
        return setting
    if setting == HERMES:
        return _HERMES
    if setting not in (families := _family_files()):
        raise _unknown(setting)
    return families[setting].read_text(encoding="utf-8")


def template_of_file(setting: str, path: Path) -> str:
    """The text of the file at `path`, which `model.chat_template` names as `setting`.

    Raises:
        ConfigError: If it is no file, or holds no template.
    """
    where, fix = f"{CONFIG_KEY}: {setting}", "Name a file that renders conversations"
    if path.is_dir():
        inside = path / "chat_template.jinja"
        fix = f"Name {inside}" if inside.is_file() else fix
        raise ConfigError("this is a folder", where=where, allowed=_allowed(), fix=fix)
    text = ""
    try:
        size, is_file = path.stat().st_size, path.is_file()
        if is_file and size <= _MAX_BYTES:
            text = path.read_text(encoding="utf-8-sig")  # a byte order mark would stand in every prompt
    except UnicodeDecodeError:
        raise ConfigError("the file is not UTF-8 text", where=where, fix=fix) from None
    except PermissionError:
        raise ConfigError("the file cannot be read", where=where, fix="Let the user of this process read it") from None
    except (OSError, ValueError):
        raise _unknown(setting) from None
    if not is_file:
        raise ConfigError("this is no regular file", where=where, allowed=_allowed(), fix=fix)
    if size > _MAX_BYTES:
        what = f"the file has {size:,} bytes, too many for a chat template"
        raise ConfigError(what, where=where, allowed=f"at most {_MAX_BYTES:,} bytes", fix=fix)
    if not is_template_text(text):
        held = "holds no Jinja template" if text.strip() else "is empty"
        raise ConfigError(f"the file {held}", where=where, fix=fix)
    return text


def _unknown(setting: str) -> ConfigError:
    near = get_close_matches(setting, template_names(), n=3, cutoff=0.7)
    fix = f"Perhaps {' or '.join(near)} is meant" if near else "Check the name or the path"
    what = "this is neither a file nor a template's name"
    return ConfigError(what, where=f"{CONFIG_KEY}: {setting}", allowed=_allowed(), fix=fix)


def _allowed() -> str:
    return f"a Jinja file, or {', '.join(template_names())}"


def is_template_text(value: str) -> bool:
    """Whether a setting is a template itself, as it stands in a resolved configuration."""
    return "{%" in value or "{{" in value


def _family_files() -> dict[str, Path]:
    trl = find_spec("trl")
    folders = [Path(place) / "chat_templates" for place in (trl.submodule_search_locations or ())] if trl else []
    files = (file for folder in folders for file in folder.glob("*.jinja"))
    return {file.stem: file for file in files if not file.stem.endswith(_TRAINING)}
