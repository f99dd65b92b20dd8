"""Whether a chat template can be learned from at all: proven once on a few conversations before any data is read."""

from orchestrator.chat.left_out import LeftOutReason, RowLeftOut
from orchestrator.chat.rendering import ChatFormat, learned_spans, render_row
from orchestrator.core.errors import InputError
from orchestrator.core.records import Message

_ASKED, _SAID, _THOUGHT = "orchard", "lantern", "meadow"
"""Words that no template writes by itself."""
_ADD_STOP = "Add the id of its end-of-turn token to eos_token_id in the model's generation_config.json"
_NO_THOUGHTS = "Set data.reasoning to drop, or use a base whose template shows reasoning_content"
_FAULTS: dict[LeftOutReason, tuple[str, str]] = {
    "no_end_of_turn": ("the chat template ends the assistant's turn with no token at which vLLM stops", _ADD_STOP),
    "prompt_differs": (
        "the chat template begins the assistant's turn otherwise than the prompt that asks for it",
        "Use a base whose prompt for a reply is how its template begins the assistant's turn",
    ),
}


def prove_template(form: ChatFormat) -> None:
    """Check that what would be learned from an answer is that answer and its end of turn, and nothing of the prompt.

    Raises:
        InputError: If the prompt that evaluation sends is not how a conversation begins, if the assistant's turn ends
            with something at which vLLM does not stop, or if thoughts are to be kept and the template drops them.
    """
    thought = _THOUGHT if form.thinking else None
    pair = (Message(role="user", content=_ASKED), Message(role="assistant", content=_SAID, reasoning_content=thought))
    for text in (*_learned_texts(form, pair), *_learned_texts(form, pair * 2)):
        _, found, after = text.partition(_SAID)
        if _ASKED in text or not found or after.strip():
            ending = (after if found else text).strip()[:60]
            what = f"the chat template ends the assistant's turn with {ending!r}, and vLLM does not stop there"
            raise _bad_template(form, f"{what} but at {_stops(form)}", _ADD_STOP)
        if thought and thought not in text:
            raise _bad_template(form, "data.reasoning is keep, and the chat template drops thoughts", _NO_THOUGHTS)


def _learned_texts(form: ChatFormat, messages: tuple[Message, ...]) -> list[str]:
    """What is learned of each turn, without its end-of-turn token."""
    try:
        row = render_row(form, messages, ())
        encoding = form.encode_batch([row.text])[0]
        spans = learned_spans(form, row, encoding)
    except RowLeftOut as problem:
        what, fix = _FAULTS.get(problem.reason, (problem.detail, "Use an instruction-tuned model as model.base"))
        raise _bad_template(form, what, fix) from None
    return form.decode_batch([encoding.ids[span.start : span.end - 1] for span in spans])


def _stops(form: ChatFormat) -> str:
    return ", ".join(repr(form.tokenizer.convert_ids_to_tokens(token)) for token in sorted(form.stop_ids))


def _bad_template(form: ChatFormat, what: str, fix: str) -> InputError:
    return InputError(what, where=str(form.tokenizer.name_or_path), fix=fix)
