"""The instructions of the Dockerfile, as tests look at them."""

import re
from pathlib import Path

DOCKERFILE = Path(__file__).resolve().parents[1] / "deploy" / "Dockerfile"
Instruction = tuple[str, str]
"""A word and its arguments."""


def instructions() -> list[Instruction]:
    """The instructions in order."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in joined.splitlines() if line.strip()]


def stages() -> dict[str, list[Instruction]]:
    """By its name, the instructions of a stage, those of the stages that it is made from first."""
    found: dict[str, list[Instruction]] = {}
    name = ""
    for word, arguments in instructions():
        if word == "FROM":
            source, _, name = arguments.partition(" AS ")
            found[name] = [*found.get(source, [(word, source)])]
        else:
            found[name].append((word, arguments))
    return found
