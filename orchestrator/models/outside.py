"""Adapters that other tools made, copied into a run so that they are scored like its own.

Any LoRA that PEFT saved will do: from PEFT and TRL themselves, Unsloth, Axolotl, LLaMA-Factory. Only its two files are
taken, as they are; what stands beside them (a tokenizer, an optimizer, a README) is not.
"""

import json
import re
import shutil
import tempfile
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerBase

from orchestrator.chat.template import served_template
from orchestrator.config.schema import ModelConfig, RunConfig
from orchestrator.core.errors import AdapterError, AdapterNotFoundError
from orchestrator.core.files import digest_of, write_text_atomic
from orchestrator.core.progress import say
from orchestrator.core.records import BASE_ADAPTER_ID, AdapterRecord, JsonObject
from orchestrator.models.adapters import (
    RECORD,
    SETTINGS,
    WEIGHTS,
    put_in_place,
    save_tokenizer,
    template_facts,
)
from orchestrator.models.base import base_tokenizer
from orchestrator.models.servable import refuse_unsupported
from orchestrator.run.folder import brought_in
from orchestrator.run.paths import RunDir

_PICKLED = "adapter_model.bin"
"""What older versions of PEFT wrote."""
_NO_NAME = re.compile(r"(checkpoint|trial|adapter)-\d+")
"""Last parts of a path that say nothing without the folder above."""


def bring_in(config: RunConfig, run: RunDir) -> dict[str, AdapterError]:
    """Copy the adapters of `eval.adapters` into the run, and remove those that are no longer named there.

    Returns:
        By name, why those that cannot be served were left out.

    Raises:
        AdapterNotFoundError: If one is not there at all.
    """
    folders = {source: adapter_folder(source) for source in config.eval.adapters}
    brought = {folder.name for folder in brought_in(run)}
    own = {folder.name for folder in run.root.glob("adapters/[!.]*")} - brought
    named = _names(config.eval.adapters, own)
    for name in brought - set(named):
        shutil.rmtree(run.adapter(name))
    if not named:
        return {}
    tokenizer = base_tokenizer(config.model)
    tokenizer.chat_template = served_template(str(tokenizer.chat_template), thinking=config.data.thinking)
    left_out = {}
    for name, source in named.items():
        try:
            _copy(name, source, folders[source], run, config.model, tokenizer)
        except AdapterError as error:
            shutil.rmtree(run.adapter(name), ignore_errors=True)
            left_out[name] = error
    return left_out


def require_there(sources: tuple[str, ...]) -> None:
    """Check that each folder is there, or each hub id can be fetched, before anything else takes its time.

    Raises:
        AdapterNotFoundError: If one is not.
    """
    for source in sources:
        adapter_folder(source)


def _names(sources: tuple[str, ...], taken: set[str]) -> dict[str, str]:
    """A short name for each folder or hub id: its last part, with the part before it where that says too little."""
    named: dict[str, str] = {}
    for source in dict.fromkeys(sources):
        parts = [part for part in Path(source).parts if part not in ("/", "adapters")]
        last = parts[-1] if parts else "adapter"
        wanted = f"{parts[-2]}-{last}" if _NO_NAME.fullmatch(last) and len(parts) > 1 else last
        wanted = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip(".-")[:60] or "adapter"
        choices = (wanted, *(f"{wanted}-{number}" for number in range(2, len(sources) + len(taken) + 3)))
        name = next(choice for choice in choices if choice not in {*named, *taken, BASE_ADAPTER_ID})
        named[name] = source
    return named


def _copy(
    name: str, source: str, folder: Path, run: RunDir, model: ModelConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    """One adapter, which lies in `folder`, in the run's format.

    Raises:
        AdapterError: If it is no LoRA of PEFT, or more than vLLM serves.
    """
    settings = read_settings(folder)
    (run.root / "adapters").mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=run.root / "adapters", prefix="."))
    partial.chmod(0o755)
    try:
        shutil.copyfile(folder / SETTINGS, partial / SETTINGS)
        _require_weights(folder)
        shutil.copyfile(folder / WEIGHTS, partial / WEIGHTS)
        save_tokenizer(tokenizer, partial)
        made = _record(name, source, settings, digest_of(partial / WEIGHTS, partial / SETTINGS))
        record = made.model_copy(update=template_facts(tokenizer, model))
        write_text_atomic(partial / RECORD, record.model_dump_json(indent=2) + "\n")
        put_in_place(partial, run.adapter(name))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    made_for = "" if record.base == model.base else f", made for {record.base}"
    say(f"{name}: rank {record.r}, alpha {record.alpha:g}{made_for}, from {source}")


def _record(name: str, source: str, settings: JsonObject, sha256: str) -> AdapterRecord:
    targets = settings.get("target_modules") or ()
    return AdapterRecord(
        id=name,
        base=str(settings.get("base_model_name_or_path") or "unknown"),
        r=max([settings["r"], *(settings.get("rank_pattern") or {}).values()]),
        alpha=settings["lora_alpha"],
        target_modules=(targets,) if isinstance(targets, str) else tuple(sorted(targets)),
        sha256=sha256,
        source=source,
        use_dora=bool(settings.get("use_dora")),
    )


def adapter_folder(source: str) -> Path:
    """The folder of an adapter that is named by its path, or by a hub id, which is fetched once.

    Raises:
        AdapterNotFoundError: If there is none.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.is_absolute():
        raise AdapterNotFoundError(
            "there is no such folder", where=source, fix="Name the folder that holds adapter_config.json"
        )
    try:
        return Path(snapshot_download(source, allow_patterns=[SETTINGS, WEIGHTS]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise AdapterNotFoundError(
            f"the adapter is neither a folder here nor could it be fetched from the hub ({reason})",
            where=source,
            fix="Check the name; for a private adapter set HF_TOKEN, without network copy its folder here first",
        ) from None


def read_settings(folder: Path) -> JsonObject:
    """PEFT's settings of an adapter that can be served.

    Raises:
        AdapterError: If there are none, or they ask for what vLLM does not serve.
    """
    path = folder / SETTINGS
    if not path.is_file():
        is_model = (folder / "config.json").is_file()
        fix = "It is a whole model: set it as model.base" if is_model else "Name the folder that PEFT saved it in"
        raise AdapterError(f"the folder has no {SETTINGS}", where=str(folder), fix=fix)
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdapterError(f"the settings are not JSON ({error})", where=str(path), fix="Save it again") from None
    if not isinstance(settings, dict):
        raise AdapterError("the settings are no JSON object", where=str(path), fix="Save it with PEFT again")
    refuse_unsupported(settings, where=str(folder / SETTINGS))
    return settings


def read_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """An adapter's tensors under PEFT's names.

    Raises:
        AdapterError: If there are none, or they cannot be read, or are a pickle.
    """
    _require_weights(folder)
    try:
        return load_file(folder / WEIGHTS)  # type: ignore[no-any-return] # safetensors ships no types
    except (OSError, SafetensorError) as error:
        what, fix = f"{WEIGHTS} cannot be read ({error})", "Save it with PEFT again"
        raise AdapterError(what, where=str(folder), fix=fix) from None


def _require_weights(folder: Path) -> None:
    if (folder / WEIGHTS).is_file():
        return
    what = f"the folder has no {WEIGHTS}"
    if (folder / _PICKLED).is_file():
        what = f"its weights are a pickle ({_PICKLED}), which can run code as it is read"
    raise AdapterError(what, where=str(folder), fix="Save it with PEFT again, which writes safetensors")
