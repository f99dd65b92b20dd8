"""The command in README that serves the demo is the one that a run of it ends with."""

import re
import shlex
from pathlib import Path

from orchestrator.chat.serve_command import Scored, serve_command
from orchestrator.config.load import load_config
from orchestrator.toy.tiny import tiny_base_folder

ROOT = Path(__file__).resolve().parents[2]


def test_readme_serves_the_demo_as_it_was_scored() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^    (python -m vllm(?:.*\\\n)+.*)$", readme, re.MULTILINE)
    config = load_config(ROOT / "configs" / "demo.yaml")
    as_scored = Scored("BASE", "hermes", on_cpu=True, dtype=None, temperature=config.eval.temperature)
    made = serve_command("tools", Path("$ADAPTER"), max(config.search.space.r), as_scored)
    words = [
        f"~/.cache/{tiny_base_folder().parent.name}/{tiny_base_folder().name}" if word == "BASE" else word
        for word in shlex.split(made.command)
    ]
    assert shlex.split(shown.replace("\\\n", " ")) == words
