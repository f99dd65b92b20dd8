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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import LoraModel, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.optimizers import create_loraplus_optimizer
from peft.tuners.lora import LoraLayer
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import load_file
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from orchestrator.chat.named_templates import template_label
from orchestrator.chat.rendering import template_stop_ids
from orchestrator.chat.template import stop_token_ids, written_date
from orchestrator.chat.template_input import template_wants
from orchestrator.config.schema import LoraConfig, ModelConfig
from orchestrator.core.errors import AdapterError
from orchestrator.core.files import digest_of, parse_line, write_text_atomic
from orchestrator.core.records import AdapterRecord, JsonObject, TrialRecord
from orchestrator.models.base import BaseWeights
from orchestrator.models.dora import MAGNITUDE, check_lengths, take_lengths, with_lengths
from orchestrator.models.servable import MERGE, refuse_unsupported
from orchestrator.run.paths import RunDir

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
RECORD = "adapter.json"

PREFIX = "base_model.model."
"""PEFT's prefix to the name of an adapted layer."""
_TENSOR_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_Pair = tuple[torch.Tensor, torch.Tensor]


def peft_config(lora: LoraConfig) -> PeftLoraConfig:
    """PEFT's settings for a new adapter; nothing in them but DoRA that vLLM refuses to serve."""
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    return PeftLoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        init_lora_weights=True if lora.init == "kaiming" else lora.init,
        bias="none",
        task_type="CAUSAL_LM",
    )


def loraplus_optimizer(
    model: PeftModel, kind: type[torch.optim.Optimizer], settings: JsonObject, *, ratio: float
) -> torch.optim.Optimizer:
    """An optimizer of this kind in which B learns `ratio` times as fast as A (LoRA+, arXiv 2402.12354)."""
    made: torch.optim.Optimizer = create_loraplus_optimizer(model, kind, loraplus_lr_ratio=ratio, **settings)
    return made


def shapes_of_new(base: PreTrainedModel, lora: LoraConfig) -> dict[str, tuple[int, ...]]:
    """By PEFT's name, the shape of each tensor of a new adapter on this base, which may lie on the meta device.

    Empty where the base has none of the layers to adapt.
    """
    try:
        plain = lora.model_copy(update={"use_dora": False, "init": "kaiming"})  # neither is computed without weights
        adapted = LoraModel(base, peft_config(plain), "shapes", low_cpu_mem_usage=True)
    except ValueError:
        return {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in base.named_modules():
        if isinstance(module, LoraLayer):
            shapes[f"{PREFIX}{name}.lora_A.weight"] = (lora.r, module.in_features)
            shapes[f"{PREFIX}{name}.lora_B.weight"] = (module.out_features, lora.r)
            if lora.use_dora:
                shapes[f"{PREFIX}{name}{MAGNITUDE}"] = (module.out_features,)
    adapted.unload()
    return shapes


def started(base: PreTrainedModel, lora: LoraConfig, folder: Path) -> PeftModel:
    """The base with the adapter in `folder`, ready to be trained further; raises as `fill_new`."""
    model = get_peft_model(base, peft_config(lora))
    fill_new(model, folder)
    return model


def fill_new(model: PeftModel, folder: Path) -> None:
    """Put the tensors of the adapter in `folder` into the new one of `model`.

    Raises:
        AdapterError: If one has no place, or a place got none.
    """
    loaded = set_peft_model_state_dict(model, load_file(folder / WEIGHTS))
    missing = [key for key in loaded.missing_keys if ".lora_" in key]
    if odd := [*missing, *loaded.unexpected_keys]:
        raise AdapterError(f"the adapter to start from does not fit at {odd[0]}", where=str(folder))


class Told(NamedTuple):
    """What a checkpoint's replies came to: objectives, lower is better, and by how much it misses each constraint."""

    values: tuple[float, ...]
    missed: Mapping[str, float]


class SavedTrial(NamedTuple):
    """A trial's checkpoint in `folder`: `record` names its step and eval loss as the trial's best."""

    record: TrialRecord
    folder: Path

    @property
    def trial(self) -> str:
        """The trial's name."""
        return self.record.trial_id

    @property
    def step(self) -> int:
        """Optimizer steps."""
        return self.record.best_step or 0

    @property
    def eval_loss(self) -> float:
        """Eval loss after them."""
        return math.inf if self.record.best_eval_loss is None else self.record.best_eval_loss


def keep_adapter(
    source: Path,
    run: RunDir,
    trial: TrialRecord,
    *,
    model: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    base_parameters: int | None = None,
) -> AdapterRecord:
    """Copy PEFT's two files out of a trial's checkpoint of its best step into the run, with their record.

    An adapter of the same name that is there already is replaced: readers find the whole of one or of the other.

    `model` is what it was trained on. `tokenizer` is saved beside them: its template must render without any argument
    what was trained, because that is how a server uses it. `base_parameters` counts the base's. The eval loss
    of a trial on pairs compares with that of no other adapter, and is not recorded.

    Raises:
        AdapterError: If a file is missing or the trial has no best step.
    """
    if trial.best_eval_loss is None or trial.best_step is None:
        raise AdapterError(f"a trial that is {trial.status} has no adapter to keep", where=trial.trial_id)
    if missing := _missing(source, (WEIGHTS, SETTINGS)):
        raise AdapterError(f"the checkpoint has no {missing}", where=str(source))
    settings = json.loads((source / SETTINGS).read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = model.base
    settings["target_modules"] = sorted(settings["target_modules"])
    adapters = run.root / "adapters"
    adapters.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=adapters, prefix="."))
    partial.chmod(0o755)
    shutil.copyfile(source / WEIGHTS, partial / WEIGHTS)
    write_text_atomic(partial / SETTINGS, json.dumps(settings, indent=2, sort_keys=True) + "\n")
    save_tokenizer(tokenizer, partial)
    sha256 = digest_of(partial / WEIGHTS, partial / SETTINGS)
    trained = _num_parameters(partial / WEIGHTS)
    record = AdapterRecord(
        id=trial.trial_id,
        base=model.base,
        r=settings["r"],
        alpha=settings["lora_alpha"],
        target_modules=tuple(settings["target_modules"]),
        sha256=sha256,
        learning_rate=float(trial.hyperparameters["learning_rate"]),
        eval_loss=trial.best_eval_loss if trial.pairs is None else None,
        step=trial.best_step,
        trial_id=trial.trial_id,
        init_from=trial.init_from,
        pairs=trial.pairs,
        trained_parameters=trained,
        total_parameters=None if base_parameters is None else base_parameters + trained,
        quantization=None if model.quantization == "none" else model.quantization,
        use_dora=settings.get("use_dora", False),
        **template_facts(tokenizer, model),
    )
    write_text_atomic(partial / RECORD, record.model_dump_json(indent=2) + "\n")
    put_in_place(partial, run.adapter(record.id))
    return record


def names_to_adapt(model: PreTrainedModel, target_modules: str) -> list[str]:
    """The modules that PEFT adapts for an abbreviation such as `all-linear`. The model is left as it was."""
    adapted = LoraModel(model, PeftLoraConfig(r=1, target_modules=target_modules, task_type="CAUSAL_LM"), "targets")
    names = [name for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    adapted.unload()
    return names


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a tokenizer beside an adapter.

    Where its template ends replies with a token at which vLLM does not stop by itself, a generation config says so.
    """
    tokenizer.save_pretrained(folder)
    if added := template_stop_ids(tokenizer):
        GenerationConfig(eos_token_id=sorted({*added, *stop_token_ids(tokenizer)})).save_pretrained(folder)


def template_facts(tokenizer: PreTrainedTokenizerBase, model: ModelConfig) -> JsonObject:
    """What an adapter's record says of the chat template beside it."""
    return {
        "chat_template": template_label(model.chat_template),
        "content_format": template_wants(tokenizer).content,
        "template_date": written_date(str(tokenizer.chat_template)),
    }


def _num_parameters(weights: Path) -> int:
    with safe_open(weights, framework="pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping


def put_in_place(folder: Path, place: Path) -> None:
    """Move a whole adapter to where it belongs, in place of what is there."""
    before = Path(tempfile.mkdtemp(dir=place.parent, prefix="."))
    if place.is_dir():
        place.rename(before)
    folder.rename(place)
    shutil.rmtree(before, ignore_errors=True)


def remove_adapter(run: RunDir, adapter_id: str) -> bool:
    """Remove an adapter from the run. Returns whether it was there."""
    folder = run.adapter(adapter_id)
    if not folder.is_dir():
        return False
    shutil.rmtree(folder)
    return True


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
    return sorted(map(read_adapter, folders), key=lambda record: (record.known_eval_loss, record.id))


@dataclass(frozen=True)
class AdapterWeights:
    """A LoRA adapter whose files were checked against a base by `load_adapter`.

    `pairs` maps the name of a base tensor (shape out x in) to A (rank x in) and B (out x rank); the update is
    `scales[name] * B @ A`. `lengths` are DoRA's: what the norm of each row becomes, base and update together; empty for
    plain LoRA. `sha256` is the digest of the very bytes that these tensors were made from.
    """

    sha256: str
    pairs: dict[str, _Pair]
    scales: dict[str, float]
    lengths: dict[str, torch.Tensor]


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
    refuse_unsupported(settings, where=str(folder / SETTINGS))
    lengths = take_lengths(tensors, PREFIX) if settings.get("use_dora") else {}
    pairs, scales = _pairs(tensors, folder), dict[str, float]()
    for name, pair in pairs.items():
        module = name.removesuffix(".weight")
        rank = _of_module(settings, "rank_pattern", module, settings["r"])
        _check_pair(name, pair, base, rank, folder)
        root = math.sqrt(rank) if settings.get("use_rslora") else rank
        scales[name] = _of_module(settings, "alpha_pattern", module, settings["lora_alpha"]) / root
    if settings.get("use_dora"):
        check_lengths(lengths, {name: base.shape(name) or () for name in pairs}, where=str(folder / WEIGHTS))
    sha256 = hashlib.sha256(b"".join(content[name] + b"\0" for name in (WEIGHTS, SETTINGS))).hexdigest()
    return AdapterWeights(sha256=sha256, pairs=pairs, scales=scales, lengths=lengths)


def _of_module(settings: JsonObject, pattern: str, module: str, usual: Any) -> Any:
    """A module's own rank or alpha where a pattern of the settings names one; matched by PEFT itself."""
    own = settings.get(pattern) or {}
    return own.get(get_pattern_key(list(own), module), usual)


def merged_tensor(adapter: AdapterWeights, base: BaseWeights, name: str) -> torch.Tensor:
    """One matrix of the base with the adapter's update added, in float32 (LoRA, arXiv 2106.09685, equation 3).

    DoRA then gives each row its own length (arXiv 2402.09353, equation 5).
    """
    a, b = adapter.pairs[name]
    merged = torch.addmm(base.tensor(name).float(), b.float(), a.float(), alpha=adapter.scales[name])
    return with_lengths(merged, adapter.lengths[name]) if name in adapter.lengths else merged


def _bytes_of(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise AdapterError(
            f"the adapter's {name} cannot be read ({error.strerror})", where=str(folder), fix="Train it again"
        ) from None


def _pairs(tensors: dict[str, torch.Tensor], folder: Path) -> dict[str, _Pair]:
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        named = _TENSOR_NAME.fullmatch(key)
        if named is None:
            is_vocabulary = "embed_tokens" in key or "lm_head" in key
            reason = (
                "its vocabulary was resized, or is trained too" if is_vocabulary else "vLLM serves LoRA pairs alone"
            )
            what = f"the adapter holds {key}, which is no half of a LoRA pair: {reason}"
            raise AdapterError(what, where=str(folder / WEIGHTS), fix=MERGE)
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
