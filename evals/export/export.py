"""An adapter of a run as something that works without the run."""

import shutil
from pathlib import Path

from evals.export.card import README, shown_name, write_card
from evals.export.folder import Form, new_folder
from evals.export.gguf_folder import write_gguf_folder
from evals.export.llama_cpp import find_converter
from evals.export.merged import bytes_of_weights, write_merged
from evals.export.own import own_adapter
from evals.generate.as_served import as_served
from evals.generate.chosen import choose_adapter, read_report
from evals.records import EngineRecord
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import InputError
from orchestrator.core.files import parse_line
from orchestrator.models.base import base_folder
from orchestrator.run.paths import RunDir


def export_adapter(
    config: RunConfig, run: RunDir, name: str, form: Form, out: Path, *, llama_cpp: Path | None = None
) -> str:
    """Write the adapter called `name` (or `winner`) into the new folder `out`; returns its id.

    `llama_cpp` is the folder of llama.cpp, whose converter makes the whole model for the form `gguf`; None: any that is
    found, or none.

    Raises:
        RunConflictError: If the run has no such adapter.
        AdapterError: If its files changed since it was trained, or it was trained on another base.
        InputError: If `out` is there, cannot be written or lacks space, or the form cannot hold this adapter.
        ConversionError: If llama.cpp's converter in the folder that was named fails.
    """
    adapter_id = choose_adapter(run, name)
    source, record = run.adapter(adapter_id), own_adapter(config, run, adapter_id)
    if record.use_dora and form == "gguf":
        what = f"{adapter_id} is DoRA, and an adapter in GGUF holds LoRA pairs alone"
        raise InputError(what, where="--to", fix="Export it with --to merged, and convert that with llama.cpp")
    is_merged, size = form == "merged", sum(path.stat().st_size for path in source.iterdir())
    base = base_folder(config.model) if form in ("merged", "gguf") else None
    converter = find_converter(llama_cpp) if form == "gguf" else None
    if base is not None and is_merged:
        size = bytes_of_weights(base)
    elif base is not None and converter:
        size += 2 * bytes_of_weights(base)  # merged, and as GGUF
    with new_folder(out, needs_bytes=size) as folder:
        if base is None:
            shutil.copytree(source, folder, dirs_exist_ok=True)
        elif is_merged:
            write_merged(config.served_model, source, folder)
        else:
            write_gguf_folder(config, base, source, folder, converter, is_asked=llama_cpp is not None)
        if form != "gguf":
            engine = _engine_of(run, adapter_id, is_published=form == "hub")
            is_served = is_merged or not record.use_dora
            serve = as_served(config, record, engine, Path(), is_merged=is_merged) if is_served else None
            card = write_card(config, record, read_report(run), serve, is_merged=is_merged)
            (folder / README).write_text(card, encoding="utf-8")
    return adapter_id


def _engine_of(run: RunDir, adapter_id: str, *, is_published: bool) -> EngineRecord | None:
    """How the adapter was scored; where it is published, without the path of a base on this machine."""
    made = run.engine(adapter_id)
    if not made.is_file():
        return None
    record = parse_line(made.read_text(encoding="utf-8"), EngineRecord, where=str(made))
    return record.model_copy(update={"base": record.base and shown_name(record.base)}) if is_published else record
