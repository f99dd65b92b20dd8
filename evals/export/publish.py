"""An adapter from its run to the hub: the plan, a yes, the export that still replies as it was scored, the upload."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from evals.export.hub import plan_lines, plan_upload, refuse_objections, upload
from evals.generate.chosen import choose_adapter
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE, InputError
from orchestrator.core.progress import say
from orchestrator.run.paths import RunDir


class Wish(NamedTuple):
    """Where to upload, whether without asking, for everyone to read, and whatever speaks against it."""

    repo: str | None
    yes: bool
    public: bool
    anyway: bool


def publish(config: RunConfig, run: RunDir, name: str, wish: Wish, write: Callable[[str, Path], int]) -> int:
    """Say what an upload would do, and after a yes do it; the exit code is that of the export's verification.

    `write` puts the adapter of this id into a new folder, and gives the exit code of what it replies there.

    Raises:
        InputError: If no repository is named, nobody says yes, or the hub refuses it.
        RunConflictError: If the adapter has no scores or misses a gate.
        UploadError: If the connection breaks.
    """
    if wish.repo is None:
        raise InputError("no repository is named", where="--repo", fix="Add --repo OWNER/NAME")
    adapter_id = choose_adapter(run, name)
    plan = plan_upload(config, run, adapter_id, wish.repo, wants_public=wish.public)
    for line in plan_lines(plan):
        say(line)
    if not wish.anyway:
        refuse_objections(plan)
    if not wish.yes and not _is_agreed("Upload it? [y/N] "):
        say("Nothing is uploaded.")
        return DONE
    with tempfile.TemporaryDirectory(prefix="orchestrator-") as above:
        folder = Path(above) / wish.repo.rpartition("/")[2]
        code = write(adapter_id, folder)
        if code != DONE and not wish.anyway:
            say("It is not uploaded; --anyway uploads it all the same.")
            return code
        say(f"{adapter_id} is at {upload(folder, plan)}")
    return code


def _is_agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        raise InputError("nobody says yes", where="--to hub", fix="Add --yes to upload without asking") from None
