"""An adapter of a run as it was trained: its record, if its files and its base are those of the run."""

from evals.generate.chosen import require_own_base
from orchestrator.config.schema import RunConfig
from orchestrator.core.records import AdapterRecord
from orchestrator.models.adapters import read_adapter
from orchestrator.run.paths import RunDir


def own_adapter(config: RunConfig, run: RunDir, adapter_id: str) -> AdapterRecord:
    """The record of an adapter of the run.

    Raises:
        AdapterError: If its files changed since it was trained, or it was trained on another base.
    """
    record = read_adapter(run.adapter(adapter_id))
    require_own_base(record, run.adapter(adapter_id), config)
    return record
