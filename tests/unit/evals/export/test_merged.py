import json
from pathlib import Path

import pytest
import torch
from adapters_elsewhere import made
from builders import write_tiny_adapter
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from evals.export import merged
from evals.export.merged import memory_of_merging, write_merged
from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import AdapterError, ResourceError
from orchestrator.models.base import load_frozen_base
from orchestrator.toy.tiny import tiny_base_folder

LORAS: tuple[dict[str, object], ...] = (
    {},
    {"use_rslora": True},
    {"rank_pattern": {"layers.1.*": 8}, "alpha_pattern": {"layers.0.self_attn.q_proj": 32}},
)


def adapter_of(base: Path, folder: Path, **lora: object) -> Path:
    made(folder, base, **lora)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = "{{- messages[0].content -}}"
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("lora", LORAS)
def test_it_computes_what_the_base_with_the_adapter_does(
    tmp_path: Path, model_folder: Path, lora: dict[str, object]
) -> None:
    adapter, out = adapter_of(model_folder, tmp_path / "adapter", **lora), tmp_path / "out"
    out.mkdir()
    write_merged(ModelConfig(base=str(model_folder)), adapter, out)
    tokens = torch.arange(24).reshape(2, 12)
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    plain = base(tokens).logits
    expected = PeftModel.from_pretrained(base, adapter)(tokens).logits
    found = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)(tokens).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (plain - expected).abs().max() > 0.01
    assert AutoTokenizer.from_pretrained(out).chat_template == "{{- messages[0].content -}}"


def test_dtype_names_and_files_are_those_of_the_base(tmp_path: Path, model_folder: Path) -> None:
    base, out = tmp_path / "base", tmp_path / "out"
    whole = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.bfloat16)
    whole.save_pretrained(base, max_shard_size="40KB")
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(base)
    shards = sorted(path.name for path in base.glob("*.safetensors"))
    assert len(shards) > 2
    out.mkdir()
    write_merged(ModelConfig(base=str(base)), adapter_of(model_folder, tmp_path / "adapter"), out)
    assert sorted(path.name for path in out.glob("*.safetensors")) == shards
    for shard in shards:
        before, after = load_file(base / shard), load_file(out / shard)
        assert {name: (tensor.dtype, tensor.shape) for name, tensor in after.items()} == {
            name: (tensor.dtype, tensor.shape) for name, tensor in before.items()
        }
        changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
        assert changed == {name for name in after if "q_proj" in name or "v_proj" in name}
    assert not (out / "adapter_config.json").exists()


def test_what_ends_a_reply_of_the_adapter_ends_one_of_the_merged_model(tmp_path: Path, model_folder: Path) -> None:
    adapter, out = adapter_of(model_folder, tmp_path / "adapter"), tmp_path / "out"
    (adapter / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 7]}), encoding="utf-8")
    out.mkdir()
    write_merged(ModelConfig(base=str(model_folder)), adapter, out)
    settings = json.loads((out / "generation_config.json").read_text(encoding="utf-8"))
    assert settings["eos_token_id"] == [3, 7]


def test_the_memory_that_it_takes_is_told_and_must_be_free(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = memory_of_merging(model_folder)
    assert needed == int(1.75 * (model_folder / "model.safetensors").stat().st_size)
    monkeypatch.setattr(merged, "free_memory", lambda: needed - 1)
    adapter, out = adapter_of(model_folder, tmp_path / "adapter"), tmp_path / "out"
    out.mkdir()
    with pytest.raises(ResourceError, match=r"merging takes .* of memory, and .* are free. End other programs"):
        write_merged(ModelConfig(base=str(model_folder)), adapter, out)
    assert not list(out.iterdir())
    monkeypatch.setattr(merged, "free_memory", lambda: needed)
    write_merged(ModelConfig(base=str(model_folder)), adapter, out)
    assert "Merging takes about" in capsys.readouterr().out


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, model_folder: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(AdapterError, match="base"):
        write_merged(ModelConfig(base=str(model_folder)), write_tiny_adapter(tmp_path / "tiny"), out)


def test_an_adapter_of_a_quantised_base_is_merged_into_its_dequantised_weights(tmp_path: Path) -> None:
    adapter, out = write_tiny_adapter(tmp_path / "tiny"), tmp_path / "out"
    out.mkdir()
    model = ModelConfig(base="tiny", quantization="nf4", dtype="float32")
    write_merged(model, adapter, out)
    base = load_frozen_base(tiny_base_folder(), model)
    tokens = torch.arange(24).reshape(2, 12)
    expected = PeftModel.from_pretrained(base, adapter)(tokens).logits
    found = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)(tokens).logits
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
