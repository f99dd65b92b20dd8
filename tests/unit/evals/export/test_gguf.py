"""The adapter's file, read by the reader of the package gguf and applied as llama.cpp does."""

from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from adapters_elsewhere import made
from builders import write_other_base
from hypothesis import given
from hypothesis import strategies as st

from evals.export.gguf import ADAPTER_FILE, FAMILIES, reordered, write_gguf
from evals.export.gguf_back import in_own_order, write_back
from evals.export.verify import kinds_of
from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import AdapterError, InputError
from orchestrator.models.adapters import load_adapter, read_adapter
from orchestrator.models.base import BaseWeights


def written(base: Path, adapter: Path, out: Path) -> tuple[float, dict[str, torch.Tensor], gguf.GGUFReader]:
    out.mkdir()
    (adapter / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    write_gguf(base, adapter, out)
    reader = gguf.GGUFReader(out / ADAPTER_FILE)
    tensors = {tensor.name: torch.tensor(tensor.data.copy()) for tensor in reader.tensors}
    return float(reader.fields["adapter.lora.alpha"].contents()), tensors, reader


def as_llama_cpp_does(alpha: float, tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """The update of one matrix: `scale = alpha ? alpha / rank : 1`, with the rank of the tensors."""
    a, b = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
    return (alpha / a.shape[0] if alpha else 1.0) * b @ a


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"layers.1.*": 8}},
        {"alpha_pattern": {"layers.0.self_attn.q_proj": 32}},
    ],
)
def test_each_update_is_the_one_that_was_trained(tmp_path: Path, model_folder: Path, lora: dict[str, Any]) -> None:
    adapter = made(tmp_path / "adapter", model_folder, **lora)
    alpha, tensors, reader = written(model_folder, adapter, tmp_path / "out")
    assert reader.fields["general.type"].contents() == "adapter"
    assert reader.fields["general.architecture"].contents() == "qwen3"
    own = load_adapter(adapter, BaseWeights(model_folder))
    assert len(tensors) == 2 * len(own.pairs)
    for layer in (0, 1):
        for ours, theirs in (("q_proj", "attn_q"), ("v_proj", "attn_v")):
            name = f"model.layers.{layer}.self_attn.{ours}.weight"
            a, b = own.pairs[name]
            update = as_llama_cpp_does(alpha, tensors, f"blk.{layer}.{theirs}.weight")
            torch.testing.assert_close(update, own.scales[name] * b.float() @ a.float())


def test_llamas_queries_and_keys_are_in_its_order(tmp_path: Path, model_folder: Path) -> None:
    base = write_other_base(tmp_path / "llama", model_folder, "llama", num_key_value_heads=1)
    adapter = made(tmp_path / "adapter", base, target_modules=["q_proj", "k_proj", "v_proj"])
    alpha, tensors, _ = written(base, adapter, tmp_path / "out")
    own = load_adapter(adapter, BaseWeights(base))
    for ours, theirs, heads in (("q_proj", "attn_q", 2), ("k_proj", "attn_k", 1), ("v_proj", "attn_v", 0)):
        name = f"model.layers.1.self_attn.{ours}.weight"
        a, b = own.pairs[name]
        update = own.scales[name] * b.float() @ a.float()
        expected = reordered(update, heads) if heads else update
        torch.testing.assert_close(as_llama_cpp_does(alpha, tensors, f"blk.1.{theirs}.weight"), expected)
        assert heads == 0 or not torch.equal(expected, update)


def read_back(base: Path, folder: Path, out: Path) -> dict[str, torch.Tensor]:
    """The updates that vLLM makes of the file."""
    out.mkdir()
    write_back(folder, ModelConfig(base=str(base)), out)
    assert read_adapter(out).sha256 == load_adapter(out, BaseWeights(base)).sha256
    return updates(base, out)


def updates(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    own = load_adapter(adapter, BaseWeights(base))
    return {name: own.scales[name] * b.float() @ a.float() for name, (a, b) in own.pairs.items()}


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"layers.1.*": 8}},
        {"alpha_pattern": {"layers.0.self_attn.q_proj": 32}},
        {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]},
    ],
)
@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_what_is_read_back_is_what_was_trained(
    tmp_path: Path, model_folder: Path, lora: dict[str, Any], kind: str
) -> None:
    base = model_folder if kind == "qwen3" else write_other_base(tmp_path / kind, model_folder, kind)
    adapter = made(tmp_path / "adapter", base, **lora)
    written(base, adapter, tmp_path / "out")
    assert kinds_of(tmp_path / "out") == ("gguf",)
    back, trained = read_back(base, tmp_path / "out", tmp_path / "back"), updates(base, adapter)
    assert back.keys() == trained.keys()
    for name, update in trained.items():
        torch.testing.assert_close(back[name], update)
    assert (tmp_path / "back" / "chat_template.jinja").read_text(encoding="utf-8") == "{{ messages }}"


def rewritten(path: Path, **changed: Any) -> None:
    """The file with another value of some of its fields, and the same tensors."""
    reader = gguf.GGUFReader(path)
    tensors = [(tensor.name, tensor.data.copy()) for tensor in reader.tensors]
    fields = {"type": "adapter", "arch": "qwen3", "alpha": 8.0} | changed
    path.unlink()
    writer = gguf.GGUFWriter(path, fields["arch"])
    writer.add_type(fields["type"])
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, fields["alpha"])
    for name, data in tensors:
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_another_scale_in_the_file_is_another_update(tmp_path: Path, model_folder: Path) -> None:
    """What llama.cpp's own converter does to rsLoRA: the alpha without its root. `verify` sees other replies."""
    adapter = made(tmp_path / "adapter", model_folder, use_rslora=True)
    written(model_folder, adapter, tmp_path / "out")
    rewritten(tmp_path / "out" / ADAPTER_FILE, alpha=8.0)
    back, trained = read_back(model_folder, tmp_path / "out", tmp_path / "back"), updates(model_folder, adapter)
    for name, update in trained.items():
        torch.testing.assert_close(back[name], update / 2)  # rank 4: its root is 2


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"type": "model"}, "general.type is 'model'. Allowed: 'adapter'"),
        ({"arch": "llama"}, "general.architecture is 'llama'. Allowed: 'qwen3'"),
    ],
)
def test_a_file_that_is_no_adapter_of_this_base_is_refused(
    tmp_path: Path, model_folder: Path, changed: dict[str, Any], said: str
) -> None:
    written(model_folder, made(tmp_path / "adapter", model_folder), tmp_path / "out")
    rewritten(tmp_path / "out" / ADAPTER_FILE, **changed)
    with pytest.raises(AdapterError, match=said):
        read_back(model_folder, tmp_path / "out", tmp_path / "back")
    (tmp_path / "out" / ADAPTER_FILE).write_bytes(b"no GGUF")
    with pytest.raises(AdapterError, match="the file cannot be read"):
        read_back(model_folder, tmp_path / "out", tmp_path / "again")


@given(heads=st.integers(1, 4), half=st.integers(1, 4), columns=st.integers(1, 3))
def test_row_i_of_a_half_comes_beside_row_i_of_the_other(heads: int, half: int, columns: int) -> None:
    rows = torch.arange(heads * 2 * half * columns).reshape(heads * 2 * half, columns)
    moved = reordered(rows, heads)
    assert torch.equal(in_own_order(moved, heads), rows)
    for head in range(heads):
        for row in range(half):
            start = head * 2 * half
            assert torch.equal(moved[start + 2 * row], rows[start + row])
            assert torch.equal(moved[start + 2 * row + 1], rows[start + half + row])


def test_a_base_that_llama_cpp_may_name_otherwise_is_refused(tmp_path: Path, model_folder: Path) -> None:
    base = write_other_base(tmp_path / "phi", model_folder, "phi")
    with pytest.raises(InputError, match=r"PhiForCausalLM is not known here.*Qwen3ForCausalLM"):
        written(base, made(tmp_path / "adapter", model_folder), tmp_path / "out")


def test_every_family_is_one_of_the_package() -> None:
    assert all(hasattr(gguf.MODEL_ARCH, family.arch) for family in FAMILIES.values())
