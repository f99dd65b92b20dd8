"""Calls of Llama 4 written like Python: one list, by itself or between `<|python_start|>` and `<|python_end|>`.

    <|python_start|>[name(argument="value"), other.name()]<|python_end|>

The module `pythonic` says what is an attempt without tokens and reads the list. With tokens every reply is one.
"""

from orchestrator.chat.formats.pythonic import PYTHONIC
from orchestrator.chat.formats.reply import Found, ReplyFormat, Schemas, problem, text_beside

_START, _END = "<|python_start|>", "<|python_end|>"


def _read(text: str, schemas: Schemas) -> Found:
    start, end = text.find(_START), text.rfind(_END)
    if start < 0 and end < 0:
        return PYTHONIC.read(text, schemas)
    if start < 0 or end < start + len(_START):
        return Found(problems=(problem("unclosed_tag", f"there is no {_START if start < 0 else _END} for the other"),))
    before, inside, after = text[:start].strip(), text[start + len(_START) : end].strip(), text[end + len(_END) :]
    if before or after.strip():
        beside = f"{before} {after}"
        return Found(problems=(text_beside(before, after),), prose=beside)
    found = PYTHONIC.read(inside, schemas)
    if found.calls or found.problems:
        return found
    return Found(problems=(problem("not_pythonic", "between the tokens stands no list of calls"),))


LLAMA4_PYTHONIC = ReplyFormat(
    name="llama4_pythonic",
    is_shown_in=lambda template: "<|header_start|>" in template and PYTHONIC.is_shown_in(template),
    read=_read,
    mark=_START,
    closing_tag=_END,
    beginnings=PYTHONIC.beginnings,
    precedence=1,
    vllm_parser="llama4_pythonic",
)
