"""What is read in a reply, and how it is shown."""

import pytest

from evals.conversation.answer import Answer, read_answer
from evals.conversation.screen import difference_line, reading_lines
from evals.records import Generation
from orchestrator.chat.formats.reply import ServedReply
from orchestrator.core.records import FunctionSpec, ToolSpec
from orchestrator.refusals import ReplyKind

TOOLS = (
    ToolSpec(
        function=FunctionSpec(
            name="get_weather",
            parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        )
    ),
)
GOOD = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def answered(text: str, served: ServedReply | None = None, **fields: object) -> Answer:
    told = {"finish_reason": "stop", "prompt_tokens": 10, "output_tokens": 5, "latency_s": 0.5} | fields
    reply = Generation.model_validate({"case_id": "1", "text": text, "served": served, **told})
    return read_answer("trial-1", reply, TOOLS, "hermes")


def lines(answer: Answer) -> list[str]:
    return [line.plain for line in reading_lines(answer, num_tools=1)]


def test_each_call_is_held_against_its_tool() -> None:
    bad = GOOD.replace('"Oslo"', "3")
    unknown = GOOD.replace("get_weather", "get_time")
    answer = answered(f"{GOOD}\n{bad}\n{unknown}")
    reasons = [call.problem.reason if call.problem else None for call in answer.calls]
    assert reasons == [None, "arguments_do_not_fit_schema", "unknown_tool"]
    shown = lines(answer)
    assert shown[0] == '  call  get_weather {"city": "Oslo"}  fits its schema'
    assert shown[1].startswith('  call  get_weather {"city": 3}  NOT VALID: arguments_do_not_fit_schema: ')
    assert shown[3] == "  5 tokens in 0.50 s (10 a second); the prompt has 10 tokens"


def test_an_attempt_that_cannot_be_read_is_told_and_kept_as_it_stands() -> None:
    answer = answered('<tool_call>\n{"name": "get_weather", "arguments": \n</tool_call>')
    assert lines(answer)[0].startswith("  cannot be read as a call: not_json: ")
    assert answer.message().content == answer.text
    assert not answer.message().tool_calls


def test_a_call_goes_on_as_a_call_and_words_as_words() -> None:
    message = answered(f"Let me look.\n{GOOD}").message()
    assert (message.content, message.tool_calls[0].function.arguments) == ("Let me look.", {"city": "Oslo"})
    words = answered("I cannot help with that.")
    assert (words.kind, words.tries_to_call) == (ReplyKind.REFUSAL, False)
    assert lines(words)[0] == "  no call, reads as refusal"


@pytest.mark.parametrize(
    ("served", "said"),
    [
        (ServedReply(parser="hermes", calls=(("get_weather", '{"city": "Oslo"}'),), content=""), None),
        (ServedReply(parser="hermes", calls=(), content=GOOD), "no call, and the text"),
        (ServedReply(parser="hermes", calls=(("get_weather", "{}"),), content=""), "get_weather {}"),
        (ServedReply(parser="hermes", calls=(), content=GOOD, error="KeyError: x"), "its parser hermes fails"),
    ],
)
def test_what_a_server_sends_on_is_shown_where_it_is_something_else(served: ServedReply, said: str | None) -> None:
    answer = answered(GOOD, served)
    assert answer.serving_differs is (said is not None)
    found = [line for line in lines(answer) if "vllm serve" in line]
    assert len(found) == (said is not None)
    assert said is None or said in found[0]


def test_a_reply_that_is_cut_off_and_one_with_control_characters_are_told() -> None:
    assert "cut off there (eval.max_new_tokens)" in lines(answered("Well", finish_reason="length"))[-1]
    name = GOOD.replace("get_weather", "a\\u001b[31mb")
    assert "\x1b" not in "".join(lines(answered(name)))


def test_replies_are_set_beside_each_other() -> None:
    one, same, other = answered(GOOD), answered(GOOD), answered(f"Sure.\n{GOOD}")
    assert difference_line([one]) is None
    assert difference_line([one, same]) == "The replies are the same."
    assert difference_line([one, other]) == "The calls are the same, the texts are not."
    assert difference_line([one, answered("Hi")]) == "The replies differ."
