import json
import random
from pathlib import Path

import pytest
from report_run import BEST, WEAK, write_run

from jobs.ab import ab
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE, GATE_NOT_MET, InputError
from orchestrator.run.paths import RunDir


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, RunDir]:
    return write_run(tmp_path_factory.mktemp("runs"))


def logged(path: Path, old: float, new: float, num_cases: int = 2000) -> list[str]:
    chance = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_cases):
            arm, share = chance.choice([("old", old), ("new", new)])
            file.write(json.dumps({"id": f"r{number}", "arm": arm, "success": chance.random() < share}) + "\n")
    return [str(path)]


def test_without_a_log_it_says_how_many_cases(
    scored: tuple[RunConfig, RunDir], capsys: pytest.CaptureFixture[str]
) -> None:
    assert ab(*scored, old=WEAK, new=BEST, log=[], margin=0.02) == DONE
    said = " ".join(capsys.readouterr().out.split())
    assert f"In the report {BEST} answers" in said
    assert "live cases of a 50/50 split show it with a chance of 80%" in said
    assert "Benign refused" in said
    assert "Verdict" not in said


@pytest.mark.parametrize(
    ("old", "new", "code", "verdict"),
    [(0.6, 0.8, DONE, "better"), (0.8, 0.6, GATE_NOT_MET, "worse"), (0.8, 0.8, DONE, "not yet")],
)
def test_a_log_decides_the_exit_code(
    scored: tuple[RunConfig, RunDir], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    old: float, new: float, code: int, verdict: str,
) -> None:  # fmt: skip
    assert ab(*scored, old=WEAK, new=BEST, log=logged(tmp_path / "log.jsonl", old, new), margin=0.02) == code
    said = capsys.readouterr().out
    assert f"Verdict: {verdict}." in said
    assert "Answered as asked" in said


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.1, float("nan")])
def test_a_margin_that_is_no_share_is_refused(scored: tuple[RunConfig, RunDir], margin: float) -> None:
    with pytest.raises(InputError, match="--margin"):
        ab(*scored, old=WEAK, new=BEST, log=[], margin=margin)
