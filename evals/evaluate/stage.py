"""What the evaluation of a run is made from and what it leaves, for the run's ledger."""

from pathlib import Path

from evals.cases.suites import suite_files
from orchestrator.config.schema import RunConfig
from orchestrator.core.files import digest_of
from orchestrator.core.records import BASE_ADAPTER_ID
from orchestrator.run.paths import RunDir


def adapter_folders(run: RunDir) -> list[Path]:
    """Folders of the adapters that a run kept."""
    return sorted(run.root.glob("adapters/[!.]*"))


def stage_digest(config: RunConfig, run: RunDir) -> str:
    """Digest of the held-out part, the suites, the adapters' files, and the settings."""
    files = [path for folder in adapter_folders(run) for path in sorted(folder.iterdir())]
    files += suite_files(config.eval.suites)
    return digest_of(run.split("test"), *files, config.eval, config.model)


def stage_outputs(run: RunDir) -> list[Path]:
    """Files that a finished evaluation has."""
    ids = (BASE_ADAPTER_ID, *(folder.name for folder in adapter_folders(run)))
    return [run.cases, *(path for id_ in ids for path in (run.scores(id_), run.generations(id_)))]
