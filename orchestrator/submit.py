"""Jobs on a running Ray cluster: submit, follow, exit code. The only file that uses Ray's job API.

What travels is a package made for the job: this project's code, the resolved configuration, and each data source and
suite of cases that is a file on this machine, with its answers and tools, each adapter of `eval.adapters` and
`train.init_from` that is a folder here, and the module of a function that reads rows.
Everything else is the cluster's: a source that does not exist here, a base model's folder, and
`resources.storage_path`, where the results appear. The driver runs on the head node and asks for no CPUs of its own, so
that a head without work (`resources: {CPU: 0}`) can still hold it.

Authentication is Ray's own: RAY_AUTH_MODE=token with the token in RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or
~/.ray/auth_token. No secret is put into the job's environment, which Ray shows to all who reach its dashboard.
"""

import asyncio
import functools
import http.client
import ipaddress
import logging
import os
import secrets
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar, get_args
from urllib.parse import urlsplit

from orchestrator.config.evaluation import SuiteConfig, is_function
from orchestrator.config.load import write_resolved
from orchestrator.config.schema import SYNTHETIC, RunConfig, SourceConfig
from orchestrator.core.errors import DONE, FAILED, INTERRUPTED, InputError, SubmissionError
from orchestrator.core.process import ENVIRONMENT_DEFAULTS, tell
from orchestrator.core.progress import say
from orchestrator.core.text import escaped
from orchestrator.run.paths import StageName

Entry = TypeVar("Entry", SourceConfig, SuiteConfig)
"""What names files of this machine."""

JOBS = ("check", "plan", *get_args(StageName), "pipeline")
PACKAGES = ("orchestrator", "evals", "jobs")
CONFIG_NAME = "config.json"
_CACHES = shutil.ignore_patterns("__pycache__", "*.pyc")

MAX_SOURCES_BYTES = 256 * 2**20
"""Largest sum of the data files that travel; Ray's job server takes packages up to 512 MiB."""
CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 60.0
POLL_INTERVAL_S = 5.0
LOST_AFTER_S = 60.0
"""A cluster that has not answered for this long is taken for lost."""

CHATTY_LOGGERS = ("dashboard.modules.dashboard_sdk", "dashboard.modules.job.sdk", "_private.runtime_env.packaging")
"""Of Ray; they report every upload and connection, in between the lines of the job's own log."""


def submit_job(config: RunConfig, stage: str, *, address: str, follow: bool = True) -> int:
    """Submit `python -m jobs.<stage>` and follow it to its end.

    Args:
        config: Resolved configuration. `resources.address` is dropped: the job joins the cluster that it runs on.
        stage: One of JOBS.
        address: URL of the cluster's job server, such as `http://127.0.0.1:8265`.
        follow: Show the job's log until it ends; otherwise return as soon as it is submitted.

    Returns:
        The exit code of the job; 130 if it was stopped, or if Ctrl-C detached from it (the job then runs on).

    Raises:
        InputError: If the stage is unknown, the address is no URL or does not answer, the token is missing or wrong,
            or the data is too large to travel.
        SubmissionError: If the cluster refuses the job or is lost while it runs.
    """
    if stage not in JOBS:
        raise InputError(f"there is no job {stage!r}", allowed=", ".join(JOBS))
    url = _reachable(address)
    _warn_of_listeners(url)
    with tempfile.TemporaryDirectory(prefix="job-") as folder:
        stage_package(config, Path(folder))
        client = _client(url)
        job_id = f"{config.name}-{stage}-{secrets.token_hex(4)}"
        _submit(client, job_id, stage, folder, url=url)
    say(f"Submitted {job_id} to {url}; its results appear in {config.resources.storage_path} on the cluster.")
    if not follow:
        say(_how_to_follow(url, job_id))
        return DONE
    try:
        job = asyncio.run(_follow_to_end(client, url, job_id))
    except KeyboardInterrupt:
        say(f"Detached; the job keeps running. {_how_to_follow(url, job_id)}")
        return INTERRUPTED
    say(f"Job {job_id}: {job.status.value}")
    return exit_code(job.status.value, job.driver_exit_code)


def exit_code(status: str, driver_exit_code: int | None) -> int:
    """The exit code that stands for a job's terminal status.

    A job that failed before its command ran, or that a signal killed (Ray says a negative code), gives 1.
    """
    ended = {"SUCCEEDED": DONE, "STOPPED": INTERRUPTED}
    return ended.get(status, max(driver_exit_code or 0, 0) or FAILED)


def stage_package(config: RunConfig, folder: Path) -> None:
    """Fill `folder` with all that a job needs: the project's packages, config.json, and local sources and suites.

    Files that travel are named in config.json by their path relative to it.

    Raises:
        InputError: If the local files of data are larger than MAX_SOURCES_BYTES together.
    """
    root = Path(__file__).resolve().parents[1]
    for package in PACKAGES:
        shutil.copytree(root / package, folder / package, ignore=_CACHES)
    sources = [_with_answers(source) for source in config.data.sources]
    suites = [_with_answers(suite) for suite in config.eval.suites]
    for source in sources:
        _copy_module(source.format, folder)
    start = config.train.init_from
    adapters = {name: _adapter_files(name) for name in (*config.eval.adapters, *filter(None, [start]))}
    data: list[SourceConfig | SuiteConfig] = [*sources, *suites]
    files = [file for entry in data for file in _files_here(entry).values()]
    _refuse_too_large([*files, *chain.from_iterable(adapters.values())])
    places = _staged_adapters(adapters, folder)
    update = {
        "train": config.train.model_copy(update={"init_from": start and places[start]}),
        "data": config.data.model_copy(update={"sources": _staged(sources, "sources", folder)}),
        "eval": config.eval.model_copy(
            update={
                "suites": _staged(suites, "suites", folder),
                "adapters": tuple(places[name] for name in config.eval.adapters),
            }
        ),
        "resources": config.resources.model_copy(update={"address": None}),
    }
    write_resolved(config.model_copy(update=update), folder / CONFIG_NAME)


def _copy_module(row_format: str, folder: Path) -> None:
    """Copy the module of a `RowFunction` with all of its package, if that lies in the current directory."""
    name = row_format.partition(":")[0].partition(".")[0]
    if not is_function(row_format) or name in PACKAGES:
        return
    if Path(name).is_dir():
        shutil.copytree(name, folder / name, ignore=_CACHES, dirs_exist_ok=True)
    elif Path(f"{name}.py").is_file():
        shutil.copyfile(f"{name}.py", folder / f"{name}.py")


def _with_answers(entry: Entry) -> Entry:
    """The source or suite with the file of answers that would be found beside it, which must travel too."""
    if entry.answers is not None or entry.format not in ("auto", "bfcl") or not _is_here(entry.path):
        return entry
    from orchestrator.data.formats.bfcl import answers_path

    beside = answers_path(Path(entry.path))
    return entry if beside is None else entry.model_copy(update={"answers": str(beside)})


def _is_here(path: str) -> bool:
    return path != SYNTHETIC and Path(path).is_file()


def _files_here(entry: SourceConfig | SuiteConfig) -> dict[str, Path]:
    """By its field, each file of this machine that a source or suite names."""
    named = {"path": entry.path, "answers": entry.answers}
    if isinstance(entry, SourceConfig):
        named["tools"] = entry.tools
    return {field: Path(path) for field, path in named.items() if path is not None and _is_here(path)}


def _adapter_files(name: str) -> list[Path]:
    """What must travel of an adapter that is a folder of this machine."""
    files = [Path(name) / file for file in ("adapter_config.json", "adapter_model.safetensors")]
    return [file for file in files if file.is_file()]


def _staged_adapters(adapters: Mapping[str, Sequence[Path]], folder: Path) -> dict[str, str]:
    """Where each adapter is: those of this machine in folders of the package that keep the parts that name them."""
    places = {}
    for index, (name, files) in enumerate(adapters.items()):
        place = f"adapters/{index}/{Path(name).parent.name}/{Path(name).name}" if files else name
        for file in files:
            (folder / place).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / place / file.name)
        places[name] = place
    return places


def _refuse_too_large(files: Iterable[Path]) -> None:
    total = sum(file.stat().st_size for file in files)
    if total > MAX_SOURCES_BYTES:
        what = f"data files and adapters on this machine are {total / 2**20:.0f} MiB, too large to travel with a job"
        allowed = f"{MAX_SOURCES_BYTES / 2**20:.0f} MiB together"
        fix = "Copy them to storage that the cluster reaches and name them by their path there"
        raise InputError(
            what, where="data.sources, eval.suites, eval.adapters and train.init_from", allowed=allowed, fix=fix
        )


def _staged(entries: Sequence[Entry], kind: str, folder: Path) -> tuple[Entry, ...]:
    """The entries with the files that are here copied into the folder `kind` of the package."""
    staged = []
    for index, entry in enumerate(entries):
        travelling = {}
        for field, file in _files_here(entry).items():
            # The number keeps two files of one name apart, and the field the files of one entry.
            place = f"{kind}/{index}-{file.name}" if field == "path" else f"{kind}/{index}-{field}-{file.name}"
            (folder / kind).mkdir(exist_ok=True)
            shutil.copyfile(file, folder / place)
            travelling[field] = place
        staged.append(entry.model_copy(update=travelling))
    return tuple(staged)


def _reachable(address: str) -> str:
    """The address without a trailing slash, once something there has answered."""
    url = address.rstrip("/")
    example = "a URL such as http://127.0.0.1:8265"
    try:
        is_url = urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname)
    except ValueError:
        is_url = False
    if not is_url:
        raise InputError(f"{address!r} is not the address of a job server", allowed=example)
    if "@" in urlsplit(url).netloc:
        fix = "Leave out what stands before the @; a cluster's token comes from RAY_AUTH_TOKEN or ~/.ray/auth_token"
        raise InputError("the address holds a user or password", where="--address", allowed=example, fix=fix)
    try:
        urllib.request.urlopen(f"{url}/api/version", timeout=CONNECT_TIMEOUT_S).close()
    except urllib.error.HTTPError as answer:
        # Any answer will do here, and one that asks for a token is explained when the client connects.
        answer.close()
    except (OSError, http.client.HTTPException) as error:
        what = f"no Ray job server answers ({getattr(error, 'reason', None) or error})"
        fix = "Start the cluster, or forward the dashboard's port of its head node to this machine"
        raise InputError(what, where=url, allowed=example, fix=fix) from None
    return url


def _warn_of_listeners(url: str) -> None:
    """Warn where the token, and the job with its data, would cross a network in plain text."""
    if urlsplit(url).scheme == "http" and not _is_this_machine(urlsplit(url).hostname or ""):
        tell(
            f"Warning: {url} is plain HTTP, so whoever listens on the way can read the cluster's token and run code on "
            "it. Use https, or forward the port to this machine (`ray dashboard cluster.yaml`, `kubectl port-forward`, "
            "`ssh -L`) and submit to http://127.0.0.1."
        )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn what Ray's client raises into errors that say what to do."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        problem = "refuses this token" if "invalid" in str(error).lower() else "asks for a token and got none"
        fix = "Set RAY_AUTH_MODE=token and put the cluster's token into ~/.ray/auth_token or RAY_AUTH_TOKEN"
        raise InputError(f"the cluster {problem}", where=url, fix=fix) from None
    except (OSError, RuntimeError) as error:
        raise SubmissionError(f"the cluster did not take the request ({error})", where=url) from error


def _client(url: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    for chatty in CHATTY_LOGGERS:
        logging.getLogger(f"ray.{chatty}").setLevel(logging.WARNING)
    # Ray lets these variables replace the address that it is given.
    replaced = {name: os.environ.pop(name, None) for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")}
    try:
        with _explained(url):
            client = JobSubmissionClient(url)
    finally:
        os.environ.update({name: value for name, value in replaced.items() if value is not None})
    # Ray's requests have no time limit of their own and would outlive a cluster whose network is gone.
    client._do_request = functools.partial(client._do_request, timeout=REQUEST_TIMEOUT_S)
    return client


def _submit(client: Any, job_id: str, stage: str, folder: str, *, url: str) -> None:
    entrypoint = f"python -m jobs.{stage} --config {CONFIG_NAME}"
    runtime = {"working_dir": folder, "env_vars": dict(ENVIRONMENT_DEFAULTS)}
    with _explained(url):
        client.submit_job(entrypoint=entrypoint, submission_id=job_id, runtime_env=runtime)


def _how_to_follow(url: str, job_id: str) -> str:
    return (
        f"Follow it with: ray job logs --address {url} --follow {job_id}. "
        f"Stop it with: ray job stop --address {url} {job_id}."
    )


@dataclass
class _Shown:
    """How much of a job's log has been printed, in characters."""

    characters: int = 0

    def print_from(self, position: int, text: str) -> None:
        """Print what is new in `text`, which begins at `position` of the log."""
        sys.stdout.write(escaped(text[max(self.characters - position, 0) :]))
        sys.stdout.flush()
        self.characters = max(self.characters, position + len(text))


async def _follow_to_end(client: Any, url: str, job_id: str) -> Any:
    """Print the log until the job has ended; returns Ray's JobDetails.

    The log stream ends without a word when the head restarts or a proxy gives up, so its end proves nothing: the status
    is polled beside it, and a stream that ended early is opened again.
    """
    shown = _Shown()
    stream = asyncio.create_task(_print_stream(client, job_id, shown))
    answered = time.monotonic()
    while True:
        await asyncio.wait({stream}, timeout=POLL_INTERVAL_S)
        job = await asyncio.to_thread(_poll, client, url, job_id)
        if job is not None and job.status.is_terminal():
            break
        answered = answered if job is None else time.monotonic()
        if time.monotonic() - answered > LOST_AFTER_S:
            stream.cancel()
            what = f"the cluster has not answered for {LOST_AFTER_S:.0f} s while job {job_id} was running"
            raise SubmissionError(what, where=url, fix="Submit again when it is back: the run resumes")
        if stream.done():
            stream.result()
            await asyncio.sleep(1)
            stream = asyncio.create_task(_print_stream(client, job_id, shown))
    stream.cancel()
    await _print_rest(client, job, shown)
    return job


async def _print_stream(client: Any, job_id: str, shown: _Shown) -> None:
    import aiohttp

    position = 0
    try:
        async for text in client.tail_job_logs(job_id):
            shown.print_from(position, text)
            position += len(text)
    except (OSError, RuntimeError, aiohttp.ClientError):
        return  # The poll decides whether the cluster is lost.


async def _print_rest(client: Any, job: Any, shown: _Shown) -> None:
    try:
        shown.print_from(0, await asyncio.to_thread(client.get_job_logs, job.submission_id))
    except (OSError, RuntimeError) as error:
        say(f"The end of the log could not be read: {error}")
    if job.status.value == "FAILED" and job.driver_exit_code is None:
        say(f"The job's command did not run: {job.message}")


def _poll(client: Any, url: str, job_id: str) -> Any | None:
    """Ray's JobDetails, or None if the cluster does not answer now."""
    try:
        with _explained(url):
            return client.get_job_info(job_id)
    except SubmissionError:
        return None
