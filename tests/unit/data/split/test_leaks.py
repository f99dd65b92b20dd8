from collections.abc import Sequence
from pathlib import Path

import pytest
from builders import assistant, make_call, make_tool, user
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.files import dump_jsonl
from orchestrator.core.records import Message, Sample
from orchestrator.data.card import HeldOutName, LeakCard, Overlap
from orchestrator.data.split.leaks import MOST_CUT, Prompts, audit_leaks
from orchestrator.run.paths import SplitName

NEAR: dict[HeldOutName, Overlap] = {"val": Overlap(count=0, n=1), "test": Overlap(count=1, n=2, example="f:9")}


def sample(line: int, *messages: Message, tools: Sequence[str] = ()) -> Sample:
    offered = tuple(make_tool(name) for name in tools)
    return Sample(id=str(line), messages=messages, tools=offered, kind="answer", source=f"f:{line}")


def audit(folder: Path, train: list[Sample], test: list[Sample]) -> LeakCard:
    """The card of test; val gets the same samples as train, to be told apart."""
    samples: dict[SplitName, list[Sample]] = {"train": train, "val": train, "test": test}
    paths: dict[SplitName, Path] = {}
    for part, members in samples.items():
        paths[part] = folder / f"{part}.jsonl"
        paths[part].write_text(dump_jsonl(members), encoding="utf-8")
    return audit_leaks(paths, NEAR)["test"]


def test_a_prompt_is_shared_when_any_user_turn_of_train_says_it(tmp_path: Path) -> None:
    train = [sample(1, user("Book a\u2028table "), assistant("Where?"), user("in Rome"), assistant("done"))]
    test = [
        sample(2, user("x"), assistant("Where?"), user("BOOK  A\nTABLE"), assistant("no")),
        sample(3, user("In Rome"), assistant("no")),
        sample(4, user("in Rome"), assistant("ok"), user("and Paris"), assistant("no")),
        sample(5, user("in Rome please"), assistant("no")),
    ]
    assert audit(tmp_path, train, test).prompts == Overlap(count=2, n=4, example="f:2: BOOK A TABLE")


def test_what_the_assistant_says_in_train_shares_no_prompt(tmp_path: Path) -> None:
    train = [sample(1, Message(role="system", content="hello"), user("x"), assistant("hello"))]
    assert audit(tmp_path, train, [sample(2, user("hello"), assistant("x"))]).prompts == Overlap(count=0, n=1)


def test_different_argument_texts_are_counted_at_any_depth(tmp_path: Path) -> None:
    nested = make_call("a", to=["Rome", {"deep": [["Paris!"]]}], n=12345, short="abc")
    train = [sample(1, user("x"), assistant("", nested), Message(role="tool", content="Oslo"), assistant("Bern"))]
    test = [
        sample(2, user("y"), assistant("", make_call("b", p="Paris!", q="Oslo", r="abc"), make_call("b", p="rome"))),
        sample(3, user("z"), assistant("", make_call("b", p="Paris!", q={"Rome": "Bern"}))),
    ]
    card = audit(tmp_path, train, test)
    assert card.arguments == Overlap(count=1, n=4, example="Paris!")


def test_offered_tools_are_counted_by_name(tmp_path: Path) -> None:
    train = [sample(1, user("x"), assistant("y"), tools=["a", "b"])]
    test = [sample(2, user("p"), assistant("q"), tools=["c", "b"]), sample(3, user("r"), assistant("s"), tools=["b"])]
    assert audit(tmp_path, train, test).tools == Overlap(count=1, n=2, example="b")


def test_near_duplicates_are_handed_on_and_each_part_gets_its_own_card(tmp_path: Path) -> None:
    train = [sample(1, user("x"), assistant("y"), tools=["a"])]
    card = audit(tmp_path, train, [sample(2, user("z"), assistant("y"))])
    assert card == LeakCard(
        prompts=Overlap(count=0, n=1),
        arguments=Overlap(count=0, n=0),
        tools=Overlap(count=0, n=0),
        near_duplicates=NEAR["test"],
    )
    paths: dict[SplitName, Path] = {"train": tmp_path / "train.jsonl", "val": tmp_path / "val.jsonl"}
    val = audit_leaks(paths, {"val": NEAR["val"]})
    assert val == {
        "val": LeakCard(
            prompts=Overlap(count=1, n=1, example="f:1: x"),
            arguments=Overlap(count=0, n=0),
            tools=Overlap(count=1, n=1, example="a"),
            near_duplicates=NEAR["val"],
        )
    }


@pytest.mark.parametrize(("length", "shown"), [(150, 155), (500, 160)])
def test_a_long_example_is_cut(tmp_path: Path, length: int, shown: int) -> None:
    text = "a" * length
    card = audit(tmp_path, [sample(1, user(text), assistant("y"))], [sample(2, user(text), assistant("y"))])
    assert card.prompts.example is not None
    assert len(card.prompts.example) == shown
    assert card.prompts.example.endswith("..." if length == 500 else "aaa")


WORDS = st.lists(st.from_regex(r"[a-z]{1,6}", fullmatch=True), min_size=1, max_size=40)


@given(request=WORDS, before=st.integers(0, MOST_CUT), after=st.integers(0, MOST_CUT), is_held_out_longer=st.booleans())
def test_a_request_is_known_with_few_more_words_at_its_ends(
    request: list[str], before: int, after: int, *, is_held_out_longer: bool
) -> None:
    longer = [*("zzzzzzz",) * before, *request, *("yyyyyyy",) * after]
    shorter, longer_text = (" ".join(words).capitalize() for words in (request, longer))
    held_out, asked = (longer_text, shorter) if is_held_out_longer else (shorter, longer_text)
    prompts = Prompts.of([sample(1, user(held_out + "."), assistant("no")).model_dump(mode="json")])
    is_few = before + after <= min(MOST_CUT, len(longer) // 5)
    assert prompts.share(sample(2, user(asked), assistant("yes")).model_dump(mode="json")) == is_few


def test_a_request_with_another_word_within_is_another() -> None:
    prompts = Prompts.of([sample(1, user("Warm in Rome on Monday?"), assistant("no")).model_dump(mode="json")])
    other = sample(2, user("Warm in Oslo on Monday?"), assistant("no")).model_dump(mode="json")
    assert not prompts.share(other)
