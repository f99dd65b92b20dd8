"""Take an adapter out of the run: `python -m jobs.export --config FILE --to FORM --out DIR [--adapter ID]`.

With `--to hub --repo OWNER/NAME` it says what it would upload, and asks before it does, unless it is given `--yes`.
"""

import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, NamedTuple

from evals.export.folder import FORMS, Form
from jobs._main import READ, run_job
from jobs.verify import add_question_options, say_verified
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE, InputError
from orchestrator.core.progress import doing, say
from orchestrator.run.paths import RunDir

NOT_ASKED = ("gguf",)
"""Forms that nothing here can run."""


def export(config: RunConfig, run: RunDir, *, to: Form, out: str | None, adapter: str, cases: int, **hub: Any) -> int:
    """Write the export, and have it answer `cases` of the run's cases; the exit code is that of `verify`."""
    if to == "hub":
        return to_hub(config, run, adapter, OfHub(**hub), cases=cases)
    if out is None:
        raise InputError("no folder is named", where="--out", fix="Add --out DIR")
    return write(config, run, adapter, to, Path(out).absolute(), cases=cases)


def write(config: RunConfig, run: RunDir, adapter: str, to: Form, place: Path, *, cases: int) -> int:
    """Write the export into the folder `place`; the exit code is that of `verify`."""
    from evals.export.export import export_adapter

    with doing(f"writing {place}"):
        adapter_id = export_adapter(config, run, adapter, to, place)
    say(f"{adapter_id} is in {place}.")
    if cases == 0 or to in NOT_ASKED or not run.generations(adapter_id).is_file():
        say("It was not asked anything, so nothing shows that it replies as it was scored.")
        return DONE
    return say_verified(config, run, place, adapter_id, num_cases=cases)


class OfHub(NamedTuple):
    """The options that are about the hub."""

    repo: str | None
    yes: bool
    public: bool
    anyway: bool


def to_hub(config: RunConfig, run: RunDir, adapter: str, options: OfHub, *, cases: int) -> int:
    """Say what an upload would do, and after a yes do it, if the export replies as it was scored."""
    from evals.export.hub import plan_lines, plan_upload, refuse_objections, upload
    from evals.generate.chosen import choose_adapter

    if options.repo is None:
        raise InputError("no repository is named", where="--repo", fix="Add --repo OWNER/NAME")
    adapter_id = choose_adapter(run, adapter)
    plan = plan_upload(config, run, adapter_id, options.repo, wants_public=options.public)
    for line in plan_lines(plan):
        say(line)
    if not options.anyway:
        refuse_objections(plan)
    if not options.yes and not agreed("Upload it? [y/N] "):
        say("Nothing is uploaded.")
        return DONE
    with tempfile.TemporaryDirectory(prefix="orchestrator-") as above:
        folder = Path(above) / options.repo.rpartition("/")[2]
        code = write(config, run, adapter_id, "hub", folder, cases=cases)
        if code != DONE and not options.anyway:
            say("It is not uploaded; --anyway uploads it all the same.")
            return code
        say(f"{adapter_id} is at {upload(folder, plan)}")
    return code


def agreed(question: str) -> bool:
    """Whether a person says yes.

    Raises:
        InputError: If nobody answers.
    """
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        raise InputError("nobody says yes", where="--to hub", fix="Add --yes to upload without asking") from None


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--to", choices=FORMS, required=True)
    parser.add_argument("--out", metavar="DIR", help="the new folder")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="the model repository on the hub")
    parser.add_argument("--yes", action="store_true", help="upload without asking")
    parser.add_argument("--public", action="store_true", help="a repository that everyone can read")
    parser.add_argument("--anyway", action="store_true", help="without scores, and with gates that are not met, too")
    add_question_options(parser)


if __name__ == "__main__":
    sys.exit(run_job("export", export, add_options=_add_options, scene=READ))
