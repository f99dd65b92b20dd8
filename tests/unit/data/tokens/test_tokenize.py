import json
import shutil
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from builders import (
    assistant,
    make_call,
    make_config,
    make_sample,
    make_tool,
    names_in,
    user,
    weather_samples,
    write_model_folder,
    write_samples,
)
from datasets import Features, List, Value, load_from_disk
from hypothesis import given
from hypothesis import strategies as st
from token_rows import tokenize_sample, tokens_of
from transformers import PreTrainedTokenizerBase

from orchestrator.chat.rendering import chat_format, render_prompt
from orchestrator.config.schema import DataConfig, RunConfig
from orchestrator.core.errors import DataError, ModelNotFoundError
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import Message, Sample
from orchestrator.data.card import KindTokens, LeftOut
from orchestrator.data.formats.canonical import sample_from_row
from orchestrator.data.tokens.store import (
    LedgerRow,
    histogram,
    ledger_path,
    refuse_left_out,
    tokenize_run,
    tokens_folder,
)
from orchestrator.data.tokens.tokenize import BATCH, IGNORED, TokenRow, tokenize_samples
from orchestrator.models.base import base_tokenizer
from orchestrator.run.folder import open_run
from orchestrator.run.paths import RunDir
from orchestrator.toy.synthetic import generate_samples

WEATHER_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
TOOL_TURNS = (
    Message(role="system", content="Help."),
    user("What is the weather in Rome"),
    assistant("", make_call(city="Rome")),
    Message(role="tool", content='{"sky": "blue"}', name="get_weather"),
    assistant("It is blue in Rome."),
)


def learned_text(tokenizer: PreTrainedTokenizerBase, row: TokenRow) -> str:
    return str(tokenizer.decode([label for label in row.labels if label != IGNORED]))


def learned_spans(row: TokenRow) -> list[tuple[int, int]]:
    """Start and end of each run of learned tokens."""
    learned = [label != IGNORED for label in row.labels] + [False]
    starts = [i for i, now in enumerate(learned) if now and (i == 0 or not learned[i - 1])]
    return [(start, learned.index(False, start)) for start in starts]


@pytest.fixture
def config(tmp_path: Path, model_folder: Path) -> RunConfig:
    return make_config(tmp_path, base=str(model_folder), data=DataConfig(max_length=400))


@pytest.fixture
def run(config: RunConfig) -> RunDir:
    run = open_run(config)
    write_samples(run, "train", weather_samples("Rome", "Oslo", "Lima"))
    write_samples(run, "val", weather_samples("Cairo"))
    return run


def with_data(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update=changes)})


def with_base(config: RunConfig, base: Path | str) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update={"base": str(base)})})


def test_a_label_is_its_own_token_or_ignored(tokenizer: PreTrainedTokenizerBase) -> None:
    row = tokenize_sample(tokenizer, make_sample())
    assert len(row.input_ids) == len(row.labels)
    assert all(label in (token, IGNORED) for token, label in zip(row.input_ids, row.labels, strict=True))


def test_a_call_and_its_end_of_turn_are_learned_and_nothing_else(tokenizer: PreTrainedTokenizerBase) -> None:
    row = tokenize_sample(tokenizer, make_sample())
    assert learned_text(tokenizer, row) == f"{WEATHER_CALL}<|im_end|>"
    text = tokenizer.decode(row.input_ids)
    assert "<think>" in text
    assert '"name": "get_weather", "description"' in text


def test_every_assistant_turn_is_learned_and_the_tools_result_is_not(tokenizer: PreTrainedTokenizerBase) -> None:
    row = tokenize_sample(tokenizer, make_sample(*TOOL_TURNS, kind="answer"))
    assert learned_text(tokenizer, row) == f"{WEATHER_CALL}<|im_end|>It is blue in Rome.<|im_end|>"
    result = tokenizer.decode([t for t, label in zip(row.input_ids, row.labels, strict=True) if label == IGNORED])
    assert '<tool_response>\n{"sky": "blue"}\n</tool_response>' in result


@pytest.mark.parametrize("template", ["its own", "unmarked"])
def test_a_turn_that_is_not_to_be_learned_is_shown_and_has_no_label(
    tokenizer: PreTrainedTokenizerBase, template: str
) -> None:
    form = chat_format(tokenizer, thinking=False)
    form = form if template == "its own" else replace(form, is_marked=False)
    unlearned = assistant("Soon.").model_copy(update={"learned": False})
    sample = make_sample(user("Rome?"), unlearned, user("Well?"), assistant("It is blue."), kind="answer")
    (row,) = tokens_of(form, sample).rows
    (whole,) = tokens_of(form, sample.model_copy(update={"messages": learned(sample)})).rows
    assert row.input_ids == whole.input_ids
    assert learned_text(tokenizer, whole) == "Soon.<|im_end|>It is blue.<|im_end|>"
    assert learned_text(tokenizer, row) == "It is blue.<|im_end|>"
    assert (len(row.spans), len(whole.spans)) == (1, 2)


def test_what_a_row_masks_has_no_label(tokenizer: PreTrainedTokenizerBase) -> None:
    call = {"function": {"name": "get_weather", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "Rome?"},
        {"role": "assistant", "tool_calls": [call], "weight": 0},
        {"role": "tool", "content": "blue"},
        {"role": "assistant", "content": "It is blue.", "weight": 1},
        {"role": "user", "content": "Sure?"},
        {"role": "assistant", "content": "No.", "weight": 0},
    ]
    row = {"messages": turns, "tools": [{"name": "get_weather"}]}
    sample = sample_from_row(row, "messages", source="f:1", keep_reasoning=False).sample
    tokens = tokenize_sample(tokenizer, sample)
    assert learned_text(tokenizer, tokens) == "It is blue.<|im_end|>"
    assert "<tool_call>" in tokenizer.decode(tokens.input_ids)


def learned(sample: Sample) -> tuple[Message, ...]:
    return tuple(message.model_copy(update={"learned": True}) for message in sample.messages)


def test_several_calls_of_one_turn_are_learned_in_order(tokenizer: PreTrainedTokenizerBase) -> None:
    calls = (make_call(city="Rome"), make_call(city="Oslo"))
    row = tokenize_sample(tokenizer, make_sample(user("Both"), assistant("", *calls)))
    text = learned_text(tokenizer, row)
    assert text.count("<tool_call>") == text.count("</tool_call>") == 2
    assert text.index("Rome") < text.index("Oslo")


def test_null_arguments_are_learned_as_null_and_absent_ones_are_absent(tokenizer: PreTrainedTokenizerBase) -> None:
    row = tokenize_sample(tokenizer, make_sample(user("x"), assistant("", make_call(city=None, n={"a": [None]}))))
    assert '"arguments": {"city": null, "n": {"a": [null]}}}' in learned_text(tokenizer, row)
    assert "unit" not in learned_text(tokenizer, row)


THOUGHTFUL = Message(role="assistant", content="Yes.", reasoning_content="Hm, well.")


def test_reasoning_is_dropped_unless_thinking_is_on(tokenizer: PreTrainedTokenizerBase) -> None:
    sample = make_sample(user("x"), THOUGHTFUL, user("y"), THOUGHTFUL, kind="answer")
    assert learned_text(tokenizer, tokenize_sample(tokenizer, sample)) == "Yes.<|im_end|>Yes.<|im_end|>"
    kept = tokenize_sample(tokenizer, sample, thinking=True)
    assert learned_text(tokenizer, kept) == "<think>\nHm, well.\n</think>\n\nYes.<|im_end|>" * 2
    assert "Hm" not in tokenizer.decode(render_prompt(tokenizer, sample.messages[:3], sample.tools))
    assert "Hm" in tokenizer.decode(render_prompt(tokenizer, sample.messages[:3], sample.tools, thinking=True))


def test_with_thinking_the_prompt_leaves_the_block_to_the_assistant(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt = render_prompt(tokenizer, [user("x")], [], thinking=True)
    assert tokenizer.decode(prompt).endswith("<|im_start|>assistant\n")
    row = tokenize_sample(tokenizer, make_sample(user("x"), THOUGHTFUL, tools=(), kind="answer"), thinking=True)
    assert row.input_ids[: row.spans[0].start] == prompt


def test_a_sample_that_cannot_be_shown_is_an_error_with_its_reason(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(DataError, match=r"sample s0: nothing_to_learn: the assistant says nothing"):
        tokenize_sample(tokenizer, make_sample(user("x"), kind="answer"))


PROSE = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30)
REPLIES = st.builds(
    lambda text, cities: assistant(text, *(make_call(city=city) for city in cities)), PROSE, st.lists(PROSE, max_size=2)
)
TURNS = st.tuples(PROSE.map(user), REPLIES)


@given(st.lists(TURNS, min_size=1, max_size=3), st.none() | PROSE, st.booleans())
def test_tokens_are_those_of_the_template_and_the_mask_is_its_marks_less_prefix_and_separator(
    tokenizer: PreTrainedTokenizerBase, pairs: list[tuple[Message, Message]], system: str | None, thinking: bool
) -> None:
    turns = [turn for pair in pairs for turn in pair]
    messages = [Message(role="system", content=system), *turns] if system is not None else turns
    sample = make_sample(*messages)
    form = chat_format(tokenizer, thinking=thinking)
    tokens = next(tokenize_samples(form, [sample], max_length=None)).tokens
    encoded = tokenizer.apply_chat_template(
        form.plain(messages),
        tools=[make_tool().model_dump()],
        return_dict=True,
        return_assistant_tokens_mask=True,
        enable_thinking=thinking,
    )
    if isinstance(tokens, LeftOut):
        is_empty = not messages[-1].content.strip("\n") and not messages[-1].tool_calls
        assert tokens.reason in ("control_token_in_text", *(["nothing_to_learn"] if is_empty else ()))
        return
    if len(tokens.rows) > 1:
        return  # a reply that melts into its prompt, or an empty one
    (row,) = tokens.rows
    assert row.input_ids == encoded["input_ids"][: len(row.input_ids)]
    assert learned_spans(row) == [span[1:] for span in row.spans]
    marked = [place for place, mark in enumerate(encoded["assistant_masks"]) if mark]
    learned = [place for span in row.spans for place in range(span.start, span.end)]
    assert set(learned) <= set(marked)
    if tokens.unlearned == 0:
        prefix = [] if thinking else form.encode("<think>\n\n</think>\n\n")
        rest = [encoded["input_ids"][place] for place in sorted(set(marked) - set(learned))]
        assert rest == (prefix + form.encode("\n")) * len(row.spans)


def check_prompts(tokenizer: PreTrainedTokenizerBase, sample: Sample) -> int:
    """Each assistant turn is learned from exactly where the prompt before it ends. Returns how many there are."""
    row = tokenize_sample(tokenizer, sample)
    spans = learned_spans(row)
    turns = [place for place, message in enumerate(sample.messages) if message.role == "assistant"]
    assert len(spans) == len(turns)
    for place, (start, _) in zip(turns, spans, strict=True):
        prompt = render_prompt(tokenizer, sample.messages[:place], sample.tools)
        assert row.input_ids[: len(prompt)] == prompt
        assert start == len(prompt)
    return len(turns)


def test_a_prompt_is_the_beginning_of_what_was_trained(tokenizer: PreTrainedTokenizerBase) -> None:
    samples = generate_samples(120, seed=5, catalogue="full")
    turns = [check_prompts(tokenizer, sample) for sample in samples]
    assert set(turns) == {1, 2}


def test_a_prompt_is_the_beginning_in_long_conversations_too(tokenizer: PreTrainedTokenizerBase) -> None:
    again = (user("And in Oslo"), assistant("Let me see.", make_call(city="Oslo")), Message(role="tool", content="{}"))
    end = (assistant("Dull."), user("Thanks"), assistant("Welcome."))
    assert check_prompts(tokenizer, make_sample(*TOOL_TURNS, *again, *end, kind="answer")) == 5
    assert check_prompts(tokenizer, make_sample(user("Hi"), assistant("Hello."), tools=(), kind="answer")) == 1


def test_a_prompt_offers_the_tools_and_ends_where_the_reply_starts(tokenizer: PreTrainedTokenizerBase) -> None:
    text = tokenizer.decode(render_prompt(tokenizer, [user("Hi")], [make_tool("one"), make_tool("two")]))
    assert text.index('"name": "one"') < text.index('"name": "two"')
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert "tools" not in tokenizer.decode(render_prompt(tokenizer, [user("Hi")], []))


def test_a_run_is_tokenised_to_arrow_with_a_card(
    config: RunConfig, run: RunDir, tokenizer: PreTrainedTokenizerBase
) -> None:
    cards = tokenize_run(config, run)
    rows = [tokenize_sample(tokenizer, sample) for sample in weather_samples("Rome", "Oslo", "Lima")]
    stored = load_from_disk(str(tokens_folder(run, "train")))
    assert stored.column_names == ["input_ids", "labels"]
    assert stored.features == Features(input_ids=List(Value("int32")), labels=List(Value("int32")))
    assert stored["input_ids"][:] == [row.input_ids for row in rows]
    assert stored["labels"][:] == [row.labels for row in rows]
    assert set(cards) == {"train", "val"}
    card = cards["train"]
    assert (card.samples, card.left_out) == (3, ())
    assert card.tokens == sum(len(row.input_ids) for row in rows)
    assert card.longest == max(len(row.input_ids) for row in rows)
    assert card.learned_tokens == sum(label != IGNORED for row in rows for label in row.labels)
    assert 0 < card.learned_tokens < card.tokens
    assert card.by_kind == {"tool_call": KindTokens(samples=3, tokens=card.tokens, learned_tokens=card.learned_tokens)}
    assert card.histogram == ((384, 3),)
    assert (card.rows, card.shortened, card.unlearned_turns) == (3, 0, 0)
    ledger = list(read_jsonl(ledger_path(run, "train"), LedgerRow))
    assert [entry.id for entry in ledger] == ["s-Rome", "s-Oslo", "s-Lima"]
    num_tokens, num_learned = len(rows[0].input_ids), sum(label != IGNORED for label in rows[0].labels)
    first = LedgerRow(id="s-Rome", kind="tool_call", tokens=num_tokens, learned_tokens=num_learned, turns=(1,))
    assert ledger[0] == first
    written = json.loads((run.root / "data" / "tokens" / "card.json").read_text(encoding="utf-8"))
    assert written["val"]["samples"] == 1
    assert "digest" in written


def test_long_samples_and_samples_without_a_reply_are_left_out_and_listed(config: RunConfig, run: RunDir) -> None:
    long = make_sample(user("word " * 500), assistant("Yes."), id="long", source="a.jsonl:7", kind="answer")
    silent = make_sample(user("Hello"), id="silent", kind="answer")
    write_samples(run, "train", [long, *weather_samples("Rome"), silent])
    card = tokenize_run(config, run)["train"]
    assert card.samples == 1
    first, second = card.left_out
    assert (first.id, first.source, first.reason) == ("long", "a.jsonl:7", "too_long")
    assert first.tokens is not None
    assert first.tokens > 400
    assert first.detail == f"has {first.tokens} tokens, more than data.max_length 400"
    assert (second.id, second.source, second.reason) == ("silent", "test", "nothing_to_learn")
    assert second.detail == "the assistant says nothing"
    assert load_from_disk(str(tokens_folder(run, "train"))).num_rows == 1


def test_a_sample_of_just_the_longest_length_is_trained_on(
    config: RunConfig, run: RunDir, tokenizer: PreTrainedTokenizerBase
) -> None:
    samples = weather_samples("Rome", "Oslo", "Lima")
    length = max(len(tokenize_sample(tokenizer, sample).input_ids) for sample in samples)
    assert len(tokenize_run(with_data(config, max_length=length), run)["train"].left_out) == 0
    assert len(tokenize_run(with_data(config, max_length=length - 1), run)["train"].left_out) >= 1


def test_a_part_without_a_usable_sample_is_an_error(config: RunConfig, run: RunDir) -> None:
    write_samples(run, "val", [make_sample(user("word " * 500), assistant("Yes."), kind="answer")])
    problem = r"no sample of val can be trained on: too_long x 1; such as s0: has \d+ tokens"
    with pytest.raises(DataError, match=problem):
        tokenize_run(config, run)
    write_samples(run, "val", [])
    with pytest.raises(DataError, match="val holds no sample"):
        tokenize_run(config, run)
    assert not (run.root / "data" / "tokens" / "card.json").exists()


def stamp(run: RunDir) -> dict[str, int]:
    return {
        str(path.relative_to(run.root)): path.stat().st_mtime_ns
        for path in sorted((run.root / "data" / "tokens").rglob("*"))
        if path.is_file()
    }


def test_the_same_data_and_base_are_not_tokenised_again(config: RunConfig, run: RunDir) -> None:
    first, before = tokenize_run(config, run), stamp(run)
    assert tokenize_run(config, run) == first
    assert stamp(run) == before


def test_other_data_are_tokenised_again(config: RunConfig, run: RunDir) -> None:
    tokenize_run(config, run)
    write_samples(run, "train", weather_samples("Rome", "Quito"))
    assert tokenize_run(config, run)["train"].samples == 2
    assert load_from_disk(str(tokens_folder(run, "train"))).num_rows == 2


def test_another_length_is_tokenised_again(config: RunConfig, run: RunDir) -> None:
    tokenize_run(config, run)
    write = stamp(run)
    tokenize_run(with_data(config, max_length=500), run)
    assert stamp(run) != write


def test_another_template_is_tokenised_again(
    config: RunConfig, run: RunDir, model_folder: Path, tmp_path: Path
) -> None:
    first = tokenize_run(config, run)["train"].tokens
    other = tmp_path / "other"
    shutil.copytree(model_folder, other)
    template = (other / "chat_template.jinja").read_text(encoding="utf-8")
    shorter = template.replace("You may call one or more functions to assist with the user query.", "")
    (other / "chat_template.jinja").write_text(shorter, encoding="utf-8")
    assert template != shorter
    assert tokenize_run(with_base(config, other), run)["train"].tokens < first


LONG_CONVERSATION = make_sample(
    user("What is the weather in Rome"),
    assistant("", make_call(city="Rome")),
    Message(role="tool", content="sunny"),
    assistant("Sunny."),
    user("And " + "then " * 300),
    assistant("Rain."),
    id="long",
    kind="answer",
)


def test_a_long_conversation_ends_after_the_last_reply_that_fits(
    config: RunConfig, run: RunDir, tokenizer: PreTrainedTokenizerBase
) -> None:
    write_samples(run, "train", [LONG_CONVERSATION, *weather_samples("Oslo")])
    card = tokenize_run(with_data(config, overlong="shorten"), run)["train"]
    assert (card.samples, card.shortened, card.left_out) == (2, 1, ())
    up_to_sunny = tokenize_sample(
        tokenizer, LONG_CONVERSATION.model_copy(update={"messages": LONG_CONVERSATION.messages[:4]})
    )
    stored = load_from_disk(str(tokens_folder(run, "train")))
    assert stored["input_ids"][0] == up_to_sunny.input_ids
    assert stored["labels"][0] == up_to_sunny.labels
    assert tokenizer.decode(stored["input_ids"][0]).endswith("Sunny.<|im_end|>")
    barely = with_data(config, overlong="shorten", max_length=len(up_to_sunny.input_ids) - 1)
    tokenize_run(barely, run)
    shorter = load_from_disk(str(tokens_folder(run, "train")))["input_ids"][0]
    assert tokenizer.decode(shorter).endswith("</tool_call><|im_end|>")
    assert next(read_jsonl(ledger_path(run, "train"), LedgerRow)).kind == "tool_call"


def test_a_conversation_of_which_no_reply_fits_is_left_out(config: RunConfig, run: RunDir) -> None:
    write_samples(run, "train", [LONG_CONVERSATION, *weather_samples("Oslo")])
    shortest = with_data(config, overlong="shorten", max_length=200)
    with pytest.raises(DataError, match=r"too_long x 2.*not even its first reply fits"):
        tokenize_run(shortest, run)
    assert tokenize_run(with_data(config, overlong="leave_out"), run)["train"].left_out[0].reason == "too_long"


@pytest.mark.parametrize("overlong", ["leave_out", "shorten"])
def test_a_conversation_of_thousands_of_turns_takes_no_longer_than_it_must(
    config: RunConfig, run: RunDir, overlong: str
) -> None:
    endless = make_sample(*[user("Hi"), assistant("Hello.")] * 4000, id="endless", kind="answer")
    write_samples(run, "train", [endless, *weather_samples("Oslo")])
    started = time.monotonic()
    card = tokenize_run(with_data(config, overlong=overlong), run)["train"]
    assert time.monotonic() - started < 20
    assert (card.shortened, len(card.left_out)) == ((1, 0) if overlong == "shorten" else (0, 1))
    assert card.longest <= 400


def test_reasoning_that_is_kept_is_tokenised_again(config: RunConfig, run: RunDir) -> None:
    write_samples(run, "train", [make_sample(user("x"), THOUGHTFUL, kind="answer")])
    dropped = tokenize_run(config, run)["train"].learned_tokens
    assert tokenize_run(with_data(config, reasoning="keep"), run)["train"].learned_tokens > dropped


def test_a_text_with_a_control_token_is_left_out_with_its_turn(config: RunConfig, run: RunDir) -> None:
    forged = make_sample(user("x<|im_end|>"), assistant("Yes."), id="forged", kind="answer")
    write_samples(run, "train", [forged, *weather_samples("Oslo")])
    (left_out,) = tokenize_run(config, run)["train"].left_out
    assert (left_out.id, left_out.reason, left_out.tokens) == ("forged", "control_token_in_text", None)
    assert left_out.detail == "turn 1: '<|im_end|>' stands in its text"


def test_more_rows_than_one_batch_keep_their_order(config: RunConfig, run: RunDir) -> None:
    num_rows = 4 * BATCH + 3
    write_samples(run, "train", [make_sample(id=f"s{number}") for number in range(num_rows)])
    assert tokenize_run(config, run)["train"].samples == num_rows
    ledger = read_jsonl(ledger_path(run, "train"), LedgerRow)
    assert [entry.id for entry in ledger] == [f"s{number}" for number in range(num_rows)]
    assert load_from_disk(str(tokens_folder(run, "train"))).num_rows == num_rows


def test_stored_tokens_are_replaced_and_not_written_over(config: RunConfig, run: RunDir, tmp_path: Path) -> None:
    tokenize_run(config, run)
    (stored,) = tokens_folder(run, "train").glob("*.arrow")
    linked = tmp_path / "linked.arrow"
    linked.hardlink_to(stored)
    content = linked.read_bytes()
    write_samples(run, "train", weather_samples("Quito"))
    tokenize_run(config, run)
    assert linked.read_bytes() == content
    names = ["card.json", "train", "train.ledger.jsonl", "val", "val.ledger.jsonl"]
    assert names_in(tokens_folder(run, "train").parent) == names


@given(st.dictionaries(st.integers(1, 10**6), st.integers(1, 50), min_size=1))
def test_a_histogram_counts_every_length_once_in_a_dozen_bins(lengths: dict[int, int]) -> None:
    bins = histogram(Counter(lengths))
    assert sum(count for _, count in bins) == sum(lengths.values())
    assert 1 <= len(bins) <= 12
    assert all(second / first in (1.5, 4 / 3) for (first, _), (second, _) in pairwise(bins))
    assert bins[-1][0] / 1.5 < max(max(lengths), 32) <= bins[-1][0]


def test_the_bins_of_a_few_lengths() -> None:
    assert histogram(Counter({5: 1, 32: 1, 33: 2, 70: 3})) == ((32, 2), (48, 2), (64, 0), (96, 3))


def test_a_base_that_is_not_there_is_an_error(config: RunConfig, run: RunDir) -> None:
    with pytest.raises(ModelNotFoundError, match="nobody/no-such-model"):
        tokenize_run(with_base(config, "nobody/no-such-model"), run)


def test_the_model_folder_of_the_tests_is_made_alike_each_time(model_folder: Path, tmp_path: Path) -> None:
    again = write_model_folder(tmp_path / "again")
    for name in ("tokenizer.json", "chat_template.jinja", "model.safetensors"):
        assert (again / name).read_bytes() == (model_folder / name).read_bytes()


@pytest.mark.parametrize(("num_lost", "num_kept", "is_refused"), [(2, 2, False), (3, 2, True)])
def test_the_template_may_leave_out_half_of_the_samples(
    config: RunConfig, run: RunDir, num_lost: int, num_kept: int, is_refused: bool
) -> None:
    odd = [
        make_sample(Message(role="system", content="Help."), user("x"), assistant("", make_call(city=f"C{number}")))
        for number in range(num_lost)
    ]
    lost = [sample.model_copy(update={"id": f"odd{number}"}) for number, sample in enumerate(odd)]
    write_samples(run, "train", [*lost, *weather_samples(*(f"City{number}" for number in range(num_kept)))])
    write_samples(run, "val", weather_samples("Oslo"))
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('No system.') }}{% endif %}"
    template = strict + str(base_tokenizer(config.model).chat_template)
    model = config.model.model_copy(update={"chat_template": template})
    config = config.model_copy(update={"model": model})
    cards = tokenize_run(config, run)
    assert (cards["train"].samples, len(cards["train"].left_out)) == (num_kept, num_lost)
    if not is_refused:
        refuse_left_out(config, cards)
        return
    with pytest.raises(DataError, match=r"model\.chat_template: 3 of 5 .*template_refuses x 3.*Leave system messages"):
        refuse_left_out(config, cards)


def test_the_advice_of_a_refusal_is_that_of_its_commonest_reason(config: RunConfig, run: RunDir) -> None:
    marked = [make_sample(user("a<|im_end|>"), assistant("b"), kind="answer", id=f"m{number}") for number in range(3)]
    write_samples(run, "train", [*marked, *weather_samples("Rome")])
    write_samples(run, "val", weather_samples("Oslo"))
    cards = tokenize_run(config, run)
    with pytest.raises(
        DataError, match=r"control_token_in_text x 3\).*kind answer.*Take the base's marks out"
    ) as caught:
        refuse_left_out(config, cards)
    assert "max_length" not in str(caught.value)
