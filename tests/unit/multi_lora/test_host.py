"""An engine brought up as a plan says, without Ray."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from adapters_elsewhere import made
from builders import make_plan
from datasets import Dataset, load_from_disk
from multi_lora_runs import VAL, follow, make_spec, mean_loss, pairs_of
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from orchestrator.config.schema import ModelConfig, RunConfig
from orchestrator.core.errors import InputError, ModelNotFoundError, TrainingError
from orchestrator.multi_lora import host
from orchestrator.multi_lora.batch import IGNORED
from orchestrator.multi_lora.host import (
    Room,
    lowered_text,
    make_engine,
    memory_for_engine,
    read_tokens,
    smaller,
    start_engine,
)
from orchestrator.multi_lora.messages import EnginePlan, EngineStatus
from orchestrator.search.multi_lora import engine_plan

ROWS = [([5, 6, 7, 8], [IGNORED, IGNORED, 7, 8]), ([9, 10], [IGNORED, 10]), ([11, 12, 13], [IGNORED, 12, 13])]


def plan_for(base: str, tokens: Path, **fields: object) -> EnginePlan:
    train = make_plan(base=base, train_tokens=str(tokens), val_tokens=str(tokens))
    plan = engine_plan(RunConfig(), train, slots=2, most_slots=4, cohort=2)
    return plan.model_copy(update={"model": ModelConfig(base=base, dtype="float32"), **fields})


def store(rows: list[tuple[list[int], list[int]]], folder: Path) -> Path:
    Dataset.from_list([{"input_ids": ids, "labels": labels} for ids, labels in rows]).save_to_disk(str(folder))
    return folder


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    return store(ROWS, tmp_path / "tokens")


def test_stored_tokens_are_read_as_they_are(tokens: Path) -> None:
    rows = read_tokens(tokens)
    assert len(rows) == 3
    assert pairs_of(rows) == ROWS
    assert rows.lengths.tolist() == [4, 2, 3]


def test_tokens_that_were_chosen_from_others_are_read_in_their_order(tokens: Path, tmp_path: Path) -> None:
    load_from_disk(str(tokens)).select([2, 0]).save_to_disk(str(tmp_path / "some"))
    rows = read_tokens(tmp_path / "some")
    assert rows.ids.tolist() == [*ROWS[2][0], *ROWS[0][0]]
    assert np.array_equal(rows.offsets, [0, 3, 7])


def test_an_engine_is_made_as_the_plan_says(model_folder: Path, tokens: Path) -> None:
    engine = make_engine(plan_for(str(model_folder), tokens, target_modules=("q_proj", "v_proj"), batch_size=2))
    assert {target.name.rpartition(".")[2] for target in engine.targets} == {"q_proj", "v_proj"}
    engine.admit("a", make_spec(max_steps=2))
    assert engine.train_step()["a"].tokens in {6, 7, 5}


def test_a_base_that_does_not_suit_is_told_before_anything_starts(model_folder: Path, tokens: Path) -> None:
    with pytest.raises(InputError, match=r"lora.target_modules"):
        make_engine(plan_for(str(model_folder), tokens, target_modules=("embed_tokens",)))
    with pytest.raises(InputError, match=r"lora.target_modules"):
        make_engine(plan_for(str(model_folder), tokens, target_modules=("no_such_layer",)))
    with pytest.raises(ModelNotFoundError):
        make_engine(plan_for(str(tokens), tokens))


@pytest.fixture
def start(model_folder: Path, tmp_path: Path) -> Path:
    """An adapter of rank 4 and alpha 8 as training finds it."""
    return made(tmp_path / "start", model_folder, target_modules="all-linear")


def test_every_slot_starts_as_the_adapter_that_the_plan_names(
    model_folder: Path, real_tokens: Path, start: Path
) -> None:
    engine = make_engine(plan_for(str(model_folder), real_tokens, start=str(start)))
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    wanted = mean_loss(PeftModel.from_pretrained(base, start), VAL)
    engine.admit("a", make_spec(rank=4, alpha=8, seed=1))
    engine.admit("b", make_spec(rank=4, alpha=8, seed=2))
    losses = engine.eval_loss(["a", "b"])
    assert losses["a"] == losses["b"] == pytest.approx(wanted, rel=1e-5)
    engine.train_step()
    after = engine.evict("a")
    engine.admit("c", make_spec(rank=4, alpha=8))
    assert engine.eval_loss(["c"])["c"] == losses["a"], "training one slot changed what the others start from"
    tensors = load_file(start / "adapter_model.safetensors")
    assert all(
        torch.equal(matrix, tensors[f"base_model.model.{name}.lora_{part}.weight"])
        for name, pair in engine.evict("c").adapter.items()
        for part, matrix in zip("AB", pair, strict=True)
    )
    engine.admit("a", make_spec(rank=4, alpha=8, seed=1), after)
    assert engine.evict("a").step == 1, "what is resumed goes on, and does not start again"


@pytest.fixture
def real_tokens(tmp_path: Path) -> Path:
    return store(pairs_of(VAL), tmp_path / "real")


def test_an_engine_starts_with_the_slots_that_are_set_and_trains_what_comes(
    model_folder: Path, real_tokens: Path, tmp_path: Path
) -> None:
    plan = plan_for(str(model_folder), real_tokens, slots=3, eval_steps=2)
    trials, status = start_engine(plan, tmp_path / "s", 1, after_death=False)
    assert (status.device, status.dtype, status.threads, status.slots, status.measured) == ("cpu", "float32", 1, 3, {})
    assert EngineStatus.model_validate_json((tmp_path / "s" / "engine-1.json").read_text()) == status
    assert [evaluation.step for evaluation in follow(trials, "a", make_spec(max_steps=3))] == [2, 3]
    assert trials.use().slots == 3


def test_slots_that_are_not_set_are_measured(model_folder: Path, real_tokens: Path, tmp_path: Path) -> None:
    plan = plan_for(str(model_folder), real_tokens, slots=None, most_slots=4, cohort=4)
    trials, status = start_engine(plan, tmp_path, 0, after_death=False)
    assert list(status.measured) == [4]
    assert trials.slots == status.slots
    assert status.slots in status.measured


def test_after_each_sudden_death_an_engine_has_half_the_slots_whatever_was_set(
    model_folder: Path, real_tokens: Path, tmp_path: Path
) -> None:
    plan = plan_for(str(model_folder), real_tokens, slots=5)
    slots = [start_engine(plan, tmp_path, 0, after_death=number > 0)[1].slots for number in range(4)]
    assert slots == [5, 2, 1, 1]
    assert start_engine(plan, tmp_path, 1, after_death=True)[1].slots == 5  # died before it was ready


def test_an_engine_that_breaks_tells_its_clients_why(model_folder: Path, real_tokens: Path, tmp_path: Path) -> None:
    trials, _ = start_engine(plan_for(str(model_folder), real_tokens), tmp_path, 0, after_death=False)
    (tmp_path / "a").write_text("a file where the trial's folder should be")
    with pytest.raises(TrainingError, match=r"the engine broke: .*Error"):
        follow(trials, "a", make_spec())


STATUS = EngineStatus(device="cpu", dtype="float32", threads=1, slots=2, measured={}, startup_s=1.0, micro_batch_size=4)


def after(plan: EnginePlan, status: EngineStatus) -> tuple[Room, str]:
    room = smaller(plan, status)
    return room, lowered_text(0, status, room, longest=1024)


def test_an_engine_that_was_killed_comes_back_smaller_and_says_how(tokens: Path) -> None:
    plan = plan_for("tiny", tokens, slots=2, micro_batch_size=4, gradient_checkpointing="auto")
    room, told = after(plan, STATUS)
    assert room.slots == 1
    assert told == (
        "Engine 1 was killed, most likely because memory ran out, with 2 slots of 4 x 1,024 tokens; it goes on with 1."
    )
    room, told = after(plan, STATUS.model_copy(update={"slots": 1}))
    assert (room.slots, room.plan.micro_batch_size, room.plan.gradient_checkpointing) == (1, 2, False)
    assert told.endswith("with 1 slot of 4 x 1,024 tokens; it goes on with 2 x 1,024.")
    room, told = after(plan, STATUS.model_copy(update={"slots": 1, "micro_batch_size": 1}))
    assert (room.slots, room.plan.micro_batch_size, room.plan.gradient_checkpointing) == (1, 1, True)
    assert told.endswith("it goes on with layers recomputed.")


def test_engines_of_one_machine_share_its_memory(tokens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    plan = plan_for("tiny", tokens)
    whole = memory_for_engine(plan.model_copy(update={"engines": 1, "cpus": 1.0}))
    assert memory_for_engine(plan.model_copy(update={"engines": 2, "cpus": 1.0})) == pytest.approx(whole / 2, abs=2)
    assert memory_for_engine(plan.model_copy(update={"engines": 9, "cpus": 2.0})) == pytest.approx(whole / 2, abs=2)


def test_where_memory_is_short_layers_are_recomputed_and_slots_are_few(
    model_folder: Path, real_tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_for(str(model_folder), real_tokens, slots=None, most_slots=4, cohort=4, gradient_checkpointing="auto")
    monkeypatch.setattr(host, "memory_for_engine", lambda _plan: 1)
    trials, status = start_engine(plan, tmp_path, 0, after_death=False)
    assert (status.slots, status.checkpointing, status.micro_batch_size) == (1, True, 1)
    assert [evaluation.step for evaluation in follow(trials, "a", make_spec(max_steps=2))][-1] == 2
