"""A GGUF adapter as PEFT has it, so that vLLM can answer with what is in the file, scaled as llama.cpp scales it."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from evals.export.gguf import ADAPTER_FILE, family_of, heads_of, require_gguf
from orchestrator.chat.serve_command import TEMPLATE
from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import AdapterError
from orchestrator.core.files import digest_of, write_text_atomic
from orchestrator.core.records import AdapterRecord, JsonObject
from orchestrator.models.adapters import RECORD, SETTINGS, WEIGHTS, save_tokenizer
from orchestrator.models.base import BaseWeights, base_folder, base_tokenizer

HALVES = {"A": "lora_a", "B": "lora_b"}
"""The halves of a pair as PEFT and as llama.cpp call them."""


def write_back(folder: Path, model: ModelConfig, out: Path) -> None:
    """Write the adapter in `folder` as a PEFT folder, with the base's tokenizer and the template beside the file.

    Raises:
        InputError: If the package gguf is missing, or llama.cpp's names for this base are not known here.
        AdapterError: If the file is no adapter of this base.
    """
    gguf = require_gguf()
    base = base_folder(model)
    settings = json.loads((base / "config.json").read_text(encoding="utf-8"))
    family = family_of(settings, base)
    path = folder / ADAPTER_FILE
    stored, alpha = _read(gguf, path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[family.arch]])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.arch], settings["num_hidden_layers"])
    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name in (name for names_of_file in BaseWeights(base).names_by_file().values() for name in names_of_file):
        place = names.get_name(name, try_suffixes=(".weight",))
        a, b = (stored.pop(f"{place}.{half}", None) for half in HALVES.values())
        if a is not None and b is not None:
            heads = heads_of(name, settings) if family.permutes else None
            pairs[name.removesuffix(".weight")] = a, in_own_order(b, heads) if heads else b
    if stored or not pairs:
        what = (
            f"it holds {next(iter(stored))}, which is no half of a pair of this base" if stored else "it holds no pair"
        )
        raise AdapterError(what, where=str(path), fix="Export it again")
    _write_peft(pairs, alpha, model, out)
    tokenizer = base_tokenizer(model)
    tokenizer.chat_template = (folder / TEMPLATE).read_text(encoding="utf-8")
    save_tokenizer(tokenizer, out)


def _read(gguf: Any, path: Path, arch: str) -> tuple[dict[str, torch.Tensor], float]:
    """The tensors of the file in float32, and its alpha."""
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (OSError, ValueError) as error:
        raise AdapterError(f"the file cannot be read: {error}", where=str(path), fix="Export it again") from None
    wanted = {"general.type": gguf.GGUFType.ADAPTER, "general.architecture": arch, gguf.Keys.Adapter.TYPE: "lora"}
    for key, value in wanted.items():
        if fields.get(key) != value:
            what = f"{key} is {fields.get(key)!r}"
            raise AdapterError(what, where=str(path), allowed=repr(value), fix="Export it again, or name its own run")
    tensors = {tensor.name: torch.from_numpy(tensor.data.copy()).float() for tensor in reader.tensors}
    return tensors, float(fields.get(gguf.Keys.Adapter.LORA_ALPHA, 0.0))


def in_own_order(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of queries or keys in llama.cpp's order as the base has them: what `gguf.reordered` did, undone."""
    split = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)


def _write_peft(
    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]], alpha: float, model: ModelConfig, out: Path
) -> None:
    """Write weights, settings and record; llama.cpp's scale is alpha / rank, and 1 for an alpha of 0."""
    ranks = {name: a.shape[0] for name, (a, _) in pairs.items()}
    rank = max(ranks.values())
    others = {name: one for name, one in ranks.items() if one != rank}
    settings: JsonObject = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.base,
        "r": rank,
        "lora_alpha": alpha or rank,
        "rank_pattern": others,
        "alpha_pattern": {} if alpha else others,
        "target_modules": sorted({name.rpartition(".")[2] for name in pairs}),
    }
    tensors = {
        f"base_model.model.{name}.lora_{half}.weight": tensor.contiguous()
        for name, pair in pairs.items()
        for half, tensor in zip(HALVES, pair, strict=True)
    }
    save_file(tensors, out / WEIGHTS)
    write_text_atomic(out / SETTINGS, json.dumps(settings, indent=2) + "\n")
    record = AdapterRecord(
        id="gguf",
        base=model.base,
        r=rank,
        alpha=settings["lora_alpha"],
        target_modules=tuple(settings["target_modules"]),
        sha256=digest_of(out / WEIGHTS, out / SETTINGS),
    )
    write_text_atomic(out / RECORD, record.model_dump_json(indent=2) + "\n")
