"""TRL's trainer as a worker makes it, on quantised bases: what moves, and what stays."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from builders import make_plan
from datasets import Dataset
from transformers import TrainerCallback

from orchestrator.config.schema import LoraConfig, ModelConfig, TrainConfig
from orchestrator.core.records import JsonObject
from orchestrator.training.plan import TrainPlan
from orchestrator.training.worker import make_trainer

STEPS = 4
KINDS = {"nf4": Linear4bit, "int8": Linear8bitLt}


class Logged(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    def __init__(self) -> None:
        self.steps: list[JsonObject] = []

    def on_log(self, _args: object, _state: object, _control: object, logs: JsonObject, **_: object) -> None:
        if "grad_norm" in logs:
            self.steps.append(logs)


@pytest.fixture(autouse=True, scope="module")
def one_worker() -> Iterator[None]:
    """What Ray Train sets up for a worker without others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}.items():
            patch.setenv(name, value)
        patch.setenv("MASTER_ADDR", "127.0.0.1")
        with socket.create_server(("127.0.0.1", 0)) as free:
            patch.setenv("MASTER_PORT", str(free.getsockname()[1]))
        torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
        yield
        torch.distributed.destroy_process_group()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    rows = [{"input_ids": list(range(start, start + 24)), "labels": [-100] * 8 + list(range(start + 8, start + 24))}
            for start in range(10, 26)]  # fmt: skip
    Dataset.from_list(rows).save_to_disk(str(folder / "train"))
    Dataset.from_list(rows[:4]).save_to_disk(str(folder / "val"))
    return folder


def plan_of(tokens: Path, *, gradient_checkpointing: bool = False, **model: object) -> TrainPlan:
    return make_plan(
        model=ModelConfig.model_validate({"base": "tiny", **model}),
        lora=LoraConfig(r=8, alpha=16),
        train=TrainConfig(
            batch_size=4, micro_batch_size=2, learning_rate=1e-2, gradient_checkpointing=gradient_checkpointing
        ),
        train_tokens=str(tokens / "train"),
        val_tokens=str(tokens / "val"),
        max_steps=STEPS,
        eval_steps=1,
        warmup_steps=0,
    )


@pytest.mark.parametrize(
    ("quantization", "dtype", "gradient_checkpointing"),
    [("nf4", "bfloat16", True), ("nf4", "float16", False), ("int8", "bfloat16", True)],
)
def test_an_adapter_on_a_quantised_base_gets_gradients_and_learns(
    tokens: Path, tmp_path: Path, quantization: str, dtype: str, gradient_checkpointing: bool
) -> None:
    """Without the gradient of a checkpointed layer's input the norm is 0.0 and nothing is learned.

    It evaluates after every step, for in a pass without gradients bitsandbytes may lay the weights out for inference.
    """
    logged = Logged()
    plan = plan_of(tokens, quantization=quantization, dtype=dtype, gradient_checkpointing=gradient_checkpointing)
    trainer = make_trainer(plan, str(tmp_path), callbacks=[logged])
    trained = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    frozen = {name: weight.clone() for name, weight in trainer.model.named_parameters() if not weight.requires_grad}
    before = {name: weight.clone() for name, weight in trained.items()}
    assert any(isinstance(module, KINDS[quantization]) for module in trainer.model.modules())
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    assert all(".lora_" in name for name in trained)

    trainer.train()

    assert len(logged.steps) == STEPS
    assert all(step["grad_norm"] > 1e-3 for step in logged.steps)
    assert logged.steps[-1]["loss"] < 0.95 * logged.steps[0]["loss"]
    assert all(not torch.equal(weight, before[name]) for name, weight in trained.items() if ".lora_B." in name)
    assert all(torch.equal(dict(trainer.model.named_parameters())[name], weight) for name, weight in frozen.items())


def test_recomputed_layers_on_a_base_in_four_bits_give_the_same_losses(tokens: Path, tmp_path: Path) -> None:
    losses = []
    for checkpointing in (False, True):
        logged = Logged()
        plan = plan_of(tokens, quantization="nf4", dtype="float32", gradient_checkpointing=checkpointing)
        make_trainer(plan, str(tmp_path / str(checkpointing)), callbacks=[logged]).train()
        losses.append([step["loss"] for step in logged.steps])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_adamw_in_8_bits_moves_an_adapter_as_adamw_does(tokens: Path, tmp_path: Path) -> None:
    losses = {}
    for optimizer in ("adamw", "adamw_8bit"):
        logged = Logged()
        plan = plan_of(tokens, dtype="float32")
        plan = plan.model_copy(update={"train": plan.train.model_copy(update={"optimizer": optimizer})})
        trainer = make_trainer(plan, str(tmp_path / optimizer), callbacks=[logged])
        trainer.train()
        losses[optimizer] = [step["loss"] for step in logged.steps]
        states = trainer.optimizer.state.values()
        moments = {state[name].dtype for state in states for name in ("state1", "exp_avg") if name in state}
        assert (torch.uint8 in moments) is (optimizer == "adamw_8bit")  # of small matrices they stay in float32
    assert losses["adamw_8bit"] == pytest.approx(losses["adamw"], rel=0.02)
    assert losses["adamw_8bit"][-1] < 0.95 * losses["adamw_8bit"][0]
