"""What trials are called, and the one key of their configuration. Light: every trial's process imports it."""

HYPERPARAMETERS = "hyperparameters"
"""The one key of every trial's config; its value holds r, alpha and learning_rate."""


def trial_name(trial_id: str) -> str:
    """The name of a trial's folder: its id in Tune, which stays the same over restarts."""
    return trial_id.replace("_", "-")


def tune_id(name: str) -> str:
    """The id in Tune of the trial with this name; Tune's own ids have no dash."""
    return name.replace("-", "_")
