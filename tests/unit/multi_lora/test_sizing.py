import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from multi_lora_runs import make_engine, make_spec

from orchestrator.core import memory
from orchestrator.multi_lora.sizing import (
    NEAR_THE_PEAK,
    choose_slots,
    free_memory,
    measure_rates,
)
from orchestrator.multi_lora.slots import CHUNK

rates_by_slots = st.lists(st.floats(1, 1e6), min_size=1, max_size=7).map(
    lambda rates: {1 << number: rate for number, rate in enumerate(rates)}
)


@given(rates_by_slots)
@example({4: 100.0, 8: 104.0, 16: 105.0})
def test_the_chosen_slots_are_the_fewest_that_train_at_about_the_best_rate(rates: dict[int, float]) -> None:
    near = [slots for slots, rate in rates.items() if rate >= NEAR_THE_PEAK * max(rates.values())]
    assert choose_slots(rates) == min(near)


def test_where_nothing_could_be_measured_there_is_one_slot() -> None:
    assert choose_slots({}) == 1


@pytest.mark.parametrize(("most_slots", "cohort", "tried"), [(1, 8, [1]), (3, 8, [3]), (5, 4, [4])])
def test_a_cohort_is_tried_first_and_never_more_than_there_may_be(
    model_folder: Path, most_slots: int, cohort: int, tried: list[int]
) -> None:
    engine = make_engine(model_folder)
    rates = measure_rates(engine, most_slots=most_slots, cohort=cohort, rank=8)
    assert list(rates) == tried
    assert all(rate > 0 for rate in rates.values())
    assert engine.slots == []


def test_the_memory_of_a_slot_is_what_its_stack_holds(model_folder: Path) -> None:
    engine = make_engine(model_folder, dtype=torch.float32)
    engine.admit("a", make_spec(rank=128))
    stack = engine._find("a")
    held = sum(t.nbytes for t in (stack.params, stack.grads, stack.exp_avg, stack.exp_avg_sq, stack.work))
    assert held <= engine.slot_bytes(128) // 2 + 5 * 4 * CHUNK
    assert engine.slot_bytes(128) == 8 * engine.slot_bytes(16)


def test_free_memory_keeps_to_the_limit_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path)
    whole = free_memory(torch.device("cpu"))
    (tmp_path / "memory.current").write_text("600\n")
    for limit, free in (("max", None), ("1000", 400), ("500", 0)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        found = free_memory(torch.device("cpu"))
        assert found == free if free is not None else found > whole // 2


def test_measuring_goes_on_only_while_twice_as_many_bring_more(model_folder: Path) -> None:
    rates = measure_rates(make_engine(model_folder), most_slots=1 << 10, cohort=1, rank=4)
    slots = list(rates)
    assert len(slots) < 10
    assert all(rates[half] < NEAR_THE_PEAK * rates[double] for half, double in itertools.pairwise(slots[:-1]))


def test_measuring_leaves_no_trace_in_what_is_trained_afterwards(model_folder: Path) -> None:
    untouched, probed = make_engine(model_folder, dtype=torch.float32), make_engine(model_folder, dtype=torch.float32)
    measure_rates(probed, most_slots=4, cohort=4, rank=16)
    results = []
    for engine in (untouched, probed):
        for number in range(3):
            engine.admit(str(number), make_spec(seed=number, dropout=0.1))
        results.append(([engine.train_step() for _ in range(4)], engine.eval_loss(engine.slots)))
    assert results[0] == results[1]


def test_what_does_not_fit_is_not_counted_and_leaves_the_engine_whole(model_folder: Path) -> None:
    engine, real = make_engine(model_folder), make_engine(model_folder)
    train = engine.train_step

    def limited() -> object:
        if len(engine.slots) > 2:
            raise torch.OutOfMemoryError("no memory")
        return train()

    engine.train_step = limited  # type: ignore[method-assign, assignment]
    assert list(measure_rates(engine, most_slots=8, cohort=8, rank=8)) == [2]
    assert 4 not in measure_rates(engine, most_slots=8, cohort=1, rank=8)
    assert engine.slots == []
    for each in (engine, real):
        each.admit("a", make_spec())
    assert engine.train_step() == real.train_step()


def test_where_not_even_one_slot_fits_nothing_is_measured(model_folder: Path) -> None:
    engine = make_engine(model_folder)

    def full() -> object:
        raise torch.OutOfMemoryError("no memory")

    engine.train_step = full  # type: ignore[method-assign, assignment]
    assert measure_rates(engine, most_slots=8, cohort=8, rank=8) == {}
    assert engine.slots == []
