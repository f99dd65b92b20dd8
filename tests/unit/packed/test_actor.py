"""What an engine's actor does without Ray: dealing out places, and making the engine of a plan."""

from pathlib import Path

import numpy as np
import pytest
from builders import make_plan
from datasets import Dataset, load_from_disk
from hypothesis import given
from hypothesis import strategies as st
from packed_runs import make_spec

from orchestrator.config import ModelConfig, RunConfig
from orchestrator.errors import InputError, ModelNotFoundError
from orchestrator.packed.actor import PackActor
from orchestrator.packed.batch import IGNORED
from orchestrator.packed.host import make_engine, read_tokens
from orchestrator.packed.plan import PackPlan
from orchestrator.search.packed import pack_plan

ROWS = [([5, 6, 7, 8], [IGNORED, IGNORED, 7, 8]), ([9, 10], [IGNORED, 10]), ([11, 12, 13], [IGNORED, 12, 13])]


def plan_for(base: str, tokens: Path, **fields: object) -> PackPlan:
    train = make_plan(base=base, train_tokens=str(tokens), val_tokens=str(tokens))
    plan = pack_plan(RunConfig(), train, slots=2, most_slots=4, cohort=2)
    return plan.model_copy(update={"model": ModelConfig(base=base, dtype="float32"), **fields})


def new_actor() -> PackActor:
    return PackActor(plan_for("tiny", Path("/tokens")).model_dump(mode="json"), "/storage", 0)


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    columns = {"input_ids": [ids for ids, _ in ROWS], "labels": [labels for _, labels in ROWS]}
    Dataset.from_dict(columns).save_to_disk(str(tmp_path / "tokens"))
    return tmp_path / "tokens"


def test_stored_tokens_are_read_as_they_are(tokens: Path) -> None:
    rows = read_tokens(tokens)
    assert len(rows) == 3
    for index, (ids, labels) in enumerate(ROWS):
        part = slice(rows.offsets[index], rows.offsets[index + 1])
        assert (rows.ids[part].tolist(), rows.labels[part].tolist()) == (ids, labels)
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


def test_what_cannot_be_trained_packed_is_told_before_anything_starts(model_folder: Path, tokens: Path) -> None:
    with pytest.raises(InputError, match=r"lora.target_modules"):
        make_engine(plan_for(str(model_folder), tokens, target_modules=("embed_tokens",)))
    with pytest.raises(InputError, match=r"lora.target_modules"):
        make_engine(plan_for(str(model_folder), tokens, target_modules=("no_such_layer",)))
    with pytest.raises(ModelNotFoundError):
        make_engine(plan_for(str(tokens), tokens))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_as_many_trials_as_there_are_slots_fill_them_all(slots: list[int]) -> None:
    actor = new_actor()
    places = [actor.place(str(number), slots) for number in range(sum(slots))]
    assert [places.count(engine) for engine in range(len(slots))] == slots


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=40), st.integers(1, 3))
def test_a_trial_keeps_its_place_until_it_leaves_and_new_ones_go_where_fewest_are(
    moves: list[tuple[str, bool]], engines: int
) -> None:
    actor, here = new_actor(), dict[str, int]()
    for trial, comes in moves:
        if not comes:
            actor.leave(trial)
            here.pop(trial, None)
            continue
        counts = [list(here.values()).count(engine) for engine in range(engines)]
        place = actor.place(trial, [2] * engines)
        assert place == here.get(trial, counts.index(min(counts)))
        here[trial] = place


def test_no_trial_is_sent_to_an_engine_that_is_not_there() -> None:
    actor = new_actor()
    assert [actor.place(trial, [1, 1, 1]) for trial in "abc"] == [0, 1, 2]
    assert actor.place("b", [1, 0, 1]) in {0, 2}  # its engine died
    assert actor.place("c", [1, 0, 1]) == 2
    assert {actor.place(trial, [1, 0, 1]) for trial in "defgh"} == {0, 2}


def test_an_engine_that_has_not_started_has_nothing_to_detach() -> None:
    new_actor().detach("a", wait=True)
