"""An adapter of a run as something that works without the run."""

import shutil
from pathlib import Path

from evals.export.card import README, write_card
from evals.export.folder import Form, new_folder
from evals.export.gguf import write_gguf
from evals.export.merged import bytes_of_weights, write_merged
from evals.generate.as_served import as_served
from evals.generate.chosen import choose_adapter, read_report, require_own_base
from evals.records import EngineRecord
from orchestrator.config.schema import RunConfig
from orchestrator.core.files import parse_line
from orchestrator.models.adapters import read_adapter
from orchestrator.models.base import base_folder
from orchestrator.run.paths import RunDir


def export_adapter(config: RunConfig, run: RunDir, name: str, form: Form, out: Path) -> str:
    """Write the adapter called `name` (or `winner`) into the new folder `out`; returns its id.

    Raises:
        RunConflictError: If the run has no such adapter.
        AdapterError: If its files changed since it was trained, or it was trained on another base.
        InputError: If `out` is there, cannot be written or lacks space, or the form cannot hold this adapter.
    """
    adapter_id = choose_adapter(run, name)
    source = run.adapter(adapter_id)
    record = read_adapter(source)
    require_own_base(record, source, config)
    base, is_merged = base_folder(config.model), form == "merged"
    size = bytes_of_weights(base) if is_merged else sum(path.stat().st_size for path in source.iterdir())
    with new_folder(out, needs_bytes=size) as folder:
        if is_merged:
            write_merged(base, source, folder)
        elif form == "gguf":
            write_gguf(base, source, folder)
        else:
            shutil.copytree(source, folder, dirs_exist_ok=True)
        if form != "gguf":
            engine = _engine_of(run, adapter_id)
            serve = as_served(config, record, engine, Path(), is_merged=is_merged)
            card = write_card(config, record, read_report(run), serve, is_merged=is_merged)
            (folder / README).write_text(card, encoding="utf-8")
    return adapter_id


def _engine_of(run: RunDir, adapter_id: str) -> EngineRecord | None:
    made = run.engine(adapter_id)
    return parse_line(made.read_text(encoding="utf-8"), EngineRecord, where=str(made)) if made.is_file() else None
