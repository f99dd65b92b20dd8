"""What an engine's actor does without Ray: dealing out places."""

from builders import make_plan
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.schema import RunConfig
from orchestrator.multi_lora.actor import EngineActor
from orchestrator.search.multi_lora import engine_plan


def new_actor() -> EngineActor:
    plan = engine_plan(RunConfig(), make_plan(), slots=2, most_slots=4, cohort=2)
    return EngineActor(plan.model_dump(mode="json"), "/storage", 0)


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


def test_a_trial_that_waits_moves_to_where_a_slot_is_free_and_nowhere_else() -> None:
    actor, slots = new_actor(), [1, 1]
    assert [actor.place(trial, slots) for trial in "abcd"] == [0, 1, 0, 1]  # c and d wait
    assert [actor.place_anew(trial, here, slots, waits=True) for trial, here in (("c", 0), ("d", 1))] == [0, 1]
    actor.leave("b")
    assert actor.place_anew("d", 1, slots, waits=True) == 1  # its own engine has a slot free now
    assert actor.place_anew("c", 0, slots, waits=True) == 0  # which d will take
    actor.leave("d")
    assert actor.place("c", slots) == 0
    assert actor.place_anew("c", 0, slots, waits=True) == 1
    assert actor.place("c", slots) == 1


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.data())
def test_moving_evens_out_what_trials_that_left_have_made_uneven(slots: list[int], data: st.DataObject) -> None:
    actor = new_actor()
    here = {str(number): actor.place(str(number), slots) for number in range(sum(slots))}
    for trial in data.draw(st.sets(st.sampled_from(sorted(here)))):
        actor.leave(trial)
        del here[trial]

    def loads(more: int) -> list[float]:
        return [(list(here.values()).count(number) + more) / its for number, its in enumerate(slots)]

    moved = True
    while moved:
        moved = False
        for trial in here:
            before, place = loads(0), here[trial]
            here[trial] = actor.place_anew(trial, place, slots, waits=False)
            if here[trial] != place:
                moved = True
                assert loads(0)[here[trial]] < before[place]
    assert max(loads(0)) <= 1
    for place in here.values():  # nobody would be better off elsewhere
        assert all(loads(0)[place] <= load for number, load in enumerate(loads(1)) if number != place)


def test_a_new_actor_takes_trials_for_where_they_are() -> None:
    actor = new_actor()
    assert [actor.place_anew(trial, 1, [2, 2], waits=False) for trial in "ab"] == [1, 0]
    assert [actor.place(trial, [2, 2]) for trial in "abc"] == [1, 0, 0]


def test_an_engine_that_has_not_started_has_nothing_to_detach() -> None:
    new_actor().detach("a", wait=True)
