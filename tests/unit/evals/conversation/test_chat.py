"""A chat: who speaks when, what is asked of the user, and how it goes on after what cannot be asked."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from evals.conversation.answer import Answer, read_answer
from evals.conversation.asking import Conversation
from evals.conversation.converse import Chat
from evals.conversation.screen import Screen
from evals.conversation.speakers import Speaker
from evals.records import Generation
from orchestrator.core.errors import InputError
from orchestrator.core.records import FunctionSpec, Message, ToolSpec

TOOLS = (ToolSpec(function=FunctionSpec(name="find", parameters={"type": "object", "properties": {}})),)
BASE, TUNED = Speaker("base", None, None, "tiny"), Speaker("trial-1", None, 8, "rank 8")


def call(name: str = "find", arguments: str = "{}") -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


class Scripted:
    """Says what its script says, and keeps what it was shown."""

    def __init__(self, **scripts: Sequence[str | InputError]) -> None:
        self.speakers = [speaker for speaker in (BASE, TUNED) if speaker.name.replace("-", "_") in scripts]
        self._scripts = {name.replace("_", "-"): list(script) for name, script in scripts.items()}
        self.shown: list[tuple[str, list[str]]] = []

    def reply(self, speaker: Speaker, conversation: Conversation, screen: Screen) -> Answer:
        assert isinstance(screen, Screen)
        self.shown.append((speaker.name, [f"{said.role}: {said.content}" for said in conversation.messages]))
        said = self._scripts[speaker.name].pop(0)
        if isinstance(said, InputError):
            raise said
        return read_answer(speaker.name, Generation(case_id="1", text=said), conversation.tools, "hermes")


def chatted(replier: Scripted, lines: Sequence[str], start: Sequence[Message] = ()) -> list[str]:
    """The questions that the user was asked."""
    left, asked = list(lines), list[str]()

    def ask(question: str) -> str | None:
        asked.append(question)
        return left.pop(0) if left else None

    Chat(replier, Conversation(tuple(start), TOOLS), Screen(), ask).run()
    return asked


def test_each_speaker_goes_on_with_what_it_said_itself() -> None:
    replier = Scripted(base=["b1", "b2"], trial_1=["t1", "t2"])
    assert chatted(replier, ["one", "two"]) == ["you> "] * 3
    assert replier.shown[2:] == [
        ("base", ["user: one", "assistant: b1", "user: two"]),
        ("trial-1", ["user: one", "assistant: t1", "user: two"]),
    ]


def test_equal_calls_are_asked_for_once_and_only_who_called_speaks_again() -> None:
    replier = Scripted(base=["no idea"], trial_1=[call(), "It is here."])
    asked = chatted(replier, ["where?", "in the garden", "/quit", "not read"])
    assert asked == ["you> ", "result of find {}> ", "you> "]
    assert [name for name, _ in replier.shown[:3]] == ["base", "trial-1", "trial-1"]
    assert replier.shown[2][1] == ["user: where?", "assistant: ", "tool: in the garden"]
    both = Scripted(base=[call(), "b"], trial_1=[call(), "t"])
    assert [question for question in chatted(both, ["where?", "here"]) if "result" in question] == [
        "result of find {}> "
    ]


def test_without_all_results_the_user_speaks_instead() -> None:
    replier = Scripted(base=["\n".join([call(), call(arguments='{"a": 1}')]), "Fine."])
    asked = chatted(replier, ["where?", "here", "", "never mind"])
    assert asked == ["you> ", "result of find {}> ", 'result of find {"a": 1}> ', "you> ", "you> "]
    assert replier.shown[1][1][-1] == "user: never mind"


def test_a_conversation_that_waits_for_a_reply_gets_it_first() -> None:
    replier = Scripted(base=["Hello.", "b"])
    assert chatted(replier, [], [Message(role="user", content="Hi")]) == ["you> "]
    assert chatted(Scripted(base=["b"]), ["Hi"], [Message(role="system", content="Brief.")]) == ["you> ", "you> "]


def test_what_cannot_be_asked_is_taken_back_and_the_chat_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    replier = Scripted(base=["b1", InputError("the prompt has 9 tokens"), "b3"])
    chatted(replier, ["one", "much too long", "three"])
    assert replier.shown[2][1] == ["user: one", "assistant: b1", "user: three"]
    assert "the prompt has 9 tokens. What you said last is taken back" in capsys.readouterr().out


def test_it_starts_over_and_reads_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "long.txt").write_text("two\nlines\n", encoding="utf-8")
    replier = Scripted(base=["b1", "b2"])
    chatted(replier, ["one", "/reset", f"@{tmp_path}/nowhere", f"@{tmp_path}/long.txt"])
    assert replier.shown[1][1] == ["user: two\nlines"]
    assert "nowhere: the file cannot be read" in capsys.readouterr().out
