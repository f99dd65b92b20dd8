"""An adapter on the hub: what an upload would do, what speaks against it, and the upload."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx2
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars

from evals.export.card import README
from evals.export.own import own_adapter
from evals.generate.chosen import read_report
from evals.records import EngineRecord, GateResult
from evals.report.gates import check_gates, measured, references
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import InputError, OrchestratorError, RunConflictError, UploadError, causes
from orchestrator.core.files import parse_line
from orchestrator.core.progress import doing, say
from orchestrator.core.records import AdapterRecord
from orchestrator.core.text import counted
from orchestrator.run.paths import RunDir

WAITS_S = (2.0, 4.0, 8.0)
"""Seconds before an upload is tried again whose connection broke."""
TOKEN = "HF_TOKEN"
"""The environment variable from which the hub's client takes its token."""


GOES_ON = "The same command goes on"


class UploadPlan(NamedTuple):
    """What an upload would do; `objections` speak against it."""

    repo: str
    adapter_id: str
    is_public: bool
    is_there: bool
    num_files: int
    num_bytes: int
    verdict: str | None
    gates: tuple[GateResult, ...]
    objections: tuple[str, ...]


def plan_upload(config: RunConfig, run: RunDir, adapter_id: str, repo: str, *, wants_public: bool) -> UploadPlan:
    """What uploading an adapter to the model repository `repo` would do. Asks the hub, and changes nothing.

    Raises:
        InputError: If the name is none, the hub knows no token, or the repository is public and that is not wanted.
        AdapterError: If the adapter's files changed, or it was trained on another base.
        UploadError: If the hub does not answer.
    """
    if repo.count("/") != 1:
        raise InputError(f"{repo!r} names no repository", where="--repo", allowed="OWNER/NAME")
    record, source = own_adapter(config, run, adapter_id), run.adapter(adapter_id)
    is_there, is_public = True, wants_public
    with _told(repo), doing("asking the hub"):
        try:
            is_public = not HfApi(token=_token()).model_info(repo).private
        except RepositoryNotFoundError:
            is_there = False
    if is_public and not wants_public:
        fix = "Name another with --repo, or add --public"
        raise InputError("the repository is there and public", where=repo, fix=fix)
    verdict, gates, objections = _standing(config, run, record)
    sizes = {path.name: path.stat().st_size for path in source.iterdir() if path.name != README}
    return UploadPlan(
        repo, adapter_id, is_public, is_there, len(sizes) + 1, sum(sizes.values()), verdict, gates, objections
    )


def _token() -> str:
    """The token of the environment or of the hub's own login."""
    token = get_token()
    if token is None:
        fix = f"Set {TOKEN}, or run hf auth login"
        raise InputError("there is no token with which to write to the hub", where=constants.ENDPOINT, fix=fix)
    return token


def _standing(
    config: RunConfig, run: RunDir, record: AdapterRecord
) -> tuple[str | None, tuple[GateResult, ...], tuple[str, ...]]:
    """The report's verdict, this adapter before the gates, and what speaks against publishing it."""
    report = read_report(run)
    own = next((entry for entry in report.adapters if entry.id == record.id), None) if report else None
    if report is None or own is None:
        return None, (), (f"{record.id} has no scores",)
    made = run.engine(record.id)
    try:
        engine = parse_line(made.read_text(encoding="utf-8"), EngineRecord, where=str(made))
        engine.require_made_by(record, where=str(made))
    except (OSError, RunConflictError):
        return None, (), (f"{record.id} is not the adapter that was scored",)
    base = next((entry for entry in report.adapters if entry.is_base), None)
    held = measured(run, own, label=own.id)
    gates = tuple(check_gates(config.gates, held, references(run, config.gates, base)))
    missed = (f"the gate {gate.metric} is not met: wanted {gate.bound}" for gate in gates if not gate.passed)
    return report.verdict.reason, gates, tuple(missed)


def plan_lines(plan: UploadPlan) -> Iterator[str]:
    """The plan in sentences."""
    kind, there = ("public" if plan.is_public else "private"), "goes into the" if plan.is_there else "makes the"
    size = f"{counted(plan.num_files, 'file')}, {plan.num_bytes / 1e6:.1f} MB"
    yield f"{plan.adapter_id} {there} {kind} model repository {plan.repo} at {constants.ENDPOINT}: {size}."
    if plan.verdict:
        yield f"Its card says: {plan.verdict}"
    if plan.gates:
        yield f"Gates met: {sum(gate.passed for gate in plan.gates)} of {len(plan.gates)}."
    yield from (f"Against it: {objection}." for objection in plan.objections)


def refuse_objections(plan: UploadPlan) -> None:
    """A RunConflictError if something speaks against the upload."""
    if plan.objections:
        fix = "Score it and meet its gates first, or add --anyway"
        raise RunConflictError(f"it is not uploaded, because {plan.objections[0]}", where=plan.adapter_id, fix=fix)


def upload(folder: Path, plan: UploadPlan) -> str:
    """Upload a folder in one commit; returns the address. What is there already is not sent again.

    Raises:
        InputError: If the hub refuses the token.
        UploadError: If the connection breaks again and again.
    """
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    for wait_s in WAITS_S:
        try:
            return _upload_once(folder, plan)
        except UploadError as error:
            say(f"{error} Trying again in {wait_s:g} s.")
            time.sleep(wait_s)
    return _upload_once(folder, plan)


def _upload_once(folder: Path, plan: UploadPlan) -> str:
    api = HfApi(token=_token())
    with _told(plan.repo), doing(f"uploading to {plan.repo}"):
        place = api.create_repo(plan.repo, private=not plan.is_public, exist_ok=True)
        api.upload_folder(repo_id=plan.repo, folder_path=folder, commit_message=f"Add {plan.adapter_id}")
    return str(place)


@contextmanager
def _told(repo: str) -> Iterator[None]:
    """What the hub's client raises, as one line."""
    try:
        yield
    except OrchestratorError:
        raise
    except Exception as error:
        if isinstance(error, HFValidationError):
            raise InputError(_line(error), where="--repo", allowed="OWNER/NAME") from None
        found = next((one for one in causes(error) if isinstance(one, HfHubHTTPError)), None)
        if found is not None:
            raise _of_answer(found, repo) from error
        if any(isinstance(one, OfflineModeIsEnabled) for one in causes(error)):
            fix = "Unset HF_HUB_OFFLINE for this command"
            raise InputError("the hub's client is offline", where=repo, fix=fix) from error
        broken = next((one for one in causes(error) if isinstance(one, httpx2.TransportError)), None)
        if broken is not None:
            what = f"the connection to {constants.ENDPOINT} broke ({type(broken).__name__})"
            raise UploadError(what, where=repo, fix=GOES_ON) from error
        if isinstance(error, (OSError, RuntimeError)):  # of hf_xet, by which the hub's client sends large files
            what = f"the upload of large files broke: {_line(error)}"
            fix = f"{GOES_ON}; with HF_HUB_DISABLE_XET=1 it goes the older way"
            raise UploadError(what, where=repo, fix=fix) from error
        raise


def _of_answer(error: HfHubHTTPError, repo: str) -> OrchestratorError:
    status = error.response.status_code
    if status in (401, 403):
        which = "does not know the token" if status == 401 else "does not let this token write there"
        fix = f"Give one that may write to {repo.partition('/')[0]} in {TOKEN}, or with hf auth login"
        return InputError(f"the hub {which}", where=repo, fix=fix)
    what = f"the hub answers with HTTP {status}: {_line(error.server_message or error)}"
    if status < 500 and status not in (408, 429):
        return InputError(what, where=repo)
    return UploadError(what, where=repo, fix=GOES_ON)


def _line(error: object) -> str:
    return " ".join(str(error).split())[:300]
