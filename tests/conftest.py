"""What every test shares: no hub, a model folder that is made once, and a check that no process outlives the tests."""

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from builders import write_model_folder
from hypothesis import settings
from ray_heads import RayHead, running_head

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

os.environ["HF_HUB_OFFLINE"] = "1"  # before the first import of huggingface_hub, which reads it once
os.environ["RAY_AUTH_MODE"] = "disabled"  # Ray reads it once, too; otherwise a token left on the machine decides


# A busy machine is no failure, and the same commit passes or fails each time. To look for new examples:
# pytest --hypothesis-profile=exploring
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("exploring", deadline=None, max_examples=1000)
settings.load_profile("repeatable")

SESSION = "TESTS_STARTED_BY"
"""The environment variable by which processes that tests start are known, whatever becomes of their parents."""
LEAVING_S = 30.0
"""How long a process may take to end after the last test."""


def pytest_make_parametrize_id(val: object) -> str | None:
    """Gzip's header holds the time, which would give a test another name in each process that collects it."""
    return "gzip" if isinstance(val, bytes) and val.startswith(b"\x1f\x8b") else None


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Ray writes to a folder of this session, which goes at the end; a process that is still alive then is an error."""
    session = uuid.uuid4().hex
    folder = tempfile.mkdtemp(prefix="rt", dir="/tmp")  # short: sockets lie below it
    os.environ.update({SESSION: session, "RAY_TMPDIR": folder})
    yield
    try:
        deadline = time.monotonic() + LEAVING_S
        while (left := processes_of(session)) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not left, f"the tests left processes behind: {left}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def processes_of(session: str) -> list[str]:
    """Processes that inherited the session's variable, but for Python's own helpers, which end with this process."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(SESSION) == session and process.status() != psutil.STATUS_ZOMBIE:
                command = " ".join(process.cmdline())
                if "from multiprocessing." not in command:
                    found.append(f"{process.pid}: {command}")
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of two layers with random weights and its tokenizer."""
    return write_model_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def tokenizer(model_folder: Path) -> "PreTrainedTokenizerBase":
    """Its tokenizer as the project loads it, with the training template."""
    from orchestrator.models.base import load_tokenizer

    return load_tokenizer(model_folder, trust_remote_code=False)


@pytest.fixture(scope="session")
def ray_head() -> Iterator[RayHead]:
    """The cluster of all tests that may share one, in processes of its own."""
    with running_head() as head:
        yield head


@pytest.fixture(scope="module")
def joins_cluster(ray_head: RayHead) -> Iterator[None]:
    """Whatever a module's tests would start a local cluster for joins the common one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ADDRESS", ray_head.address)
        yield
