import functools
import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from orchestrator.chat.template import qwen3_template
from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import InputError, ModelNotFoundError
from orchestrator.models.base import (
    BaseWeights,
    base_folder,
    base_sha256,
    compute_dtype,
    load_frozen_base,
    load_tokenizer,
)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-folder", "./no/such/folder", "a//b", "/no/such/dir"])
def test_an_unknown_base_is_named_at_once_with_what_is_allowed(name: str) -> None:
    started = time.monotonic()
    with pytest.raises(ModelNotFoundError) as caught:
        base_folder(ModelConfig(base=name))
    assert time.monotonic() - started < 10
    words = "is no folder here" if name.startswith((".", "/")) else "is neither a folder here nor could it be"
    assert str(caught.value).startswith(f"model.base: the base model {name!r} {words}")
    assert "\n" not in str(caught.value)
    assert caught.value.allowed == "a local folder, a hub id such as Qwen/Qwen3-0.6B, tiny or smollm2-135m"
    assert caught.value.exit_code == 3


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"config\.json is missing") as caught:
        base_folder(ModelConfig(base=str(tmp_path)))
    assert caught.value.where == str(tmp_path)


def test_a_folder_with_a_model_is_taken_absolute(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model_folder, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert base_folder(ModelConfig(base="mine")) == (tmp_path / "mine").resolve()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert base_folder(ModelConfig(base="~/mine")) == (tmp_path / "mine").resolve()


def test_a_model_of_the_hubs_cache_is_found_without_the_hub(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0" * 40
    cached = tmp_path / "models--someone--small"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(commit)
    shutil.copytree(model_folder, cached / "snapshots" / commit)
    from_this_cache = functools.partial(snapshot_download, cache_dir=tmp_path)
    monkeypatch.setattr("orchestrator.models.base.snapshot_download", from_this_cache)
    assert base_folder(ModelConfig(base="someone/small")) == cached / "snapshots" / commit


def test_the_tokenizer_has_the_training_template_and_a_pad_token(model_folder: Path) -> None:
    tokenizer = load_tokenizer(model_folder, trust_remote_code=False)
    assert "generation" in tokenizer.chat_template
    assert tokenizer.chat_template != qwen3_template()
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_a_tokenizer_without_a_pad_token_pads_with_its_end(model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unpadded"
    shutil.copytree(model_folder, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings.pop("pad_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert load_tokenizer(folder, trust_remote_code=False).pad_token == "<|im_end|>"


def test_a_tokenizer_without_a_template_is_an_error(model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    shutil.copytree(model_folder, folder, ignore=shutil.ignore_patterns("chat_template.jinja"))
    with pytest.raises(InputError, match="no chat template"):
        load_tokenizer(folder, trust_remote_code=False)


@pytest.mark.parametrize(
    ("name", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]
)
def test_the_base_is_frozen_and_in_the_dtype_asked_for(model_folder: Path, name: str, dtype: torch.dtype) -> None:
    model = load_frozen_base(model_folder, ModelConfig.model_validate({"base": str(model_folder), "dtype": name}))
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert len(model.model.layers) == 2


def test_auto_is_bfloat16_where_the_processor_multiplies_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for has_it, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda has_it=has_it: has_it)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert compute_dtype("auto") == dtype


def test_auto_is_float16_on_a_gpu_that_does_not_multiply_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for has_it, dtype in ((True, "bfloat16"), (False, "float16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has_it=has_it, **_: has_it)
        assert compute_dtype("auto") == dtype


TENSORS = {
    "model.layers.0.self_attn.q_proj.weight": torch.ones(4, 2),
    "model.layers.0.self_attn.k_proj.weight": torch.zeros(3, 2),
    "model.layers.0.mlp.up_proj.weight": torch.ones(1, 2),
    "model.layers.1.self_attn.q_proj.weight": torch.ones(5, 2),
    "model.norm.weight": torch.ones(2),
}


@pytest.fixture(params=["one file", "shards"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "one file":
        save_file(TENSORS, tmp_path / "model.safetensors")
        return tmp_path
    names = sorted(TENSORS)
    shards = {"model-1.safetensors": names[:2], "model-2.safetensors": names[2:]}
    for shard, held in shards.items():
        save_file({name: TENSORS[name] for name in held}, tmp_path / shard)
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return tmp_path


def test_tensors_are_read_by_name(folder: Path) -> None:
    base = BaseWeights(folder)
    for name, tensor in TENSORS.items():
        assert base.shape(name) == tuple(tensor.shape)
        assert torch.equal(base.tensor(name), tensor)
    assert base.shape("lm_head.weight") is None


def test_siblings_are_what_the_same_module_holds(folder: Path) -> None:
    base = BaseWeights(folder)
    assert base.with_siblings(["model.layers.0.self_attn.q_proj.weight"]) == [
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.q_proj.weight",
    ]
    assert base.with_siblings([]) == []


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no weights as safetensors"):
        BaseWeights(tmp_path)


def test_the_digest_covers_weights_and_settings(folder: Path) -> None:
    (folder / "config.json").write_text("{}", encoding="utf-8")
    before = base_sha256(folder)
    assert base_sha256(folder) == before
    (folder / "config.json").write_text('{"eps": 1}', encoding="utf-8")
    assert (changed := base_sha256(folder)) != before
    shard = next(folder.glob("*.safetensors"))
    save_file({key: tensor + 1 for key, tensor in load_file(shard).items()}, shard)
    assert base_sha256(folder) not in (before, changed)


def test_parameters_are_counted_from_the_files(model_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    assert BaseWeights(model_folder).num_parameters() == model.num_parameters()
