import json
import shutil
from pathlib import Path

import pytest
import torch
from builders import make_tool, names_in, user
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from orchestrator.chat.rendering import render_prompt
from orchestrator.chat.template import qwen3_template
from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import ModelNotFoundError
from orchestrator.core.files import digest_of
from orchestrator.models.base import base_folder, load_frozen_base, load_tokenizer
from orchestrator.toy import tiny
from orchestrator.toy.pretrain import SPECIAL_TOKENS, TAG_TOKENS, recipe_digest
from orchestrator.toy.tiny import FILES, SHIPPED, tiny_base_folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tool-lora-orchestrator"


@pytest.fixture
def shipped_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped files, taken for the shipped ones."""
    copied = tmp_path / "shipped"
    shutil.copytree(SHIPPED, copied)
    monkeypatch.setattr(tiny, "SHIPPED", copied)
    return copied


def test_the_shipped_files_are_those_of_the_recipe() -> None:
    recipe = json.loads((SHIPPED / "recipe.json").read_text(encoding="utf-8"))
    assert recipe["files_sha256"] == digest_of(*(SHIPPED / name for name in FILES))
    assert recipe["recipe_sha256"] == recipe_digest(), "the recipe changed after the base was built: make tiny-base"
    assert set(names_in(SHIPPED)) == {*FILES, "recipe.json"}


def test_the_weights_are_small_and_bfloat16() -> None:
    weights = SHIPPED / "model.safetensors"
    assert weights.stat().st_size <= 8 * 2**20
    assert {tensor.dtype for tensor in load_file(weights).values()} == {torch.bfloat16}


def test_the_folder_is_put_together_once_in_the_users_cache(cache: Path) -> None:
    folder = tiny_base_folder()
    assert folder.parent == cache
    assert set(names_in(folder)) == {*FILES, "chat_template.jinja"}
    assert (folder / "chat_template.jinja").read_text(encoding="utf-8") == qwen3_template()
    assert folder.stat().st_mode & 0o777 == 0o755
    before = folder.stat().st_mtime_ns
    assert tiny_base_folder() == folder
    assert folder.stat().st_mtime_ns == before
    assert names_in(cache) == [folder.name]


def test_who_comes_second_takes_the_folder_of_the_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_base_folder()
    tiny._put_together(folder)
    assert names_in(cache) == [folder.name]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_damaged_file_is_refused(name: str, cache: Path, shipped_copy: Path) -> None:
    content = bytearray((shipped_copy / name).read_bytes())
    content[-1] ^= 1
    (shipped_copy / name).write_bytes(content)
    with pytest.raises(ModelNotFoundError, match=r"missing or damaged.*make tiny-base") as caught:
        tiny_base_folder()
    assert caught.value.where == str(shipped_copy)
    assert not cache.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "recipe.json"])
def test_a_missing_file_is_refused(name: str, cache: Path, shipped_copy: Path) -> None:
    (shipped_copy / name).unlink()
    with pytest.raises(ModelNotFoundError, match="missing or damaged"):
        tiny_base_folder()


def test_an_untouched_copy_is_the_same_base(cache: Path, shipped_copy: Path) -> None:
    assert tiny_base_folder().name.startswith("tiny-")


def test_transformers_loads_a_qwen3_of_2_to_4_million_parameters(cache: Path) -> None:
    folder = base_folder(ModelConfig(base="tiny"))
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert not report["unexpected_keys"]
    assert set(report["missing_keys"]) <= {"lm_head.weight"}
    assert 2e6 <= sum(parameter.numel() for parameter in model.parameters()) <= 4e6


def test_its_tokenizer_has_the_tags_as_single_tokens_and_loses_nothing(cache: Path) -> None:
    tokenizer = load_tokenizer(base_folder(ModelConfig(base="tiny")), trust_remote_code=False)
    for token in (*SPECIAL_TOKENS, *TAG_TOKENS):
        assert len(tokenizer.encode(token, add_special_tokens=False)) == 1
    text = "Zürich → 東京 {\"a\": [1.5, null]}\n\t'x'"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode("<tool_call>x</tool_call>"), skip_special_tokens=True) == (
        "<tool_call>x</tool_call>"
    )


def test_it_says_something_about_tools_without_calling_one(cache: Path) -> None:
    folder = base_folder(ModelConfig(base="tiny"))
    tokenizer = load_tokenizer(folder, trust_remote_code=False)
    model = load_frozen_base(folder, ModelConfig(base="tiny", dtype="float32"))
    prompt = render_prompt(tokenizer, [user("What is the weather in Rome")], [make_tool()])
    reply = model.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False)[0, len(prompt) :]
    text = tokenizer.decode(reply, skip_special_tokens=True)
    assert "<tool_call>" not in text
    assert len(text.split()) >= 2
