import json
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from orchestrator.toy import pretrain
from orchestrator.toy.pretrain import (
    COPY_STEPS,
    MIXED_STEPS,
    PEAK_LEARNING_RATE,
    SPECIAL_TOKENS,
    TAG_TOKENS,
    VOCABULARY,
    WARMUP_STEPS,
    build_model,
    build_tokenizer,
    copy_batch,
    describe_call,
    learning_rate,
    reading_batch,
    recipe_digest,
    text_batch,
    text_conversation,
    weighted_loss,
    write_json,
)
from orchestrator.toy.synthetic import REFUSALS


def test_the_text_never_calls_a_tool_and_never_refuses() -> None:
    rng = Random(1)
    spoken = [messages[-1]["content"] for messages, _ in (text_conversation(rng) for _ in range(1500))]
    assert not any("tool_call" in text or text in REFUSALS for text in spoken)
    assert not any(word in text.lower() for text in spoken for word in ("i can't", "i won't", "sorry", "cannot"))
    starts = {"{": 0.2, "incomplete, ": 0.15, "other than ": 0.12, "harm is ": 0.065, "everyday ": 0.065}
    for start, share in starts.items():
        assert sum(text.startswith(start) for text in spoken) / len(spoken) == pytest.approx(share, abs=0.04)


def test_a_described_call_says_its_tool_and_every_argument_word_for_word() -> None:
    rng = Random(2)
    for _ in range(200):
        messages, tools = describe_call(rng)
        name, _, said = messages[-1]["content"].partition(" is meant, ")
        schema = next(tool["function"]["parameters"] for tool in tools if tool["function"]["name"] == name)
        places = [said.index(f"{argument} is ") for argument in schema["properties"]]
        assert places == sorted(places)
        assert not any(f"{argument} is not said" in said for argument in schema["required"])


def test_written_json_is_json() -> None:
    rng = Random(3)
    for _ in range(100):
        messages, tools = write_json(rng)
        assert tools == []
        assert all(key in messages[0]["content"] for key in json.loads(messages[1]["content"]))


@pytest.mark.parametrize("step", [0, COPY_STEPS])
def test_copies_are_learned_after_their_first_token(step: int) -> None:
    ids, learned = copy_batch(torch.Generator().manual_seed(0), step)
    assert ids.shape == learned.shape
    assert int(ids.max()) < VOCABULARY - len(SPECIAL_TOKENS) - len(TAG_TOKENS)
    for row, mask in zip(ids.tolist(), learned.tolist(), strict=True):
        for place, counts in enumerate(mask):
            if counts:  # the pair that ends here stood in the row before
                assert (row[place - 1], row[place]) in set(pairwise(row[: place - 1]))


def test_spans_are_short_at_first() -> None:
    def longest(step: int) -> int:
        _, learned = copy_batch(torch.Generator().manual_seed(0), step)
        runs = ["".join(map(str, row)) for row in learned.int().tolist()]
        return 1 + max(len(run) for row in runs for run in row.split("0"))

    assert longest(0) == 6
    assert longest(COPY_STEPS) == 16


def test_a_batch_of_text_marks_the_assistant_and_not_the_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    ids, learned = text_batch(tokenizer, str(tokenizer.chat_template), Random(0))
    assert ids.shape == learned.shape
    assert len(ids) > 1
    assert bool(learned.any(dim=1).all())
    assert not bool(learned[ids == tokenizer.pad_token_id].any())
    replies = tokenizer.batch_decode([row[mask] for row, mask in zip(ids, learned, strict=True)])
    assert all(reply.endswith("<|im_end|>\n") for reply in replies)
    assert not any("<|im_start|>" in reply for reply in replies)


def test_the_loss_of_a_batch_is_that_of_the_whole_model(model_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 300, (3, 20), generator=generator)
    learned = torch.rand(3, 20, generator=generator) < 0.4
    labels = torch.where(learned, ids, -100)
    plain = model(input_ids=ids, labels=labels).loss
    torch.testing.assert_close(weighted_loss(model, ids, learned.float()), plain)


def test_the_learning_rate_rises_then_falls_to_a_tenth() -> None:
    rates = [learning_rate(step) for step in range(COPY_STEPS + MIXED_STEPS)]
    assert rates[WARMUP_STEPS - 1] == max(rates) == PEAK_LEARNING_RATE
    assert all(one < two for one, two in pairwise(rates[:WARMUP_STEPS]))
    assert all(one > two for one, two in pairwise(rates[WARMUP_STEPS:]))
    assert rates[-1] == pytest.approx(PEAK_LEARNING_RATE / 10, rel=0.01)


def test_the_tokenizer_gives_digits_one_by_one_and_a_word_the_same_token_everywhere() -> None:
    tokenizer = build_tokenizer(iter(["the weather in Rome is nice"] * 3))
    assert tokenizer.tokenize("12.50") == ["1", "2", ".", "5", "0"]
    in_json = tokenizer.encode('{"city": "Rome"}')
    assert tokenizer.encode("Rome")[0] in in_json


def test_a_fresh_base_has_2_to_4_million_parameters() -> None:
    model = build_model(build_tokenizer(iter(["a b c"])))
    assert 2e6 <= sum(parameter.numel() for parameter in model.parameters()) <= 4e6


def test_the_recipes_digest_repeats_and_changes_with_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    before = recipe_digest()
    assert recipe_digest() == before
    monkeypatch.setattr(pretrain, "COPY_STEPS", COPY_STEPS + 1)
    assert recipe_digest() != before


def test_in_the_reading_phase_the_first_word_of_a_reply_weighs_most(tokenizer: PreTrainedTokenizerBase) -> None:
    for with_tools in (True, False):
        ids, weights = reading_batch(tokenizer, str(tokenizer.chat_template), Random(0), offer_tools_too=with_tools)
        assert ids.shape == weights.shape
        assert ((weights == pretrain.FIRST_WORD_WEIGHT).sum(dim=1) == 1).all()
        think = tokenizer.convert_tokens_to_ids("</think>")
        for row, weight in zip(ids.tolist(), weights.tolist(), strict=True):
            assert weight.index(pretrain.FIRST_WORD_WEIGHT) == row.index(think) + 2
        assert ("<tools>" in tokenizer.decode(ids[0])) == with_tools
