import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.parse import CALL_MARKS, END_OF_TURN, split_thinking
from orchestrator.data.formats.common import split_reasoning, take_calls
from orchestrator.data.rejection import RowRejected


@pytest.mark.parametrize(("text", "tag"), [(" <think>Hm.", "<think>"), ("[THINK]Hm.</think>", r"\[THINK\]")])
def test_a_think_block_without_an_end_is_refused(text: str, tag: str) -> None:
    with pytest.raises(RowRejected, match=f"turn 2: the {tag} block has no end"):
        split_reasoning(text, "turn 2")


@pytest.mark.parametrize(
    "text",
    [
        "Use <think> and </think>.",
        "Use [THINK] and [/THINK].",
        "<tool_call>{}</tool_call></think>",
        "[TOOL_CALLS]f{}[/THINK]",
        " plain ",
    ],
)
def test_a_text_that_has_no_leading_block_is_left_as_it_is(text: str) -> None:
    assert split_reasoning(text, "turn 2") == (None, text)


@pytest.mark.parametrize(
    ("text", "thoughts", "rest"),
    [
        ("[THINK]\nplan\n[/THINK]\n\nanswer", "plan", "answer"),
        ("plan[/THINK]answer", "plan", "answer"),
        ("<think>plan [/THINK]</think>answer", "plan [/THINK]", "answer"),
        ("[THINK][TOOL_CALLS]x{}[/THINK]answer", "[TOOL_CALLS]x{}", "answer"),
        ("[THINK][/THINK]answer", None, "answer"),
    ],
)
def test_thoughts_are_split_off_whatever_their_tags(text: str, thoughts: str | None, rest: str) -> None:
    assert split_reasoning(text, "turn 2") == (thoughts, rest)


def pieces_of(format: str) -> st.SearchStrategy[str]:
    thoughts = [tag for tags in REPLY_FORMATS[format].thoughts for tag in tags if tag not in END_OF_TURN]
    return st.sampled_from([*thoughts, *CALL_MARKS, "plan", "[1]", "{", "\n"])


@pytest.mark.parametrize("format", REPLY_FORMATS)
@given(data=st.data())
def test_data_is_divided_as_replies_are_unless_a_call_in_any_format_comes_first(
    format: str, data: st.DataObject
) -> None:
    text = "".join(data.draw(st.lists(pieces_of(format), max_size=6)))
    thinking, rest = split_thinking(text, format=format)
    try:
        reasoning, content = split_reasoning(text, "turn 2")
    except RowRejected:
        assert (thinking is not None, rest) == (True, "")
        return
    if not any(mark in text for mark in CALL_MARKS) and not text.lstrip().startswith(("{", "[1]")):
        assert (thinking or None, rest) == (reasoning, content.strip())


def test_what_ends_a_turn_ends_only_a_block_that_was_opened() -> None:
    text = "plan<|end|>Done."
    assert split_reasoning(text, "turn 2") == (None, text)
    assert split_reasoning(f"<|channel|>analysis<|message|>{text}", "turn 2") == ("plan", "Done.")
    assert split_reasoning("<|channel>thought\nplan\n<channel|>Done.", "turn 2") == ("plan", "Done.")


@pytest.mark.parametrize("opening", ["[", "{"])
def test_a_block_that_must_be_opened_does_not_end_without(opening: str) -> None:
    assert split_reasoning(f"{opening}</think>", "turn 2", needs_opening=True) == (None, f"{opening}</think>")
    assert split_reasoning("[THINK]a[/THINK]b", "turn 2", needs_opening=True) == ("a", "b")


def test_a_text_without_calls_is_left_as_it_is() -> None:
    assert take_calls(" plain\n", "<call>", lambda _, start: ([], start)) == (" plain\n", ())
