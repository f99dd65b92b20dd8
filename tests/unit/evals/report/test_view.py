import pytest

from evals.records import CanaryProof, Comparison, EngineRecord, Flip
from evals.report.view import oriented, proof_text


def test_a_comparison_turned_round_says_the_same_from_the_other_side() -> None:
    flips = (Flip(case_id="a", left_correct=True), Flip(case_id="b", left_correct=False))
    entry = Comparison(
        metric="case_accuracy", left="x", right="y", n=50, gained=9, lost=2, difference=0.14, low=-0.02, high=0.3,
        p_value=0.06, p_adjusted=0.12, method="exact", num_cases_needed=70, flips=flips,
    )  # fmt: skip
    turned = oriented(entry, "y")
    assert (turned.left, turned.right, turned.gained, turned.lost) == ("y", "x", 2, 9)
    assert (turned.difference, turned.low, turned.high) == (-0.14, -0.3, 0.02)
    assert [(flip.case_id, flip.left_correct) for flip in turned.flips] == [("a", False), ("b", True)]
    assert (turned.p_value, turned.p_adjusted, turned.n, turned.num_cases_needed) == (0.06, 0.12, 50, 70)
    assert oriented(turned, "x") == entry
    assert oriented(entry, "x") is entry


@pytest.mark.parametrize(
    ("canary", "said"),
    [
        (None, "no proof"),
        (CanaryProof(num_prompts=4, num_texts_moved=0, largest_shift=0.01, noise=0.01), "no effect seen"),
        (
            CanaryProof(num_prompts=4, num_texts_moved=0, largest_shift=0.5, noise=0.01),
            "0 of 4 replies moved; log probabilities by up to 0.5, by 0.01 between two passes of the base",
        ),
        (
            CanaryProof(num_prompts=4, num_texts_moved=3, largest_shift=0.0, noise=0.0),
            "3 of 4 replies moved; log probabilities by up to 0, by 0 between two passes of the base",
        ),
    ],
)
def test_what_is_proved_of_an_adapter(canary: CanaryProof | None, said: str) -> None:
    engine = EngineRecord(
        adapter_id="a",
        inputs_sha256="0",
        weights_sha256="1",
        applied_as="merged",
        canary=canary,
        device="cpu",
        num_engines=1,
    )
    assert proof_text(engine, is_base=False) == said
    assert proof_text(engine, is_base=True) == "untouched"
