"""Have an adapter learn preferences: `python -m jobs.prefer --config FILE [--adapter ID]`."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jobs._main import cluster_on_demand, do_stage, run_job
from jobs._results import say_next, say_pairs, say_preferred
from jobs.prepare import prepare
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE
from orchestrator.core.files import digest_of
from orchestrator.core.progress import stages
from orchestrator.core.records import AdapterRecord
from orchestrator.run.paths import RunDir, preferred_id

if TYPE_CHECKING:
    from evals.generate.engines import Engines


def prefer_digest(config: RunConfig, run: RunDir, record: AdapterRecord) -> str:
    """What decides the pairs and the adapter that learns from them."""
    from evals.cases.suites import suite_files
    from orchestrator.data.prepare.prepare import data_digest

    sources = (*config.data.sources, *config.prefer.sources)
    rows = data_digest(config.data.model_copy(update={"sources": sources}), base_dir=Path.cwd())
    parts = [run.split(part) for part in ("train", "val", "test")]
    replies = config.eval.model_dump(include={"max_new_tokens", "max_model_len", "reply_format", "turns"})
    learning = [config.model, config.prefer.model_copy(update={"sources": ()}), config.train, config.lora.dropout]
    return digest_of(record.sha256, rows, *parts, *suite_files(config.eval.suites), replies, *learning)


def prefer(config: RunConfig, run: RunDir, ensure_cluster: Callable[[], None], *, adapter: str | None = None) -> None:
    """Make the pairs and train on them, unless the run has done so from the same adapter, samples and settings.

    Raises:
        TooFewPairsError: If there is too little to learn from.
    """
    from evals.preferences.start import adapter_to_prefer

    record = adapter_to_prefer(config, run, adapter)

    @contextmanager
    def engines() -> "Iterator[Engines]":
        ensure_cluster()
        from evals.generate.engines import open_engines

        with open_engines(config) as opened:
            yield opened

    def work() -> None:
        from evals.preferences.pairs import make_pairs
        from orchestrator.training.prefer import train_preferences

        say_pairs(make_pairs(config, run, record.id, engines, Path.cwd()), run)
        ensure_cluster()
        train_preferences(config, run, record)

    outputs = [run.adapter(preferred_id(record.id)), run.preferences(record.id).trials]
    digest, say_result = prefer_digest(config, run, record), partial(say_preferred, adapter_id=record.id)
    do_stage(run, "prefer", digest, work, outputs, say_result=say_result)


def main(config: RunConfig, run: RunDir, *, adapter: str | None = None) -> int:
    """Prepare if needed, then learn preferences."""
    with stages("prepare", "prefer"):
        prepare(config, run)
        with cluster_on_demand(config) as ensure_cluster:
            prefer(config, run, ensure_cluster, adapter=adapter)
    say_next("evaluate", run)
    return DONE


def _add_options(parser: argparse.ArgumentParser) -> None:
    help_text = "an adapter of the run, or winner; without it, the one with the lowest eval loss"
    parser.add_argument("--adapter", metavar="ID", help=help_text)


if __name__ == "__main__":
    sys.exit(run_job("prefer", main, add_options=_add_options))
