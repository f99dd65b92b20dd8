"""A slot on disk: what comes back, and who else can read it."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from builders import make_trial, names_in
from multi_lora_runs import VAL, follow_all, hear, losses_of, make_engine, make_spec, make_trials, mean_loss
from peft import PeftModel
from transformers import AutoModelForCausalLM

from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import TrainingError
from orchestrator.core.records import EvalPoint
from orchestrator.models.adapters import keep_adapter, load_adapter, read_adapter
from orchestrator.models.base import BaseWeights, load_tokenizer
from orchestrator.multi_lora.checkpoint import (
    load_slot,
    read_progress,
    remove_surplus,
    save_slot,
    step_folder,
    write_progress,
)
from orchestrator.multi_lora.messages import TrialProgress
from orchestrator.multi_lora.slots import SlotState
from orchestrator.run.paths import RunDir

FILES = ["adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors", "slot.json"]


def trained_state(model_folder: Path, *, dtype: torch.dtype = torch.float32, **fields: object) -> SlotState:
    engine = make_engine(model_folder, dtype=dtype)
    engine.admit("a", make_spec(**fields))
    for _ in range(3):
        engine.train_step()
    return engine.evict("a")


def assert_equal(one: SlotState, other: SlotState) -> None:
    assert one.step == other.step
    for part in ("adapter", "exp_avg", "exp_avg_sq"):
        mine, its = getattr(one, part), getattr(other, part)
        assert mine.keys() == its.keys()
        for layer, pair in mine.items():
            for matrix, same in zip(pair, its[layer], strict=True):
                assert matrix.dtype == same.dtype
                assert torch.equal(matrix, same)


@pytest.mark.parametrize("rank", [1, 4, 16, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_slot_comes_back_bit_for_bit(model_folder: Path, tmp_path: Path, rank: int, dtype: torch.dtype) -> None:
    spec, state = make_spec(rank=rank), trained_state(model_folder, rank=rank, dtype=dtype)
    save_slot(tmp_path / "t" / "step-000003", spec, state)
    assert names_in(tmp_path / "t") == ["step-000003"]
    assert names_in(tmp_path / "t" / "step-000003") == FILES
    assert_equal(load_slot(tmp_path / "t" / "step-000003", spec), state)


def test_a_checkpoint_of_the_same_step_is_replaced(model_folder: Path, tmp_path: Path) -> None:
    first, second = trained_state(model_folder, seed=1), trained_state(model_folder, seed=2)
    folder = tmp_path / "step-000003"
    save_slot(folder, make_spec(seed=1), first)
    save_slot(folder, make_spec(seed=2), second)
    assert names_in(tmp_path) == ["step-000003"]
    assert_equal(load_slot(folder, make_spec(seed=2)), second)


@pytest.mark.parametrize(
    "other",
    [
        {"rank": 8},
        {"alpha": 16},
        {"learning_rate": 0.010000000000000002},
        {"max_steps": 7},
        {"warmup_steps": 0},
        {"schedule": "linear"},
        {"dropout": 0.1},
        {"use_rslora": True},
        {"weight_decay": 0.01},
        {"max_grad_norm": 2.0},
        {"seed": 1},
    ],
)
def test_every_setting_counts(model_folder: Path, tmp_path: Path, other: dict[str, object]) -> None:
    spec = make_spec()
    assert set(other) <= {field.name for field in dataclasses.fields(spec)}
    save_slot(tmp_path / "s", spec, trained_state(model_folder))
    with pytest.raises(TrainingError, match="other settings"):
        load_slot(tmp_path / "s", make_spec(**other))


@pytest.mark.parametrize(
    "fields",
    [
        {"rank": 4},
        {"rank": 20, "alpha": 40},
        {"rank": 8, "use_rslora": True, "dropout": 0.2, "max_steps": 5},
        {"rank": 1, "learning_rate": 1.0},
    ],
)
def test_peft_computes_the_loss_that_the_engine_told(
    model_folder: Path, tmp_path: Path, fields: dict[str, object]
) -> None:
    engine = make_engine(model_folder, dtype=torch.float32)
    specs = {"a": make_spec(**fields), "company": make_spec(rank=16, seed=9)}
    heard = follow_all(make_trials(engine, tmp_path), specs)
    progress = read_progress(tmp_path / "a")
    wanted = dict(losses_of(heard["a"]))
    assert progress.best_step == min(wanted, key=lambda step: wanted[step])
    base = mean_loss(AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32), VAL)
    for step in {progress.best_step, progress.step}:
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        loss = mean_loss(PeftModel.from_pretrained(model, step_folder(tmp_path / "a", step)), VAL)
        assert loss == pytest.approx(wanted[step], rel=1e-5)
        assert abs(loss - base) > 1e-4


@pytest.mark.parametrize("rank", [1, 8, 64])
def test_the_best_checkpoint_becomes_an_adapter_that_the_evaluation_can_load(
    model_folder: Path, tmp_path: Path, rank: int
) -> None:
    spec = make_spec(rank=rank, alpha=8)
    follow_all(make_trials(make_engine(model_folder, dtype=torch.float32), tmp_path / "s"), {"a": spec})
    progress = read_progress(tmp_path / "s" / "a")
    assert progress.best_step is not None
    folder = step_folder(tmp_path / "s" / "a", progress.best_step)
    run = RunDir(tmp_path / "run")
    trial = make_trial("a", eval_loss=0.5, step=progress.best_step)
    tokenizer = load_tokenizer(model_folder, trust_remote_code=False)
    kept = keep_adapter(folder, run, trial, model=ModelConfig(base=str(model_folder)), tokenizer=tokenizer)
    assert read_adapter(run.adapter(kept.id)) == kept
    assert (kept.r, kept.alpha, kept.step) == (rank, 8, progress.best_step)
    weights = load_adapter(run.adapter(kept.id), BaseWeights(model_folder))
    assert set(weights.scales.values()) == {spec.scale}
    state = load_slot(folder, spec)
    assert weights.pairs.keys() == {f"{layer}.weight" for layer in state.adapter}
    for layer, (a, b) in state.adapter.items():
        assert torch.equal(weights.pairs[f"{layer}.weight"][0], a)
        assert torch.equal(weights.pairs[f"{layer}.weight"][1], b)


@pytest.mark.parametrize("limit", [1, 3])
def test_of_all_checkpoints_the_latest_and_the_best_stay(model_folder: Path, tmp_path: Path, limit: int) -> None:
    spec = make_spec(learning_rate=0.3, max_steps=20)
    trials = make_trials(make_engine(model_folder), tmp_path, keep_best=limit)
    trials.attach("a", spec)
    seen, heard = set(), 0
    while trials.advance():
        progress = read_progress(tmp_path / "a")
        if progress.curve and progress.curve[-1].step > heard:
            heard = hear(trials, "a", heard).step
        best = sorted(progress.curve, key=lambda point: point.eval_loss)[:limit]
        named = {point.step for point in (*best, *progress.curve[-1:])}
        assert progress.best_step is None or progress.best_step in named
        assert {path.name for path in tmp_path.glob("a/step-*")} == {f"step-{step:06d}" for step in named}
        seen.add(len(named))
    assert seen == set(range(limit + 2))


def test_only_what_progress_names_counts(tmp_path: Path) -> None:
    curve = tuple(EvalPoint(step=step, eval_loss=loss) for step, loss in ((2, 0.5), (4, 0.4), (6, 0.6)))
    progress = TrialProgress(step=7, tokens=9, curve=curve, best_step=4)
    for name in ("step-000002", "step-000004", "step-000006", "step-000008", ".step-000008-x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    write_progress(tmp_path, progress)
    assert read_progress(tmp_path) == progress
    remove_surplus(tmp_path, progress, limit=2)
    assert names_in(tmp_path) == ["progress.json", "step-000002", "step-000004", "step-000006"]
    remove_surplus(tmp_path, progress, limit=1)
    assert names_in(tmp_path) == ["progress.json", "step-000004", "step-000006"]
    remove_surplus(tmp_path, TrialProgress(), limit=1)
    assert names_in(tmp_path) == ["progress.json"]
    remove_surplus(tmp_path / "missing", TrialProgress(), limit=1)


def test_what_is_written_is_json_and_safetensors_for_anyone_to_read(model_folder: Path, tmp_path: Path) -> None:
    save_slot(tmp_path / "s", make_spec(), trained_state(model_folder))
    slot = json.loads((tmp_path / "s" / "slot.json").read_text())
    assert slot["step"] == 3
    assert slot["spec"]["learning_rate"] == 1e-2
    settings = json.loads((tmp_path / "s" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["bias"]) == (4, 8, "none")
    assert {"q_proj", "down_proj"} < set(settings["target_modules"])
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o755
