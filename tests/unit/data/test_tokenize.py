import json
import shutil
from pathlib import Path

import pytest
from builders import (
    assistant,
    make_call,
    make_config,
    make_sample,
    make_tool,
    user,
    weather_samples,
    write_model_folder,
    write_samples,
)
from datasets import load_from_disk
from transformers import PreTrainedTokenizerBase

from orchestrator.config import DataConfig, RunConfig
from orchestrator.data.synthetic import generate_samples
from orchestrator.data.tokenize import IGNORED, TokenRow, render_prompt, tokenize_run, tokenize_sample, tokens_folder
from orchestrator.errors import DataError, ModelNotFoundError
from orchestrator.records import Message, Sample
from orchestrator.runs import RunDir, open_run

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


def test_a_label_is_its_own_token_or_ignored(tokenizer: PreTrainedTokenizerBase) -> None:
    row = tokenize_sample(tokenizer, make_sample())
    assert len(row.input_ids) == len(row.labels)
    assert all(label in (token, IGNORED) for token, label in zip(row.input_ids, row.labels, strict=True))


def test_a_call_and_its_end_of_turn_are_learned_and_nothing_else(tokenizer: PreTrainedTokenizerBase) -> None:
    row = tokenize_sample(tokenizer, make_sample())
    assert learned_text(tokenizer, row) == f"{WEATHER_CALL}<|im_end|>\n"
    text = tokenizer.decode(row.input_ids)
    assert "<think>" in text
    assert '"name": "get_weather", "description"' in text


def test_every_assistant_turn_is_learned_and_the_tools_result_is_not(tokenizer: PreTrainedTokenizerBase) -> None:
    row = tokenize_sample(tokenizer, make_sample(*TOOL_TURNS, kind="answer"))
    assert learned_text(tokenizer, row) == f"{WEATHER_CALL}<|im_end|>\nIt is blue in Rome.<|im_end|>\n"
    result = tokenizer.decode([t for t, label in zip(row.input_ids, row.labels, strict=True) if label == IGNORED])
    assert '<tool_response>\n{"sky": "blue"}\n</tool_response>' in result


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


def test_a_real_think_block_of_the_data_is_learned(tokenizer: PreTrainedTokenizerBase) -> None:
    row = tokenize_sample(tokenizer, make_sample(user("x"), assistant("<think>\nHm.\n</think>\n\nYes."), kind="answer"))
    assert learned_text(tokenizer, row) == "<think>\nHm.\n</think>\n\nYes.<|im_end|>\n"


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
    assert stored["input_ids"][:] == [row.input_ids for row in rows]
    assert stored["labels"][:] == [row.labels for row in rows]
    assert set(cards) == {"train", "val"}
    card = cards["train"]
    assert (card.samples, card.left_out) == (3, ())
    assert card.tokens == sum(len(row.input_ids) for row in rows)
    assert card.longest == max(len(row.input_ids) for row in rows)
    assert card.learned_tokens == sum(label != IGNORED for row in rows for label in row.labels)
    assert 0 < card.learned_tokens < card.tokens
    written = json.loads((run.root / "data" / "tokens" / "card.json").read_text(encoding="utf-8"))
    assert written["val"]["samples"] == 1
    assert "digest" in written


def test_long_samples_and_samples_without_a_reply_are_left_out_and_listed(config: RunConfig, run: RunDir) -> None:
    long = make_sample(user("word " * 500), assistant("Yes."), id="long", source="a.jsonl:7", kind="answer")
    silent = make_sample(user("Hello"), id="silent", kind="answer")
    write_samples(run, "train", [long, *weather_samples("Rome"), silent])
    card = tokenize_run(config, run)["train"]
    assert card.samples == 1
    assert [(out.id, out.source) for out in card.left_out] == [("long", "a.jsonl:7"), ("silent", "test")]
    tokens = card.left_out[0].tokens
    assert tokens > 400
    assert card.left_out[0].reason == f"has {tokens} tokens, more than data.max_length 400"
    assert card.left_out[1].reason == "has no token of the assistant to learn"
    assert load_from_disk(str(tokens_folder(run, "train"))).num_rows == 1


def test_a_sample_of_just_the_longest_length_is_trained_on(
    config: RunConfig, run: RunDir, tokenizer: PreTrainedTokenizerBase
) -> None:
    length = max(
        len(tokenize_sample(tokenizer, sample).input_ids) for sample in weather_samples("Rome", "Oslo", "Lima")
    )

    def left_out(max_length: int) -> int:
        data = config.data.model_copy(update={"max_length": max_length})
        return len(tokenize_run(config.model_copy(update={"data": data}), run)["train"].left_out)

    assert left_out(length) == 0
    assert left_out(length - 1) >= 1


def test_a_part_without_a_usable_sample_is_an_error(config: RunConfig, run: RunDir) -> None:
    write_samples(run, "val", [make_sample(user("word " * 500), assistant("Yes."), kind="answer")])
    with pytest.raises(DataError, match="no sample of val can be trained on; the first is left out because it has"):
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
    data = config.data.model_copy(update={"max_length": 500})
    tokenize_run(config.model_copy(update={"data": data}), run)
    assert stamp(run) != write


def test_another_template_is_tokenised_again(
    config: RunConfig, run: RunDir, model_folder: Path, tmp_path: Path
) -> None:
    first = tokenize_run(config, run)["train"].tokens
    other = tmp_path / "other"
    shutil.copytree(model_folder, other)
    template = (other / "chat_template.jinja").read_text(encoding="utf-8")
    marked = "{%- for m in messages %}{{ m.role }}: {% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    (other / "chat_template.jinja").write_text(marked, encoding="utf-8")
    assert template != marked
    model = config.model.model_copy(update={"base": str(other)})
    assert tokenize_run(config.model_copy(update={"model": model}), run)["train"].tokens < first


def test_a_base_that_is_not_there_is_an_error(config: RunConfig, run: RunDir) -> None:
    model = config.model.model_copy(update={"base": "nobody/no-such-model"})
    with pytest.raises(ModelNotFoundError, match="nobody/no-such-model"):
        tokenize_run(config.model_copy(update={"model": model}), run)


def test_the_model_folder_of_the_tests_is_made_alike_each_time(model_folder: Path, tmp_path: Path) -> None:
    again = write_model_folder(tmp_path / "again")
    for name in ("tokenizer.json", "chat_template.jinja", "model.safetensors"):
        assert (again / name).read_bytes() == (model_folder / name).read_bytes()
