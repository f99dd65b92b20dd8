"""Train one adapter with the configured rank, alpha and learning rate: `python -m jobs.train --config FILE`."""

import sys
from collections.abc import Callable

from jobs._main import cluster_on_demand, do_stage, run_job
from jobs._results import say_next, say_trained
from jobs.prepare import prepare
from orchestrator.config.evaluation import Section
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE
from orchestrator.core.files import digest_of
from orchestrator.core.progress import doing, stages
from orchestrator.run.methods import require_methods
from orchestrator.run.paths import RunDir


def training_digest(config: RunConfig, run: RunDir) -> str:
    """What decides the adapters: the samples, every section that shapes training, and the adapter to start from."""
    train = config.train.model_copy(update={"init_from": None})
    settings: list[Section | str | None] = [config.model, config.lora, train, config.search]
    if config.train.init_from is not None:
        from orchestrator.models.start import start_digest

        settings.append(start_digest(config))
    return digest_of(run.split("train"), run.split("val"), *settings)


def train(config: RunConfig, run: RunDir, ensure_cluster: Callable[[], None]) -> None:
    """Train the adapter, unless the run has it from the same samples and settings."""

    def work() -> None:
        from evals.check.parity import require_parity
        from jobs._plan import one_training, require_room
        from orchestrator.training.launch import train_one

        with doing("comparing the tokens of training, evaluation and serving"):
            require_parity(config, run)  # before a cluster is started for nothing
        require_room(one_training(config), run)
        ensure_cluster()
        train_one(config, run)

    digest, outputs = training_digest(config, run), [run.trials, run.root / "adapters"]
    do_stage(run, "train", digest, work, outputs, say_result=say_trained)


def main(config: RunConfig, run: RunDir) -> int:
    """Prepare if needed, then train."""
    require_methods(config)
    with stages("prepare", "train"):
        prepare(config, run)
        with cluster_on_demand(config) as ensure_cluster:
            train(config, run, ensure_cluster)
    say_next("evaluate", run)
    return DONE


if __name__ == "__main__":
    sys.exit(run_job("train", main))
