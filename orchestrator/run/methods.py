"""What the methods of a configuration need of a machine, known before any data is read."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import NamedTuple

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import ConfigError
from orchestrator.core.text import counted

BITSANDBYTES = "bitsandbytes"
"""The package, and on PyPI its name."""
LIGER, FLASH_ATTENTION = "liger_kernel", "flash_attn"
"""Modules."""
TENSOR_PARALLEL = "eval.tensor_parallel"


class Method(NamedTuple):
    """A value of a setting that not every machine can train with.

    `package` is a module that must be installed, None for none; `install` its name on PyPI, where that is another.
    `on_gpu` says what it does on a GPU, None where it needs none. `plain` are the values that need nothing of it.
    """

    key: str
    value: str
    plain: str
    package: str | None = None
    install: str | None = None
    on_gpu: str | None = None

    @property
    def needs(self) -> str:
        """The package, and a GPU if it does."""
        parts = [f"the package {self.install or self.package}"] if self.package else []
        return " and ".join([*parts, *(["a GPU"] if self.on_gpu else [])])

    def is_asked(self, config: RunConfig) -> bool:
        """Whether the configuration says so."""
        section, _, name = self.key.partition(".")
        return bool(getattr(getattr(config, section), name) == self.value)

    def lacks(self, *, has_gpu: bool) -> tuple[str, str] | None:
        """What this machine lacks for it, and how to mend that; None if it has all."""
        if self.package is not None and not has_package(self.package):
            pip = self.install or self.package
            what = f"{self.value} needs the package {pip}, which is not installed"
            return what, f"pip install {pip}, or set it to {self.plain}"
        if self.on_gpu is not None and not has_gpu:
            return f"{self.value} {self.on_gpu}, and training has no GPU here", f"Set it to {self.plain}"
        return None


METHODS = (
    Method("search.searcher", "cmaes", "optuna", "cmaes"),
    Method("model.quantization", "nf4", "none", BITSANDBYTES),
    Method("model.quantization", "int8", "none", BITSANDBYTES),
    Method("train.optimizer", "adamw_8bit", "adamw", BITSANDBYTES),
    Method(
        "train.optimizer",
        "paged_adamw_8bit",
        "adamw_8bit or adamw",
        BITSANDBYTES,
        on_gpu="moves memory between a GPU and the machine",
    ),
    Method("train.kernels", "liger", "none", LIGER, "liger-kernel", on_gpu="runs Triton kernels"),
    Method("train.backend", "unsloth", "trl", "unsloth", on_gpu="trains on a GPU alone"),
)


def require_methods(config: RunConfig) -> None:
    """Refuse a method that this machine cannot train or score with, unless a running cluster is joined.

    What the nodes of a running cluster have is not known here.

    Raises:
        ConfigError: Naming the setting, and what to install or change.
    """
    asked = [method for method in METHODS if method.is_asked(config)]
    if not asked and config.train.sharding == "none" and config.eval.tensor_parallel == 1:
        return
    from orchestrator.run.cluster import cluster_address, local_capacity

    if cluster_address(config.resources) is not None:
        return
    gpus = local_capacity()["GPU"]
    has_gpu = config.resources.gpus_per_worker != 0 and gpus > 0
    for method in asked:
        if lacking := method.lacks(has_gpu=has_gpu):
            raise ConfigError(lacking[0], where=method.key, fix=lacking[1])
    if config.train.sharding != "none" and config.model.dtype == "float16" and not has_gpu:
        what = f"{config.train.sharding} scales no loss on processors, which float16 needs"
        raise ConfigError(what, where="train.sharding", fix="Set model.dtype to bfloat16 or float32")
    require_engine_gpus(config.eval.tensor_parallel, {"GPU": gpus if has_gpu else 0}, "this machine")


def method_lines(config: RunConfig) -> list[str]:
    """What each method that a configuration names needs, and whether this machine has it."""
    from orchestrator.run.cluster import local_capacity

    here = local_capacity()
    gpus = int(here["GPU"])
    lines = []
    for method in METHODS:
        if method.is_asked(config):
            lacking = method.lacks(has_gpu=config.resources.gpus_per_worker != 0 and gpus > 0)
            there = f"not here: {lacking[0]}" if lacking else "here"
            lines.append(f"{method.key}: {method.value} needs {method.needs}; {there}.")
    if config.train.sharding != "none":
        devices, kind = (gpus, "GPU") if gpus else (int(here["CPU"]), "CPU")
        wanted = config.resources.num_workers
        lines.append(f"train.sharding: fsdp needs {wanted} workers; here {counted(devices, kind)}.")
    if config.eval.tensor_parallel > 1:
        lines.append(f"{TENSOR_PARALLEL}: needs {config.eval.tensor_parallel} GPUs on one node; here {gpus or 'none'}.")
    return lines


def packing_by(*, has_gpu: bool) -> str:
    """How `train.sample_packing` keeps rows that lie end to end apart here."""
    if has_gpu and has_package(FLASH_ATTENTION):
        return "attention of variable length (flash-attn)"
    return "a block mask"


def require_engine_gpus(wanted: int, node: Mapping[str, float] | None, whose: str) -> None:
    """Refuse an engine over more GPUs than one node has; a `node` of None may yet be added, and have any number.

    Raises:
        ConfigError: Naming both numbers.
    """
    found = wanted if node is None else int(node.get("GPU", 0))
    if wanted > 1 and found < wanted:
        what = f"an engine over {wanted} GPUs needs a node with as many, and {whose} has {found or 'none'}"
        raise ConfigError(what, where=TENSOR_PARALLEL, fix=f"Set it to {found}" if found > 1 else "Leave it out")


def has_package(name: str) -> bool:
    """Whether a module is installed here. Does not import it."""
    return find_spec(name) is not None


def has_bitsandbytes() -> bool:
    """Whether bases can be quantised here."""
    return has_package(BITSANDBYTES)
