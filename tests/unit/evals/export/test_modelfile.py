"""What Ollama is told of a template, held against what the template itself renders."""

import copy
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from builders import make_config
from go_templates import render
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from evals.export.chatml import chatml_of, go_template
from evals.export.gguf_folder import commands
from evals.export.modelfile import MODELFILE, UNTOLD, write_modelfile
from orchestrator.chat.named_templates import named_template
from orchestrator.chat.template import qwen3_template, served_template, training_template
from orchestrator.chat.template_input import rendered
from orchestrator.config.schema import RunConfig

TEXTS = st.text("abZ \n{}<>\"'\\é日", min_size=1, max_size=12).map(lambda text: f"x{text}x")
VALUES = st.recursive(st.none() | st.booleans() | st.integers(-5, 5) | TEXTS, lambda one: st.lists(one, max_size=2))
ARGUMENTS = st.dictionaries(TEXTS, VALUES, max_size=3)
CALLS = st.lists(ARGUMENTS.map(lambda own: {"type": "function", "function": {"name": "look_up", "arguments": own}}))
MESSAGES = st.one_of(
    TEXTS.map(lambda text: {"role": "user", "content": text}),
    TEXTS.map(lambda text: {"role": "tool", "content": text}),
    st.builds(lambda text, calls: {"role": "assistant", "content": text, "tool_calls": calls}, TEXTS, CALLS),
    CALLS.filter(bool).map(lambda calls: {"role": "assistant", "content": "", "tool_calls": calls}),
)
SYSTEMS = st.lists(TEXTS.map(lambda text: {"role": "system", "content": text}), max_size=1)
TOOLS = st.lists(
    st.builds(
        lambda name, schema: {"type": "function", "function": {"name": name, "parameters": schema}}, TEXTS, ARGUMENTS
    ),
    max_size=2,
)
TEMPLATES = ("hermes", "qwen2_5", "qwen3_instruct_2507", "training")


def with_template(tokenizer: PreTrainedTokenizerBase, name: str) -> PreTrainedTokenizerBase:
    tokenizer = copy.copy(tokenizer)
    if name == "training":  # that of the toy base and of Qwen3
        tokenizer.chat_template = qwen3_template()
        name = training_template(tokenizer)
    else:
        name = named_template(name)
    tokenizer.chat_template = served_template(name, thinking=False)
    return tokenizer


def spaced(value: Any) -> str:
    """JSON as templates write it; Ollama's own has no spaces, as the Modelfile says."""
    return json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize("name", TEMPLATES)
@given(system=SYSTEMS, talk=st.lists(MESSAGES, max_size=5), tools=TOOLS)
def test_ollama_renders_what_was_trained(
    tokenizer: PreTrainedTokenizerBase, name: str, system: list[Any], talk: list[Any], tools: list[Any]
) -> None:
    asked = {"role": "user", "content": "And?"}
    merged = [one for before, one in pairwise([asked, *talk]) if before["role"] != one["role"] or one["role"] == "tool"]
    messages = [*system, asked, *merged]  # Ollama puts messages of one role into one before it renders
    own = with_template(tokenizer, name)
    form = chatml_of(own)
    assert form is not None
    template = str(own.chat_template)
    expected = rendered(own.special_tokens_map, template, messages, tools or None, add_generation_prompt=True)[0]
    assert render(go_template(form), {"messages": messages, "tools": tools}, spaced) == expected


@pytest.mark.parametrize("name", ["llama3_1", "gemma3", "phi3", "deepseekv3", "qwen3", "gptoss", "lfm2"])
def test_a_template_of_another_kind_is_not_told(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Qwen3's own leaves out earlier thoughts, which no template of the kind that is known here does."""
    assert chatml_of(with_template(tokenizer, name)) is None


@pytest.mark.parametrize(
    ("part", "other"),
    [("\\n</tool_response>", "</tool_response>"), ("<tool_call>\\n", "<tool_call> "), ("loop.previtem.role", "''")],
)
def test_a_template_that_differs_in_anything_is_not_told(
    tokenizer: PreTrainedTokenizerBase, part: str, other: str
) -> None:
    template = named_template("hermes")
    assert part in template
    changed = copy.copy(tokenizer)
    changed.chat_template = template.replace(part, other)
    assert chatml_of(changed) is None


@pytest.fixture
def folder(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    template = with_template(tokenizer, "hermes").chat_template
    (tmp_path / "chat_template.jinja").write_text(str(template), encoding="utf-8")
    return tmp_path


def config_of(model_folder: Path, **sections: Any) -> RunConfig:
    return make_config(Path("runs"), base=str(model_folder), **sections)


def test_the_modelfile_has_the_template_and_the_ends_that_were_scored(folder: Path, model_folder: Path) -> None:
    assert write_modelfile(config_of(model_folder), folder)
    alone = (folder / MODELFILE).read_text(encoding="utf-8")
    assert '\nFROM ./base.gguf\nADAPTER ./adapter.gguf\nTEMPLATE """{{ $system := false }}' in alone
    assert alone.count('"""') == 2
    assert '"""\nPARAMETER stop "<|im_end|>"\nPARAMETER temperature 0\n' in alone
    assert "leaves out keys" in alone
    (folder / "model.gguf").touch()
    assert write_modelfile(config_of(model_folder), folder)
    assert "\nFROM ./model.gguf\nTEMPLATE" in (folder / MODELFILE).read_text(encoding="utf-8")
    assert "ollama create my-model -f Modelfile" in commands(model_folder, folder, is_told=True)


def test_of_another_template_it_says_that_ollama_cannot_be_told(folder: Path, model_folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(named_template("llama3_1"), encoding="utf-8")
    assert not write_modelfile(config_of(model_folder), folder)
    told = (folder / MODELFILE).read_text(encoding="utf-8")
    assert told.startswith("# Ollama cannot be told the chat template that was trained")
    assert "--jinja --chat-template-file chat_template.jinja" in told
    assert 'TEMPLATE "' not in told
    listed = commands(model_folder, folder, is_told=False)
    assert all(f"# {line}" in listed for line in UNTOLD.splitlines())
    assert "ollama create" not in listed
