import copy

import pytest
import torch
from multi_lora_builders import (
    TRAIN,
    VAL,
    difference,
    make_engine,
    make_spec,
    relative_differences,
    rows_keep_their_bits,
    same_bits,
    small_base,
    train_steps,
)
from multi_lora_runs import mean_loss
from transformers import PreTrainedModel

from orchestrator.multi_lora import engine as engine_module
from orchestrator.multi_lora.batch import IGNORED, TokenRows, samples_of_step
from orchestrator.multi_lora.engine import MultiLoraEngine, token_losses
from orchestrator.multi_lora.slots import SlotState, initial_state

SPECS = {"a": make_spec(4), "b": make_spec(40, seed=8), "c": make_spec(8, seed=9, weight_decay=0.1)}


def with_adapter(model: PreTrainedModel, state: SlotState, scale: float) -> PreTrainedModel:
    """A plain model that has an adapter merged into its weights."""
    merged = copy.deepcopy(model)
    for name, (a, b) in state.adapter.items():
        merged.get_submodule(name).weight += scale * b @ a
    return merged


def test_slots_lie_by_width_and_then_in_the_order_they_came() -> None:
    engine = make_engine(small_base(), SPECS)
    assert engine.slots == ["a", "c", "b"]
    assert list(engine.train_step()) == engine.slots
    engine.evict("a")
    engine.admit("d", make_spec(16))
    assert engine.slots == ["c", "d", "b"]


def test_a_name_is_taken_once_and_unknown_ones_are_told() -> None:
    engine = make_engine(small_base(), {"a": make_spec()})
    with pytest.raises(ValueError, match="slot 'a' is taken"):
        engine.admit("a", make_spec(40))
    for ask in (engine.evict, engine.export, engine.gradient):
        with pytest.raises(KeyError, match="nobody"):
            ask("nobody")
    engine.evict("a")
    assert engine.slots == []
    assert engine.train_step() == {}
    engine.admit("a", make_spec(40))
    assert engine.slots == ["a"]


def test_evaluating_no_slot_gives_nothing() -> None:
    assert make_engine(small_base(), {}).eval_loss([]) == {}
    assert make_engine(small_base(), {"a": make_spec()}).eval_loss([]) == {}


def test_results_count_steps_and_tokens_without_padding() -> None:
    engine = make_engine(small_base(), SPECS, micro_batch_size=3)
    for step, results in enumerate(engine.train_step() for _ in range(3)):
        for name, spec in SPECS.items():
            batch = samples_of_step(len(TRAIN), 4, seed=spec.seed, step=step)
            assert results[name].step == step + 1
            assert results[name].tokens == sum(int(TRAIN.lengths[index]) for index in batch)
            assert results[name].learned == sum(len(TRAIN.learned(index)) for index in batch)


def test_the_base_stays_as_it_was_and_needs_no_gradients() -> None:
    model = small_base("llama").requires_grad_(requires_grad=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    engine = MultiLoraEngine(model, TRAIN, VAL, batch_size=4, micro_batch_size=4)
    engine.admit("a", make_spec())
    train_steps(engine, 3)
    after = {name.replace(".base.", "."): tensor for name, tensor in model.state_dict().items()}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_new_adapter_has_the_loss_of_the_base() -> None:
    model = small_base()
    engine = make_engine(model, SPECS)
    assert list(engine.eval_loss(["a", "b", "c"]).values()) == pytest.approx([mean_loss(model, VAL)] * 3, rel=1e-6)


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gemma3_text", "gpt_neox"])
def test_eval_loss_is_that_of_the_merged_model_for_whichever_slots_are_asked(kind: str) -> None:
    model = small_base(kind, dtype=torch.float64)
    engine = make_engine(model, SPECS, micro_batch_size=2)
    train_steps(engine, 3)
    for names in (["a", "b", "c"], ["c"], ["b", "a"], ["b"]):
        losses = engine.eval_loss(names)
        assert losses.keys() == set(names)
        for name in names:
            merged = with_adapter(model, engine.export(name), SPECS[name].scale)
            assert losses[name] == pytest.approx(mean_loss(merged, VAL), rel=1e-9)
            assert losses[name] != pytest.approx(mean_loss(model, VAL), rel=1e-5)


def test_evaluation_and_export_change_nothing() -> None:
    model = small_base()
    watched, left_alone = make_engine(model, SPECS), make_engine(model, SPECS)
    for _ in range(3):
        watched.eval_loss(["b", "c"])
        watched.export("a")
        assert watched.train_step() == left_alone.train_step()
    for name in SPECS:
        assert same_bits(watched.export(name), left_alone.export(name))


def test_what_is_exported_stays_as_it_was() -> None:
    engine = make_engine(small_base(), SPECS)
    train_steps(engine, 2)
    one, other = engine.export("a"), copy.deepcopy(engine.export("a"))
    train_steps(engine, 2)
    assert same_bits(one, other)
    assert not same_bits(one, engine.export("a"))


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3])
def test_the_size_of_passes_changes_nothing_and_may_be_lowered_at_any_time(micro_batch_size: int) -> None:
    model = small_base("gpt_neox", dtype=torch.float64)
    whole, split = make_engine(model, SPECS), make_engine(model, SPECS)
    for _ in range(2):
        train_steps(whole, 2)
        train_steps(split, 2)
        split.micro_batch_size = micro_batch_size
    for name in SPECS:
        assert difference(whole.export(name).adapter, split.export(name).adapter) < 1e-10
    one, other = whole.eval_loss(["a"]), split.eval_loss(["a"])
    assert one["a"] == pytest.approx(other["a"], rel=1e-10)


@pytest.mark.skipif(not rows_keep_their_bits(torch.float32), reason="products depend on the number of rows here")
def test_a_pass_that_finds_no_memory_leaves_all_slots_as_before_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_base()
    hit, spared = (make_engine(model, SPECS, micro_batch_size=1) for _ in range(2))
    for engine in (hit, spared):
        train_steps(engine, 2)
    calls = []

    def fails_once(*given: torch.Tensor) -> object:
        calls.append(given)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("no memory")
        return token_losses(*given)

    monkeypatch.setattr(engine_module, "token_losses", fails_once)
    with pytest.raises(torch.OutOfMemoryError):
        hit.train_step()
    for name in SPECS:
        assert same_bits(hit.export(name), spared.export(name))
    assert train_steps(hit, 2) == train_steps(spared, 2)
    for name in SPECS:
        assert same_bits(hit.export(name), spared.export(name))


def test_batches_in_which_nothing_is_learned_only_count() -> None:
    silent = TokenRows.of([([5, 6, 7], [IGNORED] * 3), ([8], [8])])
    engine = make_engine(small_base(), {"a": make_spec(4, warmup_steps=0)}, train=silent)
    before = engine.export("a")
    result = engine.train_step()["a"]
    assert (result.step, result.loss, result.grad_norm, result.learned) == (1, 0.0, 0.0, 0)
    assert difference(engine.export("a").adapter, before.adapter) == 0


def test_a_batch_may_be_larger_than_the_data() -> None:
    rows = TokenRows.of([([5, 6, 7, 8], [5, 6, 7, 8]), ([9, 10, 11], [IGNORED, 10, 11])])
    engine = make_engine(small_base(), {"a": make_spec(4)}, train=rows, batch_size=5, micro_batch_size=5)
    assert engine.train_step()["a"].learned in (2 * 3 + 3 * 2, 3 * 3 + 2 * 2)


def test_only_the_named_layers_are_trained() -> None:
    model = small_base("llama", dtype=torch.float64)
    engine = MultiLoraEngine(
        copy.deepcopy(model), TRAIN, VAL, batch_size=4, micro_batch_size=4, target_modules=("q_proj", "v_proj")
    )
    engine.admit("a", make_spec())
    train_steps(engine, 3)
    state = engine.export("a")
    assert {name.rpartition(".")[2] for name in state.adapter} == {"q_proj", "v_proj"}
    merged = with_adapter(model, state, make_spec().scale)
    assert engine.eval_loss(["a"])["a"] == pytest.approx(mean_loss(merged, VAL), rel=1e-9)


def test_the_gradient_is_that_of_the_last_step_after_clipping() -> None:
    spec = make_spec(4, max_grad_norm=1e-3)
    engine = make_engine(small_base(), {"a": spec})
    result = engine.train_step()["a"]
    norm = sum(float(part.square().sum()) for pair in engine.gradient("a").values() for part in pair) ** 0.5
    assert result.grad_norm > 1e-2
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_learning_lowers_the_loss(tiny_base: PreTrainedModel) -> None:
    rows = TokenRows.of([(list(range(10, 30)), list(range(10, 30)))])
    engine = MultiLoraEngine(copy.deepcopy(tiny_base), rows, rows, batch_size=1, micro_batch_size=1)
    engine.admit("a", make_spec(8, max_steps=20))
    before = engine.eval_loss(["a"])["a"]
    losses = [result.loss for result in train_steps(engine, 20)["a"]]
    assert losses[0] == pytest.approx(before, rel=1e-5)
    assert engine.eval_loss(["a"])["a"] < 0.2 * before


def test_a_slot_goes_on_from_a_state_with_its_step_and_moments() -> None:
    model = small_base("gpt_neox", dtype=torch.float64)
    straight, before = make_engine(model, {"a": SPECS["a"]}), make_engine(model, {"a": SPECS["a"]})
    whole = [result.loss for result in train_steps(straight, 6)["a"]]
    train_steps(before, 3)
    after = make_engine(model, {})
    after.admit("a", SPECS["a"], before.evict("a"))
    rest = train_steps(after, 3)["a"]
    assert [result.step for result in rest] == [4, 5, 6]
    assert relative_differences([result.loss for result in rest], whole[3:]) == 0
    assert same_bits(after.export("a"), straight.export("a"))


def test_a_state_that_is_given_is_not_changed() -> None:
    engine = make_engine(small_base(), {})
    state = initial_state(make_spec(4), engine.targets)
    engine.admit("a", make_spec(4), state)
    train_steps(engine, 2)
    assert same_bits(state, initial_state(make_spec(4), engine.targets))
