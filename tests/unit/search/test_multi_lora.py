import math
from pathlib import Path

import pytest
from builders import make_config, make_plan, names_in

from orchestrator.config.schema import LoraConfig, RunConfig, SearchConfig, SpaceConfig, TrainConfig
from orchestrator.core.records import EvalPoint, StopReason, TrialStatus
from orchestrator.multi_lora.checkpoint import step_folder, write_progress
from orchestrator.multi_lora.messages import EngineStatus, TrialProgress
from orchestrator.search.multi_lora import MOST_SLOTS, SearchEngines, engine_plan, read_slot_trial
from orchestrator.search.slot_trial import slot_spec
from orchestrator.training.outcome import describe_trial

CURVE = tuple(EvalPoint(step=step, eval_loss=loss) for step, loss in ((6, 0.9), (12, 0.5), (18, 0.7)))
PLAN = make_plan(max_steps=18)
WILD = TrialProgress(step=9, curve=CURVE[:1], best_step=6, stop_reason="diverged")


@pytest.mark.parametrize(
    ("progress", "error", "status", "reason", "best_step"),
    [
        (TrialProgress(step=18, curve=CURVE, best_step=12, stop_reason="finished"), None, "completed", "finished", 12),
        (TrialProgress(step=14, curve=CURVE[:2], best_step=12), None, "stopped_early", "lagging", 12),
        (TrialProgress(step=3), None, "stopped_early", "lagging", None),
        (TrialProgress(), None, "stopped_early", "lagging", None),
        (WILD, None, "diverged", "diverged", None),
        (TrialProgress(step=12, curve=CURVE[:2], best_step=12), "the actor died", "failed", "failed", None),
        (TrialProgress(), "the actor died", "failed", "failed", None),
    ],
)
def test_a_trials_record_says_how_far_its_engine_got(
    tmp_path: Path,
    progress: TrialProgress,
    error: str | None,
    status: TrialStatus,
    reason: StopReason,
    best_step: int | None,
) -> None:
    spent = progress.model_copy(update={"tokens": 77, "device_s": 1.23456})
    write_progress(tmp_path / "t", spent)
    trained = read_slot_trial(tmp_path, "t")
    record = describe_trial(trained, PLAN, trial_id="t", duration_s=9.0, error=error)
    assert (record.trial_id, record.status, record.stop_reason, record.error) == ("t", status, reason, error)
    assert (record.steps, record.tokens, record.device_s, record.duration_s) == (progress.step, 77, 1.235, 9.0)
    assert (record.curve, record.best_step) == (progress.curve, best_step)
    assert record.best_eval_loss == (0.5 if best_step == 12 else None)
    assert record.hyperparameters == PLAN.hyperparameters
    if best_step is not None:
        assert trained.best_checkpoint == step_folder(tmp_path / "t", best_step)


def test_patience_is_told_from_the_curve_as_in_isolated_trials(tmp_path: Path) -> None:
    plan = make_plan(max_steps=60, train=TrainConfig(early_stopping_patience=1))
    write_progress(tmp_path / "t", TrialProgress(step=18, curve=CURVE, best_step=12, stop_reason="no_improvement"))
    record = describe_trial(read_slot_trial(tmp_path, "t"), plan, trial_id="t", duration_s=None, error=None)
    assert (record.status, record.stop_reason, record.best_step) == ("stopped_early", "no_improvement", 12)


def test_a_trial_of_which_nothing_is_there_has_a_record_too(tmp_path: Path) -> None:
    trained = read_slot_trial(tmp_path, "t")
    record = describe_trial(trained, PLAN, trial_id="t", duration_s=None, error="lost")
    assert (record.status, record.steps, record.curve, trained.best_checkpoint) == ("failed", 0, (), None)
    assert names_in(tmp_path) == []


def test_a_slot_trains_what_the_plan_says() -> None:
    plan = make_plan(
        max_steps=70,
        warmup_steps=5,
        lora=LoraConfig(r=16, alpha=32, dropout=0.1, use_rslora=True),
        train=TrainConfig(scheduler="linear", weight_decay=0.2, max_grad_norm=0.3, seed=4),
    )
    spec = slot_spec(plan.with_hyperparameters({"r": 8, "alpha": 64, "learning_rate": 3e-3}))
    assert (spec.rank, spec.alpha, spec.learning_rate) == (8, 64, 3e-3)
    assert (spec.max_steps, spec.warmup_steps, spec.schedule) == (70, 5, "linear")
    assert (spec.dropout, spec.use_rslora, spec.weight_decay, spec.max_grad_norm, spec.seed) == (0.1, True, 0.2, 0.3, 4)
    assert spec.scale == pytest.approx(64 / math.sqrt(8))


def test_an_engine_is_asked_for_what_the_config_says(tmp_path: Path) -> None:
    config = make_config(tmp_path, search=SearchConfig(space=SpaceConfig(r=(8, 128, 16))))
    plan = make_plan(
        eval_steps=7,
        lora=LoraConfig(target_modules=("q_proj",)),
        train=TrainConfig(batch_size=4, micro_batch_size=2, gradient_checkpointing=True, early_stopping_patience=None),
        gpus_per_worker=1,
    )
    engine = engine_plan(config, plan, slots=None, most_slots=1000, cohort=3)
    assert (engine.most_slots, engine.slots, engine.cohort, engine.largest_rank) == (MOST_SLOTS, None, 3, 128)
    assert (engine.batch_size, engine.micro_batch_size, engine.eval_steps, engine.patience) == (4, 2, 7, None)
    assert (engine.target_modules, engine.gradient_checkpointing, engine.gpus) == (("q_proj",), True, 1)
    assert engine_plan(RunConfig(), plan, slots=100, most_slots=5, cohort=1).slots == 100


def test_as_many_trials_run_as_all_engines_have_slots() -> None:
    def status(slots: int) -> EngineStatus:
        return EngineStatus(device="cpu", dtype="float32", threads=1, slots=slots, measured={}, startup_s=1.0)

    assert SearchEngines((None, None), (status(3), status(5))).concurrent_trials == 8
