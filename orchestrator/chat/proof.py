"""Whether a chat template can be learned from at all, asked with words that no template writes by itself."""

from orchestrator.chat.rendering import ChatFormat, learned_spans, render_row
from orchestrator.chat.template_input import RowLeftOut
from orchestrator.core.errors import InputError
from orchestrator.core.records import Message

_ASKED, _SAID, _THOUGHT = "orchard", "lantern", "meadow"
"""Words that no template writes by itself."""
_ADD_STOP = "Add the id of its end-of-turn token to eos_token_id in the model's generation_config.json"


def prove_template(form: ChatFormat) -> None:
    """Check that training on an answer trains that answer and its end-of-turn token, and nothing of the prompt.

    Raises:
        InputError: If a conversation does not begin with the prompt that evaluation sends, the assistant's turn ends
            with something at which vLLM does not stop, or thoughts are to be kept and the template drops them.
    """
    thought = _THOUGHT if form.thinking else None
    pair = (Message(role="user", content=_ASKED), Message(role="assistant", content=_SAID, reasoning_content=thought))
    for text in (*_learned_texts(form, pair), *_learned_texts(form, pair * 2)):
        _, found, after = text.partition(_SAID)
        if _ASKED in text or not found or after.strip():
            ending = (after if found else text).strip()[:60]
            what = f"the chat template ends the assistant's turn with {ending!r}, and vLLM does not stop there"
            stops = ", ".join(repr(form.tokenizer.convert_ids_to_tokens(token)) for token in sorted(form.stop_ids))
            raise _bad_template(form, f"{what} but at {stops}", _ADD_STOP)
        if thought and thought not in text:
            fix = "Set data.reasoning to drop, or use a base whose template shows reasoning_content"
            raise _bad_template(form, "data.reasoning is keep, and the chat template drops thoughts", fix)


def _learned_texts(form: ChatFormat, messages: tuple[Message, ...]) -> list[str]:
    try:
        row = render_row(form, messages, ())
        encoding = form.encode_batch([row.text])[0]
        spans = learned_spans(form, row, encoding)
    except RowLeftOut as problem:
        if problem.reason == "prompt_differs":
            what = "the chat template begins the assistant's turn differently from the prompt that asks for it"
            fix = "Use a base whose template begins the assistant's turn with the prompt for it"
            raise _bad_template(form, what, fix) from None
        what = f"the chat template cannot be learned from: in a plain conversation, {problem.detail}"
        raise _bad_template(form, what, problem.fix or "Use an instruction-tuned model as model.base") from None
    return form.decode_batch([encoding.ids[span.start : span.end - 1] for span in spans])


def _bad_template(form: ChatFormat, what: str, fix: str) -> InputError:
    return InputError(what, where=str(form.tokenizer.name_or_path), fix=fix)
