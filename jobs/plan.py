"""What a configuration needs before it is paid for: `python -m jobs.plan --config FILE [--device NAME] [--json]`."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

from jobs._main import Scene, run_job
from jobs._plan import asked_cases, job_of, preferences_of, show_plan, with_answers, with_probe
from jobs.check import as_far_as_it_can
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE
from orchestrator.core.progress import doing, say, signs_of_life
from orchestrator.run.folder import check_dir
from orchestrator.run.paths import RunDir


def plan(
    config: RunConfig, folder: RunDir, *, device: Sequence[str] = (), as_json: bool = False, no_probe: bool = False
) -> int:
    """Prepare the data as `check` does, and show what training and evaluation need on each device."""
    from evals.check.check import token_cards
    from orchestrator.plan.devices import named_device, this_machine
    from orchestrator.plan.forecast import Forecast, amounts_of, forecast_on, with_times
    from orchestrator.run.cluster import local_capacity
    from orchestrator.run.methods import method_lines, require_methods

    if not device:
        require_methods(config)
    devices = [named_device(name) for name in device] or [this_machine()]
    with redirect_stdout(sys.stderr) if as_json else nullcontext(), signs_of_life("plan"):
        with doing("preparing the data"):
            cards = token_cards(config, folder, base_dir=Path.cwd())
        job, capacity = job_of(config, cards), local_capacity()
        found = [forecast_on(job, each, cpus=capacity["CPU"]) for each in devices]
        if not no_probe:
            found = [with_probe(job, its, each, folder) for its, each in zip(found, devices, strict=True)]
            found = [with_answers(config, its, each, folder) for its, each in zip(found, devices, strict=True)]
        cases = asked_cases(config, folder)
    found = [with_times(job, its, each, cases=cases) for its, each in zip(found, devices, strict=True)]
    forecast = Forecast(name=config.name, base=config.model.base, amounts=amounts_of(job), devices=tuple(found))
    show_plan(forecast, preferences_of(config, job, devices, folder), as_json=as_json)
    for line in () if as_json else method_lines(config):
        say(line)
    return DONE


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", action="append", default=[], metavar="NAME", help="such as H100 or cpu:64")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print the plan as JSON")
    parser.add_argument("--no-probe", action="store_true", help="take times from a stated rate, not from a few steps")


if __name__ == "__main__":
    sys.exit(run_job("plan", plan, add_options=_add_options, scene=Scene(as_far_as_it_can, check_dir, check_dir)))
