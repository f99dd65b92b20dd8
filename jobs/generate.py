"""Try the base and the adapters: `python -m jobs.generate --config FILE [--adapter ID] [--prompt TEXT | ...]`."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from jobs._main import READ, cluster_on_demand, run_job
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE
from orchestrator.core.progress import waiting
from orchestrator.run.paths import RunDir

if TYPE_CHECKING:
    from evals.generate.engines import Engines


def generate(config: RunConfig, run: RunDir, *, adapter: Sequence[str] = (), **given: Any) -> int:
    """Show what they reply; the keywords are those of `evals.conversation.asking.Asked`."""
    from evals.conversation.asking import Asked

    asked = Asked(**given).checked()
    with waiting("reading"):
        from evals.conversation.generate import generate as show_replies
        from evals.conversation.speakers import find_speakers

        speakers = find_speakers(config, run, adapter)
    show_replies(config, speakers, asked, _engines)
    return DONE


@contextmanager
def _engines(config: RunConfig) -> "Iterator[Engines]":
    with cluster_on_demand(config) as ensure_cluster:
        with waiting("starting or joining Ray"):
            ensure_cluster()
        from evals.generate.engines import open_engines

        with open_engines(config) as engines:
            yield engines


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--adapter", action="append", default=[], metavar="ID", help="an adapter, winner or base")
    for name in ("prompt", "messages", "tools", "cases", "out"):
        parser.add_argument(f"--{name}", metavar="TEXT" if name == "prompt" else "FILE")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P")
    parser.add_argument("--chat", action="store_true", help="keep the conversation going")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print answers as JSON lines")


if __name__ == "__main__":
    sys.exit(run_job("generate", generate, add_options=_add_options, scene=READ))
