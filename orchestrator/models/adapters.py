"""The one adapter format: PEFT's two files as safetensors and JSON, beside a record of where they came from.

    adapters/<id>/adapter_model.safetensors  adapter_config.json  adapter.json  and the tokenizer with its template

The id is the name of the trial. What the adapter is, is the hash of the two PEFT files in its record.
"""

import hashlib
import json
import math
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig as PeftLoraConfig
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from transformers import PreTrainedTokenizerBase

from orchestrator.config.schema import LoraConfig
from orchestrator.core.errors import AdapterError
from orchestrator.core.files import digest_of, parse_line, write_text_atomic
from orchestrator.core.records import AdapterRecord, JsonObject, TrialRecord
from orchestrator.models.base import BaseWeights
from orchestrator.run.paths import RunDir

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
RECORD = "adapter.json"

_TENSOR_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_Pair = tuple[torch.Tensor, torch.Tensor]


def peft_config(lora: LoraConfig) -> PeftLoraConfig:
    """PEFT's settings for a new adapter; nothing in them that vLLM refuses to serve."""
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    return PeftLoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_rslora=lora.use_rslora,
        bias="none",
        task_type="CAUSAL_LM",
    )


def keep_adapter(
    source: Path, run: RunDir, trial: TrialRecord, *, base: str, tokenizer: PreTrainedTokenizerBase
) -> AdapterRecord:
    """Copy PEFT's two files out of a trial's checkpoint of its best step into the run, with their record.

    An adapter of the same name that is there already is replaced: readers find the whole of one or of the other.

    `base` is the base model's name in the configuration. `tokenizer` is saved beside them: its template must render
    without any argument what was trained, because that is how a server uses it.

    Raises:
        AdapterError: If a file is missing or the trial has no best step.
    """
    if trial.best_eval_loss is None or trial.best_step is None:
        raise AdapterError(f"a trial that is {trial.status} has no adapter to keep", where=trial.trial_id)
    if missing := _missing(source, (WEIGHTS, SETTINGS)):
        raise AdapterError(f"the checkpoint has no {missing}", where=str(source))
    settings = json.loads((source / SETTINGS).read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = base
    settings["target_modules"] = sorted(settings["target_modules"])
    adapters = run.root / "adapters"
    adapters.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=adapters, prefix="."))
    partial.chmod(0o755)
    shutil.copyfile(source / WEIGHTS, partial / WEIGHTS)
    write_text_atomic(partial / SETTINGS, json.dumps(settings, indent=2, sort_keys=True) + "\n")
    tokenizer.save_pretrained(partial)
    sha256 = digest_of(partial / WEIGHTS, partial / SETTINGS)
    record = AdapterRecord(
        id=trial.trial_id,
        base=base,
        r=settings["r"],
        alpha=settings["lora_alpha"],
        target_modules=tuple(settings["target_modules"]),
        sha256=sha256,
        learning_rate=float(trial.hyperparameters["learning_rate"]),
        eval_loss=trial.best_eval_loss,
        step=trial.best_step,
        trial_id=trial.trial_id,
    )
    write_text_atomic(partial / RECORD, record.model_dump_json(indent=2) + "\n")
    _put_in_place(partial, run.adapter(record.id))
    return record


def _put_in_place(folder: Path, place: Path) -> None:
    before = Path(tempfile.mkdtemp(dir=place.parent, prefix="."))
    if place.is_dir():
        place.rename(before)
    folder.rename(place)
    shutil.rmtree(before, ignore_errors=True)


def _missing(folder: Path, names: Sequence[str]) -> str | None:
    return next((name for name in names if not (folder / name).is_file()), None)


def read_adapter(folder: Path) -> AdapterRecord:
    """The record of an adapter whose files are those that were recorded.

    Raises:
        AdapterError: If a file is missing or its content changed.
    """
    if missing := _missing(folder, (WEIGHTS, SETTINGS, RECORD)):
        raise AdapterError(f"the adapter has no {missing}", where=str(folder), fix="Train it again")
    record = parse_line((folder / RECORD).read_text(encoding="utf-8"), AdapterRecord, where=str(folder / RECORD))
    if digest_of(folder / WEIGHTS, folder / SETTINGS) != record.sha256:
        raise AdapterError(
            "the adapter's files are not those that were recorded when it was trained",
            where=str(folder),
            fix="Restore the folder or train it again",
        )
    return record


def list_adapters(run: RunDir) -> list[AdapterRecord]:
    """The adapters that a run kept, best eval loss first."""
    folders = (run.root / "adapters").glob("[!.]*")
    return sorted((read_adapter(folder) for folder in folders), key=lambda record: (record.eval_loss, record.id))


@dataclass(frozen=True)
class AdapterWeights:
    """A LoRA adapter whose files were checked against a base by `load_adapter`.

    `pairs` maps the name of a base tensor (shape out x in) to A (rank x in) and B (out x rank); the update is
    `scale * B @ A`. `sha256` is the digest of the very bytes that these tensors were made from.
    """

    sha256: str
    pairs: dict[str, _Pair]
    scale: float


def load_adapter(folder: Path, base: BaseWeights) -> AdapterWeights:
    """Read an adapter and check it against the base: every tensor must belong to a pair that fits one of its matrices.

    Raises:
        AdapterError: If a file is missing or cannot be read, a tensor is unpaired, unknown to the base, of another
            rank than the settings say, not finite, or the settings ask for more than plain LoRA.
    """
    content = {name: _bytes_of(folder, name) for name in (WEIGHTS, SETTINGS)}
    try:
        settings, tensors = json.loads(content[SETTINGS]), load_safetensors(content[WEIGHTS])
    except (ValueError, SafetensorError) as error:
        raise AdapterError(f"the adapter cannot be read: {error}", where=str(folder), fix="Train it again") from None
    _refuse_unsupported(settings, folder)
    pairs = _pairs(tensors, folder)
    for name, pair in pairs.items():
        _check_pair(name, pair, base, settings["r"], folder)
    root = math.sqrt(settings["r"]) if settings.get("use_rslora") else settings["r"]
    sha256 = hashlib.sha256(b"".join(content[name] + b"\0" for name in (WEIGHTS, SETTINGS))).hexdigest()
    return AdapterWeights(sha256=sha256, pairs=pairs, scale=settings["lora_alpha"] / root)


def merged_tensor(adapter: AdapterWeights, base: BaseWeights, name: str) -> torch.Tensor:
    """One matrix of the base with the adapter's update added, in float32 (LoRA, arXiv 2106.09685, equation 3)."""
    a, b = adapter.pairs[name]
    return torch.addmm(base.tensor(name).float(), b.float(), a.float(), alpha=adapter.scale)


def _bytes_of(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise AdapterError(
            f"the adapter's {name} cannot be read ({error.strerror})", where=str(folder), fix="Train it again"
        ) from None


def _refuse_unsupported(settings: JsonObject, folder: Path) -> None:
    plain = {"peft_type": "LORA", "bias": "none", "use_dora": False, "fan_in_fan_out": False}
    absent = ("rank_pattern", "alpha_pattern", "modules_to_save", "layer_replication")
    odd = [key for key, wanted in plain.items() if settings.get(key, wanted) != wanted]
    odd += [key for key in absent if settings.get(key)]
    if odd or not isinstance(settings.get("r"), int) or not isinstance(settings.get("lora_alpha"), int | float):
        raise AdapterError(
            f"the adapter's settings ask for what is not evaluated here: {', '.join(odd) or 'no r or lora_alpha'}",
            where=str(folder / SETTINGS),
            allowed="plain LoRA or rsLoRA on linear layers",
        )


def _pairs(tensors: dict[str, torch.Tensor], folder: Path) -> dict[str, _Pair]:
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        named = _TENSOR_NAME.fullmatch(key)
        if named is None:
            raise AdapterError(f"the adapter holds {key}, which is no half of a LoRA pair", where=str(folder))
        halves.setdefault(f"{named[1]}.weight", {})[named[2]] = tensor
    alone = next((name for name, half in halves.items() if len(half) < 2), None)
    if alone is not None or not halves:
        what = f"only one half of the pair for {alone}" if alone else "no tensor"
        raise AdapterError(f"the adapter holds {what}", where=str(folder / WEIGHTS), fix="Train it again")
    return {name: (half["A"], half["B"]) for name, half in halves.items()}


def _check_pair(name: str, pair: _Pair, base: BaseWeights, rank: int, folder: Path) -> None:
    (a, b), shape = pair, base.shape(name)
    where = f"{folder / WEIGHTS}: {name}"
    if shape is None:
        raise AdapterError("the base has no such matrix", where=where, fix="Evaluate it on the base it was trained on")
    if (a.dim(), b.dim()) != (2, 2) or a.shape[0] != rank or b.shape[1] != rank:
        raise AdapterError(f"its tensors are {list(a.shape)} and {list(b.shape)}, not of rank {rank}", where=where)
    if (b.shape[0], a.shape[1]) != shape:
        raise AdapterError(
            f"the update is {b.shape[0]} x {a.shape[1]} and the base's matrix {' x '.join(map(str, shape))}",
            where=where,
            fix="Evaluate it on the base it was trained on",
        )
    if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise AdapterError("its weights are not all finite numbers", where=where, fix="Train it again")
