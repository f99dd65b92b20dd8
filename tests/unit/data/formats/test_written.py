import pytest

from orchestrator.data.formats.written import split_reasoning, take_calls
from orchestrator.data.rejection import RowRejected


def test_a_think_block_without_an_end_is_refused() -> None:
    with pytest.raises(RowRejected, match="turn 2: the <think> block has no end"):
        split_reasoning(" <think>Hm.", "turn 2")


@pytest.mark.parametrize("text", ["Use <think> and </think>.", "<tool_call>{}</tool_call></think>", " plain "])
def test_a_text_that_has_no_leading_block_is_left_as_it_is(text: str) -> None:
    assert split_reasoning(text, "turn 2") == (None, text)


def test_a_text_without_calls_is_left_as_it_is() -> None:
    assert take_calls(" plain\n", "<call>", lambda _, start: ([], start)) == (" plain\n", ())
