"""Whether there will be pairs to learn preferences from."""

from collections.abc import Iterator
from pathlib import Path

from evals.check.card import Finding, fatal, warning
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import InputError
from orchestrator.core.text import counted
from orchestrator.data.preferences.known import KnownPairs, known_pairs
from orchestrator.data.preferences.store import LEAST_PAIRS
from orchestrator.plan.preferences import wants_preferences
from orchestrator.run.paths import RunDir


def preference_findings(config: RunConfig, folder: RunDir, base_dir: Path) -> Iterator[Finding]:
    """What stops `prefer` or leaves it little, where the configuration speaks of it."""
    if not wants_preferences(config):
        return
    try:
        known = known_pairs(config, folder, base_dir)
    except InputError as error:
        yield Finding(stops=True, text=str(error))
        return
    if config.prefer.sources and not known.found.get("file"):
        what = f"no row of the files of pairs can be learned from ({_why(known)})"
        yield warning(what, where="prefer.sources", fix="Compare its rows with those of docs/preferences.md")
    if config.prefer.max_prompts:
        return
    if known.total < LEAST_PAIRS:
        what = f"the sources hold {counted(known.total, 'pair')} ({_why(known)}), and the adapter is asked nothing"
        fix = "Raise prefer.max_prompts, so that its own wrong replies make pairs, or name files of pairs"
        yield fatal(what, where="prefer.sources", allowed=f"at least {LEAST_PAIRS} pairs", fix=fix)


def _why(known: KnownPairs) -> str:
    return ", ".join(f"{reason} x {count:,}" for reason, count in known.left_out.items()) or "no row has two replies"
