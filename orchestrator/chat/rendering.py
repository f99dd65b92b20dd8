"""How a base renders conversations: its chat template, its tokenizer, what ends a reply, and prompts."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from transformers import PreTrainedTokenizerBase

from orchestrator.chat.formats import REPLY_FORMATS, detect_reply_format, without_reader
from orchestrator.chat.formats.reply import THINK_TAGS, clip
from orchestrator.chat.parse import CALL_TAGS, END_OF_TURN, THOUGHTS
from orchestrator.chat.template import is_marked, stop_token_ids
from orchestrator.chat.template_input import (
    RowLeftOut,
    Wants,
    plain_messages,
    plain_tools,
    rendered,
    template_wants,
    unread_call,
)
from orchestrator.core.errors import ConfigError, InputError
from orchestrator.core.records import JsonObject, Message, Sample, ToolSpec

_CALL_TAG = re.compile("|".join(map(re.escape, CALL_TAGS)))
_IN_REPLIES = frozenset(chain(*THOUGHTS)) - frozenset(END_OF_TURN)
"""Marks of thoughts that end no turn; some templates open one behind every turn."""
_ASKED, _SAID = "orchard", "lantern"
"""Words that no template writes by itself."""


@dataclass(frozen=True, eq=False)
class ChatFormat:
    """How one base renders conversations. Made by `chat_format`.

    Without `thinking` the assistant's reasoning is not rendered. `stop_ids` are the tokens at which a reply ends, and
    `stop_text` finds their texts; `end_id` is the one that ends a reply after which the template writes none.
    `dividers` are the texts of added tokens around turns, at which a tokenizer divides a text before anything else.
    `control` finds, in JSON, the text of tokens that a tokenizer would read as structure, and `reply_tag` the tags of
    calls and thoughts. `wants` is what the template has to be given. `reply_format` is how calls are read in its
    replies; None where it writes none that are.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str
    thinking: bool
    is_marked: bool
    stop_ids: frozenset[int]
    stop_text: re.Pattern[str]
    end_id: int
    dividers: frozenset[str]
    control: re.Pattern[str]
    reply_tag: re.Pattern[str]
    wants: Wants
    reply_format: str | None

    @property
    def thoughts(self) -> tuple[tuple[str, str], ...]:
        """What opens and closes a think block in its replies, most usual first."""
        return _thoughts_of(self.reply_format)

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


def chat_format(tokenizer: PreTrainedTokenizerBase, *, thinking: bool, reply_format: str = "auto") -> ChatFormat:
    """How `tokenizer` renders conversations; `reply_format` as in `eval.reply_format`.

    Raises:
        InputError: If it has no `tokenizer.json`, so that characters cannot be mapped to tokens.
    """
    if not tokenizer.is_fast:
        raise InputError(
            "the tokenizer has no fast version, which maps tokens to characters",
            where=str(tokenizer.name_or_path),
            fix="Use a base that ships a tokenizer.json",
        )
    name = _detected(tokenizer) if reply_format == "auto" else reply_format
    tags = _any_of((*CALL_TAGS, *chain(*_thoughts_of(name))))
    added, stops = tokenizer.added_tokens_decoder, reply_stop_ids(tokenizer, thinking=thinking)
    markers = _turn_markers(tokenizer, tags, thinking=thinking)
    stop_names = {str(tokenizer.convert_ids_to_tokens(token)) for token in stops}
    names = {token.content for token in added.values() if token.special} | set(tokenizer.all_special_tokens)
    names |= stop_names | {added[token].content for token in markers}
    around = [added[token] for token in markers | stops if token in added]
    return ChatFormat(
        tokenizer=tokenizer,
        template=str(tokenizer.chat_template),
        thinking=thinking,
        is_marked=is_marked(str(tokenizer.chat_template)),
        stop_ids=stops,
        stop_text=_any_of(stop_names),
        end_id=tokenizer.eos_token_id if tokenizer.eos_token_id in stops else min(stops),
        dividers=frozenset(token.content for token in around if not token.lstrip),
        control=_any_of(json.dumps(name, ensure_ascii=False)[1:-1] for name in names if name.strip()),
        reply_tag=tags,
        wants=template_wants(tokenizer),
        reply_format=name,
    )


def reply_format_of(setting: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """The name of the format that the configuration sets, or with `auto` the one that the chat template writes.

    Raises:
        ConfigError: With `auto`, if the template shows no calls, or writes them in a way that has no reader.
    """
    if setting != "auto":
        return setting
    template = str(tokenizer.chat_template)
    name = detect_reply_format(template)
    names = {str(tokenizer.convert_ids_to_tokens(token)) for token in reply_stop_ids(tokenizer, thinking=False)}
    unread = unread_call(template, tokenizer.special_tokens_map, name, _any_of(names))
    if unread is not None:
        raise without_reader(f"it has marks of {name}, but writes {clip(unread.strip())}")
    return name


def _detected(tokenizer: PreTrainedTokenizerBase) -> str | None:
    try:
        return reply_format_of("auto", tokenizer)
    except ConfigError:
        return None


def _thoughts_of(reply_format: str | None) -> tuple[tuple[str, str], ...]:
    return THINK_TAGS if reply_format is None else REPLY_FORMATS[reply_format].thoughts


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")


def reply_stop_ids(tokenizer: PreTrainedTokenizerBase, *, thinking: bool) -> frozenset[int]:
    """Tokens at which a reply ends: those at which vLLM stops by itself, and the one that the template writes there.

    Raises:
        InputError: If there is none.
    """
    stops = stop_token_ids(tokenizer)
    behind = _added_ids(_shown_talk(tokenizer, thinking=thinking).rpartition(_SAID)[2], tokenizer)
    ended = [token for token in behind if tokenizer.added_tokens_decoder[token].content not in _IN_REPLIES]
    found = stops if stops & set(ended) else stops | set(ended[:1])
    if not found:
        what = "neither the tokenizer nor the chat template has a token that ends a turn, so a reply would never end"
        fix = "Set eos_token_id in the model's generation_config.json to the token that ends a turn"
        raise InputError(what, where=str(tokenizer.name_or_path), fix=fix)
    return found


def template_stop_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Tokens that end a reply and at which vLLM does not stop by itself."""
    return tuple(sorted(reply_stop_ids(tokenizer, thinking=False) - stop_token_ids(tokenizer)))


def _turn_markers(tokenizer: PreTrainedTokenizerBase, tags: re.Pattern[str], *, thinking: bool) -> set[int]:
    """Vocabulary entries that the template itself writes around turns, except for tags inside a reply."""
    added = tokenizer.added_tokens_decoder
    ids = _added_ids(_shown_talk(tokenizer, thinking=thinking), tokenizer)
    return {token for token in ids if not tags.fullmatch(added[token].content)}


def _shown_talk(tokenizer: PreTrainedTokenizerBase, *, thinking: bool) -> str:
    """A question and its answer as text; empty if the template refuses them."""
    talk = (Message(role="user", content=_ASKED), Message(role="assistant", content=_SAID))
    plain = plain_messages(talk, template_wants(tokenizer), thinking=thinking)
    names, template = tokenizer.special_tokens_map, str(tokenizer.chat_template)
    try:
        return rendered(names, template, plain, None, enable_thinking=thinking)[0]
    except RowLeftOut:
        return ""


def _added_ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The added tokens in a text, in order."""
    added = tokenizer.added_tokens_decoder
    return [token for token in tokenizer(text, add_special_tokens=False)["input_ids"] if token in added]


def refuse_control_tokens(form: ChatFormat, sample: Sample) -> None:
    """Refuse a sample whose texts would be read as structure of the conversation or of a call.

    Raises:
        RowLeftOut: With `control_token_in_text`, naming the turn or tool.
    """
    text = sample.model_dump_json(include={"messages", "tools"})
    if not form.control.search(text) and not form.reply_tag.search(text):
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
    found = form.reply_tag.search(message.content) or form.reply_tag.search(message.reasoning_content or "")
    calls = (_CALL_TAG.search(call.model_dump_json()) for call in message.tool_calls)
    return found or next(filter(None, calls), None)
