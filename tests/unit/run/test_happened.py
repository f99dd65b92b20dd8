from pathlib import Path

import pytest

from orchestrator.run.folder import run_stage
from orchestrator.run.happened import HAPPENED, happenings, note
from orchestrator.run.paths import RunDir


def test_what_befell_a_run_and_its_jobs_is_read_in_order_and_a_torn_line_left_out(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    note(run.root, "The first.")
    note(run.ray / "search-1a" / "trials" / "trial-1.abc", "The second.")
    note(run.ray / "train" / "train-1", "The third.")
    with (run.root / HAPPENED).open("a") as file:
        file.write('{"at": "2026')
    note(run.root, "The fourth.")
    assert [its.text for its in happenings(run)] == ["The first.", "The second.", "The third.", "The fourth."]


def test_storage_that_cannot_be_written_costs_the_note_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    note(tmp_path / "file" / "run", "Lost.")


def test_a_stage_that_was_cut_off_and_begun_again_is_told(tmp_path: Path) -> None:
    run = RunDir(tmp_path)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(run, "search", "digest", interrupted)
    assert happenings(run) == []
    run_stage(run, "search", "digest", lambda: None)
    run_stage(run, "search", "digest", lambda: None)
    run.ledger.write_text(run.ledger.read_text().replace('"done"', '"running"'))
    run_stage(run, "search", "digest", lambda: None)
    first, second = (its.text for its in happenings(run))
    assert first.startswith("search was interrupted after it began at 20")
    assert second.endswith("its process or its machine died, and was begun again.")
