"""Check the data of a config before anything trains: `python -m jobs.check --config FILE`."""

import sys
from pathlib import Path

from jobs._main import run_job
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import BAD_INPUT, DONE
from orchestrator.core.progress import signs_of_life
from orchestrator.run.folder import check_dir, conflict_with_run
from orchestrator.run.paths import RunDir


def check(config: RunConfig, folder: RunDir) -> int:
    """Check and show the findings; exits 3 if the data is not ready."""
    from evals.check.card import show_check
    from evals.check.check import check_data, read_check

    before = read_check(folder)
    with signs_of_life("check"):
        card = check_data(config, folder, base_dir=Path.cwd())
    show_check(card, folder, is_new=card != before, conflict=conflict_with_run(config))
    return BAD_INPUT if card.not_ready else DONE


if __name__ == "__main__":
    sys.exit(run_job("check", check, folder=check_dir, open_folder=check_dir))
