"""Whether a chat template can be learned from at all, asked with words that no template writes by itself."""

from orchestrator.chat.rendering import ChatFormat
from orchestrator.chat.segments import render_turns, rows_of
from orchestrator.chat.template_input import RowLeftOut
from orchestrator.core.errors import InputError
from orchestrator.core.records import Message

_ASKED, _SAID, _THOUGHT = "orchard", "lantern", "meadow"
"""Words that no template writes by itself."""


def prove_template(form: ChatFormat) -> None:
    """Check that training on an answer trains that answer and its end of turn, and nothing of the prompt.

    Raises:
        InputError: If the template shows no answer, or another prompt before it than the one that asks for it, or
            thoughts are to be kept and it drops them.
    """
    thought = _THOUGHT if form.thinking else None
    pair = (Message(role="user", content=_ASKED), Message(role="assistant", content=_SAID, reasoning_content=thought))
    for text in (*_learned_texts(form, pair), *_learned_texts(form, pair * 2)):
        if _ASKED in text or _SAID not in text:
            what = f"the chat template shows {text[:60]!r} where the assistant says something else"
            raise _bad_template(form, what, "Use an instruction-tuned model as model.base")
        if thought and thought not in text:
            fix = "Set data.reasoning to drop, or use a base whose template shows reasoning_content"
            raise _bad_template(form, "data.reasoning is keep, and the chat template drops thoughts", fix)


def _learned_texts(form: ChatFormat, messages: tuple[Message, ...]) -> list[str]:
    try:
        turns = render_turns(form, messages, ()).turns
    except RowLeftOut as problem:
        fix = problem.fix or "Use an instruction-tuned model as model.base"
        if problem.reason == "prompt_differs":
            fix = "Use a base whose template begins the assistant's turn with the prompt for it"
        what = f"the chat template cannot be learned from: in a plain conversation, {problem.detail}"
        raise _bad_template(form, what, fix) from None
    rows = rows_of(form, turns, form.encode)
    return form.decode_batch([row.ids[span.start : span.end - 1] for row in rows for span in row.spans])


def _bad_template(form: ChatFormat, what: str, fix: str) -> InputError:
    return InputError(what, where=str(form.tokenizer.name_or_path), fix=fix)
