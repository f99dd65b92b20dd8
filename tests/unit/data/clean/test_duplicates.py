from random import Random

import numpy as np
import pytest
from builders import assistant, make_call, make_tool, user
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.records import Message, Sample, ToolSpec
from orchestrator.data.clean import duplicates
from orchestrator.data.clean.duplicates import NUM_PERM, Signatures, near_duplicates, shingles, signature, similar_to

Words = frozenset[str]


def sample(*messages: Message, tools: tuple[ToolSpec, ...] = ()) -> Sample:
    return Sample(id="1", messages=messages, tools=tools, kind="answer", source="f:1")


def sign(texts: list[Words]) -> Signatures:
    return np.stack([signature(words) for words in texts])


def similarity(words: Words, others: Words) -> float:
    return len(words & others) / len(words | others)


def similar_texts(seed: int, size: int = 300) -> list[Words]:
    """Word sets in families: some members differ in a few words, so that similarities spread from 0 to 1."""
    random = Random(seed)
    families = [[f"{family}-{place}" for place in range(60)] for family in range(size // 10)]
    texts = []
    for number in range(size):
        words = list(random.choice(families))
        for _ in range(random.choice([0, 0, 1, 2, 4, 8, 20])):
            words[random.randrange(len(words))] = f"other-{random.randrange(6)}" if number % 2 else f"only-{number}"
        texts.append(frozenset(words))
    return texts


def kept_of(texts: list[Words], rank: list[int], threshold: float) -> set[int]:
    """Ranks of the texts that stay."""
    found = near_duplicates(sign(texts), np.array(rank), threshold, texts.__getitem__)
    return {rank[row] for row in range(len(texts)) if row not in found}


def kept_by_brute_force(texts: list[Words], rank: list[int], threshold: float) -> set[int]:
    kept: list[int] = []
    for row in np.argsort(rank).tolist():
        if all(similarity(texts[row], texts[other]) < threshold for other in kept):
            kept.append(row)
    return {rank[row] for row in kept}


def test_shingles_are_runs_over_what_is_asked_called_and_answered() -> None:
    made = sample(
        Message(role="system", content="Be very kind."),
        user("What's up?"),
        Message(role="assistant", reasoning_content="I look", tool_calls=(make_call("get_news", top=3, city="Rome"),)),
        Message(role="tool", content='{"ok": true}'),
        assistant("All GOOD"),
        tools=(make_tool("get_news"), make_tool("other")),
    )
    words = ["what", "s", "up", "i", "look", "get", "news", "city", "rome", "top", "3", "all", "good"]
    runs = {" ".join(words[start : start + 3]) for start in range(11)}
    assert shingles(made) == runs | {"tools:get_news other"}


@pytest.mark.parametrize("num_tools", [0, 1, 100, 300])
def test_what_rows_share_does_not_outweigh_a_short_request(num_tools: int) -> None:
    tools = tuple(make_tool(f"tool_{number}") for number in range(num_tools))
    listing = Message(role="tool", content=" ".join(f"row {number}" for number in range(2000)))

    def row(room: str, thing: str) -> Sample:
        call = assistant("", make_call("tool_1", room=room, thing=thing))
        return sample(user(f"Turn on the {thing} in the {room}"), call, listing, assistant("Done."), tools=tools)

    rows = [row(room, thing) for room in ("kitchen", "hall", "attic") for thing in ("lamp", "fan", "oven")]
    repeated = [row("hall", "fan"), row("Hall", "fan")]
    texts = [shingles(made) for made in [*rows, *repeated]]
    found = near_duplicates(sign(texts), np.arange(len(texts)), 0.9, texts.__getitem__)
    assert found == {9: 4, 10: 4}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi THERE", {"hi", "there"}),
        ("你好吗 abc", {"你 好 吗", "好 吗 abc"}),
        ("สวัสดี", {"ส ว ั", "ว ั ส", "ั ส ด", "ส ด ี"}),
        ("한국어 좋아 하다", {"한국어 좋아 하다"}),
        ("naïve Ärger 3.5", {"naïve ärger 3", "ärger 3 5"}),
        ("!?", set()),
    ],
)
def test_words_of_other_scripts(text: str, expected: set[str]) -> None:
    assert shingles(sample(user(text))) == expected


def test_the_order_of_arguments_and_tools_makes_no_difference_but_numbers_do() -> None:
    one, two = make_tool("a"), make_tool("b")
    first = sample(user("x y z"), assistant("", make_call("a", p=1, q="r")), tools=(one, two))
    second = sample(user("X, y: z"), assistant("", make_call("a", q="r", p=1)), tools=(two, one))
    other = sample(user("x y z"), assistant("", make_call("a", p=2, q="r")), tools=(one, two))
    assert shingles(first) == shingles(second) != shingles(other)


def test_a_signature_is_the_same_in_every_process() -> None:
    values = signature(frozenset({"a b c", "b c d"}))
    assert values.dtype == np.uint32
    assert values.shape == (NUM_PERM,)
    assert values[:4].tolist() == [320976119, 2170199899, 2714274735, 128551497]
    assert (signature(frozenset()) == np.iinfo(np.uint32).max).all()


@given(st.integers(0, 10_000))
def test_signatures_agree_as_often_as_words_overlap(seed: int) -> None:
    first, second = similar_texts(seed, 10)[:2]
    agreeing = float((signature(first) == signature(second)).mean())
    assert agreeing == pytest.approx(similarity(first, second), abs=0.35)


@pytest.mark.parametrize("threshold", [0.07, 0.3, 0.5, 0.7, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0])
def test_pairs_at_the_threshold_are_found_with_probability_99_percent(threshold: float) -> None:
    rng = np.random.default_rng(0)
    width, least = duplicates._band_width(threshold), duplicates._min_agreeing(threshold)
    # What a pair of this similarity does: each hash agrees independently with that probability.
    agree = rng.random((20_000, NUM_PERM)) < threshold
    num_bands = NUM_PERM // width
    bands = agree[:, : num_bands * width].reshape(-1, num_bands, width)
    found = float((np.any(np.all(bands, axis=2), axis=1) & (agree.sum(axis=1) >= least)).mean())
    assert found >= 0.987
    if 0.8 <= threshold < 1.0:
        assert 1 - (1 - 0.4**width) ** num_bands < 0.2, "bands let in too many pairs that are not alike"


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9])
def test_what_stays_is_what_comparing_all_pairs_leaves(threshold: float) -> None:
    missed = 0
    for seed in range(3):
        texts = similar_texts(seed)
        rank = Random(seed).sample(range(1000), len(texts))
        expected = kept_by_brute_force(texts, rank, threshold)
        assert 0 < len(expected) < len(texts) - 20
        missed += len(kept_of(texts, rank, threshold) ^ expected)
    assert missed <= 3


@given(st.integers(0, 30), st.randoms(use_true_random=False), st.sampled_from([0.6, 0.9]))
def test_what_stays_does_not_depend_on_the_order_of_rows(seed: int, random: Random, threshold: float) -> None:
    texts = similar_texts(seed, 60)
    rank = Random(seed).sample(range(1000), len(texts))
    order = random.sample(range(len(texts)), len(texts))
    shuffled = kept_of([texts[row] for row in order], [rank[row] for row in order], threshold)
    assert shuffled == kept_of(texts, rank, threshold)


@given(st.integers(0, 30), st.sampled_from([0.6, 0.9]))
def test_each_duplicate_resembles_a_kept_sample_of_smaller_rank(seed: int, threshold: float) -> None:
    texts = similar_texts(seed, 60)
    rank = Random(seed).sample(range(1000), len(texts))
    found = near_duplicates(sign(texts), np.array(rank), threshold, texts.__getitem__)
    for row, kept in found.items():
        assert kept not in found
        assert rank[kept] < rank[row]
        assert similarity(texts[row], texts[kept]) >= threshold


def test_a_chain_of_similar_samples_loses_only_those_that_resemble_a_kept_one() -> None:
    words = [f"w{number}" for number in range(30)]
    texts = [frozenset(words[start : start + 20]) for start in (0, 1, 2)]
    found = near_duplicates(sign(texts), np.array([0, 1, 2]), 0.9, texts.__getitem__)
    assert found == {1: 0}
    assert near_duplicates(sign(texts), np.array([1, 0, 2]), 0.9, texts.__getitem__) == {0: 1, 2: 1}


def test_of_many_copies_the_one_of_smallest_rank_stays_and_words_are_read_once_each() -> None:
    texts = [frozenset({"a b c", "b c d"})] * 2000 + [frozenset({"x y z"})]
    rank = np.arange(2001)[::-1] + 5
    reads: list[int] = []

    def words_of(row: int) -> Words:
        reads.append(row)
        return texts[row]

    assert near_duplicates(sign(texts), rank, 0.9, words_of) == dict.fromkeys(range(1999), 1999)
    assert sorted(reads) == list(range(2000))


def test_many_that_share_a_bucket_are_compared_with_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "MAX_RIVALS", 5)
    texts = [frozenset({*(f"w{place}" for place in range(40)), *(f"{row}-{n}" for n in range(8))}) for row in range(80)]
    index = duplicates._Index(sign(texts), 0.9, texts.__getitem__)
    for row in range(79):
        index.insert(row)
    num_bands = NUM_PERM // duplicates._band_width(0.9)
    assert 5 <= len(index._slots) <= 5 * index._room.size
    assert index._room.max() == 5
    assert len(index._rivals(79)) <= 5 * num_bands
    assert near_duplicates(sign(texts), np.arange(80), 0.9, texts.__getitem__) == {}


def test_words_are_read_again_when_they_no_longer_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = similar_texts(1)
    rank = list(range(len(texts)))
    expected = kept_of(texts, rank, 0.8)
    monkeypatch.setattr(duplicates, "MAX_CACHED_WORDS", 200)
    assert kept_of(texts, rank, 0.8) == expected


def test_samples_without_words_are_not_alike() -> None:
    texts: list[Words] = [frozenset(), frozenset(), frozenset({"a"}), frozenset({"a"})]
    assert near_duplicates(sign(texts), np.arange(4), 0.5, texts.__getitem__) == {3: 2}
    assert near_duplicates(sign(texts)[:0], np.arange(0), 0.5, texts.__getitem__) == {}


def test_rows_similar_to_others_are_found_with_one_of_them() -> None:
    texts = similar_texts(4)
    rows, others = list(range(0, 300, 3)), list(range(1, 300, 3))
    found = similar_to(rows, others, sign(texts), 0.8, texts.__getitem__)
    assert set(found) <= set(rows)
    assert set(found.values()) <= set(others)
    assert all(similarity(texts[row], texts[other]) >= 0.8 for row, other in found.items())
    expected = {row for row in rows if any(similarity(texts[row], texts[other]) >= 0.8 for other in others)}
    assert len(expected) > 30
    assert len(expected - set(found)) <= 1


def test_nothing_resembles_an_empty_part() -> None:
    texts = [frozenset({"a b c"})] * 3
    assert similar_to([0, 1], [], sign(texts), 0.9, texts.__getitem__) == {}
    assert similar_to([], [0, 1], sign(texts), 0.9, texts.__getitem__) == {}
