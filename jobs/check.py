"""Check the data of a config before anything trains: `python -m jobs.check --config FILE`."""

import sys
from contextlib import suppress
from pathlib import Path

from jobs._main import Scene, run_job, with_start
from orchestrator.config.load import left_open
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import BAD_INPUT, DONE, ConfigError
from orchestrator.core.progress import say, signs_of_life
from orchestrator.run.folder import check_dir, conflict_with_run
from orchestrator.run.methods import require_methods
from orchestrator.run.paths import RunDir


def check(config: RunConfig, folder: RunDir) -> int:
    """Check and show the findings; exits 3 if the data is not ready."""
    from evals.check.card import show_check
    from evals.check.check import check_data, read_check
    from orchestrator.models.start import describe_start

    require_methods(config)
    before = read_check(folder)
    with signs_of_life("check"):
        card = check_data(config, folder, base_dir=Path.cwd())
    if not left_open(config) and (told := describe_start(config)):
        say(told)

    def say_needs() -> None:
        if card.tokens and not card.not_ready:
            from jobs._plan import say_plan, say_preferences

            say_plan(config, card.tokens, folder)
            say_preferences(config, card.tokens, folder)

    show_check(card, folder, is_new=card != before, conflict=conflict_with_run(config), say_needs=say_needs)
    return BAD_INPUT if card.not_ready else DONE


def as_far_as_it_can(config: RunConfig) -> RunConfig:
    """The configuration with what the adapter of `train.init_from` decides; one that cannot is a finding, later."""
    with suppress(ConfigError):
        return with_start(config)
    return config


if __name__ == "__main__":
    sys.exit(run_job("check", check, scene=Scene(as_far_as_it_can, check_dir, check_dir)))
