"""Who replies: the base, and adapters of the run."""

from collections.abc import Sequence
from typing import NamedTuple

from evals.generate.chosen import WINNER, choose_adapter, require_own_base
from evals.generate.engine import Adapter, adapters_for_engine
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import RunConflictError
from orchestrator.core.records import BASE_ADAPTER_ID, AdapterRecord
from orchestrator.models.adapters import read_adapter
from orchestrator.run.paths import RunDir


class Speaker(NamedTuple):
    """The base (`adapter` None) or an adapter; `note` says what it is, `rank` is None for the base."""

    name: str
    adapter: Adapter | None
    rank: int | None
    note: str
    use_dora: bool = False


def find_speakers(config: RunConfig, run: RunDir, names: Sequence[str]) -> list[Speaker]:
    """Those that are named, each once; without names the base and the winner.

    Raises:
        RunConflictError: If the run has no such adapter, or nothing says which is the winner.
        AdapterError: If an adapter's files changed, or it was trained on another base.
    """
    if not names and not any(run.root.glob("adapters/[!.]*")):
        fix = "Run search or train first, or ask the base alone with --adapter base"
        raise RunConflictError("the run has no adapter", where=str(run.root), fix=fix)
    wanted = names or (BASE_ADAPTER_ID, WINNER)
    ids = list(dict.fromkeys(name if name == BASE_ADAPTER_ID else choose_adapter(run, name) for name in wanted))
    records = {id_: read_adapter(run.adapter(id_)) for id_ in ids if id_ != BASE_ADAPTER_ID}
    for id_, record in records.items():
        require_own_base(record, run.adapter(id_), config)
    served = adapters_for_engine({id_: (run.adapter(id_), record.sha256) for id_, record in records.items()})
    adapters = {adapter.id: adapter for adapter in served}
    return [
        _speaker(adapters[id_], records[id_]) if id_ in adapters else Speaker(id_, None, None, config.model.base)
        for id_ in ids
    ]


def _speaker(adapter: Adapter, record: AdapterRecord) -> Speaker:
    note = f"rank {record.r}, alpha {record.alpha:g}{', DoRA' if record.use_dora else ''}"
    return Speaker(adapter.id, adapter, record.r, note, record.use_dora)
