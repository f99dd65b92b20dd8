"""The command that serves an adapter as it was evaluated."""

import shlex
from pathlib import Path

from evals.records import EngineRecord
from orchestrator.chat.serve_command import SERVED_MERGED, Scored, ServeCommand, serve_command
from orchestrator.config.schema import RunConfig
from orchestrator.core.records import AdapterRecord


def as_served(
    config: RunConfig, record: AdapterRecord, engine: EngineRecord | None, folder: Path, *, is_merged: bool = False
) -> ServeCommand | None:
    """How to serve what is in `folder`, the adapter or the merged model; None where nothing tells how it was scored."""
    if engine is None or engine.base is None or engine.reply_format is None:
        return None
    on_cpu, temperature = engine.device == "cpu", config.eval.temperature
    scored = Scored(
        engine.base,
        engine.reply_format,
        on_cpu,
        engine.dtype,
        temperature,
        config.data.thinking,
        base_weights=engine.base_weights,
        tensor_parallel=config.eval.tensor_parallel,
    )
    if record.use_dora and not is_merged:
        return _merged_first(record, scored, folder)
    rank = None if is_merged else record.r
    return serve_command(record.id, folder, rank, scored, content_format=record.content_format)


def _merged_first(record: AdapterRecord, scored: Scored, folder: Path) -> ServeCommand:
    """How to serve a DoRA adapter in its run's `adapters/`, which vLLM takes merged alone."""
    merged = Path(f"{record.id}-merged")
    made = serve_command(record.id, merged, None, scored, content_format=record.content_format)
    export = ["orchestrator", "export", str(folder.parent.parent), "--adapter", record.id, "--to", "merged"]
    command = f"{shlex.join([*export, '--out', str(merged)])} && {made.command}"
    return made.model_copy(update={"command": command, "note": " ".join(filter(None, [SERVED_MERGED, made.note]))})
