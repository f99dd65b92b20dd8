"""What a person sees of replies: the text as it is made, then what is read in it."""

import json
from collections.abc import Sequence

from rich.style import Style
from rich.text import Text

from evals.conversation.answer import Answer, ReadCall
from evals.generate.engine import Loaded
from orchestrator.core.files import dump_line
from orchestrator.core.process import tell
from orchestrator.core.progress import console, on_terminal, say, say_json
from orchestrator.core.text import counted, visible

HEAD, DIM, GOOD, BAD = Style(bold=True, color="cyan"), Style(dim=True), Style(color="green"), Style(color="red")


class Screen:
    """Shows replies one after the other: as they are made on a terminal, at once elsewhere."""

    def __init__(self) -> None:
        self._streams = on_terminal()

    def begin(self, name: str, note: str, loaded: Loaded) -> None:
        """The heading of a reply: who makes it, and that the adapter is in force."""
        proof = loaded.canary
        force = "" if proof is None else f", in force: log probabilities move by {proof.largest_shift:.2g}"
        self._line(Text.assemble((name, HEAD), (f"  {visible(note)}{force}", DIM)))

    def piece(self, text: str) -> None:
        """More of the text of a reply."""
        if self._streams:
            console.print(Text(visible(text)), end="", soft_wrap=True)

    def end(self, answer: Answer, *, num_tools: int) -> None:
        """The rest of a reply's text, and what is read in it."""
        if self._streams:
            console.print()
        else:
            say(visible(answer.text))
        for line in [*reading_lines(answer, num_tools=num_tools), Text()]:
            self._line(line)

    def compare(self, answers: Sequence[Answer]) -> None:
        """How replies to one conversation differ."""
        if line := difference_line(answers):
            self._line(Text(line, DIM))

    def say(self, text: str) -> None:
        """One line that belongs to no reply."""
        self._line(Text(visible(text), DIM))

    def _line(self, text: Text) -> None:
        if self._streams:
            console.print(text, soft_wrap=True)
        else:
            say(text.plain)


def reading_lines(answer: Answer, *, num_tools: int) -> list[Text]:
    """What is read in a reply: its calls and their verdicts, what a server would send on, tokens and time."""
    lines = [_call_line(call) for call in answer.calls]
    lines += [Text(f"  cannot be read as a call: {p.reason}: {visible(p.detail)}", BAD) for p in answer.unread]
    if not answer.tries_to_call:
        calls = "no call, " if num_tools else ""
        lines.append(Text(f"  {calls}reads as {answer.kind.value.replace('_', ' ')}", DIM))
    if answer.serving_differs and answer.served is not None:
        lines.append(Text(f"  vllm serve sends on something else: {_served_text(answer)}", BAD))
    return [*lines, Text(f"  {_cost_text(answer)}", DIM)]


def _call_line(call: ReadCall) -> Text:
    shown = Text(f"  call  {visible(call.name)} {visible(json.dumps(call.arguments, ensure_ascii=False))}  ")
    if call.problem is None:
        return shown + Text("fits its schema", GOOD)
    return shown + Text(f"NOT VALID: {call.problem.reason}: {visible(call.problem.detail)}", BAD)


def _served_text(answer: Answer) -> str:
    served = answer.served
    assert served is not None
    if served.error is not None:
        return f"its parser {served.parser} fails ({visible(served.error)}), and the reply goes on as text"
    if not served.calls:
        return f"no call, and the text {visible(served.content)!r}"
    return ", ".join(visible(f"{name} {arguments}") for name, arguments in served.calls)


def _cost_text(answer: Answer) -> str:
    tokens, seconds = answer.output_tokens or 0, answer.latency_s or 0.0
    rate = f" ({tokens / seconds:.0f} a second)" if seconds else ""
    cut = ", cut off there (eval.max_new_tokens)" if answer.finish_reason == "length" else ""
    prompt = counted(answer.prompt_tokens or 0, "token")
    return f"{counted(tokens, 'token')} in {seconds:.2f} s{rate}{cut}; the prompt has {prompt}"


def difference_line(answers: Sequence[Answer]) -> str | None:
    """How the replies of several differ, None where there is but one."""
    if len(answers) < 2:
        return None
    if len({answer.text for answer in answers}) == 1:
        return "The replies are the same."
    calls = {json.dumps([[call.name, call.arguments] for call in answer.calls], sort_keys=True) for answer in answers}
    if len(calls) == 1 and answers[0].calls:
        return "The calls are the same, the texts are not."
    return "The replies differ."


class JsonScreen(Screen):
    """Each answer as one line of JSON, and nothing else."""

    def begin(self, name: str, note: str, loaded: Loaded) -> None:
        """Says nothing."""

    def piece(self, text: str) -> None:
        """Says nothing."""

    def end(self, answer: Answer, *, num_tools: int) -> None:  # noqa: ARG002 - as a screen is called
        """The answer."""
        say_json(dump_line(answer))

    def compare(self, answers: Sequence[Answer]) -> None:
        """Says nothing."""

    def say(self, text: str) -> None:
        """On stderr: it is no answer."""
        tell(text)
