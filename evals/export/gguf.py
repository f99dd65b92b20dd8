"""An adapter as GGUF, for llama.cpp and what is built on it, beside the chat template that it was trained with.

llama.cpp multiplies B @ A by `alpha / rank`, and knows neither rsLoRA nor ranks and alphas by module; what is written
here gives every module the scale that it was trained with. Llama's relatives store the rows of queries and keys in
another order (LlamaModel.permute in llama.cpp's convert_hf_to_gguf.py), so B's rows are put into it.
"""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch

from orchestrator.chat.serve_command import TEMPLATE
from orchestrator.core.errors import InputError
from orchestrator.core.records import JsonObject
from orchestrator.models.adapters import AdapterWeights, load_adapter
from orchestrator.models.base import BaseWeights

ADAPTER_FILE = "adapter.gguf"


class _Family(NamedTuple):
    """A kind of model: its name in the package gguf, and whether rows of queries and keys are reordered."""

    arch: str
    permutes: bool


FAMILIES = {
    "LlamaForCausalLM": _Family("LLAMA", permutes=True),
    "MistralForCausalLM": _Family("LLAMA", permutes=True),
    "GraniteForCausalLM": _Family("GRANITE", permutes=True),
    "SmolLM3ForCausalLM": _Family("SMOLLM3", permutes=True),
    "Qwen2ForCausalLM": _Family("QWEN2", permutes=False),
    "Qwen3ForCausalLM": _Family("QWEN3", permutes=False),
    "Gemma2ForCausalLM": _Family("GEMMA2", permutes=False),
    "Gemma3ForCausalLM": _Family("GEMMA3", permutes=False),
    "Olmo2ForCausalLM": _Family("OLMO2", permutes=False),
    "Phi3ForCausalLM": _Family("PHI3", permutes=False),
}
"""By the architecture in a base's config.json."""


def write_gguf(base_folder: Path, adapter_folder: Path, out: Path) -> None:
    """Write `adapter.gguf` and its chat template into the folder `out`.

    Raises:
        InputError: If the package gguf is missing, or llama.cpp's names for this base are not known here.
        AdapterError: If the adapter does not fit the base.
    """
    gguf = require_gguf()
    settings = json.loads((base_folder / "config.json").read_text(encoding="utf-8"))
    family = family_of(settings, base_folder)
    adapter = load_adapter(adapter_folder, BaseWeights(base_folder))
    arch = gguf.MODEL_ARCH[family.arch]
    names = gguf.get_tensor_name_map(arch, settings["num_hidden_layers"])
    alpha = _common_alpha(adapter)
    writer = gguf.GGUFWriter(out / ADAPTER_FILE, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha or 0.0)
    for name, (a, b) in adapter.pairs.items():
        place = names.get_name(name, try_suffixes=(".weight",))
        if place is None:
            raise InputError(f"llama.cpp has no name for {name}", where=family.arch, fix="Export it merged")
        b = b.float() if alpha else b.float() * adapter.scales[name]
        if family.permutes and (heads := heads_of(name, settings)):
            b = reordered(b, heads)
        writer.add_tensor(f"{place}.lora_a", _numbers(a))
        writer.add_tensor(f"{place}.lora_b", _numbers(b))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    shutil.copyfile(adapter_folder / TEMPLATE, out / TEMPLATE)


def require_gguf() -> Any:
    """The package gguf.

    Raises:
        InputError: If it is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise InputError("the package gguf is not installed", where="--to gguf", fix="pip install gguf") from None
    return gguf


def family_of(settings: JsonObject, base_folder: Path) -> _Family:
    """The family of a base by its config.json.

    Raises:
        InputError: If llama.cpp's names for it are not known here.
    """
    given = settings.get("architectures")
    architecture = given[0] if isinstance(given, list) and given else "none"
    if architecture not in FAMILIES:
        what = f"how llama.cpp names the layers of {architecture} is not known here"
        fix = "Export it merged, and convert that with llama.cpp"
        raise InputError(what, where=str(base_folder), allowed=", ".join(FAMILIES), fix=fix)
    return FAMILIES[architecture]


def _common_alpha(adapter: AdapterWeights) -> float | None:
    """The alpha that gives each module its scale; None where there is no such one, or it would read as none."""
    alphas = {pair[0].shape[0] * adapter.scales[name] for name, pair in adapter.pairs.items()}
    return alphas.pop() if len(alphas) == 1 else None


def heads_of(name: str, settings: JsonObject) -> int | None:
    """How many heads a matrix of queries or keys has; None for any other."""
    key = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    value = settings.get(key) if key else None
    return value if isinstance(value, int) else None


def reordered(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of queries or keys (heads x 2 x half, ...) as llama.cpp has them (heads x half x 2, ...)."""
    split = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)


def _numbers(tensor: torch.Tensor) -> Any:
    return tensor.float().contiguous().numpy()
