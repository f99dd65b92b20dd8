"""What somebody meant who gave the command line something that it does not know."""

from collections.abc import Iterator, Sequence
from typing import Any


def setting_meant(option: str, arguments: Sequence[str]) -> str:
    """How --set gives what was given as an unknown option, such as `--epochs 3`; empty if no setting is called so."""
    name = option.lstrip("-").replace("-", "_")
    if not name or name == "set":
        return ""
    from orchestrator.config.schema import RunConfig

    keys = [key for key in _keys(RunConfig().model_dump(mode="json")) if key.endswith(f".{name}") or key == name]
    after = arguments[arguments.index(option) + 1 :] if option in arguments else ()
    joined = next((text.partition("=")[2] for text in arguments if text.startswith(f"{option}=")), "")
    value = joined or next((text for text in after[:1] if not text.startswith("-")), "VALUE")
    ways = " or ".join(f"--set {key}={value}" for key in keys)
    return f"A setting is given as {ways}. " if ways else ""


def _keys(tree: dict[str, Any], above: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{above}{key}.")
        else:
            yield f"{above}{key}"
