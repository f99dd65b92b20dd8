"""The one adapter format: PEFT's two files as safetensors and JSON, beside a record of where they came from.

    adapters/<id>/adapter_model.safetensors  adapter_config.json  adapter.json  chat_template.jinja

The id is the hash of the two PEFT files, so a changed adapter has another name.
"""

import json
import shutil
import tempfile
from pathlib import Path

from peft import LoraConfig as PeftLoraConfig

from orchestrator.config import LoraConfig
from orchestrator.errors import AdapterError
from orchestrator.jsonl import parse_line
from orchestrator.records import AdapterRecord, TrialRecord
from orchestrator.runs import RunDir, digest_of, write_text_atomic

WEIGHTS, SETTINGS, RECORD, TEMPLATE = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "adapter.json",
    "chat_template.jinja",
)


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


def keep_adapter(source: Path, run: RunDir, trial: TrialRecord, *, base: str, chat_template: str) -> AdapterRecord:
    """Copy a PEFT adapter out of a training checkpoint into the run, with its record.

    Args:
        source: Folder with PEFT's two files.
        run: The run that keeps it.
        trial: The trial that trained it; its best step is the one in `source`.
        base: The base model's name in the configuration.
        chat_template: The template that rendered its training; a server must use the same.

    Raises:
        AdapterError: If a file is missing or the trial has no best step.
    """
    if trial.best_eval_loss is None or trial.best_step is None:
        raise AdapterError(f"a trial that is {trial.status} has no adapter to keep", where=trial.trial_id)
    for name in (WEIGHTS, SETTINGS):
        if not (source / name).is_file():
            raise AdapterError(f"the checkpoint has no {name}", where=str(source))
    settings = json.loads((source / SETTINGS).read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = base
    settings["target_modules"] = sorted(settings["target_modules"])
    partial = _new_folder(run)
    shutil.copyfile(source / WEIGHTS, partial / WEIGHTS)
    write_text_atomic(partial / SETTINGS, json.dumps(settings, indent=2, sort_keys=True) + "\n")
    write_text_atomic(partial / TEMPLATE, chat_template)
    sha256 = digest_of(partial / WEIGHTS, partial / SETTINGS)
    record = AdapterRecord(
        id=sha256[:16],
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
    _move_into_place(partial, run.adapter(record.id))
    return record


def _new_folder(run: RunDir) -> Path:
    adapters = run.root / "adapters"
    adapters.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=adapters, prefix="."))
    folder.chmod(0o755)
    return folder


def _move_into_place(partial: Path, final: Path) -> None:
    if final.is_dir():  # same hash, same adapter
        shutil.rmtree(partial)
    else:
        partial.rename(final)


def read_adapter(folder: Path) -> AdapterRecord:
    """The record of an adapter whose files are those that were recorded.

    Raises:
        AdapterError: If a file is missing or its content changed.
    """
    for name in (WEIGHTS, SETTINGS, RECORD):
        if not (folder / name).is_file():
            raise AdapterError(f"the adapter has no {name}", where=str(folder), fix="Train it again")
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
