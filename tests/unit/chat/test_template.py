import json
from datetime import date, datetime
from pathlib import Path

import pytest
import trl
from builders import assistant, make_call, make_tool, user
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template
from trl.chat_template_utils import is_chat_template_prefix_preserving

from orchestrator.chat.template import (
    dated_template,
    is_marked,
    qwen3_template,
    served_template,
    stop_token_ids,
    training_template,
    written_date,
)
from orchestrator.core.errors import InputError
from orchestrator.toy.pretrain import build_tokenizer

MARKED = "{% for m in messages %}{{ m.role }}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
UNMARKED = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture
def fresh() -> PreTrainedTokenizerBase:
    return build_tokenizer(iter(["hello there", "what is the weather"]))


def test_qwen3s_template_has_calls_results_and_thoughts() -> None:
    template = qwen3_template()
    for word in ("<tool_call>", "<tool_response>", "enable_thinking", "<|im_start|>"):
        assert word in template
    assert "generation %}" not in template


def test_the_training_variant_marks_the_assistant_and_keeps_prefixes(fresh: PreTrainedTokenizerBase) -> None:
    assert fresh.chat_template == qwen3_template()
    fresh.chat_template = training_template(fresh)
    assert "{% generation %}" in fresh.chat_template.replace("{%-", "{%").replace("-%}", "%}")
    assert is_chat_template_prefix_preserving(fresh)


def test_a_training_variant_is_kept_as_it_is(fresh: PreTrainedTokenizerBase) -> None:
    fresh.chat_template = training_template(fresh)
    assert training_template(fresh) == fresh.chat_template


@pytest.mark.parametrize("template", [None, ""])
def test_no_template_is_an_error(fresh: PreTrainedTokenizerBase, template: str | None) -> None:
    fresh.chat_template = template
    with pytest.raises(InputError, match=r"no chat template.*instruction-tuned"):
        training_template(fresh)


@pytest.mark.parametrize("template", [MARKED, UNMARKED, "{{ raise_exception('no') }}"])
def test_an_unknown_template_is_kept_whatever_it_does(fresh: PreTrainedTokenizerBase, template: str) -> None:
    fresh.chat_template = template
    assert training_template(fresh) == template
    assert is_marked(template) == (template == MARKED)


def test_of_several_named_templates_the_one_for_tools_is_taken(fresh: PreTrainedTokenizerBase) -> None:
    named = {"default": UNMARKED, "tool_use": MARKED}
    fresh.chat_template = named
    assert training_template(fresh) == MARKED
    assert fresh.chat_template == named
    fresh.chat_template = {"default": qwen3_template()}
    assert is_marked(training_template(fresh))


SHIPPED = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
TALK = [user("Q1"), assistant("", make_call(city="Rome")), user("Q2"), assistant("A1"), user("Q3")]
SPACES = "\n  \n  {% if enable_thinking %}\n  T\n  {% endif %}\n" + UNMARKED
"""Begins with a line break and with spaces before a block, which a template at the start of a file renders or not."""


def rendered(template: str, *, with_tools: bool, **settings: bool) -> str:
    messages = [message.model_dump(mode="json", exclude_none=True) for message in (TALK if with_tools else TALK[-3:])]
    offered = [make_tool().model_dump(mode="json")] if with_tools else None
    names = {"bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": True}
    texts, _ = render_jinja_template([messages], tools=offered, chat_template=template, **names, **settings)
    return str(texts[0])


@pytest.mark.parametrize("with_tools", [True, False])
@pytest.mark.parametrize("thinking", [True, False])
def test_the_served_template_renders_without_arguments_what_was_trained(*, thinking: bool, with_tools: bool) -> None:
    num_compared = num_switched = 0
    for template in (*(path.read_text(encoding="utf-8") for path in SHIPPED), SPACES, SPACES[1:], SPACES[4:]):
        try:
            trained = rendered(template, with_tools=with_tools, enable_thinking=thinking)
        except (TemplateError, TypeError, ValueError):
            continue  # it takes no such conversation
        served = served_template(template, thinking=thinking)
        assert rendered(served, with_tools=with_tools) == trained
        other = rendered(template, with_tools=with_tools, enable_thinking=not thinking)
        assert rendered(served, with_tools=with_tools, enable_thinking=not thinking) == other  # a client may still ask
        num_compared, num_switched = num_compared + 1, num_switched + (other != trained)
    assert num_compared > 30
    assert num_switched > 5


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({}, {"<|im_end|>"}),
        ({"generation_config.json": ["<|endoftext|>", "<|im_end|>"]}, {"<|im_end|>", "<|endoftext|>"}),
        ({"generation_config.json": "<|im_start|>", "config.json": "<|endoftext|>"}, {"<|im_end|>", "<|im_start|>"}),
        ({"config.json": "<|endoftext|>"}, {"<|im_end|>", "<|endoftext|>"}),
        ({"generation_config.json": None, "config.json": "<|endoftext|>"}, {"<|im_end|>"}),
    ],
)
def test_the_tokens_at_which_an_engine_stops(
    fresh: PreTrainedTokenizerBase, tmp_path: Path, files: dict[str, str | list[str] | None], names: set[str]
) -> None:
    fresh.save_pretrained(tmp_path)
    for name, tokens in files.items():
        given = fresh.convert_tokens_to_ids(tokens) if tokens else None
        (tmp_path / name).write_text(json.dumps({"eos_token_id": given}), encoding="utf-8")
    loaded = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert stop_token_ids(loaded) == {fresh.convert_tokens_to_ids(name) for name in names}


def test_a_tokenizer_of_no_folder_stops_at_its_own_end(fresh: PreTrainedTokenizerBase) -> None:
    assert stop_token_ids(fresh) == {fresh.eos_token_id}


DAY, TODAY = date(2025, 1, 2), datetime.now().astimezone().date()
TODAYS = {
    "today": '{%- set today = strftime_now("%Y-%m-%d") %}Today is {{ today }}. ' + UNMARKED,
    "long": "{%- macro head() %}{{ strftime_now('%A, %B %d, %Y') }}{% endmacro %}{{ head() }}" + UNMARKED,
    "by a name": '{%- set form = "%d/%m/%y" %}{{ strftime_now(form) if strftime_now is defined }}' + UNMARKED,
    "number": "{{ 1 + strftime_now('%Y') | int }}" + UNMARKED,
    "given": '{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}{{ date_string }}',
}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("today", "Today is 2025-01-02. "),
        ("long", "Thursday, January 02, 2025"),
        ("by a name", "02/01/25"),
        ("number", "2026"),
        ("given", "02 Jan 2025"),
    ],
)
def test_a_template_shows_the_given_date_and_not_todays(name: str, shown: str) -> None:
    dated = dated_template(TODAYS[name], DAY)
    assert rendered(dated, with_tools=False).startswith(shown)
    assert rendered(served_template(dated, thinking=False), with_tools=False).startswith(shown)
    assert (written_date(dated), written_date(TODAYS[name])) == (DAY, None)
    assert dated_template(TODAYS[name], None) == TODAYS[name]


@pytest.mark.parametrize("with_tools", [True, False])
def test_known_templates_differ_from_their_own_in_the_date_alone(*, with_tools: bool) -> None:
    shown = set()
    for path in SHIPPED:
        own = path.read_text(encoding="utf-8")
        try:
            before = rendered(own, with_tools=with_tools)
        except (TemplateError, TypeError, ValueError):
            continue
        after = rendered(dated_template(own, DAY), with_tools=with_tools)
        for day in (TODAY, datetime.now().astimezone().date(), date(2024, 7, 26)):
            for form in ("%d %b %Y", "%Y-%m-%d"):
                before = before.replace(day.strftime(form), DAY.strftime(form))
        assert after == before, path.stem
        if dated_template(own, DAY) != own and DAY.strftime("%Y") in after:
            shown.add(path.stem.removesuffix("_training"))
    assert {"llama3_1", "llama3_2", "gptoss"} <= shown


def test_a_client_may_still_give_the_date() -> None:
    dated = dated_template(TODAYS["given"], DAY)
    messages = [{"role": "user", "content": "x"}]
    texts, _ = render_jinja_template([messages], tools=None, chat_template=dated, date_string="1 May 2020")
    assert texts[0] == "1 May 2020"
