"""Which adapter learns preferences."""

from evals.generate.chosen import WINNER, choose_adapter, require_own_base
from evals.stats.selected import read_selection
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import AdapterError, ConfigError, RunConflictError
from orchestrator.core.records import AdapterRecord
from orchestrator.models.adapters import read_adapter
from orchestrator.run.paths import RunDir


def adapter_to_prefer(config: RunConfig, run: RunDir, name: str | None) -> AdapterRecord:
    """The adapter called `name`, where `winner` is what the report recommends; without one, the first of the search.

    That is the one of lowest eval loss, unless the search has another objective. No held-out case has a say in it.
    What was made by preferences stands for what it was made from, so that the same command names the same adapter
    before and after.

    Raises:
        RunConflictError: If the run has no such adapter, or nothing says which one is best.
        AdapterError: If its files changed, or it was trained on another base, or is DoRA.
        ConfigError: If the configuration splits the base among workers.
    """
    records = [read_adapter(path) for path in sorted(run.root.glob("adapters/[!.]*"))]
    trained = [record for record in records if record.pairs is None]
    if not trained:
        raise RunConflictError("the run has no adapter", where=str(run.root), fix="Run search or train first")
    if name is None or (name == WINNER and len(trained) == 1):
        selection = read_selection(run)
        taken = selection.kept[:1] if selection else ()
        found = min(trained, key=lambda record: (record.id not in taken, record.known_eval_loss, record.id))
    else:
        found = read_adapter(run.adapter(choose_adapter(run, name)))
        if found.pairs is not None:
            found = read_adapter(run.adapter(choose_adapter(run, str(found.init_from))))
    require_own_base(found, run.adapter(found.id), config)
    if found.use_dora:
        fix = "Name an adapter without, with --adapter"
        raise AdapterError("preferences go on from plain LoRA, and it is DoRA", where=found.id, fix=fix)
    if config.train.sharding != "none":
        fix = "Set it to none for this command"
        raise ConfigError("preferences are trained on a base that is not split", where="train.sharding", fix=fix)
    return found
