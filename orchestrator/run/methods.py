"""What the methods of a configuration need of a machine, known before any data is read."""

from importlib.util import find_spec

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import ConfigError

BITSANDBYTES = "bitsandbytes"
"""The package, and on PyPI its name."""
OPTIMIZER, PAGED = "train.optimizer", "paged_adamw_8bit"


def require_methods(config: RunConfig) -> None:
    """Refuse a method that this machine cannot train with, unless a running cluster is joined, whose nodes may.

    Raises:
        ConfigError: Naming the setting, and what to install or change.
    """
    asked = settings_with_bitsandbytes(config)
    if not asked:
        return
    from orchestrator.run.cluster import cluster_address

    if cluster_address(config.resources) is not None:
        return
    key, value, plain = asked[0]
    if not has_bitsandbytes():
        what = f"{value} needs the package {BITSANDBYTES}, which is not installed"
        raise ConfigError(what, where=key, fix=f"pip install {BITSANDBYTES}, or set it to {plain}")
    if config.train.optimizer == PAGED and not _has_gpu(config):
        what = f"{PAGED} moves memory between a GPU and the machine, and training has no GPU here"
        raise ConfigError(what, where=OPTIMIZER, fix="Set it to adamw_8bit or adamw")


def _has_gpu(config: RunConfig) -> bool:
    from orchestrator.run.cluster import local_capacity

    return config.resources.gpus_per_worker != 0 and local_capacity()["GPU"] > 0


def settings_with_bitsandbytes(config: RunConfig) -> list[tuple[str, str, str]]:
    """The settings that need bitsandbytes, as key, value, and the value that does not."""
    asked = [
        ("model.quantization", config.model.quantization, "none"),
        (OPTIMIZER, config.train.optimizer, "adamw"),
    ]
    return [(key, value, plain) for key, value, plain in asked if value != plain]


def has_bitsandbytes() -> bool:
    """Whether the package is installed here. Does not import it."""
    return find_spec(BITSANDBYTES) is not None
