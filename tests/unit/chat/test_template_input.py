import json
import re
import signal
from pathlib import Path

import pytest
import trl
from builders import assistant, make_call, make_tool, user
from transformers import PreTrainedTokenizerBase

from orchestrator.chat import template_input
from orchestrator.chat.call_ids import with_call_ids
from orchestrator.chat.formats import detect_reply_format
from orchestrator.chat.parse import parse_reply
from orchestrator.chat.rendering import chat_format, render_prompt
from orchestrator.chat.template_input import (
    RowLeftOut,
    Wants,
    adapted_template,
    plain_messages,
    plain_tools,
    template_wants,
)
from orchestrator.core.errors import ConfigError
from orchestrator.core.records import FunctionSpec, Message, ToolCall, ToolSpec
from orchestrator.models.base import load_tokenizer

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
NINE = re.compile(r"[a-zA-Z0-9]{9}")
SAID = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
CALLS = "{% for m in messages %}{% for c in m.tool_calls or [] %}@{% endfor %}{% endfor %}"
NINE_ONLY = (
    "{% for m in messages %}{% for c in m.tool_calls or [] %}"
    "{% if c.id is not defined or c.id | length != 9 %}{{ raise_exception('ids have length 9') }}{% endif %}"
    "{{ c.id }}{% endfor %}"
    "{% if m.role == 'tool' and (m.tool_call_id is not defined or m.tool_call_id | length != 9) %}"
    "{{ raise_exception('ids of results have length 9') }}{% endif %}{{ m.content }}{{ m.tool_call_id }}{% endfor %}"
)
"""The rule of Mistral's templates."""


def called(*ids: str | None) -> Message:
    calls = [make_call(city=f"City{number}").model_copy(update={"id": id}) for number, id in enumerate(ids)]
    return assistant("", *calls)


def result(text: str, id: str | None = None, name: str | None = None) -> Message:
    return Message(role="tool", content=text, tool_call_id=id, name=name)


def with_template(folder: Path, template: str) -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(folder, trust_remote_code=False)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "call_ids"),
    [
        (SAID, "as given"),
        (SAID + CALLS, "as given"),
        (SAID + CALLS.replace("@", "{{ c.function.name }}"), "as given"),
        (SAID + CALLS.replace("@", "{{ c.id }}{{ c.function.name }}"), "any"),
        (SAID + CALLS.replace("@", "{{ c.id }}"), "functions"),
        (SAID + CALLS.replace("@", "{{ raise_exception('no id') if c.id is not defined }}"), "any"),
        (NINE_ONLY, "nine"),
        ("{{ raise_exception('never') }}", "as given"),
    ],
)
def test_a_template_is_asked_which_ids_it_wants(model_folder: Path, template: str, call_ids: str) -> None:
    assert template_wants(with_template(model_folder, template)).call_ids == call_ids


@pytest.mark.parametrize("ids", [(None, None), ("call_0", "call_1"), ("toolu_01A09q90qw90lq917835lq9", "2")])
def test_ids_are_made_where_a_template_refuses_those_of_the_data(
    model_folder: Path, ids: tuple[str | None, str | None]
) -> None:
    tokenizer = with_template(model_folder, NINE_ONLY)
    talk = (user("x"), called(*ids), result("a", ids[0]), result("b", ids[1]), assistant("Done."), user("y"))
    form = chat_format(tokenizer, thinking=False)
    shown = form.plain(talk)
    made = [call["id"] for call in shown[1]["tool_calls"]]
    assert all(NINE.fullmatch(id) for id in made)
    assert len(set(made)) == 2
    assert [message["tool_call_id"] for message in shown[2:4]] == made
    assert form.plain(talk[:3]) == shown[:3]  # the same wherever the conversation ends
    assert render_prompt(tokenizer, talk, (make_tool(),)) == form.encode(form.text(shown, None, prompt=True))


def test_ids_that_a_template_takes_are_kept() -> None:
    talk = (user("x"), called("aB3dE6gH9", "call_1"), result("a", "call_1"), result("b", "aB3dE6gH9"))
    _, calls, first, second = with_call_ids(talk, "nine")
    assert calls.tool_calls[0].id == "aB3dE6gH9"
    assert (first.tool_call_id, second.tool_call_id) == (calls.tool_calls[1].id, "aB3dE6gH9")
    assert with_call_ids(talk, "any") == list(talk) == with_call_ids(talk, "as given")


def test_ids_that_stand_for_names_count_the_calls_of_a_conversation() -> None:
    calls = assistant("", make_call("one"), make_call("two"))
    talk = (user("x"), calls, result("b", name="two"), result("a"), user("y"), assistant("", make_call("one")))
    shown = with_call_ids(talk, "functions")
    ids = [call.id for message in shown for call in message.tool_calls]
    assert ids == ["functions.one:0", "functions.two:1", "functions.one:2"]
    assert [message.tool_call_id for message in shown[2:4]] == ["functions.two:1", "functions.one:0"]
    assert with_call_ids(talk[:3], "functions") == shown[:3]  # the same wherever the conversation ends


def test_a_template_that_writes_ids_for_names_is_learned_as_calls_that_are_read(model_folder: Path) -> None:
    given = "<|tool_call_argument_begin|>{{ c.function.arguments | tojson }}"
    calls = CALLS.replace("@", f"<|tool_call_begin|>{{{{ c.id }}}}{given}<|tool_call_end|>")
    section = f"<|tool_calls_section_begin|>{calls}<|tool_calls_section_end|>"
    form = chat_format(with_template(model_folder, SAID + section), thinking=False)
    text = form.text(form.plain((user("x"), called("call_1", None))), None, prompt=False)
    reply = parse_reply(text[text.index("<|tool_calls") :], format=detect_reply_format(SAID + section))
    assert [call.id for call in reply.calls] == ["functions.get_weather:0", "functions.get_weather:1"]
    assert [call.function.arguments for call in reply.calls] == [{"city": "City0"}, {"city": "City1"}]


def test_results_without_ids_answer_the_calls_in_order_or_by_name() -> None:
    calls = assistant("", make_call("one"), make_call("two"))
    _, asked, first, second = with_call_ids([user("x"), calls, result("b", name="two"), result("a")], "any")
    assert (first.tool_call_id, second.tool_call_id) == (asked.tool_calls[1].id, asked.tool_calls[0].id)
    assert with_call_ids([user("x"), result("alone")], "nine")[1].tool_call_id is None


def test_equal_calls_of_one_conversation_have_ids_of_their_own() -> None:
    again = ToolCall(function=make_call(city="Rome").function)
    messages = with_call_ids([user("x"), assistant("", again, again), result("1"), result("2"), called(None)], "any")
    ids = [call.id for message in messages for call in message.tool_calls]
    assert len(set(ids)) == 3


def test_every_known_template_gets_its_texts(model_folder: Path) -> None:
    wanted: dict[str | None, set[str]] = {None: set(), "string": set(), "openai": set()}
    for path in sorted(TEMPLATES.glob("*.jinja")):
        tokenizer = with_template(model_folder, path.read_text(encoding="utf-8"))
        tokenizer.bos_token = "<|endoftext|>"
        wants = template_wants(tokenizer)
        wanted[wants.content].add(path.stem)
        form = chat_format(tokenizer, thinking=False)
        text = form.text(form.plain((user("orchard"), assistant("lantern"), user("meadow"))), None, prompt=True)
        assert all(text.count(word) == 1 for word in ("orchard", "lantern", "meadow")), path.stem
        assert "'text'" not in text
    assert {"idefics3", "llava_next", "smolvlm"} <= wanted["openai"]
    assert {"gemma3", "gemma4", "qwen3_6"} <= wanted["string"]
    assert {"qwen3", "llama3_2", "phi3"} <= wanted[None]


def test_parts_are_those_of_the_server() -> None:
    talk = (user("a"), called("1"), result("b", "1"), assistant("c"))
    contents = [message["content"] for message in plain_messages(talk, Wants(content="openai"), thinking=False)]
    assert contents == [[{"type": "text", "text": "a"}], [], "b", [{"type": "text", "text": "c"}]]


def test_tools_have_null_for_what_was_not_given_and_strict_only_if_it_was() -> None:
    given = FunctionSpec(name="full", description="", parameters={"type": "object"}, strict=False)
    tools = [ToolSpec(function=FunctionSpec(name="bare")), ToolSpec(function=given)]
    assert json.dumps(plain_tools(tools)) == json.dumps(
        [
            {"type": "function", "function": {"name": "bare", "description": None, "parameters": None}},
            {
                "type": "function",
                "function": {"name": "full", "description": "", "parameters": {"type": "object"}, "strict": False},
            },
        ]
    )
    assert plain_tools(()) is None


def test_a_template_that_refuses_what_the_server_gives_refuses_the_sample(model_folder: Path) -> None:
    form = chat_format(with_template(model_folder, "{{ 'x' + tools[0].function.description }}"), thinking=False)
    with pytest.raises(RowLeftOut, match="template_refuses"):
        form.text(form.plain([user("x")]), plain_tools([ToolSpec(function=FunctionSpec(name="bare"))]), prompt=True)


AS_TEXT = "{% for c in m.tool_calls or [] %}<call>{{ c.function.name + ' ' + c.function.arguments }}</call>{% endfor %}"
"""The rule of DeepSeek V3's template, which adds arguments to text."""
AS_THINKING = "{% if m.thinking %}<think>{{ m.thinking }}</think>{% endif %}"


def templated(folder: Path, inner: str) -> PreTrainedTokenizerBase:
    return load_tokenizer(folder, trust_remote_code=False, template=SAID.replace("{{ m.content }}", inner))


def test_a_template_that_wants_arguments_as_text_is_given_objects(model_folder: Path) -> None:
    tokenizer = templated(model_folder, AS_TEXT)
    asked = [user("Is it cold?"), assistant("", make_call(city="Ålesund", days=2)), result("2")]
    text = tokenizer.decode(render_prompt(tokenizer, asked, [make_tool()]))
    assert '<call>get_weather {"city": "Ålesund", "days": 2}</call>' in text


def test_a_template_that_prints_objects_as_python_is_given_text(model_folder: Path) -> None:
    printing = "{% for c in m.tool_calls or [] %}{{ c.function.arguments }}{% endfor %}"
    tokenizer = templated(model_folder, printing)
    asked = [user("Is it cold?"), assistant("", make_call(city="Oslo")), result("2")]
    assert '{"city": "Oslo"}' in tokenizer.decode(render_prompt(tokenizer, asked, [make_tool()]))


XML = (
    "{# <parameter= #}{% for c in m.tool_calls or [] %}<tool_call><function={{ c.function.name }}>"
    "{% for key, value in c.function.arguments | items %}<parameter={{ key }}>{{ value }}</parameter>{% endfor %}"
    "</function></tool_call>{% endfor %}"
)
"""The rule of Seed-OSS, which prints lists as Python does."""
PYTHON = (
    "{# [f(key=value)] #}{% for c in m.tool_calls or [] %}[{{ c.function.name }}("
    "{% for key, value in c.function.arguments | items %}{{ key }}={{ value }}"
    "{% if not loop.last %}, {% endif %}{% endfor %})]{% endfor %}"
)
"""The rule of ToolACE, which prints texts without quotes."""


@pytest.mark.parametrize(
    ("inner", "shown"),
    [
        (XML, "<parameter=city>Oslo</parameter><parameter=days>[1, null]</parameter>"),
        (PYTHON, '[get_weather(city="Oslo", days=[1, null])]'),
    ],
)
@pytest.mark.parametrize("always_opens", [False, True])
def test_values_are_given_as_the_text_that_the_notation_has(
    model_folder: Path, inner: str, shown: str, *, always_opens: bool
) -> None:
    template = SAID.replace("{{ m.content }}", "{{ m.content }}" + inner)
    opening = "<|im_start|>assistant\n"
    template += opening if always_opens else f"{{% if add_generation_prompt %}}{opening}{{% endif %}}"
    tokenizer = load_tokenizer(model_folder, trust_remote_code=False, template=template)
    asked = [user("Is it cold?"), assistant("", make_call(city="Oslo", days=[1, None])), result("2")]
    assert shown in tokenizer.decode(render_prompt(tokenizer, asked, [make_tool()]))


def test_a_template_that_wants_a_list_of_tools_gets_an_empty_one(model_folder: Path) -> None:
    listing = "{% for tool in tools %}{{ tool.function.name }}{% endfor %}" + SAID
    tokenizer = load_tokenizer(model_folder, trust_remote_code=False, template=listing)
    assert "Hello." in tokenizer.decode(render_prompt(tokenizer, [user("Hello.")], []))
    assert "get_weather" in tokenizer.decode(render_prompt(tokenizer, [user("Hello.")], [make_tool()]))


def test_ids_that_are_too_short_are_made(model_folder: Path) -> None:
    long = "{% for c in m.tool_calls or [] %}{% if c.id | length < 9 %}{{ raise_exception('short') }}{% endif %}"
    template = SAID.replace("{{ m.content }}", long + "{{ c.id[-9:] }}{% endfor %}{{ m.content }}")
    assert template_wants(with_template(model_folder, template)).call_ids == "nine"


def test_thoughts_are_given_under_the_name_that_the_template_knows(model_folder: Path) -> None:
    tokenizer = templated(model_folder, AS_THINKING + "{{ m.content }}")
    thought = Message(role="assistant", content="Yes.", reasoning_content="It is January.")
    asked = [user("Is it cold?"), thought, user("Sure?")]
    assert "<think>It is January.</think>Yes." in tokenizer.decode(render_prompt(tokenizer, asked, [], thinking=True))
    assert "January" not in tokenizer.decode(render_prompt(tokenizer, asked, []))


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.jinja")), ids=lambda path: path.stem)
def test_only_a_template_that_needs_it_is_adapted(path: Path, model_folder: Path) -> None:
    names = load_tokenizer(model_folder, trust_remote_code=False).special_tokens_map
    template = path.read_text(encoding="utf-8")
    adapted = adapted_template(template, names)
    assert adapted.endswith(template)
    is_adapted = path.stem in ("deepseekv3", "gptoss", "gptoss_training", "lfm2_2_5")
    assert (adapted != template) == is_adapted
    assert adapted_template(adapted, names) == adapted


def test_a_template_that_does_not_end_is_refused(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_input, "MAX_SECONDS", 0.2)
    endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}" + SAID
    fault = r"^model\.chat_template: the chat template does not end: it was stopped after 0\.2 s.*hermes\.$"
    with pytest.raises(ConfigError, match=fault):
        load_tokenizer(model_folder, trust_remote_code=False, template=endless)
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
    monkeypatch.undo()
    assert load_tokenizer(model_folder, trust_remote_code=False, template=SAID).chat_template == SAID
