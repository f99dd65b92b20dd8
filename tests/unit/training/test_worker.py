"""TRL's trainer as a worker makes it, on quantised bases: what moves, and what stays."""

import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from builders import make_plan
from datasets import Dataset
from transformers import TrainerCallback
from trl import SFTTrainer

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


def adapted(tokens: Path, place: Path, *, train: JsonObject | None = None, **lora: object) -> SFTTrainer:
    plan = plan_of(tokens, dtype="float32")
    settled = plan.lora.model_copy(update=lora), plan.train.model_copy(update=train or {})
    return make_trainer(
        plan.model_copy(update=dict(zip(("lora", "train"), settled, strict=True))), str(place), callbacks=[]
    )


def losses_of(trainer: SFTTrainer) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_lora_plus_gives_b_its_own_rate(tokens: Path, tmp_path: Path) -> None:
    trainer = adapted(tokens, tmp_path / "plus", train={"loraplus_lr_ratio": 16.0, "weight_decay": 0.1})
    optimizer = trainer.create_optimizer()
    names = {id(weight): name for name, weight in trainer.model.named_parameters()}
    rates = {names[id(weight)]: group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    assert {rate for name, rate in rates.items() if "lora_A" in name} == {1e-2}
    assert {rate for name, rate in rates.items() if "lora_B" in name} == {16.0 * 1e-2}
    assert len(rates) == sum(weight.requires_grad for weight in trainer.model.parameters())
    assert {group["weight_decay"] for group in optimizer.param_groups if group["params"]} == {0.1}
    usual = losses_of(adapted(tokens, tmp_path / "plain"))
    once = losses_of(adapted(tokens, tmp_path / "once", train={"loraplus_lr_ratio": 1.0}))
    assert once == pytest.approx(usual, rel=1e-5)
    assert losses_of(trainer) != pytest.approx(usual, rel=1e-2)


def test_noise_on_embeddings_is_of_training_alone(tokens: Path, tmp_path: Path) -> None:
    plain, noisy = (adapted(tokens, tmp_path / name, train={"neftune_noise_alpha": alpha})
                    for name, alpha in (("plain", None), ("noisy", 5.0)))  # fmt: skip
    assert noisy.evaluate()["eval_loss"] == plain.evaluate()["eval_loss"]
    assert losses_of(noisy)[0] != losses_of(plain)[0]


def test_dora_learns_lengths(tokens: Path, tmp_path: Path) -> None:
    trainer = adapted(tokens, tmp_path, use_dora=True)
    lengths = {name: weight.clone() for name, weight in trainer.model.named_parameters() if "magnitude" in name}
    losses = losses_of(trainer)
    assert losses[-1] < 0.95 * losses[0]
    now = dict(trainer.model.named_parameters())
    assert lengths
    assert all(not torch.equal(now[name], weight) for name, weight in lengths.items())


def test_rows_end_to_end_learn_what_padded_rows_do(tmp_path: Path) -> None:
    """Each row sees itself alone: a pass of rows of several lengths gives the losses and gradients of padded rows."""
    lengths = range(10, 34, 2)
    rows = [{"input_ids": list(range(9, 9 + length)), "labels": [-100] * 4 + list(range(13, 9 + length))}
            for length in lengths]  # fmt: skip
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "train"))
    Dataset.from_list(rows[:4]).save_to_disk(str(tmp_path / "val"))
    seen: dict[str, list[JsonObject]] = {}
    for packing in ("off", "auto"):
        trainer = adapted(tmp_path, tmp_path / packing, train={"sample_packing": packing})
        batch = next(iter(trainer.get_train_dataloader()))
        assert (batch["input_ids"].shape[0] == 1) is (packing == "auto")
        trainer.train()
        seen[packing] = [entry for entry in trainer.state.log_history if "loss" in entry or "eval_loss" in entry]
    for packed, padded in zip(seen["auto"], seen["off"], strict=True):
        for figure in {"loss", "eval_loss", "grad_norm", "num_tokens", "mean_token_accuracy"} & padded.keys():
            assert packed[figure] == pytest.approx(padded[figure], rel=1e-4), figure


@pytest.mark.gpu
@pytest.mark.skipif(find_spec("unsloth") is None, reason="needs the package unsloth")
def test_unsloth_learns_as_trl_does(tokens: Path, tmp_path: Path) -> None:
    losses = {}
    for backend in ("trl", "unsloth"):
        plan = plan_of(tokens, dtype="bfloat16").model_copy(update={"gpus_per_worker": 1})
        plan = plan.model_copy(update={"train": plan.train.model_copy(update={"backend": backend})})
        losses[backend] = losses_of(make_trainer(plan, str(tmp_path / backend), callbacks=[]))
    assert losses["unsloth"] == pytest.approx(losses["trl"], rel=0.02)
