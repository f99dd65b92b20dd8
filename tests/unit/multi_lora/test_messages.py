import pytest

from orchestrator.config.schema import ModelConfig
from orchestrator.core.records import EvalPoint, Record
from orchestrator.multi_lora.messages import EnginePlan, EngineStatus, EngineUse, Evaluation, TrialProgress

POINT = EvalPoint(step=2, eval_loss=0.5, train_loss=0.7)
RECORDS: list[Record] = [
    EnginePlan(
        model=ModelConfig(base="tiny"),
        target_modules=("q_proj", "v_proj"),
        gradient_checkpointing=False,
        train_tokens="/t",
        val_tokens="/v",
        batch_size=8,
        micro_batch_size=2,
        eval_steps=5,
        patience=None,
        keep_best=3,
        cpus=0.5,
        gpus=1,
        slots=None,
        most_slots=16,
        cohort=4,
        largest_rank=64,
    ),
    EngineStatus(device="cpu", dtype="bfloat16", threads=1, slots=8, measured={1: 10.5, 2: 20.0}, startup_s=1.5),
    EngineUse(train_s=1.0, tokens=7, slots=2),
    TrialProgress(step=3, tokens=7, device_s=0.1, curve=(POINT,), best_step=2, stop_reason="diverged"),
    Evaluation(step=2, eval_loss=0.5, stop_reason=None, curve=(POINT,)),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_the_same_on_the_other_side_of_json(record: Record) -> None:
    assert type(record).model_validate_json(record.model_dump_json()) == record
    assert type(record).model_validate(record.model_dump(mode="json")) == record
