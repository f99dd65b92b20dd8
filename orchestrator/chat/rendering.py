"""Conversations rendered with the base's chat template: prompts, and the trained spans of whole conversations.

An assistant turn is trained where the row begins with the prompt that evaluation sends for it: what follows, up to the
end of that turn, is what the model has to say.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from orchestrator.chat.formats.reply import THINK_TAGS, clip
from orchestrator.chat.parse import CALL_TAGS
from orchestrator.chat.template import is_marked, stop_token_ids
from orchestrator.chat.template_input import (
    RowLeftOut,
    Wants,
    plain_messages,
    plain_tools,
    rendered,
    template_wants,
)
from orchestrator.core.errors import InputError
from orchestrator.core.records import JsonObject, Message, Sample, ToolSpec

_CALL_TAG = re.compile("|".join(map(re.escape, CALL_TAGS)))
_REPLY_TAG = re.compile("|".join(map(re.escape, (*CALL_TAGS, *chain(*THINK_TAGS)))))
_TAIL_TOKENS = 64
"""How far back from the end of a prompt an added token is looked for."""


class RenderedTurn(NamedTuple):
    """Message `place` of a conversation in its text: the prompt before it ends at `start`, and it by `bound`."""

    place: int
    start: int
    bound: int


class RenderedRow(NamedTuple):
    """A whole conversation as text. `turns` are the assistant turns that evaluation would ask for exactly as here.

    They are some of the `num_turns` that the data wants learned.
    """

    text: str
    turns: tuple[RenderedTurn, ...]
    num_turns: int


class Span(NamedTuple):
    """Tokens `start` to `end` (exclusive) of a row: what the assistant says as message `place`, to its end of turn."""

    place: int
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class ChatFormat:
    """How one base renders conversations. Made by `chat_format`.

    Without `thinking` the assistant's reasoning is not rendered. `stop_ids` are the tokens at which vLLM ends a reply.
    `control` finds, in JSON, the text of tokens that a tokenizer would read as structure. `wants` is what the
    template has to be given.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str
    thinking: bool
    is_marked: bool
    stop_ids: frozenset[int]
    added_ids: frozenset[int]
    control: re.Pattern[str]
    wants: Wants

    def text(self, messages: Sequence[JsonObject], tools: list[JsonObject] | None, *, prompt: bool) -> str:
        """The conversation as text, with the beginning of the assistant's next turn if `prompt`.

        Raises:
            RowLeftOut: If the template raises an error.
        """
        settings = {"enable_thinking": self.thinking, "add_generation_prompt": prompt}
        return rendered(self.tokenizer.special_tokens_map, self.template, messages, tools, **settings)[0]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text of this template."""
        return list(self.encode_batch([text])[0].ids)

    def encode_batch(self, texts: list[str]) -> list[Any]:
        """`tokenizers.Encoding` of each text, made on all cores without holding the interpreter."""
        if not texts:
            return []
        encoded = self.tokenizer(texts, add_special_tokens=False, verbose=False, return_attention_mask=False)
        return list(encoded.encodings or ())

    def decode_batch(self, ids: list[list[int]]) -> list[str]:
        """Texts of token ids as vLLM's engine gives them: control tokens are kept and nothing is tidied."""
        backend: Any = self.tokenizer
        return list(backend.backend_tokenizer.decode_batch(ids, skip_special_tokens=False))

    def plain(self, messages: Sequence[Message]) -> list[JsonObject]:
        """Messages as a template takes them."""
        return plain_messages(messages, self.wants, thinking=self.thinking)


def render_prompt(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: Sequence[ToolSpec],
    *,
    thinking: bool = False,
) -> list[int]:
    """Token ids of a conversation up to the point where the assistant speaks, with any tokenizer of `load_tokenizer`.

    With `thinking` the assistant may think first, and its earlier thoughts are shown.

    Raises:
        InputError: If the template raises an error.
    """
    plain = plain_messages(messages, template_wants(tokenizer), thinking=thinking)
    names, template = tokenizer.special_tokens_map, str(tokenizer.chat_template)
    settings = {"enable_thinking": thinking, "add_generation_prompt": True}
    try:
        text = rendered(names, template, plain, plain_tools(tools), **settings)[0]
    except RowLeftOut as problem:
        raise InputError(f"a prompt cannot be rendered: {problem.detail}", where=str(tokenizer.name_or_path)) from None
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def chat_format(tokenizer: PreTrainedTokenizerBase, *, thinking: bool) -> ChatFormat:
    """How `tokenizer` renders conversations.

    Raises:
        InputError: If it has no `tokenizer.json`, so that characters cannot be mapped to tokens.
    """
    if not tokenizer.is_fast:
        raise InputError(
            "the tokenizer has no fast version, which maps tokens to characters",
            where=str(tokenizer.name_or_path),
            fix="Use a base that ships a tokenizer.json",
        )
    added = tokenizer.added_tokens_decoder
    form = ChatFormat(
        tokenizer=tokenizer,
        template=str(tokenizer.chat_template),
        thinking=thinking,
        is_marked=is_marked(str(tokenizer.chat_template)),
        stop_ids=stop_token_ids(tokenizer),
        added_ids=frozenset(added),
        control=re.compile(r"(?!)"),
        wants=template_wants(tokenizer),
    )
    names = {token.content for token in added.values() if token.special} | set(tokenizer.all_special_tokens)
    names |= {str(tokenizer.convert_ids_to_tokens(token)) for token in form.stop_ids}
    names |= {added[token].content for token in _turn_markers(form)}
    written = sorted(json.dumps(name, ensure_ascii=False)[1:-1] for name in names if name.strip())
    return replace(form, control=re.compile("|".join(map(re.escape, written)) or r"(?!)"))


def _turn_markers(form: ChatFormat) -> set[int]:
    """Vocabulary entries that the template itself writes around turns, except for tags inside a reply."""
    conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    try:
        ids = form.encode(form.text(conversation, None, prompt=False))
    except RowLeftOut:
        return set()
    added = form.tokenizer.added_tokens_decoder
    return {token for token in ids if token in added and not _REPLY_TAG.fullmatch(added[token].content)}


def refuse_control_tokens(form: ChatFormat, sample: Sample) -> None:
    """Refuse a sample whose texts would be read as structure of the conversation or of a call.

    Raises:
        RowLeftOut: With `control_token_in_text`, naming the turn or tool.
    """
    text = sample.model_dump_json(include={"messages", "tools"})
    if not form.control.search(text) and not _REPLY_TAG.search(text):
        return
    found = [(f"turn {n}", _control_in_turn(form, message)) for n, message in enumerate(sample.messages, start=1)]
    found += [(f"tool {tool.function.name}", form.control.search(tool.model_dump_json())) for tool in sample.tools]
    for where, match in found:
        if match:
            raise RowLeftOut("control_token_in_text", f"{where}: {match.group()!r} stands in its text")


def _control_in_turn(form: ChatFormat, message: Message) -> re.Match[str] | None:
    """The text of a control token, or what a parser of replies would take for a tag of a call or thought."""
    found = form.control.search(message.model_dump_json())
    if found or message.role != "assistant":
        return found
    found = _REPLY_TAG.search(message.content) or _REPLY_TAG.search(message.reasoning_content or "")
    calls = (_CALL_TAG.search(call.model_dump_json()) for call in message.tool_calls)
    return found or next(filter(None, calls), None)


def render_row(form: ChatFormat, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> RenderedRow:
    """A whole conversation as text, with the assistant turns that can be learned from it.

    A turn can be learned if the text begins with the very prompt that evaluation sends for it, and continues as if the
    conversation ended there. With templates that render earlier turns differently only the last one can.

    Raises:
        RowLeftOut: If the template raises an error, or not even the last turn can be learned.
    """
    plain, offered = form.plain(messages), plain_tools(tools)
    settings = {"enable_thinking": form.thinking, "return_assistant_tokens_mask": form.is_marked}
    text, marks = rendered(form.tokenizer.special_tokens_map, form.template, plain, offered, **settings)
    replies = (place for place, message in enumerate(messages) if message.role == "assistant" and message.learned)
    places = list(filter(None, replies))  # evaluation asks for nothing before the first message
    turns: list[RenderedTurn] = []
    for place in places:
        try:
            turn = _rendered_turn(form, plain, offered, text, marks, place)
        except RowLeftOut:
            if place == places[-1]:
                raise
            continue  # what the template shows as a whole it may refuse to end here, such as before the user speaks
        turns += [turn] if turn else []
    if not places:
        raise RowLeftOut("nothing_to_learn", "the assistant says nothing")
    if not turns or turns[-1].place != places[-1]:
        detail = f"turn {places[-1] + 1}: the chat template renders the prompt before it differently in the row"
        raise RowLeftOut("prompt_differs", detail)
    return RenderedRow(text, tuple(turns), len(places))


def _rendered_turn(
    form: ChatFormat,
    plain: list[JsonObject],
    tools: list[JsonObject] | None,
    text: str,
    marks: Sequence[tuple[int, int]],
    place: int,
) -> RenderedTurn | None:
    prompt = form.text(plain[:place], tools, prompt=True)
    if not text.startswith(prompt):
        return None
    marked = next((end for begin, end in marks if begin <= len(prompt) < end), None)
    bound = _bound(form, plain, tools, text, marked, place)
    return RenderedTurn(place, len(prompt), bound) if bound is not None and bound > len(prompt) else None


def _bound(
    form: ChatFormat, plain: list[JsonObject], tools: list[JsonObject] | None, text: str, marked: int | None, place: int
) -> int | None:
    """Where message `place` ends in the whole text; None if it is rendered differently at the end of a conversation.

    A template's marks are trusted except for thoughts, which many templates show only until the conversation goes on.
    """
    if place == len(plain) - 1:
        return len(text) if marked is None else marked
    if marked is not None and "reasoning_content" not in plain[place]:
        return marked
    ended = form.text(plain[: place + 1], tools, prompt=False)
    if not text.startswith(ended):
        return None
    return len(ended) if marked is None else marked


def refuse_dropped_text(form: ChatFormat, row: RenderedRow, messages: Sequence[Message]) -> None:
    """Refuse a conversation of which the template leaves out words that are to be learned.

    Raises:
        RowLeftOut: With `text_not_shown`, naming the turn.
    """
    for turn in row.turns:
        message, shown = messages[turn.place], " ".join(row.text[turn.start : turn.bound].split())
        for said in (message.content, (message.reasoning_content or "") if form.thinking else ""):
            words = " ".join(said.split())
            if words not in shown:
                beside = " beside its calls" if message.tool_calls else ""
                detail = f"turn {turn.place + 1}: the chat template does not show the words {clip(words, 60)}{beside}"
                raise RowLeftOut("text_not_shown", detail)


def learned_spans(form: ChatFormat, row: RenderedRow, encoding: Any) -> list[Span]:
    """The trained tokens of each turn: from the end of its prompt to the first token at which vLLM stops, inclusive.

    An earlier turn is left out if a token spans its start, or if it has no stop token or nothing else.

    Raises:
        RowLeftOut: If that holds for the last turn.
    """
    ids: list[int] = encoding.ids
    spans: list[Span] = []
    for turn in row.turns:
        try:
            spans.append(_learned_span(form, row, encoding, ids, turn))
        except RowLeftOut:
            if turn is row.turns[-1]:
                raise
    return spans


def _learned_span(form: ChatFormat, row: RenderedRow, encoding: Any, ids: list[int], turn: RenderedTurn) -> Span:
    where = f"turn {turn.place + 1}"
    start = _num_prompt_tokens(form, row.text, encoding, ids, turn.start)
    if start is None:
        raise RowLeftOut("prompt_differs", f"{where}: its first token would begin inside the prompt before it")
    bound = _token_from(encoding, turn.bound, len(row.text), len(ids))
    stop = next((place for place in range(start, bound) if ids[place] in form.stop_ids), None)
    if stop is None:
        ending = row.text[turn.start : turn.bound].rstrip()
        raise _no_end_of_turn(form, where, ending, ids[bound - 1 :: -1] if bound else ids)
    if stop == start:
        raise RowLeftOut("nothing_to_learn", f"{where}: the chat template shows nothing of it")
    return Span(turn.place, start, stop + 1)


_MARK = re.compile(r"<[^<>\s]{1,40}>$|\[/?[A-Z_]{2,30}\]$")
"""What a template may write as the end of a turn."""


def _no_end_of_turn(form: ChatFormat, where: str, said: str, backwards: list[int]) -> RowLeftOut:
    """Why there is no token at which vLLM stops in what the assistant says; its tokens are given from the last on."""
    names = form.tokenizer.added_tokens_decoder
    last = next((token for token in backwards[:_TAIL_TOKENS] if token in form.added_ids), None)
    mark = _MARK.search(said)
    if last is not None and said.endswith(names[last].content.strip()):
        detail = f"{where} ends with {names[last].content!r} (id {last}), and vLLM does not stop there"
        fix = f"Add {last} to eos_token_id in the model's generation_config.json"
    elif mark:
        detail = f"{where} ends with {mark[0]!r}, which is no token of the base's vocabulary"
        fix = "Use a base whose tokenizer has the marks that its chat template writes"
    else:
        detail = f"{where} holds no token at which vLLM stops: the chat template writes none after it"
        fix = "Use a base whose chat template ends every turn of the assistant with a token, such as Qwen3"
    return RowLeftOut("no_end_of_turn", detail, fix)


def _token_from(encoding: Any, character: int, num_characters: int, num_tokens: int) -> int:
    """The first token of the text from `character` on. Some tokenizers count spaces to no token: those are skipped."""
    found = (encoding.char_to_token(place) for place in range(character, num_characters))
    return next((int(token) for token in found if token is not None), num_tokens)


def _num_prompt_tokens(form: ChatFormat, text: str, encoding: Any, ids: list[int], end: int) -> int | None:
    """How many tokens of the row are exactly those of its first `end` characters; None if a token spans the end."""
    guess = encoding.char_to_token(end)
    if guess is not None:
        # A tokenizer divides text at added tokens first: what stands before the last of them does not change.
        near = range(guess - 1, max(-1, guess - 1 - _TAIL_TOKENS), -1)
        added = next((place for place in near if ids[place] in form.added_ids), None)
        if added is not None:
            tail = text[encoding.token_to_chars(added)[0] : end]
            if _tail_ids(form, tail) == tuple(ids[added:guess]):
                return int(guess)
    prompt = form.encode(text[:end])
    return len(prompt) if ids[: len(prompt)] == prompt else None


@lru_cache(maxsize=1024)
def _tail_ids(form: ChatFormat, text: str) -> tuple[int, ...]:
    return tuple(form.encode(text))
