"""Names of trials, and the one key of their configuration. Light: every trial's process imports it."""

from collections.abc import Mapping

from orchestrator.core.files import digest_of

HYPERPARAMETERS = "hyperparameters"
"""The one key of every trial's config; its value holds r, alpha and learning_rate."""


def trial_name(trial_id: str) -> str:
    """A trial's name: its id in Tune, which survives restarts, with dashes."""
    return trial_id.replace("_", "-")


def tune_id(name: str) -> str:
    """The id in Tune of the trial with this name; Tune's own ids have no dash."""
    return name.replace("-", "_")


def name_of_folder(folder: str) -> str:
    """The name of the trial that has this folder in Tune's experiment.

    Tune adds `_` and four digits if the folder exists, left by a driver that died before it recorded the trial.
    """
    return folder.partition("_")[0]


def storage_name(name: str, hyperparameters: Mapping[str, float]) -> str:
    """The name under which a trial keeps its checkpoints.

    A restored search may give the id of a trial that was lost with the driver to another trial, which must not resume
    from the lost one's checkpoints unless its hyperparameters are the same.
    """
    return f"{name}.{digest_of(dict(hyperparameters))[:6]}"


def name_of_storage(storage: str) -> str:
    """The name of the trial that keeps its checkpoints under this name."""
    return storage.partition(".")[0]
