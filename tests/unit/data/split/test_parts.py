from collections.abc import Sequence
from random import Random

import pytest
from builders import assistant, user
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.schema import SplitConfig
from orchestrator.core.errors import DataError
from orchestrator.core.records import SAMPLE_KINDS, Message, Sample, SampleKind
from orchestrator.data.split.parts import Assignment, SplitItem, assign_parts, group_key, visible_tools
from orchestrator.run.paths import SplitName

PARTS: tuple[SplitName, ...] = ("train", "val", "test")


def sample(start: int, variant: int = 0, system: str | None = None) -> Sample:
    opening = (Message(role="system", content=system),) if system else ()
    turns = (user(f"question {start}"), assistant(f"answer {variant}"))
    return Sample(id=f"{start}-{variant}", messages=opening + turns, kind="answer", source="f:1")


def item(
    start: int, variant: int = 0, kind: SampleKind = "answer", offered: Sequence[str] = (), called: Sequence[str] = ()
) -> SplitItem:
    content = f"{start}-{variant}".encode()
    return SplitItem(content, group_key(sample(start)), kind, tuple(offered), tuple(called))


def places(items: Sequence[SplitItem], config: SplitConfig) -> dict[bytes, SplitName]:
    parts = assign_parts(items, config).parts
    return {item.content: part for item, part in zip(items, parts, strict=True)}


def kinds_by_part(items: Sequence[SplitItem], dealt: Assignment) -> set[tuple[SplitName, SampleKind]]:
    return {(part, item.kind) for item, part in zip(items, dealt.parts, strict=True)}


starts = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3)), min_size=20, max_size=80, unique=True).filter(
    lambda pairs: len({start for start, _ in pairs}) >= 3
)
shares = st.builds(SplitConfig, val=st.floats(0.05, 0.4), test=st.floats(0.05, 0.4), seed=st.integers(0, 5))


@given(starts, shares)
def test_every_item_has_a_part_none_is_empty_and_groups_stay_together(
    pairs: list[tuple[int, int]], config: SplitConfig
) -> None:
    items = [item(*pair) for pair in pairs]
    dealt = assign_parts(items, config)
    assert len(dealt.parts) == len(items)
    assert set(dealt.parts) == set(PARTS)
    dealt_groups = {(item.group, part) for item, part in zip(items, dealt.parts, strict=True)}
    assert len(dealt_groups) == dealt.num_groups == len({start for start, _ in pairs})
    assert dealt.held_out_tools == {}


@given(starts, shares, st.randoms(use_true_random=False))
def test_a_split_does_not_depend_on_order(pairs: list[tuple[int, int]], config: SplitConfig, random: Random) -> None:
    items = [item(start, variant, SAMPLE_KINDS[start % 4]) for start, variant in pairs]
    shuffled = list(items)
    random.shuffle(shuffled)
    assert places(shuffled, config) == places(items, config)


@given(st.integers(0, 1000), st.integers(1, 300))
def test_more_data_moves_no_sample(seed: int, num_more: int) -> None:
    config = SplitConfig(seed=seed, val=0.2, test=0.2)
    # 100 groups leave no part empty (chance 4e-10), so the exception for small data does not apply.
    before = places([item(number) for number in range(100)], config)
    after = places([item(number) for number in range(100 + num_more)], config)
    assert before.items() <= after.items()


def test_shares_are_met_on_average_and_the_seed_changes_places() -> None:
    items = [item(number) for number in range(4000)]
    dealt = assign_parts(items, SplitConfig(val=0.1, test=0.2, seed=0))
    assert (dealt.parts.count("val") / 4000, dealt.parts.count("test") / 4000) == pytest.approx((0.1, 0.2), abs=0.02)
    assert dealt.moved_groups == 0
    assert dealt.parts != assign_parts(items, SplitConfig(val=0.1, test=0.2, seed=1)).parts


def test_the_same_question_under_another_system_message_is_another_group() -> None:
    assert len({group_key(sample(1, system="a")), group_key(sample(1, system="b")), group_key(sample(1))}) == 3
    assert group_key(sample(1, 0, "a")) == group_key(sample(1, 1, "a"))
    assert len(group_key(sample(1))) == 8


def test_a_later_system_message_and_a_greeting_make_no_other_group() -> None:
    plain = sample(1, system="a")
    late, hello = Message(role="system", content="In."), Message(role="assistant", content="Hello.")
    one = plain.model_copy(update={"messages": (*plain.messages, late, *plain.messages[1:])})
    two = plain.model_copy(update={"messages": (plain.messages[0], hello, *plain.messages[1:])})
    bare = sample(1)
    after = bare.model_copy(update={"messages": (*bare.messages, late, *bare.messages)})
    assert group_key(plain) == group_key(one) == group_key(two)
    assert group_key(bare) == group_key(after)


@pytest.mark.parametrize("seed", range(30))
def test_the_smallest_data_fills_every_part(seed: int) -> None:
    dealt = assign_parts([item(number) for number in range(3)], SplitConfig(seed=seed))
    assert sorted(dealt.parts) == ["test", "train", "val"]


@pytest.mark.parametrize("seed", range(30))
def test_a_kind_of_three_groups_is_in_every_part(seed: int) -> None:
    rare = [item(1000 + number, kind="refusal") for number in range(3)]
    items = [item(number) for number in range(200)] + rare
    dealt = assign_parts(items, SplitConfig(val=0.05, test=0.05, seed=seed))
    assert {(part, kind) for part in PARTS for kind in ("answer", "refusal")} == kinds_by_part(items, dealt)


def test_only_groups_that_fill_a_gap_are_moved_and_are_counted() -> None:
    rare = [item(9000 + number, kind="refusal") for number in range(3)]
    config = SplitConfig(val=0.001, test=0.001)
    without = places([item(number) for number in range(5000)], config)
    assert {*without.values()} == set(PARTS)
    items = [item(number) for number in range(5000)] + rare
    dealt = assign_parts(items, config)
    assert without.items() <= places(items, config).items()
    assert dealt.moved_groups == 2
    assert sorted(dealt.parts[-3:]) == ["test", "train", "val"]


def test_a_kind_of_two_groups_stays_where_its_hashes_say() -> None:
    config = SplitConfig(val=0.01, test=0.01)
    items = [item(number) for number in range(3000)] + [item(9000 + number, kind="refusal") for number in range(2)]
    dealt = assign_parts(items, config)
    assert dealt.moved_groups == 0
    assert dealt.parts[-2:] == ["train", "train"]


@given(st.integers(0, 10_000))
def test_kinds_that_share_groups_do_not_take_from_each_other(seed: int) -> None:
    random = Random(seed)
    items = [
        item(number, kind, SAMPLE_KINDS[kind]) for number in range(20) for kind in {number % 4, random.randrange(4)}
    ]
    dealt = assign_parts(items, SplitConfig(seed=seed))
    assert kinds_by_part(items, dealt) == {(part, kind) for part in PARTS for kind in SAMPLE_KINDS}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "0 usable samples"),
        ([item(0), item(1)], "2 usable samples"),
        ([item(0, variant) for variant in range(20)], "only 1 different ways"),
    ],
)
def test_too_few_samples_are_refused(items: Sequence[SplitItem], message: str) -> None:
    with pytest.raises(DataError, match=message):
        assign_parts(items, SplitConfig())


TOOLS = [f"tool_{number}" for number in range(12)]


def tool_items(seed: int, size: int = 150) -> list[SplitItem]:
    """Calls of one or two tools, and conversations without a call; some start alike."""
    random = Random(seed)
    made = []
    for number in range(size):
        offered = random.sample(TOOLS, random.randint(1, 4))
        called = random.sample(offered, min(len(offered), random.choice([0, 0, 1, 1, 1, 2])))
        kind: SampleKind = "tool_call" if called else random.choice(["answer", "clarification", "refusal"])
        made.append(item(number - number % 15 // 14, number, kind, offered, called))
    return made


by_tool = st.builds(
    SplitConfig, by=st.just("tool"), val=st.floats(0.1, 0.3), test=st.floats(0.1, 0.3), seed=st.integers(0, 500)
)


def dealt_by_tool(items: Sequence[SplitItem], config: SplitConfig) -> Assignment | None:
    """None where so many tools are held out that no call is left for a part, which is refused."""
    try:
        return assign_parts(items, config)
    except DataError as error:
        if "no conversation with a call is left" not in error.what:
            raise
        return None


@given(st.integers(0, 50), by_tool)
def test_held_out_tools_are_neither_called_nor_shown_where_they_must_not_be(seed: int, config: SplitConfig) -> None:
    items = tool_items(seed)
    dealt = dealt_by_tool(items, config)
    if dealt is None:
        return
    held_out = dealt.held_out_tools
    assert set(held_out.values()) == {"val", "test"}
    assert set(held_out) < set(TOOLS)
    hidden = {"train": {"val", "test"}, "val": {"test"}, "test": set()}
    for one, part in zip(items, dealt.parts, strict=True):
        visible = visible_tools(part, one.offered, held_out)
        assert not {held_out.get(name) for name in (*visible, *one.called)} & hidden[part]
        assert set(one.called) <= set(visible) <= set(one.offered)
        assert visible
    assert len({(item.group, part) for item, part in zip(items, dealt.parts, strict=True)}) == dealt.num_groups
    assert {part for item, part in zip(items, dealt.parts, strict=True) if item.called} == set(PARTS)
    assert {(part, kind) for part in PARTS for kind in SAMPLE_KINDS} == kinds_by_part(items, dealt)


@given(st.integers(0, 50), by_tool, st.randoms(use_true_random=False))
def test_a_split_by_tool_does_not_depend_on_order(seed: int, config: SplitConfig, random: Random) -> None:
    items = tool_items(seed)
    if (dealt := dealt_by_tool(items, config)) is None:
        return
    shuffled = list(items)
    random.shuffle(shuffled)
    assert places(shuffled, config) == places(items, config)
    assert assign_parts(shuffled, config).held_out_tools == dealt.held_out_tools


def test_tools_are_held_out_in_the_shares_asked_for_and_keep_their_part_as_data_grows() -> None:
    config = SplitConfig(by="tool", val=0.1, test=0.2)
    items = [item(number, 0, "tool_call", [f"t{number}"], [f"t{number}"]) for number in range(2000)]
    dealt = assign_parts(items, config)
    assert (dealt.parts.count("val") / 2000, dealt.parts.count("test") / 2000) == pytest.approx((0.1, 0.2), abs=0.03)
    half = assign_parts(items[:1000], config)
    assert half.parts == dealt.parts[:1000]
    assert half.held_out_tools.items() <= dealt.held_out_tools.items()


@pytest.mark.parametrize("seed", range(20))
def test_three_tools_are_enough(seed: int) -> None:
    items = [item(n, 0, "tool_call", TOOLS[:3], [TOOLS[n % 3]]) for n in range(9)]
    dealt = assign_parts(items, SplitConfig(by="tool", seed=seed))
    assert sorted(dealt.held_out_tools.values()) == ["test", "val"]
    expected = [dealt.held_out_tools.get(TOOLS[n % 3], "train") for n in range(9)]
    assert dealt.parts == expected


def split_of_three_tools() -> tuple[SplitConfig, dict[SplitName, str]]:
    """A config, and the one tool of each part."""
    config = SplitConfig(by="tool")
    items = [item(n, 0, "tool_call", TOOLS[:3], [TOOLS[n % 3]]) for n in range(9)]
    held_out = assign_parts(items, config).held_out_tools
    return config, {held_out.get(name, "train"): name for name in TOOLS[:3]}


def test_a_group_follows_the_strongest_held_out_call_in_it() -> None:
    config, tools = split_of_three_tools()
    calls = [item(n, 0, "tool_call", TOOLS[:3], [TOOLS[n % 3]]) for n in range(9)]
    mixed = [
        item(100, 0, "tool_call", TOOLS[:3], [tools["train"]]),
        item(100, 1, "tool_call", TOOLS[:3], [tools["train"], tools["val"]]),
        item(101, 0, "tool_call", TOOLS[:3], [tools["val"], tools["test"]]),
        item(101, 1, "answer"),
    ]
    assert assign_parts(calls + mixed, config).parts[-4:] == ["val", "val", "test", "test"]


def test_a_sample_that_calls_nothing_follows_its_tools_only_if_it_would_lose_all() -> None:
    config, tools = split_of_three_tools()
    calls = [item(n, 0, "tool_call", TOOLS[:3], [TOOLS[n % 3]]) for n in range(9)]
    only_test = [item(100 + n, 0, "clarification", [tools["test"]]) for n in range(40)]
    only_val = [item(200 + n, 0, "clarification", [tools["val"]]) for n in range(40)]
    shown_rest = [item(300 + n, 0, "refusal", [tools["test"], tools["train"]]) for n in range(40)]
    parts = assign_parts(calls + only_test + only_val + shown_rest, config).parts[9:]
    assert set(parts[:40]) == {"test"}
    assert set(parts[40:80]) == {"val"}
    assert parts[80:].count("train") > 25


def test_visible_tools_by_part() -> None:
    held_out: dict[str, SplitName] = {"v": "val", "t": "test"}
    shown = {part: visible_tools(part, ("a", "v", "t"), held_out) for part in PARTS}
    assert shown == {"train": ("a",), "val": ("a", "v"), "test": ("a", "v", "t")}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([item(n, 0, "tool_call", TOOLS[:2], [TOOLS[n % 2]]) for n in range(9)], "only 2 different tools"),
        ([item(n, 0, "answer", TOOLS) for n in range(9)], "only 0 different tools"),
        ([item(n, 0, "tool_call", TOOLS[:3], TOOLS[:3]) for n in range(9)], "no conversation with a call is left"),
    ],
)
def test_data_without_tools_to_hold_out_is_refused(items: list[SplitItem], message: str) -> None:
    with pytest.raises(DataError, match=message):
        assign_parts(items, SplitConfig(by="tool"))
