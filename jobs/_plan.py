"""The plan of a configuration on this machine, in a few lines, before anything trains."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import ConfigError
from orchestrator.core.progress import say
from orchestrator.run.paths import SplitName

if TYPE_CHECKING:
    from orchestrator.data.card import TokenCard
    from orchestrator.plan.forecast import Job


def job_of(config: RunConfig, cards: Mapping[SplitName, "TokenCard"]) -> "Job":
    """A configuration with its base's sizes and its tokens."""
    from orchestrator.models.base import base_folder, empty_base
    from orchestrator.plan.forecast import Job
    from orchestrator.plan.shapes import base_shape

    base = empty_base(base_folder(config.model), trust_remote_code=config.model.trust_remote_code)
    return Job(config, base_shape(base, config.lora), cards["train"], cards.get("val"))


def say_plan(config: RunConfig, cards: Mapping[SplitName, "TokenCard"], *, refuses: bool) -> None:
    """Say in two or three lines whether training fits this machine; nothing where a running cluster is joined.

    Raises:
        ConfigError: With `refuses`, if it certainly does not.
    """
    from orchestrator.plan.devices import this_machine
    from orchestrator.plan.forecast import amounts_of, forecast_on
    from orchestrator.plan.memory import gib
    from orchestrator.plan.show import plan_lines
    from orchestrator.run.cluster import cluster_address, local_capacity

    if cluster_address(config.resources):
        return
    job, device = job_of(config, cards), this_machine()
    found = forecast_on(job, device, cpus=local_capacity()["CPU"])
    if refuses and found.certain:
        what = f"training takes {gib(found.low)} at the least and there are {gib(found.room)} for it on {device.name}"
        raise ConfigError(what, where="orchestrator plan", fix=f"Set {found.change}" if found.change else None)
    for line in plan_lines(found, amounts_of(job)):
        say(line)
