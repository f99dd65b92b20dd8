"""What a person asks is read as the rows of the data are, and what is wrong with it is told in one line."""

import io
import json
from pathlib import Path

import pytest

from evals.conversation.asking import Asked, read_conversation
from orchestrator.core.errors import InputError

WEATHER = {
    "name": "get_weather",
    "description": "Current weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ASKED = [{"role": "user", "content": "Is it cold in Oslo?"}]
CALLED = [
    *ASKED,
    {
        "role": "assistant",
        "tool_calls": [
            {"type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}, "id": "c1"}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": '{"celsius": -4}'},
]


def written(folder: Path, name: str, value: object) -> str:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return str(path)


def test_a_prompt_is_what_the_user_says() -> None:
    found = read_conversation("Hi", None, None, keep_thoughts=False)
    assert [(message.role, message.content) for message in found.messages] == [("user", "Hi")]
    assert found.tools == ()


@pytest.mark.parametrize("tools", [[{"type": "function", "function": WEATHER}], [WEATHER], {"tools": [WEATHER]}])
def test_messages_and_tools_are_read_in_the_usual_forms(tools: object, tmp_path: Path) -> None:
    for messages in (CALLED, {"messages": CALLED}, {"messages": CALLED, "tools": [WEATHER]}):
        found = read_conversation(
            None, written(tmp_path, "m.json", messages), written(tmp_path, "t.json", tools), keep_thoughts=False
        )
        assert [message.role for message in found.messages] == ["user", "assistant", "tool"]
        assert found.messages[1].tool_calls[0].function.arguments == {"city": "Oslo"}
        assert [tool.function.name for tool in found.tools] == ["get_weather"]


def test_tools_stand_in_for_those_beside_the_messages(tmp_path: Path) -> None:
    messages = written(tmp_path, "m.json", {"messages": ASKED, "tools": [{**WEATHER, "name": "old"}]})
    assert read_conversation(None, messages, None, keep_thoughts=False).tools[0].function.name == "old"
    tools = written(tmp_path, "t.json", [WEATHER])
    assert read_conversation(None, messages, tools, keep_thoughts=False).tools[0].function.name == "get_weather"


def test_messages_may_come_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(ASKED)))
    assert read_conversation(None, "-", None, keep_thoughts=False).messages[0].content == "Is it cold in Oslo?"


def test_a_chat_may_begin_with_nothing_said_or_with_the_system(tmp_path: Path) -> None:
    tools = written(tmp_path, "t.json", [WEATHER])
    nothing = read_conversation(None, None, tools, keep_thoughts=False)
    assert (nothing.messages, len(nothing.tools)) == ((), 1)
    system = written(tmp_path, "s.json", [{"role": "system", "content": "Be brief."}])
    assert [message.role for message in read_conversation(None, system, None, keep_thoughts=False).messages] == [
        "system"
    ]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ("{broken", "this is no JSON"),
        ('{"a": 1, "a": 2}', "this is no JSON"),
        ("3", "this is no conversation"),
        ("[]", "this is no conversation"),
        ({"turns": ASKED}, "this is no conversation"),
        (["hi"], "turn 1"),
        ([{"role": "oracle", "content": "x"}], "oracle"),
        ([*ASKED, {"role": "assistant", "content": "Yes."}], "ends with the assistant"),
        (CALLED[:1] + CALLED[2:], "result"),
        ({"messages": CALLED, "tools": []}, "get_weather"),
    ],
)
def test_what_is_no_conversation_is_one_line(messages: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as refusal:
        read_conversation(None, written(tmp_path, "m.json", messages), None, keep_thoughts=False)
    assert str(refusal.value).startswith(str(tmp_path / "m.json"))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        ([{"name": "f", "parameters": {"type": "objekt"}}], "f"),
        ([{"name": "f", "parameters": {"type": "object", "properties": {"x": {"$ref": "http://a/b"}}}}], "f"),
        ([{"name": "f", "parameters": 3}], "f"),
        ([{"description": "no name"}], "name"),
        ([WEATHER, WEATHER], "get_weather"),
        ([], "no tools"),
        ({"a": 1}, "no tools"),
        ("[", "no JSON"),
    ],
)
def test_tools_that_are_none_are_one_line(tools: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said) as refusal:
        read_conversation("Hi", None, written(tmp_path, "t.json", tools), keep_thoughts=False)
    assert str(refusal.value).startswith(str(tmp_path / "t.json"))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_conversation(None, str(tmp_path / "nowhere"), None, keep_thoughts=False)
    with pytest.raises(InputError, match="Is a directory"):
        read_conversation(None, str(tmp_path), None, keep_thoughts=False)
    (tmp_path / "latin").write_bytes(b'["\xe9"]')
    with pytest.raises(InputError, match="not UTF-8"):
        read_conversation(None, str(tmp_path / "latin"), None, keep_thoughts=False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Asked(prompt="a", messages="b"), "--prompt and --messages: only one"),
        (Asked(prompt="a", cases="b", out="c"), "--prompt and --cases: only one"),
        (Asked(cases="b"), "--cases and --out: the two go together"),
        (Asked(prompt="a", out="c"), "--cases and --out: the two go together"),
        (Asked(cases="b", out="c", chat=True), "--cases: a file of cases is asked as it is"),
        (Asked(cases="b", out="c", tools="t"), "--cases: a file of cases is asked as it is"),
        (Asked(prompt=" "), "--prompt: the prompt is empty"),
        (Asked(prompt="a", top_p=0.0), "--top-p: 0 is no share"),
        (Asked(prompt="a", top_p=1.5), "--top-p: 1.5 is no share"),
        (Asked(messages="-", chat=True), "--chat: a chat reads"),
        (Asked(), "stdin: nothing is asked"),
        (Asked(messages="-", tools="-"), "--messages and --tools: both read stdin"),
    ],
)
def test_options_that_contradict_each_other_are_told(given: Asked, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(InputError, match=said):
        given.checked()


def test_what_is_piped_in_is_the_prompt_and_a_terminal_is_a_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Is it cold?\n"))
    assert Asked().checked() == Asked(prompt="Is it cold?")
    monkeypatch.setattr("sys.stdin", io.StringIO("not read"))
    assert Asked(prompt="a").checked() == Asked(prompt="a")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert Asked().checked() == Asked(chat=True)
