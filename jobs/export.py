"""Take an adapter out of the run: `python -m jobs.export --config FILE --to FORM --out DIR [--adapter ID]`."""

import sys
from argparse import ArgumentParser
from pathlib import Path

from evals.export.folder import FORMS, Form
from jobs._main import READ, run_job
from jobs.verify import add_question_options, say_verified
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE
from orchestrator.core.progress import doing, say
from orchestrator.run.paths import RunDir

NOT_ASKED = ("gguf",)
"""Forms that nothing here can run."""


def export(config: RunConfig, run: RunDir, *, to: Form, out: str, adapter: str, cases: int) -> int:
    """Write the export, and have it answer `cases` of the run's cases; the exit code is that of `verify`."""
    from evals.export.export import export_adapter

    place = Path(out).absolute()
    with doing(f"writing {place}"):
        adapter_id = export_adapter(config, run, adapter, to, place)
    say(f"{adapter_id} is in {place}.")
    if cases == 0 or to in NOT_ASKED or not run.generations(adapter_id).is_file():
        say("It was not asked anything, so nothing shows that it replies as it was scored.")
        return DONE
    return say_verified(config, run, place, adapter_id, num_cases=cases)


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--to", choices=FORMS, required=True)
    parser.add_argument("--out", required=True, metavar="DIR", help="the new folder")
    add_question_options(parser)


if __name__ == "__main__":
    sys.exit(run_job("export", export, add_options=_add_options, scene=READ))
