"""The trackers that a configuration can name. To add one outside, write its `Destination` and give it a row here."""

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType

from orchestrator.config.schema import TrackerName
from orchestrator.core.errors import InputError
from orchestrator.tracking.events import Destination, Run

IN_PROCESS: TrackerName = "tensorboard"
"""The one that writes files and nothing else, so that it needs no process of its own."""
OUTSIDE = MappingProxyType(
    {
        "mlflow": ("orchestrator.tracking.mlflow", "MLflow"),
        "trackio": ("orchestrator.tracking.trackio", "Trackio"),
        "wandb": ("orchestrator.tracking.wandb", "WeightsAndBiases"),
    }
)
"""Module and class, by name; the package and the extra that installs it have that name too."""


def require_installed(names: Iterable[TrackerName]) -> None:
    """Refuse a tracker whose package is not here.

    Raises:
        InputError: If there is one.
    """
    for name in names:
        if name in OUTSIDE and find_spec(name) is None:
            raise InputError(
                f"the package {name} is not installed",
                where="tracking",
                fix=f"pip install {name}, or leave {name} out",
            )


def connect(name: str, run: Run) -> Destination:
    """The client of an outside tracker; importing its package takes seconds."""
    module, cls = OUTSIDE[name]
    destination: Destination = getattr(import_module(module), cls)(run)
    return destination
