"""The prompt of training and evaluation is the one that vLLM's own server code renders for a client's request."""

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import trl
from builders import assistant, make_call, make_config, make_sample, make_tool, user, write_samples
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionToolsParam

from evals.check.card import FIXES, ParityCard
from evals.check.parity import check_parity
from orchestrator.chat.named_templates import named_template
from orchestrator.chat.rendering import ChatFormat, chat_format
from orchestrator.chat.serving import serving_renderer
from orchestrator.chat.template import dated_template, training_template
from orchestrator.chat.template_input import RowLeftOut, plain_tools
from orchestrator.core.errors import EvaluationError
from orchestrator.core.records import FunctionSpec, Message, ToolSpec
from orchestrator.data.tokens.store import tokenize_run
from orchestrator.models.base import load_tokenizer
from orchestrator.run.folder import open_run
from orchestrator.run.paths import SplitName
from orchestrator.toy.tiny import tiny_base_folder

pytestmark = pytest.mark.vllm

TEMPLATES = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
DAY = date(2025, 1, 2)
BARE = ToolSpec(function=FunctionSpec(name="now"))
STRICT = ToolSpec(function=FunctionSpec(name="find", description="", parameters={"type": "object"}, strict=True))
TOOLS = (make_tool(), BARE, STRICT)
TALK = (user("Q1"), assistant("A1"), user("Q2"))
TOOL_TALK = (
    Message(role="system", content="Help."),
    user("Q1"),
    assistant("Let me see.", make_call(city="Rome")),
    Message(role="tool", content='{"sky": 1}', name="get_weather"),
    assistant("A1"),
    user("Q2"),
    assistant("", make_call(city="Oslo"), make_call(city="Lima")),
    Message(role="tool", content="rain", name="get_weather"),
    Message(role="tool", content="sun", name="get_weather"),
)


def form_of(template: str) -> ChatFormat:
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = template
    tokenizer.chat_template = dated_template(training_template(tokenizer), DAY)
    return chat_format(tokenizer, thinking=False)


def of_training(form: ChatFormat, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str | None:
    try:
        return form.text(form.plain(messages), plain_tools(tools), prompt=True)
    except RowLeftOut:
        return None


def of_server(form: ChatFormat, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> str | None:
    try:
        return serving_renderer(tiny_base_folder(), form, trust_remote_code=False)(messages, tools)
    except EvaluationError:
        return None


@pytest.mark.parametrize("messages", [TALK, TOOL_TALK])
def test_the_hermes_template_renders_alike_in_training_and_on_a_server(messages: tuple[Message, ...]) -> None:
    form = form_of(named_template("hermes"))
    text = of_training(form, messages, TOOLS)
    assert text is not None
    assert text == of_server(form, messages, TOOLS)


def test_the_server_renders_every_known_template_as_training_does() -> None:
    compared = {"talk": 0, "tool talk": 0}
    for path in TEMPLATES:
        form = form_of(path.read_text(encoding="utf-8"))
        for name, messages, tools in (("talk", TALK, ()), ("tool talk", TOOL_TALK, TOOLS)):
            trained = of_training(form, messages, tools)
            assert of_server(form, messages, tools) == trained, (path.stem, name)
            compared[name] += trained is not None
    assert compared["talk"] == len(TEMPLATES)
    assert compared["tool talk"] > 50


@pytest.mark.parametrize(
    "function",
    [
        {"name": "f"},
        {"name": "f", "description": "d"},
        {"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}},
        {"name": "f", "strict": True},
        {"name": "f", "strict": False, "parameters": {"type": "object"}},
    ],
)
def test_a_tool_is_written_as_the_request_types_write_it(function: dict[str, Any]) -> None:
    ours = ToolSpec(function=FunctionSpec.model_validate(function)).model_dump(mode="json")
    theirs = ChatCompletionToolsParam.model_validate({"type": "function", "function": function}).model_dump()
    assert json.dumps(ours) == json.dumps(theirs)


TWICE = make_sample(*TOOL_TALK[1:5], user("x"), assistant("", make_call(city="Rome")))


def parity_with(storage: Path, template: str) -> ParityCard:
    base = storage / "base"
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(base)
    for name in ("config.json", "generation_config.json"):
        (base / name).write_bytes((tiny_base_folder() / name).read_bytes())
    config = make_config(storage, base=str(base))
    run = open_run(config)
    parts: tuple[SplitName, ...] = ("train", "val", "test")
    for part in parts:
        write_samples(run, part, [TWICE.model_copy(update={"id": f"s-{part}"})])
    tokenize_run(config, run)
    return check_parity(config, run)


QWEN = (Path(trl.__file__).parent / "chat_templates" / "qwen2_5.jinja").read_text(encoding="utf-8")


def test_parity_compares_what_the_server_renders(tmp_path: Path) -> None:
    card = parity_with(tmp_path, QWEN)
    assert (card.problems, card.prompts, card.served_prompts, card.rendering_note) == ((), 3, 9, None)
    shown = "{{ messages[1] | tojson }}{% endif %}"
    odd = "{% if messages | length > 1 and messages[1].tool_calls is defined %}" + shown + QWEN
    card = parity_with(tmp_path / "odd", odd)
    assert {problem.code for problem in card.problems} == {"served_prompt_differs"}
    assert card.num_problems == 6
    assert '"tool_calls": [{"id":' in card.problems[0].detail.partition("where training has")[0]
    assert "renders it alike" in FIXES["served_prompt_differs"]


@pytest.mark.parametrize(
    "printed", ["tool_call", "message.tool_calls[0].function", "message.tool_calls[0]['function']"]
)
def test_calls_printed_as_json_have_one_order_of_keys(tmp_path: Path, printed: str) -> None:
    begin, end = QWEN.index("{{- '\\n<tool_call>\\n{"), QWEN.index("{{- '}\\n</tool_call>' }}")
    whole = (
        QWEN[:begin] + f"{{{{- '\\n<tool_call>\\n' }}}}{{{{- {printed} | tojson }}}}" + QWEN[end:].replace("'}", "'", 1)
    )
    card = parity_with(tmp_path, whole)
    assert (card.problems, card.served_prompts) == ((), 9)


@pytest.mark.parametrize("id", [None, "c1", "aB3dE6gH9"])
def test_ids_of_nine_letters_and_digits_are_sent_where_the_template_wants_them(id: str | None) -> None:
    wrong = "m.tool_calls[0].id is not defined or m.tool_calls[0].id | length != 9"
    rule = f"{{% for m in messages %}}{{% if m.tool_calls and ({wrong}) %}}{{{{ raise_exception('9') }}}}{{% endif %}}"
    form = form_of(rule + "{% endfor %}" + QWEN)
    call = make_call(city="Rome").model_copy(update={"id": id})
    result = Message(role="tool", content="sun", name="get_weather", tool_call_id=id)
    talk = (user("x"), assistant("", call), result)
    assert of_server(form, talk, TOOLS) == of_training(form, talk, TOOLS) is not None


def test_a_base_that_vllm_does_not_know_leaves_a_note(tmp_path: Path) -> None:
    form = form_of(QWEN)
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}', encoding="utf-8")
    with pytest.raises(EvaluationError, match="vLLM cannot read the base"):
        serving_renderer(tmp_path, form, trust_remote_code=False)
