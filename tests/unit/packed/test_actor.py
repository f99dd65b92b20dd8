"""What an engine's actor does without Ray: dealing out places."""

from builders import make_plan
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import RunConfig
from orchestrator.packed.actor import PackActor
from orchestrator.search.packed import pack_plan


def new_actor() -> PackActor:
    plan = pack_plan(RunConfig(), make_plan(), slots=2, most_slots=4, cohort=2)
    return PackActor(plan.model_dump(mode="json"), "/storage", 0)


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
