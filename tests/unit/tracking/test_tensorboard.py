from pathlib import Path

import pytest
from followed_run import CURVE, follow_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data
from tensorboard.plugins.text.metadata import PLUGIN_NAME

from orchestrator.run.paths import RunDir


def opened(folder: Path) -> EventAccumulator:
    board = EventAccumulator(str(folder))
    board.Reload()
    return board


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return follow_run(tmp_path_factory.mktemp("runs") / "demo", ["tensorboard"])


def curve(board: EventAccumulator, tag: str) -> list[tuple[int, object]]:
    return [(point.step, pytest.approx(point.value)) for point in board.Scalars(tag)]


def test_each_trial_has_its_curves_and_a_resumed_one_goes_on_where_it_was(run: RunDir) -> None:
    board = opened(run.tensorboard / "trial-1")
    assert curve(board, "eval/loss") == CURVE
    assert [point.step for point in board.Scalars("train/loss")] == [10, 20, 30]


def test_a_loss_that_is_not_finite_is_no_point(run: RunDir) -> None:
    assert curve(opened(run.tensorboard / "trial-2"), "eval/loss") == [(10, 1.4)]


def test_the_table_of_hyperparameters_knows_each_trial(run: RunDir) -> None:
    content = opened(run.tensorboard / "trial-2").SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content
    given = parse_session_start_info_plugin_data(content).hparams
    assert {name: value.number_value for name, value in given.items()} == {"r": 16.0, "learning_rate": 2e-3}


def test_scores_stand_beside_the_curves_and_the_base_has_its_own(run: RunDir) -> None:
    assert curve(opened(run.tensorboard / "trial-1"), "scores/case_accuracy") == [(30, 0.75)]
    assert curve(opened(run.tensorboard / "base"), "scores/case_accuracy") == [(0, 0.25)]


def test_the_report_can_be_read(run: RunDir) -> None:
    board = opened(run.tensorboard / "report")
    assert board.SummaryMetadata("report").plugin_data.plugin_name == PLUGIN_NAME
    (shown,) = board.Tensors("report")
    assert shown.tensor_proto.string_val == [b"# The report\n"]


def test_what_was_logged_after_the_checkpoint_that_a_trial_resumes_from_is_not_shown_twice(tmp_path: Path) -> None:
    run = follow_run(tmp_path / "demo", ["tensorboard"], resumes_at=10)
    assert curve(opened(run.tensorboard / "trial-1"), "eval/loss") == [CURVE[0], CURVE[2]]
