"""Conversations as rows of tokens: each prompt as evaluation sends it, then the reply, encoded apart from it.

What the assistant says is learned behind the very tokens that it will be asked with. Turns whose prompt begins with the
row so far, token by token, share that row; any other begins a row of its own. So a template may show earlier turns
otherwise once a conversation goes on, and a tokenizer may join what stands on both sides of a prompt's end.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from orchestrator.chat.formats.reply import THINK_TAGS, clip
from orchestrator.chat.parse import parse_reply, same_calls
from orchestrator.chat.rendering import ChatFormat
from orchestrator.chat.template_input import RowLeftOut, plain_tools, rendered
from orchestrator.core.records import JsonObject, Message, Sample, ToolSpec


class RenderedTurn(NamedTuple):
    """What the assistant is asked for message `place`, and what it then has to say up to `end`, its end of turn.

    `end` is the text of a token at which the engine stops; empty if the template writes none.
    """

    place: int
    prompt: str
    reply: str
    end: str


class RenderedTurns(NamedTuple):
    """The turns of a conversation that can be learned, in order; `unlearned` more cannot."""

    turns: tuple[RenderedTurn, ...]
    unlearned: int


class Span(NamedTuple):
    """Tokens `start` to `end` (exclusive) of a row: what the assistant says as message `place`, to its end of turn."""

    place: int
    start: int
    end: int


class Row(NamedTuple):
    """Token ids, and the spans of them that are learned."""

    ids: list[int]
    spans: tuple[Span, ...]


def render_turns(form: ChatFormat, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> RenderedTurns:
    """Each turn of the assistant that the data wants learned.

    Raises:
        RowLeftOut: If there is none, or the last one cannot be learned: the template raises an error or shows nothing
            of it, or renders the conversation before it otherwise than the prompt for it.
    """
    plain, offered = form.plain(messages), plain_tools(tools)
    speaks = [place for place, message in enumerate(messages) if message.role == "assistant" and message.learned]
    places = list(filter(None, speaks))  # evaluation asks for nothing before the first message
    if not places:
        raise RowLeftOut("nothing_to_learn", "the assistant says nothing")
    shown = _Shown(form, plain, offered)
    turns: list[RenderedTurn] = []
    for place in places:
        try:
            turns.append(_turn(form, shown, place))
        except RowLeftOut:
            if place == places[-1]:
                raise
    return RenderedTurns(tuple(turns), len(places) - len(turns))


class _Shown:
    """A conversation as its template shows it up to any of its messages."""

    def __init__(self, form: ChatFormat, plain: list[JsonObject], tools: list[JsonObject] | None) -> None:
        self._form, self._plain, self._tools = form, plain, tools
        settings = {"enable_thinking": form.thinking, "return_assistant_tokens_mask": form.is_marked}
        self._whole, self._marks = "", list[tuple[int, int]]()
        if form.is_marked:
            self._whole, self._marks = rendered(
                form.tokenizer.special_tokens_map, form.template, plain, tools, **settings
            )

    def prompt(self, place: int) -> str:
        """What evaluation sends for message `place`."""
        return self._form.text(self._plain[:place], self._tools, prompt=True)

    def ended(self, place: int, prompt: str) -> str:
        """The conversation up to the end of message `place`.

        A template's marks are trusted except for thoughts, which many templates show only until it goes on.
        """
        if self._whole.startswith(prompt) and "reasoning_content" not in self._plain[place]:
            marked = next((end for begin, end in self._marks if begin <= len(prompt) < end), None)
            if marked is not None and self._form.stop_text.search(self._whole, len(prompt), marked):
                return self._whole[:marked]
        return self._form.text(self._plain[: place + 1], self._tools, prompt=False)

    def said_behind_opening(self, place: int, prompt: str, ended: str) -> str | None:
        """What stands behind the last opening of a turn, if it is all that message `place` says.

        Some templates show what comes before otherwise once this turn is there, as gpt-oss does with text and thoughts
        beside calls, and Mistral's with system messages. Thoughts may have an opening of their own.
        """
        before = self._form.text(self._plain[:place], self._tools, prompt=False)
        message = self._plain[place]
        thoughts = message.get("reasoning_content")
        said = [message["content"], *(call["function"]["name"] for call in message.get("tool_calls", ()))]
        said += [thoughts] if thoughts else []
        for opening in (prompt.removeprefix(before), self.opening(place, prompt)):
            if not opening.strip() or opening == prompt:
                continue
            for openings in range(1, 3 if thoughts else 2):
                rest = opening.join(ended.rsplit(opening, openings)[1:])
                if rest and all(isinstance(text, str) and text in rest for text in said):
                    return rest
        return None

    def thoughts(self, place: int) -> str:
        """What the assistant thinks before message `place`, as far as it is to be learned."""
        return str(self._plain[place].get("reasoning_content", ""))

    def opening(self, place: int, prompt: str) -> str:
        """What a prompt has behind the words of the message before `place`; empty where they are not shown as given."""
        words = self._plain[place - 1]["content"]
        return prompt.rpartition(words)[2] if isinstance(words, str) and words else ""

    def without_next_opening(self, place: int, prompt: str, rest: str) -> str:
        """The end of a turn without the opening of another, which some templates always write."""
        opening = self.opening(place, prompt).strip()
        blocks = [block for marks in self._form.thoughts if (block := _block_at_end(prompt, marks)).strip()]
        shown = rest.rstrip()
        always = next((text for text in (opening, *blocks) if text and shown.endswith(text.rstrip())), None)
        if always is None or self._form.text(self._plain[:place], self._tools, prompt=False) != prompt:
            return shown
        return shown[: len(shown) - len(always.rstrip())].rstrip()


def _turn(form: ChatFormat, shown: _Shown, place: int) -> RenderedTurn:
    where = f"turn {place + 1}"
    prompt = shown.prompt(place)
    ended = shown.ended(place, prompt)
    rest = _behind(form, prompt, ended)
    if rest is None:
        rest = shown.said_behind_opening(place, prompt, ended)
    if rest is None:
        raise RowLeftOut("prompt_differs", f"{where}: the chat template renders the prompt before it differently")
    stop = form.stop_text.search(rest)
    reply, end = (rest[: stop.start()], stop.group()) if stop else (shown.without_next_opening(place, prompt, rest), "")
    if not reply or reply.strip() in (closing for _, closing in form.thoughts):
        raise RowLeftOut("nothing_to_learn", f"{where}: the chat template shows nothing of it")
    return RenderedTurn(place, prompt, _with_thoughts(form, prompt, reply, shown.thoughts(place)), end)


def _with_thoughts(form: ChatFormat, prompt: str, reply: str, thoughts: str) -> str:
    """The reply with its thoughts before it, where the template knows their marks and shows none of them itself.

    So do those of models that are meant to forget their thoughts once they have spoken.
    """
    if _in_one_line(thoughts) in _in_one_line(reply):
        return reply
    known = [marks for marks in form.thoughts if marks[1] in form.template]
    if not known:
        return reply
    opened = next((marks for marks in known if prompt.rstrip().endswith(marks[0])), None)
    opening, closing = opened or known[0]
    line = "\n" if (opening, closing) == THINK_TAGS[0] or opening[-1].isalpha() else ""
    gap = line * 2 if (opening, closing) == THINK_TAGS[0] else ""
    before = "" if opened else opening + line
    said = reply.lstrip().removeprefix(closing).lstrip() if opened else reply
    return f"{before}{thoughts}{line}{closing}{gap}{said}"


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _behind(form: ChatFormat, prompt: str, ended: str) -> str | None:
    """What a conversation adds to the prompt that it begins with, white space aside; None if it begins with another.

    Many prompts open a think block, or hold a whole one that is empty, where the turn is shown without it. What an open
    one adds begins by closing it.
    """
    rest = _after(ended, prompt)
    if rest is not None:
        return rest
    for marks in form.thoughts:
        closing, block = marks[1], _block_at_end(prompt, marks)
        rest = _after(ended, prompt.removesuffix(block)) if block else None
        if rest is None:
            continue
        said = rest.lstrip()
        if closing in block:
            return said.removeprefix(closing).lstrip()
        gap = "\n\n" if marks in THINK_TAGS else ""
        return said if said.startswith(closing) else f"{closing}{gap}{said}"
    return None


def _block_at_end(prompt: str, marks: tuple[str, str]) -> str:
    """The think block with which a prompt ends: only its opening, or a whole one that is empty. Empty without one."""
    opening, closing = marks
    before, found, after = prompt.rpartition(opening)
    return prompt[len(before) :] if found and after.strip() in ("", closing) else ""


def _after(text: str, beginning: str) -> str | None:
    """What follows a beginning of a text, which may have its white space elsewhere; None if it has another."""
    if text.startswith(beginning):
        return text[len(beginning) :]
    words = r"\s*+".join(map(re.escape, beginning.split()))
    found = re.match(rf"\s*+{words}\s*+", text)
    return text[found.end() :] if found else None


def refuse_unfaithful(form: ChatFormat, turns: Sequence[RenderedTurn], sample: Sample) -> None:
    """Refuse a conversation of which the template leaves out words, or shows other calls than it has.

    Raises:
        RowLeftOut: With `text_not_shown` or `calls_not_shown`, naming the turn.
    """
    for turn in turns:
        message, where = sample.messages[turn.place], f"turn {turn.place + 1}"
        if words := _dropped_words(form, turn.reply, message):
            beside = " beside its calls" if message.tool_calls else ""
            detail = f"{where}: the chat template does not show the words {clip(words, 60)}{beside}"
            raise RowLeftOut("text_not_shown", detail)
        fault = form.reply_format and call_fault(form.reply_format, turn.reply, message, sample.tools)
        if fault:
            raise RowLeftOut("calls_not_shown", f"{where}: {fault.detail}")


def _dropped_words(form: ChatFormat, reply: str, message: Message) -> str | None:
    """The content or the thoughts of a message if they do not stand in its reply, white space aside."""
    shown = _in_one_line(reply)
    said = (message.content, (message.reasoning_content or "") if form.thinking else "")
    return next((words for text in said if (words := _in_one_line(text)) not in shown), None)


class CallFault(NamedTuple):
    """Why a reply is not read as the calls that it stands for; `is_read` is whether it is as others."""

    detail: str
    is_read: bool


def call_fault(reply_format: str, reply: str, message: Message, tools: Sequence[ToolSpec]) -> CallFault | None:
    """What the strict parser reads otherwise in a reply than the calls of its message."""
    parsed = parse_reply(reply, format=reply_format, tools=tools)
    gold, found = ([call.function for call in calls] for calls in (message.tool_calls, parsed.calls))
    if parsed.problems:
        return CallFault(parsed.problems[0].detail, is_read=False)
    if len(found) < len(gold):
        shown = f"only {len(found)} of {len(gold)} calls are" if found else "no call is"
        return CallFault(f"{shown} read in {clip(reply)}", is_read=False)
    if same_calls(found, gold):
        return None
    return CallFault(f"{clip(reply)} is read as other calls than the data has", is_read=True)


def texts_of(form: ChatFormat, turns: Sequence[RenderedTurn]) -> list[str]:
    """Most of the texts that `rows_of` encodes, so that those of many conversations can be encoded at once."""
    texts = [turns[0].prompt]
    for turn, before in zip(turns, (None, *turns[:-1]), strict=True):
        tail = _tail(form, turn.prompt)
        texts += [tail, tail + turn.reply + turn.end]
        if before is not None and (added := _added(form, before, turn.prompt)) is not None:
            texts.append(added)
    return texts


def rows_of(form: ChatFormat, turns: Sequence[RenderedTurn], encode: Callable[[str], list[int]]) -> list[Row]:
    """The rows of a conversation, each of at least one turn. `encode` gives the token ids of a text."""
    rows: list[Row] = []
    before: RenderedTurn | None = None
    is_joined = False
    for turn in turns:
        ids = rows[-1].ids if rows else []
        added = _added(form, before, turn.prompt) if before is not None and is_joined else None
        # The end of the reply before is an added token, at which tokenizers divide a text.
        prompt = encode(turn.prompt) if added is None else [*ids[:-1], *encode(added)]
        reply, is_joined = _reply(form, turn, encode)
        span = Span(turn.place, len(prompt), len(prompt) + len(reply))
        if rows and (added is not None or prompt[: len(ids)] == ids):
            rows[-1] = Row(prompt + reply, (*rows[-1].spans, span))
        else:
            rows.append(Row(prompt + reply, (span,)))
        before = turn
    return rows


def _added(form: ChatFormat, before: RenderedTurn, prompt: str) -> str | None:
    """What a prompt adds to the turn before it, from the end of that turn on; None if it does not begin with it."""
    text = before.prompt + before.reply + before.end
    if before.end not in form.dividers or not prompt.startswith(text):
        return None
    return before.end + prompt[len(text) :]


def _reply(form: ChatFormat, turn: RenderedTurn, encode: Callable[[str], list[int]]) -> tuple[list[int], bool]:
    """The tokens of a reply to its end of turn, and whether prompt and reply have the same tokens in one text."""
    tail, said = _tail(form, turn.prompt), turn.reply + turn.end
    first, both = encode(tail), encode(tail + said)
    is_joined = both[: len(first)] == first
    ids = both[len(first) :] if is_joined else encode(said)
    return (ids if turn.end else [*ids, form.end_id]), is_joined


def _tail(form: ChatFormat, prompt: str) -> str:
    """The end of a prompt from its last divider on. What stands before it has the same tokens whatever follows."""
    return prompt[max([0, *(prompt.rfind(divider) for divider in form.dividers)]) :]
