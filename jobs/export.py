"""Take an adapter out of the run: `python -m jobs.export --config FILE --to FORM --out DIR [--adapter ID]`."""

import sys
from argparse import ArgumentParser
from pathlib import Path

from jobs._main import run_job
from jobs.verify import say_verified
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE
from orchestrator.core.progress import doing, say
from orchestrator.run.paths import RunDir

NOT_ASKED = ("gguf",)
"""Forms that nothing here can run."""


def export(config: RunConfig, run: RunDir, *, to: str, out: str, adapter: str, cases: int) -> int:
    """Write the export, and have it answer `cases` of the run's cases; the exit code is that of `verify`."""
    from evals.export.export import export_adapter

    place = Path(out).absolute()
    with doing(f"writing {place}"):
        adapter_id = export_adapter(config, run, adapter, to, place)  # type: ignore[arg-type]  # the parser checked it
    say(f"{adapter_id} is in {place}.")
    if cases == 0 or to in NOT_ASKED or not run.generations(adapter_id).is_file():
        say("It was not asked anything, so nothing shows that it replies as it was scored.")
        return DONE
    return say_verified(config, run, place, adapter_id, num_cases=cases)


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--to", choices=("adapter", "merged", "gguf"), required=True)
    parser.add_argument("--out", required=True, metavar="DIR", help="the new folder")
    parser.add_argument("--adapter", default="winner", metavar="ID", help="which one; the report's winner by default")
    parser.add_argument("--cases", type=int, default=50, metavar="N", help="held-out cases that it is asked (50)")


if __name__ == "__main__":
    sys.exit(run_job("export", export, add_options=_add_options))
