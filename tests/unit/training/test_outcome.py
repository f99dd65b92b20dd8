import json
from pathlib import Path

import pytest
from builders import make_plan, make_trial, write_peft_checkpoint
from transformers import AutoTokenizer

from orchestrator.config.schema import TrainConfig
from orchestrator.core.files import write_text_atomic
from orchestrator.core.records import EvalPoint, StopReason, TrialStatus
from orchestrator.models.adapters import read_adapter
from orchestrator.models.base import load_tokenizer
from orchestrator.run.paths import RunDir
from orchestrator.training.outcome import (
    STATUS_OF,
    Progress,
    TrainedTrial,
    describe_trial,
    keep_best,
    read_trial,
    stop_reason,
)

PLAN = make_plan(max_steps=20)
EARLY, BEST, LAST = (EvalPoint(step=s, eval_loss=v) for s, v in ((5, 0.9), (10, 0.4), (20, 0.5)))
FOLDER = Path("/checkpoint")


@pytest.mark.parametrize(
    ("trial", "error", "status", "has_best"),
    [
        (TrainedTrial((EARLY, BEST, LAST), False, BEST, FOLDER), None, "completed", True),
        (TrainedTrial((EARLY, BEST), False, BEST, FOLDER), None, "stopped_early", True),
        (TrainedTrial((), False, None, None), None, "stopped_early", False),
        (TrainedTrial((EARLY, BEST), True, BEST, FOLDER), None, "diverged", False),
        (TrainedTrial((EARLY, BEST), True, BEST, FOLDER), "boom", "diverged", False),
        (TrainedTrial((EARLY, BEST), False, BEST, FOLDER), "boom", "failed", False),
        (TrainedTrial((EARLY, BEST, LAST), False, BEST, FOLDER), "boom", "failed", False),
        (TrainedTrial((), False, None, None), "boom", "failed", False),
    ],
)
def test_a_trials_status_and_whether_it_can_be_best(
    trial: TrainedTrial, error: str | None, status: TrialStatus, has_best: bool
) -> None:
    record = describe_trial(trial, PLAN, trial_id="t1", duration_s=3.5, error=error)
    assert record.status == status
    assert (record.best_eval_loss, record.best_step) == ((0.4, 10) if has_best else (None, None))
    assert record.curve == trial.curve
    assert record.hyperparameters == {"r": 16, "alpha": 32, "learning_rate": 2e-4}
    assert (record.trial_id, record.duration_s, record.error, record.adapter_id) == ("t1", 3.5, error, None)


@pytest.mark.parametrize(
    ("losses", "patience", "reason"),
    [
        ((0.9, 0.8, 0.7, 0.6), 1, "finished"),
        ((0.6, 0.7, 0.8, 0.9), 3, "finished"),
        ((0.9, 0.8), 1, "lagging"),
        ((0.8, 0.9), 2, "lagging"),
        ((0.8, 0.9), 1, "no_improvement"),
        ((0.8, 0.9), None, "lagging"),
        ((0.8, 0.9, 0.9), 2, "no_improvement"),
        ((), 1, "lagging"),
    ],
)
def test_what_the_curve_and_the_plans_patience_say_of_the_end(
    losses: tuple[float, ...], patience: int | None, reason: StopReason
) -> None:
    plan = make_plan(max_steps=20, train=TrainConfig(early_stopping_patience=patience))
    curve = tuple(EvalPoint(step=5 * (n + 1), eval_loss=loss) for n, loss in enumerate(losses))
    left = TrainedTrial(curve, False, None, None)
    assert stop_reason(left, plan, failed=False) == reason
    assert stop_reason(left, plan, failed=True) == "failed"
    assert stop_reason(left._replace(diverged=True), plan, failed=True) == "diverged"
    record = describe_trial(left, plan, trial_id="t", duration_s=None, error=None)
    assert (record.stop_reason, record.status) == (reason, STATUS_OF[reason])


def test_a_trial_says_its_steps_its_tokens_and_the_time_of_all_its_workers() -> None:
    left = TrainedTrial((EARLY,), True, None, None, steps=7, tokens=1234)
    record = describe_trial(left, make_plan(num_workers=2), trial_id="t", duration_s=3.5, error=None)
    assert (record.steps, record.tokens, record.device_s) == (7, 1234, 7.0)
    assert describe_trial(left, PLAN, trial_id="t", duration_s=None, error=None).device_s is None


def test_a_trial_says_the_most_memory_that_its_process_held(tmp_path: Path) -> None:
    progress = Progress(step=2, diverged=False, curve=(EARLY,))
    write_text_atomic(tmp_path / "t1" / "progress.json", progress.model_dump_json())
    of_each = {"at": 0, "loss": 1, "learning_rate": 1, "tokens": 1, "tokens_per_s": 1, "epoch": 0}
    rows = [{"step": step, "memory_bytes": held, **of_each} for step, held in ((1, 700), (2, 900), (3, 800))]
    write_text_atomic(tmp_path / "t1" / "steps.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    left = read_trial(tmp_path, "t1")
    assert left.memory_bytes == 900
    assert describe_trial(left, PLAN, trial_id="t", duration_s=1.0, error=None).memory_bytes == 900


def test_a_job_that_reported_nothing_left_nothing(tmp_path: Path) -> None:
    assert read_trial(tmp_path, "t1") == TrainedTrial((), diverged=False, best=None, best_checkpoint=None)


def test_a_job_that_saved_nothing_left_its_curve(tmp_path: Path) -> None:
    progress = Progress(step=12, diverged=True, curve=(EARLY, BEST), tokens=99)
    write_text_atomic(tmp_path / "t1" / "progress.json", progress.model_dump_json())
    assert read_trial(tmp_path, "t1") == TrainedTrial((EARLY, BEST), True, None, None, steps=12, tokens=99)


@pytest.mark.parametrize("thinking", [False, True])
def test_the_best_checkpoint_becomes_an_adapter_that_renders_as_it_was_trained(
    model_folder: Path, tmp_path: Path, *, thinking: bool
) -> None:
    run, plan = RunDir(tmp_path / "run"), make_plan(base=str(model_folder), thinking=thinking)
    checkpoint = write_peft_checkpoint(tmp_path / "checkpoint", model_folder)
    record = keep_best(TrainedTrial((BEST,), False, BEST, checkpoint), run, plan, make_trial())
    assert record.adapter_id is not None
    adapter = read_adapter(run.adapter(record.adapter_id))
    assert (adapter.base, adapter.r, adapter.trial_id) == (str(model_folder), 4, "t0")
    trained = load_tokenizer(model_folder, trust_remote_code=False)
    served = AutoTokenizer.from_pretrained(run.adapter(record.adapter_id))
    asked = [{"role": "user", "content": "Is it cold in Oslo?"}]
    texts = {
        think: trained.apply_chat_template(asked, tokenize=False, add_generation_prompt=True, enable_thinking=think)
        for think in (True, False)
    }
    assert served.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) == texts[thinking]
    assert texts[True] != texts[False]


def test_a_trial_without_a_best_keeps_no_adapter(tmp_path: Path) -> None:
    run, record = RunDir(tmp_path), make_trial(eval_loss=None, step=None)
    assert keep_best(TrainedTrial((), True, BEST, tmp_path), run, PLAN, record) == record
    assert keep_best(TrainedTrial((), False, None, None), run, PLAN, make_trial()) == make_trial()
    assert not (tmp_path / "adapters").exists()
