"""The plan of a configuration on this machine, in a few lines, before anything trains."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import ConfigError, InputError, OrchestratorError, TrainingError
from orchestrator.core.progress import say, say_json
from orchestrator.run.folder import record_plan
from orchestrator.run.paths import RunDir, SplitName

if TYPE_CHECKING:
    from orchestrator.data.card import TokenCard
    from orchestrator.plan.devices import Device
    from orchestrator.plan.forecast import DeviceForecast, Forecast, Job
    from orchestrator.plan.preferences import PreferencesForecast
    from orchestrator.probe.measure import Probe


def job_of(config: RunConfig, cards: Mapping[SplitName, "TokenCard"]) -> "Job":
    """A configuration with its base's sizes and its tokens."""
    from orchestrator.models.base import base_folder, empty_base
    from orchestrator.plan.forecast import Job
    from orchestrator.plan.shapes import base_shape

    base = empty_base(base_folder(config.model), trust_remote_code=config.model.trust_remote_code)
    return Job(config, base_shape(base, config.lora), cards["train"], cards.get("val"))


def with_probe(job: "Job", forecast: "DeviceForecast", device: "Device", run: RunDir) -> "DeviceForecast":
    """The forecast with a few real steps, where it is for this machine; why there are none is told."""
    from orchestrator.plan.forecast import with_measured
    from orchestrator.probe.measure import measured

    probe = _probe(job, forecast, device, run)
    if probe is None:
        return forecast
    try:
        return with_measured(forecast, measured(probe))
    except TrainingError as error:
        say(f"Nothing is measured on {device.name}: {error.what}.")
        return forecast


def with_answers(config: RunConfig, forecast: "DeviceForecast", device: "Device", run: RunDir) -> "DeviceForecast":
    """The forecast with a few real replies, where it is for this machine; why there are none is told."""
    from evals.evaluate.pace import Pace, measured_replies
    from orchestrator.plan.forecast import with_replies
    from orchestrator.probe.measure import is_here

    if not is_here(device):
        return forecast
    try:
        replies = measured_replies(Pace(config, run, device.is_gpu), forecast.serving)
    except OrchestratorError as error:
        say(f"No replies are measured on {device.name}: {error.what}.")
        return forecast
    return forecast if replies is None else with_replies(forecast, replies)


def asked_cases(config: RunConfig, run: RunDir) -> int:
    """Cases that an evaluation would ask; none where they cannot be read, which a check tells."""
    from evals.evaluate.fanout import collect_cases

    try:
        return len(collect_cases(config, run))
    except InputError:
        return 0


def with_kept_probe(job: "Job", forecast: "DeviceForecast", device: "Device", run: RunDir) -> "DeviceForecast":
    """The forecast with its times, from the steps and replies that an earlier plan measured where there are any."""
    from evals.evaluate.pace import Pace, kept_replies
    from orchestrator.plan.forecast import with_measured, with_replies, with_times
    from orchestrator.probe.measure import kept

    probe = _probe(job, forecast, device, run)
    if probe is not None and (steps := kept(probe)) is not None:
        forecast = with_measured(forecast, steps)
    if (replies := kept_replies(Pace(job.config, run, device.is_gpu))) is not None:
        forecast = with_replies(forecast, replies)
    return with_times(job, forecast, device, cases=0)


def _probe(job: "Job", forecast: "DeviceForecast", device: "Device", run: RunDir) -> "Probe | None":
    from orchestrator.data.tokens.store import tokens_folder
    from orchestrator.probe.measure import probe_of

    if job.val is None:
        return None
    return probe_of(job, forecast, device, [tokens_folder(run, "train"), tokens_folder(run, "val")])


def one_training(config: RunConfig) -> RunConfig:
    """A search that is what `train` does: one adapter of the configuration's rank, trained by itself."""
    space = config.search.space.model_copy(update={"r": (config.lora.r,)})
    search = config.search.model_copy(update={"runner": "isolated", "num_trials": 1, "space": space})
    return config.model_copy(update={"search": search})


def require_room(config: RunConfig, run: RunDir) -> None:
    """Say the plan of a run whose data is tokenised, and keep it to hold the run against.

    Raises:
        ConfigError: If training certainly does not fit this machine.
    """
    from orchestrator.data.tokens.store import tokenize_run
    from orchestrator.plan.forecast import amounts_of, planned_run
    from orchestrator.plan.memory import gib

    cards = tokenize_run(config, run)
    found = say_plan(config, cards, run)
    if "prefer" in config.stages:
        say_preferences(config, cards, run)
    record_plan(run, None if found is None else planned_run(found, amounts_of(job_of(config, cards))))
    if found is not None and found.certain:
        what = f"training takes {gib(found.low)} at the least, and there are {gib(found.room)} for it on {found.device}"
        fix = f"Set {found.change}" if found.change else "Use a smaller base or a device with more memory"
        raise ConfigError(what, where="the plan", fix=fix)


def preferences_of(config: RunConfig, job: "Job", devices: "list[Device]", run: RunDir) -> "PreferencesForecast | None":
    """What learning preferences needs on the run's prepared data; None where the configuration does not speak of it.

    Raises:
        DataError: If a file of pairs cannot be read.
    """
    from orchestrator.data.preferences.known import known_pairs
    from orchestrator.plan.preferences import forecast_preferences, wants_preferences

    if not wants_preferences(config):
        return None
    return forecast_preferences(job, known_pairs(config, run, Path.cwd()), devices)


def show_plan(forecast: "Forecast", preferences: "PreferencesForecast | None", *, as_json: bool) -> None:
    """Print a plan, as JSON or for a person."""
    from orchestrator.plan.preferences import preference_sentences
    from orchestrator.plan.show import show_forecast

    if as_json:
        of_pairs = {} if preferences is None else {"preferences": preferences.model_dump(mode="json")}
        say_json(json.dumps(forecast.model_dump(mode="json") | of_pairs, indent=2))
        return
    show_forecast(forecast)
    for sentence in preference_sentences(preferences) if preferences else ():
        say(sentence)


def say_preferences(config: RunConfig, cards: Mapping[SplitName, "TokenCard"], run: RunDir) -> None:
    """Say in a few lines what learning preferences needs on this machine, where the configuration speaks of it."""
    from orchestrator.plan.devices import this_machine
    from orchestrator.plan.preferences import preference_sentences
    from orchestrator.run.cluster import cluster_address

    devices = [] if cluster_address(config.resources) else [this_machine()]
    found = preferences_of(config, job_of(config, cards), devices, run)
    for line in preference_sentences(found) if found else ():
        say(line)


def say_plan(config: RunConfig, cards: Mapping[SplitName, "TokenCard"], run: RunDir) -> "DeviceForecast | None":
    """Say in a few lines whether training fits this machine; nothing where a running cluster is joined."""
    from orchestrator.plan.devices import this_machine
    from orchestrator.plan.forecast import amounts_of, forecast_on
    from orchestrator.plan.show import plan_lines
    from orchestrator.run.cluster import cluster_address, local_capacity

    if cluster_address(config.resources):
        return None
    job, device = job_of(config, cards), this_machine()
    found = with_kept_probe(job, forecast_on(job, device, cpus=local_capacity()["CPU"]), device, run)
    for line in plan_lines(found, amounts_of(job)):
        say(line)
    return found
