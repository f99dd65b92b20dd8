"""The adapter that training starts from (`train.init_from`): any LoRA that PEFT saved and that training can express."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from orchestrator.config.load import left_open
from orchestrator.config.schema import LoraConfig, RunConfig, ServableRank
from orchestrator.core.errors import AdapterError, AdapterNotFoundError, ConfigError
from orchestrator.core.files import digest_of
from orchestrator.core.records import JsonObject
from orchestrator.models.adapters import PREFIX, SETTINGS, WEIGHTS, shapes_of_new
from orchestrator.models.outside import adapter_folder, read_settings, read_tensors
from orchestrator.run.paths import RunDir

WHERE = "train.init_from"
_PICKS_LAYERS = ("layers_to_transform", "exclude_modules")
_PATTERNS = ("rank_pattern", "alpha_pattern")


def adopt(config: RunConfig) -> RunConfig:
    """The configuration with the adapter's rank, alpha, scaling and layers wherever the user left them open.

    A search keeps that rank and alpha, and only varies the rest: another alpha would change what was learned.

    Raises:
        ConfigError: If there is no such adapter, training cannot express it, or what the user wrote contradicts it.
    """
    source, space = config.train.init_from, config.search.space
    still_open = left_open(config)
    if source is None or not (still_open or len(space.r) > 1 or len(space.alpha) > 1):
        return config
    with _as_setting():
        its = _lora_of(adapter_folder(source))
    _refuse_contradiction(config, its)
    lora = {key: getattr(its, key) for key in LoraConfig.model_fields if f"lora.{key}" in still_open}
    return _with_lora(config, config.lora.model_copy(update=lora))


def going_on_from(config: RunConfig, folder: Path) -> RunConfig:
    """The configuration of a training that goes on from the adapter in `folder`, with its rank, alpha and layers.

    Raises:
        AdapterError: If training cannot express it.
    """
    going_on = config.model_copy(update={"train": config.train.model_copy(update={"init_from": str(folder)})})
    return _with_lora(going_on, _lora_of(folder).model_copy(update={"dropout": config.lora.dropout}))


def _with_lora(config: RunConfig, lora: LoraConfig) -> RunConfig:
    """The configuration with these settings of adapters, of which a search keeps rank and alpha."""
    space = config.search.space.model_copy(update={"r": (lora.r,), "alpha": (lora.alpha,)})
    return config.model_copy(update={"lora": lora, "search": config.search.model_copy(update={"space": space})})


def start_digest(config: RunConfig) -> str | None:
    """Digest of the files of the adapter that training starts from, None without one.

    Raises:
        ConfigError: If there is no such adapter.
    """
    if config.train.init_from is None:
        return None
    with _as_setting():
        folder = adapter_folder(config.train.init_from)
    return digest_of(folder / SETTINGS, folder / WEIGHTS)


def require_start(config: RunConfig, base: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The tensors of the adapter that training starts from; empty without one.

    `base` may lie on the meta device.

    Raises:
        ConfigError: If there is no such adapter, or it does not fit the configuration or the base.
    """
    if config.train.init_from is None:
        return {}
    with _as_setting():
        folder = adapter_folder(config.train.init_from)
        tensors = read_tensors(folder)
        _refuse_contradiction(config, _lora_of(folder))
        _require_shapes(adopt(config).lora, base, tensors, str(folder))
    return tensors


def copy_start(config: RunConfig, base: PreTrainedModel, run: RunDir) -> Path | None:
    """A copy, which every worker can read, of the adapter that training starts from; raises what `require_start` does.

    The folder's name changes with the adapter's content.
    """
    tensors = require_start(config, base)
    if not tensors:
        return None
    place = run.ray / f"start-{(start_digest(config) or '')[:16]}"
    if not place.is_dir():
        run.ray.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=run.ray, prefix=".start-"))
        try:
            partial.chmod(0o755)
            save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
            partial.rename(place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return place


def describe_start(config: RunConfig) -> str | None:
    """What training starts from, in a sentence; None if it starts anew."""
    if config.train.init_from is None:
        return None
    scaling = ", rsLoRA" if config.lora.use_rslora else ""
    return f"Training goes on from {config.train.init_from}: rank {config.lora.r}, alpha {config.lora.alpha}{scaling}."


@contextmanager
def _as_setting() -> Iterator[None]:
    """A fault of the adapter is one of the setting that names it."""
    try:
        yield
    except (AdapterError, AdapterNotFoundError) as error:
        raise ConfigError(error.what, where=f"{WHERE}: {error.where}", fix=error.fix) from None


def _lora_of(folder: Path) -> LoraConfig:
    """The adapter's settings as `lora` of a configuration that trains it further."""
    settings, where = read_settings(folder), str(folder / SETTINGS)
    pattern = next((key for key in _PATTERNS if settings.get(key)), None)
    if pattern is not None:
        what = f"training gives all layers one rank and alpha, and the adapter has several ({pattern})"
        raise AdapterError(what, where=where, fix="Start from an adapter without, or train a new one")
    if settings.get("use_dora"):
        raise AdapterError(
            "training goes on from plain LoRA, and the adapter is DoRA", where=where, fix="Train a new one"
        )
    rank, alpha, allowed = settings["r"], settings["lora_alpha"], get_args(ServableRank)
    if rank not in allowed:
        ranks = ", ".join(map(str, allowed))
        what = f"the adapter has rank {rank}, and the ranks that can be trained here are {ranks}"
        raise AdapterError(what, where=where, fix="Start from an adapter of such a rank, or train a new one")
    if alpha != int(alpha) or alpha < 1:
        what = f"the adapter has alpha {alpha:g}, and training takes whole numbers from 1"
        raise AdapterError(what, where=where, fix="Start from an adapter with such an alpha, or train a new one")
    return LoraConfig(
        r=rank,
        alpha=int(alpha),
        use_rslora=bool(settings.get("use_rslora")),
        target_modules=_targets(settings, folder),
    )


def _targets(settings: JsonObject, folder: Path) -> tuple[str, ...]:
    """Names of modules as in `lora.target_modules`: the adapter's own list, or all its layers where that says less."""
    named = settings.get("target_modules")
    if isinstance(named, list) and named and not any(settings.get(key) is not None for key in _PICKS_LAYERS):
        return tuple(sorted(named))
    layers = {key.removeprefix(PREFIX).partition(".lora_")[0] for key in read_tensors(folder)}
    return tuple(sorted(layers))


def _refuse_contradiction(config: RunConfig, its: LoraConfig) -> None:
    """Refuse what the user wrote and the adapter has otherwise; of the layers, `_require_shapes` decides."""
    still_open, space = left_open(config), config.search.space
    written: list[tuple[str, object, object, bool]] = [
        (f"lora.{key}", mine := getattr(config.lora, key), theirs := getattr(its, key), mine == theirs)
        for key in ("r", "alpha", "use_rslora")
    ]
    written += [
        ("search.space.r", list(space.r), its.r, its.r in space.r),
        ("search.space.alpha", list(space.alpha), its.alpha, its.alpha in space.alpha),
    ]
    wrong = [(key, mine, theirs) for key, mine, theirs, fits in written if not fits and key not in still_open]
    if wrong:
        what = "; ".join(f"{key} is {mine}, and that of the adapter is {theirs}" for key, mine, theirs in wrong)
        fix = f"Leave {', '.join(key for key, *_ in wrong)} out, for the adapter decides, or leave {WHERE} out"
        raise ConfigError(what, where=f"{WHERE}: {config.train.init_from}", fix=fix)


def _require_shapes(lora: LoraConfig, base: PreTrainedModel, tensors: dict[str, torch.Tensor], where: str) -> None:
    """Check that the adapter holds exactly what a new adapter on this base would.

    Raises:
        AdapterError: If it does not, or holds numbers that are not finite.
    """
    wanted = shapes_of_new(base, lora)
    if not wanted:
        what = f"the base has none of the adapter's layers ({', '.join(lora.target_modules)})"
        raise AdapterError(what, where=where, fix="Set model.base to what it was trained on")
    found = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    for key in sorted(wanted.keys() & found.keys()):
        if wanted[key] != found[key]:
            what = f"{key} is {_by(found[key])} and has to be {_by(wanted[key])} on this base"
            raise AdapterError(what, where=where, fix="Set model.base to what it was trained on")
    if unknown := sorted(found.keys() - wanted.keys()):
        what = f"the adapter holds {unknown[0]}, which this base has not or lora.target_modules leaves out"
        fix = "Set model.base to what it was trained on, and leave lora.target_modules out"
        raise AdapterError(what, where=where, fix=fix)
    if missing := sorted(wanted.keys() - found.keys()):
        what = f"the adapter lacks {missing[0]}, which lora.target_modules asks for on this base"
        fix = "Leave lora.target_modules out, and set model.base to what it was trained on"
        raise AdapterError(what, where=where, fix=fix)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise AdapterError("its weights are not all finite numbers", where=where, fix="Start from another adapter")


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
