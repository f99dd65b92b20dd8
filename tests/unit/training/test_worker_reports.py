import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerControl, TrainerState, TrainingArguments

from orchestrator.core.files import parse_line
from orchestrator.core.records import EvalPoint, JsonObject
from orchestrator.training.outcome import Progress, RecordProgress
from orchestrator.training.worker_reports import ReportToRay, curve_of, tokens_of


def test_a_curve_pairs_each_eval_loss_with_the_training_loss_before_it() -> None:
    log: list[JsonObject] = [
        {"step": 1, "loss": 3.0, "learning_rate": 1e-3},
        {"step": 2, "loss": 2.0},
        {"step": 2, "eval_loss": 2.5, "eval_runtime": 1.0},
        {"step": 4, "eval_loss": 2.25},
        {"step": 5, "loss": 1.0},
        {"step": 6, "eval_loss": 2.0},
        {"step": 6, "train_runtime": 9.0, "train_loss": 1.5},
    ]
    assert curve_of(log) == [
        EvalPoint(step=2, eval_loss=2.5, train_loss=2.0),
        EvalPoint(step=4, eval_loss=2.25, train_loss=2.0),
        EvalPoint(step=6, eval_loss=2.0, train_loss=1.0),
    ]


def test_a_curve_may_be_empty_or_start_with_an_evaluation() -> None:
    assert curve_of([]) == []
    assert curve_of([{"step": 0, "eval_loss": 3.0}]) == [EvalPoint(step=0, eval_loss=3.0)]


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 9))))
def test_a_curve_has_one_point_an_evaluation_in_order(entries: list[tuple[bool, float]]) -> None:
    log: list[JsonObject] = [
        {"step": step, "eval_loss" if is_eval else "loss": loss} for step, (is_eval, loss) in enumerate(entries)
    ]
    evaluations = [(step, loss) for step, (is_eval, loss) in enumerate(entries) if is_eval]
    assert [(point.step, point.eval_loss) for point in curve_of(log)] == evaluations


def test_progress_keeps_the_latest_report_of_rank_0(tmp_path: Path) -> None:
    path = tmp_path / "job" / "progress.json"
    record = RecordProgress(path.parent)
    for step in (2, 4):
        curve = [{"step": each, "eval_loss": 1 / each, "train_loss": None} for each in range(2, step + 1, 2)]
        metrics: JsonObject = {"step": step, "diverged": False, "curve": curve, "tokens": 10 * step}
        metrics |= {"eval_loss": 1 / step, "time": 1.0}
        record.after_report(None, [metrics, {**metrics, "step": 99}], None)
    progress = parse_line(path.read_text(encoding="utf-8"), Progress, where="x")
    assert progress == Progress(
        step=4, diverged=False, curve=(EvalPoint(step=2, eval_loss=0.5), EvalPoint(step=4, eval_loss=0.25)), tokens=40
    )
    assert set(json.loads(path.read_text(encoding="utf-8"))) == {"step", "diverged", "curve", "tokens"}


def test_progress_of_an_earlier_version_counts_no_tokens() -> None:
    assert parse_line('{"step": 1, "diverged": false, "curve": []}', Progress, where="x").tokens == 0


def counted(state: TrainerState, tokens: list[int], folder: Path) -> int:
    """Tokens of a training that starts with `state` and logs these counts of its own, as transformers calls it."""
    callback, control = ReportToRay(None, patience=None), TrainerControl()
    settings = TrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True)
    callback.on_train_begin(settings, state, control)
    for number, count in enumerate(tokens):
        logs = {"loss": 1.0, "num_tokens": float(count)} if number % 2 else {"eval_loss": 1.0, "eval_num_tokens": count}
        state.log_history.append({**logs, "step": number})
        callback.on_log(settings, state, control, logs)
        logs = {"train_runtime": 1.0}  # logged at the very end, without a count
        state.log_history.append({**logs, "step": number})
        callback.on_log(settings, state, control, logs)
    return tokens_of(state.log_history)


def test_tokens_are_those_of_the_latest_log(tmp_path: Path) -> None:
    assert counted(TrainerState(), [], tmp_path) == 0
    assert counted(TrainerState(), [58, 108, 181], tmp_path) == 181


def test_tokens_before_a_restart_count_too(tmp_path: Path) -> None:
    state = TrainerState()
    assert counted(state, [58, 108], tmp_path) == 108
    state.save_to_json(str(tmp_path / "trainer_state.json"))
    restored = TrainerState.load_from_json(str(tmp_path / "trainer_state.json"))
    assert counted(restored, [173], tmp_path) == 281
    assert counted(restored, [9], tmp_path) == 290
