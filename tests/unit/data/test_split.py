from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import SplitConfig
from orchestrator.data.split import Split, group_key, split_samples
from orchestrator.errors import DataError
from orchestrator.records import Message, Sample


def sample(start: int, variant: int = 0, system: str | None = None) -> Sample:
    opening = (Message(role="system", content=system),) if system else ()
    turns = (Message(role="user", content=f"question {start}"), Message(role="assistant", content=f"answer {variant}"))
    return Sample(id=f"{start}-{variant}", messages=opening + turns, kind="answer", source="f:1")


def places(split: Split) -> dict[str, str]:
    return {item.id: part for part in ("train", "val", "test") for item in getattr(split, part)}


starts = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3)), min_size=20, max_size=80, unique=True).filter(
    lambda pairs: len({start for start, _ in pairs}) >= 3
)
shares = st.builds(SplitConfig, val=st.floats(0.05, 0.4), test=st.floats(0.05, 0.4), seed=st.integers(0, 5))


@given(starts, shares)
def test_a_split_is_a_partition_without_empty_parts_and_keeps_groups_together(
    pairs: list[tuple[int, int]], config: SplitConfig
) -> None:
    samples = [sample(*pair) for pair in pairs]
    split = split_samples(samples, config)
    assert sorted(places(split)) == sorted(item.id for item in samples)
    assert sum(map(len, split[:3])) == len(samples)
    assert all(split[:3])
    groups = [{group_key(item) for item in part} for part in split[:3]]
    assert len(set().union(*groups)) == sum(map(len, groups))
    assert split.num_groups == sum(map(len, groups))


@given(starts, shares, st.randoms(use_true_random=False))
def test_a_split_does_not_depend_on_order(pairs: list[tuple[int, int]], config: SplitConfig, random: object) -> None:
    samples = [sample(*pair) for pair in pairs]
    shuffled = list(samples)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert places(split_samples(shuffled, config)) == places(split_samples(samples, config))


@given(st.integers(0, 1000), st.integers(1, 300))
def test_more_data_moves_no_sample(seed: int, num_more: int) -> None:
    config = SplitConfig(seed=seed, val=0.2, test=0.2)
    # 100 groups leave no part empty (chance 4e-10), so the exception for small data does not apply.
    before = places(split_samples([sample(number) for number in range(100)], config))
    after = places(split_samples([sample(number) for number in range(100 + num_more)], config))
    assert before.items() <= after.items()


def test_shares_are_met_on_average_and_the_seed_changes_places() -> None:
    samples = [sample(number) for number in range(4000)]
    first = split_samples(samples, SplitConfig(val=0.1, test=0.2, seed=0))
    assert (len(first.val) / 4000, len(first.test) / 4000) == pytest.approx((0.1, 0.2), abs=0.02)
    assert places(first) != places(split_samples(samples, SplitConfig(val=0.1, test=0.2, seed=1)))


def test_the_same_question_under_another_system_message_is_another_group() -> None:
    assert group_key(sample(1, system="a")) != group_key(sample(1, system="b")) != group_key(sample(1))
    assert group_key(sample(1, 0, "a")) == group_key(sample(1, 1, "a"))


@pytest.mark.parametrize("seed", range(30))
def test_the_smallest_data_fills_every_part(seed: int) -> None:
    split = split_samples([sample(number) for number in range(3)], SplitConfig(seed=seed))
    assert [len(part) for part in split[:3]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "0 usable samples"),
        ([sample(0), sample(1)], "2 usable samples"),
        ([sample(0, variant) for variant in range(20)], "only 1 different ways"),
    ],
)
def test_too_few_samples_are_refused(samples: Sequence[Sample], message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_samples(samples, SplitConfig())
