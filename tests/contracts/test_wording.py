"""The project's text is finished: no notes to oneself, no placeholders."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTES = ("TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK", "W" + "IP")
PHRASES = ("lorem " + "ipsum", "coming " + "soon", "not yet " + "implemented", "NotImplemented" + "Error")
UNFINISHED = re.compile(rf"\b({'|'.join(NOTES)})\b|(?i:{'|'.join(PHRASES)})")


def project_files() -> list[Path]:
    """Every file that git tracks or would track."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so what belongs to the project cannot be listed")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in listed.split("\0") if name]
    return [path for path in paths if path.is_file()]


def lines_of(path: Path) -> list[str]:
    """The lines of a text file; a binary file has none."""
    content = path.read_bytes()
    return [] if b"\0" in content else content.decode("utf-8").splitlines()


@pytest.mark.parametrize("text", [f"# {NOTES[0]}: later", f"raise {PHRASES[3]}", PHRASES[0].capitalize()])
def test_what_is_looked_for_is_found(text: str) -> None:
    assert UNFINISHED.search(text)


@pytest.mark.parametrize("text", ["a whole sentence", "shackles", "#XXXX"])
def test_what_is_finished_is_left_alone(text: str) -> None:
    assert not UNFINISHED.search(text)


def test_no_file_is_unfinished() -> None:
    files = project_files()
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in files
        for number, line in enumerate(lines_of(path), start=1)
        if UNFINISHED.search(line)
    ]
    assert ROOT / "pyproject.toml" in files
    assert found == []
