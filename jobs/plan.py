"""What a configuration needs before it is paid for: `python -m jobs.plan --config FILE [--device NAME] [--json]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs._main import Scene, run_job
from jobs._plan import job_of
from jobs.check import as_far_as_it_can
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE
from orchestrator.core.progress import doing
from orchestrator.run.folder import check_dir
from orchestrator.run.paths import RunDir


def plan(config: RunConfig, folder: RunDir, *, device: Sequence[str] = (), as_json: bool = False) -> int:
    """Prepare the data as `check` does, and show what training and evaluation need on each device."""
    from evals.check.check import token_cards
    from evals.check.of_cases import suite_cases
    from orchestrator.plan.devices import named_device, this_machine
    from orchestrator.plan.forecast import Forecast, amounts_of, forecast_on, with_times
    from orchestrator.plan.show import show_forecast
    from orchestrator.run.cluster import local_capacity

    devices = [named_device(name) for name in device] or [this_machine()]
    with doing("preparing the data"):
        cards = token_cards(config, folder, base_dir=Path.cwd())
    job, capacity = job_of(config, cards), local_capacity()
    held_out = len(folder.split("test").read_text(encoding="utf-8").splitlines())
    cases = min(held_out, config.eval.max_cases or held_out) + len(suite_cases(config)[0])
    found = [with_times(job, forecast_on(job, each, cpus=capacity["CPU"]), each, cases=cases) for each in devices]
    time_from = "Times are from the rate that the device states, or from a CPU's products, and may be off by half."
    forecast = Forecast(
        name=config.name, base=config.model.base, amounts=amounts_of(job), devices=tuple(found), time_from=time_from
    )
    if as_json:
        sys.stdout.write(forecast.model_dump_json(indent=2) + "\n")
    else:
        show_forecast(forecast)
    return DONE


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", action="append", default=[], metavar="NAME", help="such as H100 or cpu:64")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print the plan as JSON")


if __name__ == "__main__":
    sys.exit(run_job("plan", plan, add_options=_add_options, scene=Scene(as_far_as_it_can, check_dir, check_dir)))
