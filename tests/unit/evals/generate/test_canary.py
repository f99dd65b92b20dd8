import pytest

from evals.generate.canary import NUM_CANARIES, Trace, measure_strength, pick_canaries, prove_applied, weakest
from evals.records import CanaryProof
from orchestrator.core.errors import AdapterError, InertAdapterError

BASE = [Trace("a", (1, 2), {1: -0.1, 5: -3.0}), Trace("b", (3, 4), {3: -0.5, 4: -1.5})]


def moved(trace: Trace, by: float) -> Trace:
    return trace._replace(first={token: value + by for token, value in trace.first.items()})


def test_another_text_is_a_proof() -> None:
    adapter = [BASE[0], Trace("b", (3, 9), {3: -0.4, 4: -1.5})]
    proof = prove_applied("a", adapter, base=BASE, base_again=BASE)
    assert (proof.num_prompts, proof.num_texts_moved, proof.noise) == (2, 1, 0.0)
    assert proof.largest_shift == pytest.approx(0.1)


def test_the_same_text_with_other_probabilities_is_a_proof() -> None:
    proof = prove_applied("a", [moved(BASE[0], 1e-4), BASE[1]], base=BASE, base_again=BASE)
    assert proof.num_texts_moved == 0
    assert proof.largest_shift == pytest.approx(1e-4)


def test_an_adapter_that_is_the_base_is_named() -> None:
    with pytest.raises(InertAdapterError, match=r"abc: the adapter changes nothing: on 2 prompts"):
        prove_applied("abc", BASE, base=BASE, base_again=BASE)


def test_what_the_base_does_by_itself_is_no_proof() -> None:
    again = [moved(BASE[0], 1e-3), Trace("b", (3, 7), BASE[1].first)]
    adapter = [moved(BASE[0], 5e-4), Trace("b", (3, 8), BASE[1].first)]
    with pytest.raises(InertAdapterError):
        prove_applied("a", adapter, base=BASE, base_again=again)
    assert prove_applied("a", [moved(BASE[0], 2e-3), BASE[1]], base=BASE, base_again=again).noise == pytest.approx(1e-3)


def test_a_token_that_came_into_the_list_moved_at_least_from_its_edge() -> None:
    adapter = [Trace("a", (1, 2), {1: -0.1, 6: -1.0}), BASE[1]]
    proof = prove_applied("a", adapter, base=BASE, base_again=BASE)
    assert proof.largest_shift == pytest.approx(2.0)  # token 6 was at most at -3.0


@pytest.mark.parametrize("broken", [float("nan"), float("-inf")])
def test_probabilities_that_are_not_finite_are_an_error(broken: float) -> None:
    with pytest.raises(AdapterError, match="infinite or NaN"):
        prove_applied("a", [Trace("a", (1, 2), {1: broken, 5: -3.0}), BASE[1]], base=BASE, base_again=BASE)


def test_canaries_are_spread_over_the_prompts() -> None:
    assert pick_canaries(range(3)) == [0, 1, 2]
    assert pick_canaries(range(80)) == [0, 10, 20, 30, 40, 50, 60, 70]
    for count in range(1, 60):
        assert 1 <= len(pick_canaries(range(count))) <= NUM_CANARIES


def test_of_several_proofs_the_weakest_counts() -> None:
    strong, weak = (
        CanaryProof(num_prompts=8, num_texts_moved=texts, largest_shift=shift, noise=0.0)
        for texts, shift in ((3, 0.1), (2, 9.0))
    )
    assert weakest([strong, weak]) == weak
    assert weakest([]) is None


def test_a_proof_keeps_how_likely_first_tokens_are() -> None:
    adapter = [Trace("a", (1, 2), {1: -4.1, 6: -1.0}), BASE[1]]
    proof = prove_applied("x", adapter, base=BASE, base_again=BASE)
    assert proof.first == {"a": {6: (-3.0, -1.0), 1: (-0.1, -4.1)}, "b": {3: (-0.5, -0.5), 4: (-1.5, -1.5)}}
    assert CanaryProof.model_validate_json(proof.model_dump_json()) == proof
    same = measure_strength(proof.first, adapter)
    assert same is not None
    assert [same.off, same.from_base, same.moved] == pytest.approx([0.0, 1.5, 1.5])
    half = measure_strength(proof.first, [Trace("a", (1, 2), {1: -2.1, 6: -2.0}), BASE[1]])
    assert half is not None
    assert [half.off, half.from_base] == pytest.approx([0.75, 0.75])


def test_a_token_that_left_the_list_is_at_most_at_its_edge() -> None:
    scored = {"a": {7: (-0.5, -1.0)}}
    found = measure_strength(scored, [Trace("a", (1,), {1: -0.1, 2: -3.0})])
    assert found is not None
    assert [found.off, found.from_base] == pytest.approx([2.0, 2.5])


def test_without_what_was_kept_nothing_is_said_of_the_strength() -> None:
    assert measure_strength({}, BASE) is None
    assert measure_strength({"a": {1: (-1.0, -2.0)}}, BASE[1:]) is None
