"""The plan of a configuration on this machine, in a few lines, before anything trains."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import ConfigError
from orchestrator.core.progress import say
from orchestrator.run.paths import RunDir, SplitName

if TYPE_CHECKING:
    from orchestrator.data.card import TokenCard
    from orchestrator.plan.forecast import DeviceForecast, Job


def job_of(config: RunConfig, cards: Mapping[SplitName, "TokenCard"]) -> "Job":
    """A configuration with its base's sizes and its tokens."""
    from orchestrator.models.base import base_folder, empty_base
    from orchestrator.plan.forecast import Job
    from orchestrator.plan.shapes import base_shape

    base = empty_base(base_folder(config.model), trust_remote_code=config.model.trust_remote_code)
    return Job(config, base_shape(base, config.lora), cards["train"], cards.get("val"))


def one_training(config: RunConfig) -> RunConfig:
    """A search that is what `train` does: one adapter of the configuration's rank, trained by itself."""
    space = config.search.space.model_copy(update={"r": (config.lora.r,)})
    search = config.search.model_copy(update={"runner": "isolated", "num_trials": 1, "space": space})
    return config.model_copy(update={"search": search})


def require_room(config: RunConfig, run: RunDir) -> None:
    """Say the plan of a run whose data is tokenised.

    Raises:
        ConfigError: If training certainly does not fit this machine.
    """
    from orchestrator.data.tokens.store import tokenize_run
    from orchestrator.plan.memory import gib

    found = say_plan(config, tokenize_run(config, run))
    if found is not None and found.certain:
        what = f"training takes {gib(found.low)} at the least, and there are {gib(found.room)} for it on {found.device}"
        fix = f"Set {found.change}" if found.change else "Use a smaller base or a device with more memory"
        raise ConfigError(what, where="the plan", fix=fix)


def say_plan(config: RunConfig, cards: Mapping[SplitName, "TokenCard"]) -> "DeviceForecast | None":
    """Say in two or three lines whether training fits this machine; nothing where a running cluster is joined."""
    from orchestrator.plan.devices import this_machine
    from orchestrator.plan.forecast import amounts_of, forecast_on
    from orchestrator.plan.show import plan_lines
    from orchestrator.run.cluster import cluster_address, local_capacity

    if cluster_address(config.resources):
        return None
    job = job_of(config, cards)
    found = forecast_on(job, this_machine(), cpus=local_capacity()["CPU"])
    for line in plan_lines(found, amounts_of(job)):
        say(line)
    return found
