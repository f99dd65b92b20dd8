"""What trials are called, and the one key of their configuration. Light: every trial's process imports it."""

from collections.abc import Mapping

from orchestrator.core.files import digest_of

HYPERPARAMETERS = "hyperparameters"
"""The one key of every trial's config; its value holds r, alpha and learning_rate."""


def trial_name(trial_id: str) -> str:
    """What a trial is called: its id in Tune, which stays the same over restarts."""
    return trial_id.replace("_", "-")


def name_of_folder(folder: str) -> str:
    """The name of the trial that has this folder in Tune's experiment.

    Tune adds `_` and four digits where the folder is there already, made by a driver that died before it told anyone.
    """
    return folder.partition("_")[0]


def storage_name(name: str, hyperparameters: Mapping[str, float]) -> str:
    """Under which a trial keeps its checkpoints.

    A restored search may give the id of a trial that was lost with the driver to another one, which must not go on from
    the first one's checkpoints, unless it is the same.
    """
    return f"{name}.{digest_of(dict(hyperparameters))[:6]}"


def storage_of_trial(trial_id: str, hyperparameters: Mapping[str, float]) -> str:
    """Under which the trial with this id in Tune keeps its checkpoints."""
    return storage_name(trial_name(trial_id), hyperparameters)


def name_of_storage(storage: str) -> str:
    """The name of the trial that keeps its checkpoints under this name."""
    return storage.partition(".")[0]


def tune_id(name: str) -> str:
    """The id in Tune of the trial with this name; Tune's own ids have no dash."""
    return name.replace("-", "_")
