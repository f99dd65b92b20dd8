"""What a model thought before it spoke, and the tokens that end its turn."""

from orchestrator.chat.reply import ReplyFormat

END_OF_TURN = (
    *("<|im_end|>", "<|endoftext|>"),  # Qwen, Hermes and others with ChatML
    *("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|eot|>", "<|eom|>"),  # Llama 3 and 4
    *("</s>", "<end_of_turn>", "<eos>", "<|end|>"),  # Mistral, Gemma, Phi
)
"""Tokens that end a turn; an engine may leave the one at which it stopped in the text."""

_THINK_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
_CALL_MARKS: dict[ReplyFormat, tuple[str, ...]] = {
    "hermes": ("<tool_call>",),
    "llama_json": ("<|python_tag|>",),
    "mistral": ("[TOOL_CALLS]",),
}
_CALL_BEGINNINGS: dict[ReplyFormat, tuple[str, ...]] = {
    "llama_json": ("{",),
    "pythonic": ("[",),
    "mcp": ("{", "["),
    "json": ("{", "["),
}


def split_thinking(text: str, *, format: ReplyFormat = "hermes") -> tuple[str | None, str]:
    """Divide a reply into its leading think block (None without one) and the rest, without the end-of-turn tokens.

    A block stands between `<think>` and `</think>` or `[THINK]` and `[/THINK]`; one that is not closed takes the rest.
    A closing tag without an opening one ends a block that the prompt opened, unless a call comes before it: its mark,
    or for a format whose calls have none, a bracket at the very beginning.
    """
    text = _without_end_of_turn(text)
    for opening, closing in _THINK_TAGS:
        if text.startswith(opening):
            thinking, _, rest = text[len(opening) :].partition(closing)
            return thinking.strip(), rest.strip()
    found = [(place, tag) for _, tag in _THINK_TAGS if (place := text.find(tag)) >= 0]
    if not found:
        return None, text
    place, tag = min(found)
    if _holds_call(text[:place], format):
        return None, text
    return text[:place].strip(), text[place + len(tag) :].strip()


def _holds_call(before: str, format: ReplyFormat) -> bool:
    marks = (*_CALL_MARKS.get(format, ()), *(opening for opening, _ in _THINK_TAGS))
    return before.startswith(_CALL_BEGINNINGS.get(format, ())) or any(mark in before for mark in marks)


def _without_end_of_turn(text: str) -> str:
    """The text without white space around it and without end-of-turn tokens at its end; cut once, so in linear time."""
    text = text.strip()
    end = len(text)
    while token := next((token for token in END_OF_TURN if text.endswith(token, 0, end)), None):
        end -= len(token)
        while end and text[end - 1].isspace():
            end -= 1
    return text[:end]
