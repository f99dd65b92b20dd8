"""Which pairs are learned: none that a held-out part knows, none twice, each kind its share, lengths in balance."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from builders import assistant, make_call, make_sample, make_tool, user, write_samples
from transformers import PreTrainedTokenizerBase

from orchestrator.chat.rendering import ChatFormat, chat_format, render_prompt
from orchestrator.config.preferences import PreferConfig
from orchestrator.core.errors import TooFewPairsError
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import Message, Sample
from orchestrator.data.preferences.choose import Choice, choose_pairs, quotas, show_pair
from orchestrator.data.preferences.pair import Candidate, PairEntry, PreferencePair, read_card
from orchestrator.data.preferences.store import (
    ledger_path,
    pairs_path,
    write_pairs,
)
from orchestrator.data.tokens.store import tokens_folder
from orchestrator.run.paths import RunDir

CITIES = ("Rome", "Oslo", "Cairo", "Lima", "Quito", "Accra", "Delhi", "Hanoi", "Tunis", "Riga", "Bern", "Doha")


@pytest.fixture(scope="module")
def form(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    return chat_format(tokenizer, thinking=False)


def _call(city: str, **fields: Any) -> Sample:
    asked = user(f"How warm will it be in {city} on {city} day?")
    return make_sample(asked, assistant("", make_call(city=city)), id=f"call-{city}", **fields)


def _answer(city: str) -> Sample:
    asked = user(f"Tell a long story about the harbour of {city} and its people")
    return make_sample(asked, assistant(f"No tool here tells stories about {city}."), id=f"story-{city}", kind="answer")


def _wrong(sample: Sample, text: str = "Sorry.") -> Candidate:
    return Candidate(sample, text, "own_replies", "no_call")


def _choose(form: ChatFormat, candidates: list[Candidate], *held_out: Sample, **settings: object) -> Choice:
    config = PreferConfig.model_validate({"max_pairs": 40, **settings})
    return choose_pairs(form, candidates, held_out, config, max_length=2048, threshold=0.9)


def _kept(choice: Choice) -> list[str]:
    return sorted(one.pair.id for part in choice.parts.values() for one in part)


def _left_out(choice: Choice) -> dict[str, str | None]:
    return {entry.id: entry.left_out for entry in choice.entries if entry.left_out}


def test_a_pair_is_the_prompt_of_evaluation_and_both_replies_with_their_end(form: ChatFormat) -> None:
    sample = _call("Rome")
    pair, tokens = show_pair(form, _wrong(sample, "I am sorry."))
    assert tokens.prompt_ids == render_prompt(form.tokenizer, sample.messages[:-1], sample.tools)
    (chosen, rejected) = form.decode_batch([tokens.chosen_ids, tokens.rejected_ids])
    assert (chosen, rejected) == (f"{pair.chosen}<|im_end|>", "I am sorry.<|im_end|>")
    assert '{"name": "get_weather", "arguments": {"city": "Rome"}}' in chosen
    assert (pair.kind, pair.why_worse, pair.messages) == ("tool_call", "no_call", sample.messages[:-1])


def test_a_rejected_message_is_written_as_the_template_writes_it(form: ChatFormat) -> None:
    worse = assistant("", make_call(city="Paris"))
    _, tokens = show_pair(form, Candidate(_call("Rome"), worse, "data"))
    (rejected,) = form.decode_batch([tokens.rejected_ids])
    right, _ = show_pair(form, _wrong(_call("Paris")))
    assert rejected == f"{right.chosen}<|im_end|>"


def test_earlier_turns_of_the_assistant_are_prompt(form: ChatFormat) -> None:
    turns = (user("Hello"), assistant("Good day."), user("Weather in Rome?"), assistant("", make_call(city="Rome")))
    _, tokens = show_pair(form, _wrong(make_sample(*turns)))
    assert tokens.prompt_ids == render_prompt(form.tokenizer, turns[:-1], (make_tool(),))


HELD_OUT = (
    pytest.param(_call("Rome"), id="the same conversation"),
    pytest.param(
        make_sample(user("how warm will it be  in ROME on Rome day?"), assistant("Which day?"), kind="clarification"),
        id="the same request in other letters, answered otherwise",
    ),
    pytest.param(
        make_sample(
            *(user("How warm will it be in Rome on Rome day?"), assistant("Do you mean today?")),
            *(user("Yes"), assistant("", make_call(city="Rome"))),
        ),
        id="the same request in an earlier turn",
    ),
    pytest.param(
        make_sample(user("How warm will it be in Rome, on Rome day"), assistant("Which one?"), kind="clarification"),
        id="the same request with other punctuation, answered otherwise",
    ),
    pytest.param(
        make_sample(user("How warm will it be in Rome on Rome day? Thanks!"), assistant("No."), kind="refusal"),
        id="the same request and thanks, answered otherwise",
    ),
    pytest.param(
        make_sample(user("Warm will it be in Rome on Rome day?"), assistant("No."), kind="refusal"),
        id="a word less of the same request, answered otherwise",
    ),
    pytest.param(
        make_sample(
            user("Please! How warm will it be in Rome on Rome day?"), assistant("", make_call(city="Rome")), id="near"
        ),
        id="nearly the same conversation",
    ),
)


@pytest.mark.parametrize("held_out", HELD_OUT)
def test_no_pair_is_learned_that_a_held_out_conversation_knows(form: ChatFormat, held_out: Sample) -> None:
    candidates = [_wrong(_call(city)) for city in CITIES]
    config = PreferConfig(max_pairs=400)
    choice = choose_pairs(form, candidates, [held_out], config, max_length=2048, threshold=0.7)
    assert _left_out(choice) == {"call-Rome": "held_out"}
    assert len(_kept(choice)) == len(CITIES) - 1


def test_of_nearly_equal_pairs_one_is_learned_and_the_datas_own_goes_first(form: ChatFormat) -> None:
    own, other = _wrong(_call("Rome")), _wrong(_call("Rome"), "No idea.")
    of_data = Candidate(_call("Rome", source="file:1"), assistant("I refuse."), "data")
    choice = _choose(form, [own, other, of_data])
    assert [one.pair.origin for part in choice.parts.values() for one in part] == ["data"]
    assert Counter(entry.left_out for entry in choice.entries) == {"near_duplicate": 2, None: 1}


def test_each_kind_gets_at_most_its_share_and_every_candidate_is_accounted_for(form: ChatFormat) -> None:
    candidates = [_wrong(_call(city)) for city in CITIES] + [
        _wrong(_answer(city), "<tool_call>") for city in CITIES[:2]
    ]
    choice = _choose(form, candidates, max_pairs=8, shares={"tool_call": 1, "answer": 3})
    assert quotas(PreferConfig(max_pairs=8, shares={"tool_call": 1, "answer": 3}))["answer"] == 6
    assert Counter(one.pair.kind for part in choice.parts.values() for one in part) == {"tool_call": 2, "answer": 2}
    assert len(choice.entries) == len(candidates)
    calls, answers = choice.kinds["tool_call"], choice.kinds["answer"]
    assert (calls.found, calls.wanted, calls.kept) == (12, 2, 2)
    assert (answers.found, answers.wanted, answers.kept) == (2, 6, 2)


def test_lengths_are_balanced_as_far_as_the_pairs_allow(form: ChatFormat) -> None:
    long = (
        "There is nothing that I could do about it, however much I would like to, as you will surely understand. " * 2
    )
    candidates = [_wrong(_call(city), long if place < 3 else "No.") for place, city in enumerate(CITIES)]
    choice = _choose(form, candidates, max_pairs=6, shares={"tool_call": 1})
    card = choice.kinds["tool_call"]
    assert (card.kept, card.chosen_longer, card.chosen_shorter) == (6, 3, 3)


def test_the_share_of_val_is_that_of_all_pairs_however_few_a_kind_has(form: ChatFormat) -> None:
    candidates = [_wrong(of(city)) for of in (_call, _answer) for city in CITIES[:6]]
    choice = _choose(form, candidates, val=0.1)
    assert [len(choice.parts[part]) for part in ("train", "val")] == [11, 1]


def test_the_choice_does_not_depend_on_the_order_of_the_pairs(form: ChatFormat) -> None:
    candidates = [_wrong(_call(city)) for city in CITIES]
    first, second = (
        _choose(form, order, max_pairs=8, shares={"tool_call": 1}) for order in (candidates, candidates[::-1])
    )
    assert _kept(first) == _kept(second)
    assert [one.pair.id for one in first.parts["val"]] == [one.pair.id for one in second.parts["val"]]


@pytest.mark.parametrize(
    ("rejected", "reason"),
    [
        (assistant("", make_call(city="Rome")), "same_reply"),
        (assistant("It ends <|im_end|> here."), "control_token_in_text"),
        ("word " * 3000, "too_long"),
    ],
)
def test_what_cannot_be_learned_is_left_out_with_its_reason(
    form: ChatFormat, rejected: Message | str, reason: str
) -> None:
    choice = _choose(form, [Candidate(_call("Rome"), rejected, "file")])
    assert _left_out(choice) == {"call-Rome": reason}


def _write(form: ChatFormat, run: RunDir, candidates: list[Candidate]) -> None:
    held_out = [sample for part in ("val", "test") for sample in read_jsonl(run.split(part), Sample)]
    write_pairs(_choose(form, candidates, *held_out, val=0.2), "trial-1", {}, run, threshold=0.9)


def test_what_is_written_is_audited_against_the_held_out_parts(form: ChatFormat, tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_samples(run, "val", [_call("Rome"), _call("Turin")])
    write_samples(run, "test", [_answer("Oslo"), _answer("Turin")])
    _write(form, run, [_wrong(make(city)) for make in (_call, _answer) for city in CITIES])

    place = run.preferences("trial-1")
    card = read_card(place)
    assert card.left_out == {"held_out": 2, "enough_of_its_kind": 2}
    for part in ("val", "test"):
        assert (card.leaks[part].prompts.count, card.leaks[part].near_duplicates.count) == (0, 0)
        assert card.leaks[part].prompts.n == 2
    pairs = list(read_jsonl(pairs_path(place), PreferencePair))
    assert len(pairs) == sum(card.parts.values()) == 20
    held_out = {
        sample.messages[0].content for part in ("val", "test") for sample in read_jsonl(run.split(part), Sample)
    }
    assert not held_out & {message.content for pair in pairs for message in pair.messages}
    entries = list(read_jsonl(ledger_path(place), PairEntry))
    assert len(entries) == 24
    from datasets import load_from_disk

    assert load_from_disk(tokens_folder(place, "train")).column_names == ["prompt_ids", "chosen_ids", "rejected_ids"]


def test_too_few_pairs_are_refused_and_the_ledger_says_why(form: ChatFormat, tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write_samples(run, "val", [_call("Rome")])
    write_samples(run, "test", [_answer("Oslo")])
    with pytest.raises(TooFewPairsError, match=r"1 pair to learn from; left out: held_out x 1"):
        _write(form, run, [_wrong(_call("Rome")), _wrong(_call("Oslo"))])
    assert ledger_path(run.preferences("trial-1")).is_file()


def _alone(sample: Sample, *, label: bool) -> Candidate:
    return Candidate(sample, None, "file", label=label)


def test_a_reply_alone_stands_where_its_label_puts_it(form: ChatFormat) -> None:
    pair, tokens = show_pair(form, _alone(_call("Rome"), label=False))
    assert (pair.chosen, tokens.chosen_ids) == (None, [])
    right, whole = show_pair(form, _wrong(_call("Rome")))
    assert (pair.rejected, tokens.rejected_ids, tokens.prompt_ids) == (
        right.chosen,
        whole.chosen_ids,
        whole.prompt_ids,
    )


def test_replies_alone_are_learned_where_every_loss_takes_them(form: ChatFormat, tmp_path: Path) -> None:
    good = [_alone(_call(city), label=True) for city in CITIES]
    bad = [_alone(make_sample(user(one.sample.messages[0].content), assistant("Sorry."), id=f"bad-{place}"),
           label=False) for place, one in enumerate(good[:6])]  # fmt: skip
    for loss in ("sigmoid", ["sigmoid", "ipo"]):
        choice = _choose(form, [*good, *bad], loss=loss)
        assert Counter(entry.left_out for entry in choice.entries) == {"unpaired": 18}
    choice = _choose(form, [*good, *bad], good[0].sample, loss="kto", val=0.2, max_pairs=100)
    assert Counter(entry.left_out for entry in choice.entries) == {None: 16, "held_out": 2}

    run = RunDir(tmp_path)
    write_samples(run, "val", [_call("Turin")])
    write_samples(run, "test", [_answer("Turin")])
    card = write_pairs(choice, "trial-1", {}, run, threshold=0.9)
    assert card.alone == {"good": 11, "bad": 5}
    assert read_card(run.preferences("trial-1")) == card
