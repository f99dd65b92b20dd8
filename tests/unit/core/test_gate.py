import threading
from pathlib import Path

from orchestrator.core.gate import answer, answer_at, wait_for_answer


def test_an_answer_is_given_once_and_stands(tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    assert answer_at(folder, 6) is None
    answer(folder, 6, goes_on=True)
    answer(folder, 18, goes_on=False)
    answer(folder, 6, goes_on=False)
    assert (answer_at(folder, 6), answer_at(folder, 18), answer_at(folder, 54)) == (True, False, None)


def test_a_trial_waits_until_it_is_answered_or_out_of_patience(tmp_path: Path) -> None:
    assert wait_for_answer(tmp_path, 6, patience_s=0.15) is None
    timer = threading.Timer(0.2, answer, (tmp_path, 6), {"goes_on": False})
    timer.start()
    assert wait_for_answer(tmp_path, 6) is False
    timer.join()
