"""Whether a chat template can be learned from at all, asked with words that no template writes by itself."""

from orchestrator.chat.named_templates import CONFIG_KEY, HERMES
from orchestrator.chat.rendering import ChatFormat
from orchestrator.chat.segments import render_turns, rows_of
from orchestrator.chat.template_input import RowLeftOut
from orchestrator.core.errors import InputError
from orchestrator.core.records import Message

_ASKED, _SAID, _THOUGHT = "orchard", "lantern", "meadow"
"""Words that no template writes by itself."""


def prove_template(form: ChatFormat, *, where: str | None = None) -> None:
    """Check that training on an answer trains that answer and its end of turn, and nothing of the prompt.

    `where` is what decided on the template, the base by default.

    Raises:
        InputError: If the template shows no answer, or another prompt before it than the one that asks for it, or
            thoughts are to be kept and it drops them.
    """
    try:
        _prove(form)
    except _BadTemplate as fault:
        what, fix = fault.args
        raise InputError(what, where=where or str(form.tokenizer.name_or_path), fix=fix) from None


class _BadTemplate(Exception):
    """What is wrong, and how to fix it."""


def _prove(form: ChatFormat) -> None:
    thought = _THOUGHT if form.thinking else None
    pair = (Message(role="user", content=_ASKED), Message(role="assistant", content=_SAID, reasoning_content=thought))
    for text in (*_learned_texts(form, pair), *_learned_texts(form, pair * 2)):
        if _ASKED in text or _SAID not in text:
            raise _BadTemplate(f"the chat template shows {text[:60]!r} where the assistant says something else", _FIX)
        if thought and thought not in text:
            what = "data.reasoning is keep, and the chat template drops thoughts"
            fix = f"Set data.reasoning to drop, or {CONFIG_KEY} to {HERMES}, which shows reasoning_content"
            raise _BadTemplate(what, fix)


def _learned_texts(form: ChatFormat, messages: tuple[Message, ...]) -> list[str]:
    try:
        turns = render_turns(form, messages, ()).turns
    except RowLeftOut as problem:
        what = f"the chat template cannot be learned from: in a plain conversation, {problem.detail}"
        raise _BadTemplate(what, problem.fix or _FIX) from None
    rows = rows_of(form, turns, form.encode)
    return form.decode_batch([row.ids[span.start : span.end - 1] for row in rows for span in row.spans])


_FIX = f"Set {CONFIG_KEY} to {HERMES} or to the name of a family, or use an instruction-tuned model as model.base"
