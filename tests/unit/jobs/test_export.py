"""What export and serve-check refuse before they start anything."""

from pathlib import Path
from typing import Any

import pytest
from builders import make_config

from evals.export.folder import Form
from jobs.export import export
from jobs.serve_check import serve_check
from orchestrator.core.errors import InputError
from orchestrator.run.paths import RunDir


@pytest.mark.parametrize(
    ("to", "option", "value"),
    [
        ("adapter", "llama_cpp", "llama.cpp"),
        ("hub", "llama_cpp", "llama.cpp"),
        ("hub", "out", "folder"),
        ("merged", "repo", "someone/tools"),
        ("gguf", "public", True),
        ("adapter", "anyway", True),
        ("adapter", "yes", True),
    ],
)
def test_an_option_that_the_form_does_not_use_is_refused(
    tmp_path: Path, to: Form, option: str, value: str | bool
) -> None:
    usual: dict[str, Any] = {"out": None, "repo": "a/b"} if to == "hub" else {"out": str(tmp_path / "o"), "repo": None}
    more = usual | {"llama_cpp": None, "yes": False, "public": False, "anyway": False} | {option: value}
    line = rf"--{option.replace('_', '-')}: --to {to} does not use it. Leave it out"
    with pytest.raises(InputError, match=line):
        export(make_config(tmp_path), RunDir(tmp_path), to=to, adapter="winner", cases=0, **more)


def test_a_server_that_is_started_here_has_no_other_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--model: only a server that runs has a name for it"):
        serve_check(make_config(tmp_path), RunDir(tmp_path), url=None, model="tools", adapter="winner", cases=5)
