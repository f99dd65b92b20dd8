"""One conversation, or one that goes on: a warm engine replies for the base and for adapters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from evals.conversation.answer import Answer, ReadCall, read_answer
from evals.conversation.asking import Conversation, read_text
from evals.conversation.screen import Screen
from evals.conversation.speakers import Speaker
from evals.generate.engine import FITTING, EngineSettings, Loaded, Piece, Prompt
from evals.generate.engines import Engines, answer_live
from evals.generate.settings import longest_of_model, settings_of_run
from orchestrator.chat.rendering import render_prompt, reply_format_of
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import EvaluationError, InputError
from orchestrator.core.progress import waiting
from orchestrator.core.records import Message
from orchestrator.notation.strict_json import dump_loosely

RESET, QUIT = "/reset", "/quit"
FILE_MARK = "@"
"""What a line begins with that names a file to be read in its place."""
HOW_TO_CHAT = (
    f"A line is a message, {FILE_MARK}FILE reads one from a file, {RESET} starts over, {QUIT} or Ctrl-D ends. "
    "After a call, a line is its result; an empty one leaves it without."
)

Ask = Callable[[str], str | None]
"""Shows a question and gives the line that answers it, None at the end."""


class Replies(Protocol):
    """Speakers, and what each says next."""

    @property
    def speakers(self) -> Sequence[Speaker]:
        """Those who reply."""

    def reply(self, speaker: Speaker, conversation: Conversation, screen: Screen) -> Answer:
        """See `Replier`."""


def render_conversation(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, conversation: Conversation, name: str
) -> Prompt:
    """The prompt that the evaluation would render.

    Raises:
        InputError: If the chat template refuses it, or it leaves no room for a reply.
    """
    messages, tools = conversation
    tokens = render_prompt(tokenizer, messages, tools, thinking=config.data.thinking)
    limit = min(config.eval.max_model_len or longest_of_model(config.model), longest_of_model(config.model))
    if len(tokens) >= limit:
        raise _too_long(f"the prompt has {len(tokens)} tokens and the model takes {limit}, the reply included")
    return Prompt(name, tokens, tools)


def _too_long(what: str) -> InputError:
    return InputError(what, fix="Shorten the conversation, or offer fewer tools")


@dataclass
class Replier:
    """Has one engine reply; its first reply starts the engine. `grows`: later prompts may be longer than the first."""

    config: RunConfig
    tokenizer: PreTrainedTokenizerBase
    engines: Engines
    speakers: Sequence[Speaker]
    top_p: float = 1.0
    grows: bool = False
    _settings: EngineSettings | None = field(default=None, init=False)
    _canaries: tuple[Prompt, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        self._actor = self.engines.take()
        self._reply_format = reply_format_of(self.config.eval.reply_format, self.tokenizer)
        self._number = 0

    def reply(self, speaker: Speaker, conversation: Conversation, screen: Screen) -> Answer:
        """What a speaker says next, shown as it is made.

        Raises:
            InputError: If there is no room for it.
            AdapterError: If the adapter cannot be loaded or changes nothing.
            EvaluationError: If the engine dies.
        """
        self._number += 1
        prompt = render_conversation(self.config, self.tokenizer, conversation, str(self._number))
        settings = self._settings_for(prompt)
        stream = answer_live(self._actor, settings, self._canaries, prompt, speaker.adapter)
        with waiting(f"loading {speaker.name}" if self._number > 1 else "starting the engine"):
            first = next(stream)
        if isinstance(first, Loaded):
            screen.begin(speaker.name, speaker.note, first)
        for message in stream:
            if isinstance(message, Piece):
                screen.piece(message.text)
            elif not isinstance(message, Loaded):
                if message.error is not None:
                    raise _too_long(message.error)
                answer = read_answer(speaker.name, message, conversation.tools, self._reply_format)
                screen.end(answer, num_tools=len(conversation.tools))
                return answer
        raise EvaluationError("the engine gave no reply", where=speaker.name)

    def _settings_for(self, prompt: Prompt) -> EngineSettings:
        if self._settings is None:
            ranks = [speaker.rank for speaker in self.speakers if speaker.rank is not None]
            merges = any(speaker.use_dora for speaker in self.speakers)
            made = settings_of_run(
                self.config, self.tokenizer, [prompt], ranks=ranks, on_gpu=self.engines.on_gpu, merges=merges
            )
            takes_all = self.grows and self.config.eval.max_model_len is None
            longest = FITTING if takes_all else made.max_model_len
            self._settings = made.model_copy(update={"top_p": self.top_p, "max_model_len": longest})
            self._canaries = (prompt,) if ranks else ()
        return self._settings


def converse(replier: Replier, conversation: Conversation, screen: Screen) -> None:
    """Have each speaker reply once."""
    screen.compare([replier.reply(speaker, conversation, screen) for speaker in replier.speakers])


class Chat:
    """A conversation that goes on: each speaker has its own, with the same messages of the user."""

    def __init__(self, replier: Replies, start: Conversation, screen: Screen, ask: Ask) -> None:
        self._replier, self._start, self._screen, self._ask = replier, start, screen, ask
        self._said = self._beginning()

    def _beginning(self) -> dict[str, list[Message]]:
        return {speaker.name: list(self._start.messages) for speaker in self._replier.speakers}

    def run(self) -> None:
        """Go on until the user ends it."""
        self._screen.say(HOW_TO_CHAT)
        is_asked = bool(self._start.messages) and self._start.messages[-1].role != "system"
        while is_asked or self._hear():
            self._round()
            is_asked = False

    def _hear(self) -> bool:
        """Take the user's next message; False at the end."""
        while (line := self._line("you> ")) is not None and line != QUIT:
            if line == RESET:
                self._said = self._beginning()
                self._screen.say("The conversation starts over.")
            elif line:
                for said in self._said.values():
                    said.append(Message(role="user", content=line))
                return True
        return False

    def _line(self, question: str) -> str | None:
        """The next line without blanks around it, or the text of the file that it names."""
        while True:
            line = self._ask(question)
            if line is None or not line.strip().startswith(FILE_MARK):
                return line if line is None else line.strip()
            try:
                return read_text(line.strip().removeprefix(FILE_MARK)).strip()
            except InputError as error:
                self._screen.say(str(error))

    def _round(self) -> None:
        """Replies, and replies to the results of their calls, until none waits for a result."""
        before = {name: list(said) for name, said in self._said.items()}
        speaking = list(self._replier.speakers)
        try:
            while speaking:
                answers = {speaker: self._reply(speaker) for speaker in speaking}
                self._screen.compare([*answers.values()])
                speaking = self._give_results(answers)
        except InputError as error:
            self._said = {name: said[:-1] for name, said in before.items()}
            self._screen.say(f"{error} What you said last is taken back; {RESET} starts over.")

    def _reply(self, speaker: Speaker) -> Answer:
        said = self._said[speaker.name]
        answer = self._replier.reply(speaker, Conversation(tuple(said), self._start.tools), self._screen)
        said.append(answer.message())
        return answer

    def _give_results(self, answers: dict[Speaker, Answer]) -> list[Speaker]:
        """Ask for the result of each call, of equal ones once; who has all of its results speaks again."""
        results: dict[str, str | None] = {}
        speaking = []
        for speaker, answer in answers.items():
            if not answer.calls or answer.unread:
                continue
            found = [self._result(call, results) for call in answer.calls]
            if all(found):
                self._said[speaker.name] += [
                    Message(role="tool", name=call.name, content=result or "")
                    for call, result in zip(answer.calls, found, strict=True)
                ]
                speaking.append(speaker)
        return speaking

    def _result(self, call: ReadCall, known: dict[str, str | None]) -> str | None:
        key = f"{call.name} {dump_loosely(call.arguments)}"
        if key not in known:
            known[key] = self._line(f"result of {key}> ")
        return known[key]
