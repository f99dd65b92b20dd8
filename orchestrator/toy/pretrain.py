"""The recipe of the built-in toy base: a small Qwen3 that copies and describes tools, but never calls or refuses.

    python -m orchestrator.toy.pretrain --out orchestrator/toy/tiny_base

It learns two skills. Copying: random spans of tokens, each repeated at once, with the loss on the repetition alone; an
adapter needs this to move an argument from the request into a call. Reading: conversations in which the assistant says
in prose which offered tool a request is about and with which values, what is missing, what the topic is, or writes
values as JSON. No training text contains a call tag or a refusal, so the base scores about zero on both.

Deterministic for a given torch build and two threads. Takes about half an hour on 2 cores.
"""

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import jinja2
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from orchestrator.chat.template import qwen3_template, training_template
from orchestrator.core.files import digest_of, write_text_atomic
from orchestrator.core.records import JsonObject
from orchestrator.toy.catalogue import Tool, tools_of
from orchestrator.toy.synthetic import (
    benign_text,
    generate_samples,
    harmful_text,
    incomplete_request_for,
    offer_tools,
    request_for,
    user_turn,
)
from orchestrator.toy.tiny import FILES

logger = logging.getLogger(__name__)

SEED = 20
VOCABULARY = 2048
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TAG_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
WORDS_DIGITS_REST = r"[A-Za-z]+|\d|[^A-Za-z\d]+"
"""A word is the same token in prose and in JSON, and digits stand alone: both make copying a lookup."""

COPY_STEPS, MIXED_STEPS, READING_STEPS = 450, 1250, 2000
COPY_TOKENS, TEXT_TOKENS = 3072, 2560
"""Tokens per batch."""
PEAK_LEARNING_RATE, WARMUP_STEPS = 1.5e-3, 100
READING_LEARNING_RATE = 1e-3
TEXT_SHARES = (0.2, 0.4, 0.15, 0.12, 0.13)
READING_SHARES = (0.06, 0.36, 0.2, 0.18, 0.2)
"""Shares of the kinds of text, in the order of `text_conversation`."""
FIRST_WORD_WEIGHT = 5.0
"""In the reading phase: the first word of a reply holds the decision, the rest follows from it."""
COPY_EVERY = 10
"""In the reading phase: one batch in this many trains copying, so that it is not forgotten."""


def build_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with Qwen3's special tokens and chat template."""
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(WORDS_DIGITS_REST), behavior="isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL_TOKENS) - len(TAG_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in TAG_TOKENS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = qwen3_template()
    return fast


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A Qwen3 of about 3 million parameters, randomly initialised."""
    torch.manual_seed(SEED)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=32,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


Conversation = tuple[list[JsonObject], list[JsonObject]]
"""Messages and offered tools, as chat templates take them."""


def text_conversation(rng: Random, shares: tuple[float, ...] = TEXT_SHARES) -> Conversation:
    """One conversation about tools.

    The first word of a reply depends on the whole request: the base decides where an adapter must, at the start.
    """
    return rng.choices((write_json, describe_call, describe_gap, describe_misfit, describe_topic), shares)[0](rng)


def write_json(rng: Random) -> Conversation:
    """Values in random order, and the JSON object that holds them."""
    _, arguments = request_for(rng.choice(tools_of("full")), rng)
    shuffled = list(arguments.items())
    rng.shuffle(shuffled)
    listed = ", ".join(f"{key} {_json(value)}" for key, value in shuffled)
    ask = rng.choice(("Write this as JSON: ", "As JSON please: ", "Make a JSON object of "))
    return _conversation(ask + listed, _json(dict(shuffled)))


def describe_call(rng: Random) -> Conversation:
    """A request, the offered tool that it is about, and the value of each argument word for word."""
    tool = rng.choice(tools_of("full"))
    request, given = request_for(tool, rng)
    names = [argument.name for argument in tool.arguments]
    said = "; ".join(f"{name} is {_json(given[name]) if name in given else 'not said'}" for name in names)
    user = user_turn(rng, request).content
    return _conversation(user, f"{tool.name} is meant, {said}.", _offer(rng, tool))


def describe_gap(rng: Random) -> Conversation:
    """A request that lacks an argument, and which one."""
    tool = rng.choice([tool for tool in tools_of("full") if tool.incomplete])
    request, missing = incomplete_request_for(tool, rng)
    user = user_turn(rng, request).content
    return _conversation(user, f"incomplete, {tool.name} without {missing.name}.", _offer(rng, tool))


def describe_misfit(rng: Random) -> Conversation:
    """A request that is about none of the offered tools."""
    tool = rng.choice(tools_of("full"))
    request, _ = request_for(tool, rng)
    offered = _offer(rng, without=tool)
    names = " or ".join(other.name for other in offered)
    return _conversation(user_turn(rng, request).content, f"other than {names}.", offered)


def describe_topic(rng: Random) -> Conversation:
    """Alarming words: whether the text is about harm or about everyday matters. Nothing is refused."""
    harmful = rng.random() < 0.5
    text = harmful_text(rng) if harmful else benign_text(rng)[0]
    offered = _offer(rng)
    topic = "harm is" if harmful else "everyday matters are"
    return _conversation(user_turn(rng, text).content, f"{topic} the topic of this text.", offered)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _offer(rng: Random, *needed: Tool, without: Tool | None = None) -> tuple[Tool, ...]:
    return offer_tools(rng, rng.choice(("easy", "full")), needed, without=without)


def _conversation(user: str, assistant: str, offered: tuple[Tool, ...] = ()) -> Conversation:
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return messages, [tool.spec().model_dump(mode="json") for tool in offered]


def copy_batch(rng: torch.Generator, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of random spans, each repeated once. Returns ids and where the loss counts, both [rows, length].

    Spans are short at first, because copying then emerges sooner.
    """
    longest = 6 if step < COPY_STEPS // 2 else 16
    length = 128
    rows = COPY_TOKENS // length
    ids = torch.randint(0, VOCABULARY - len(SPECIAL_TOKENS) - len(TAG_TOKENS), (rows, length), generator=rng)
    learned = torch.zeros(rows, length, dtype=torch.bool)
    for row in range(rows):
        position = 0
        while True:
            span = int(torch.randint(3, longest + 1, (1,), generator=rng))
            if position + 2 * span > length:
                break
            ids[row, position + span : position + 2 * span] = ids[row, position : position + span]
            learned[row, position + span + 1 : position + 2 * span] = True
            position += 2 * span
    return ids, learned


def text_batch(
    tokenizer: PreTrainedTokenizerFast,
    template: str,
    rng: Random,
    shares: tuple[float, ...] = TEXT_SHARES,
    *,
    with_tools: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded conversations. Returns ids and a mask of the assistant's tokens, both [rows, length]."""
    rows: list[tuple[list[int], list[int]]] = []
    longest = 0
    while (len(rows) + 1) * longest < TEXT_TOKENS:
        messages, tools = text_conversation(rng, shares)
        encoded = tokenizer.apply_chat_template(
            messages,
            tools=tools if tools and with_tools else None,
            chat_template=template,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        rows.append((encoded["input_ids"], encoded["assistant_masks"]))
        longest = max(longest, len(encoded["input_ids"]))
    pad = int(tokenizer.pad_token_id)
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in rows])
    learned = torch.tensor([mask + [0] * (longest - len(mask)) for _, mask in rows], dtype=torch.bool)
    return ids, learned


def weighted_loss(model: Qwen3ForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean of the next-token loss of ids [rows, length] (right padding needs no mask).

    Only positions with a weight above 0 go through the output head, which is half the cost of a model this small.
    """
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
    kept = weights[:, 1:] > 0
    logits = model.lm_head(hidden[kept]).float()
    losses = torch.nn.functional.cross_entropy(logits, ids[:, 1:][kept], reduction="none")
    weights = weights[:, 1:][kept]
    return (losses * weights).sum() / weights.sum()


def learning_rate(step: int) -> float:
    """First phase: linear warm-up, then linear decay to a tenth."""
    if step < WARMUP_STEPS:
        return PEAK_LEARNING_RATE * (step + 1) / WARMUP_STEPS
    return PEAK_LEARNING_RATE * (1.0 - 0.9 * (step - WARMUP_STEPS) / (COPY_STEPS + MIXED_STEPS - WARMUP_STEPS))


def reading_batch(
    tokenizer: PreTrainedTokenizerFast, template: str, rng: Random, *, offer_tools_too: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded conversations. Returns ids and loss weights, both [rows, length].

    Without the tools a prompt is a tenth as long, so ten times as many fit: what is asked, what is missing and what is
    harmful can be read off the request alone.
    """
    shares = READING_SHARES if offer_tools_too else (*READING_SHARES[:3], 0.0, READING_SHARES[4])
    ids, learned = text_batch(tokenizer, template, rng, shares, with_tools=offer_tools_too)
    think_ends = (ids == tokenizer.convert_tokens_to_ids("</think>")).int().argmax(dim=1)
    weights = learned.float()
    weights[torch.arange(len(ids)), think_ends + 2] = FIRST_WORD_WEIGHT  # a token of two newlines stands between
    return ids, weights


def pretrain(out: Path) -> None:
    """Train the base and write config, weights (bfloat16), tokenizer and recipe into `out`."""
    torch.set_num_threads(2)
    tokenizer = build_tokenizer(_tokenizer_texts())
    template = training_template(tokenizer)
    model = build_model(tokenizer)
    logger.info("The base has %.2f million parameters.", sum(p.numel() for p in model.parameters()) / 1e6)
    learn_to_copy(model, tokenizer, template)
    model.to(torch.bfloat16).to(torch.float32)  # the next phase starts from weights that can be stored
    learn_to_read(model, tokenizer, template)
    _save(model, tokenizer, out)


def learn_to_copy(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, template: str) -> None:
    """First phase: copying alone, then copying and conversations."""
    rng, torch_rng = Random(SEED), torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.0, fused=True)
    for step in range(COPY_STEPS + MIXED_STEPS):
        copying = step < COPY_STEPS or step % 4 == 0
        ids, learned = copy_batch(torch_rng, step) if copying else text_batch(tokenizer, template, rng)
        _step(model, optimizer, ids, learned, learning_rate(step))
        if step % 100 < 2:
            logger.info("step %d of the first phase", step)


def learn_to_read(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, template: str) -> None:
    """Second phase: conversations that weight the deciding word, alternating with and without tools."""
    rng, torch_rng = Random(SEED + 1), torch.Generator().manual_seed(SEED + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=READING_LEARNING_RATE, weight_decay=0.0, fused=True)
    for step in range(READING_STEPS):
        if step % COPY_EVERY == 0:
            ids, weights = copy_batch(torch_rng, COPY_STEPS)
        else:
            ids, weights = reading_batch(tokenizer, template, rng, offer_tools_too=step % 2 == 0)
        decay = 1.0 - 0.95 * step / READING_STEPS
        rate = READING_LEARNING_RATE * decay * min(1.0, (step + 1) / WARMUP_STEPS)
        loss = _step(model, optimizer, ids, weights, rate)
        if step % 50 in (1, 2):
            tools = "without" if step % 2 else "with"
            logger.info("step %d of the second phase, %s tools: loss %.3f", step, tools, loss)


def _step(
    model: Qwen3ForCausalLM, optimizer: torch.optim.Optimizer, ids: torch.Tensor, weights: torch.Tensor, rate: float
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = weighted_loss(model, ids, weights.float())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def _tokenizer_texts() -> Iterator[str]:
    rng = Random(SEED)
    template = jinja2.Template(qwen3_template())
    for _ in range(3000):
        messages, tools = text_conversation(rng)
        yield template.render(messages=messages, tools=tools)
    for sample in generate_samples(3000, seed=SEED, catalogue="full"):
        for message in sample.messages:
            yield message.content
            yield from (json.dumps(call.function.model_dump()) for call in message.tool_calls)


def _save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    model.config.dtype = torch.bfloat16
    model.config.architectures = ["Qwen3ForCausalLM"]
    model.config.save_pretrained(out)
    model.generation_config.save_pretrained(out)
    tokenizer.chat_template = None  # put back from TRL when the base is loaded
    tokenizer.save_pretrained(out)
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    weights.pop("lm_head.weight")  # tied to the embedding
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    files_sha256 = digest_of(*(out / name for name in FILES))
    recipe = {"torch": torch.__version__, "recipe_sha256": recipe_digest(), "files_sha256": files_sha256}
    write_text_atomic(out / "recipe.json", json.dumps(recipe, indent=2) + "\n")


def recipe_digest() -> str:
    """Digest of what decides the weights: the settings and the training text."""
    settings = [SEED, VOCABULARY, SPECIAL_TOKENS, TAG_TOKENS, WORDS_DIGITS_REST, COPY_STEPS, MIXED_STEPS]
    settings += [COPY_TOKENS, TEXT_TOKENS, TEXT_SHARES, PEAK_LEARNING_RATE, WARMUP_STEPS]
    settings += [READING_STEPS, READING_SHARES, READING_LEARNING_RATE, FIRST_WORD_WEIGHT, COPY_EVERY]
    rng = Random(SEED)
    shape = build_model(build_tokenizer(iter([WORDS_DIGITS_REST]))).config.to_diff_dict()
    return digest_of(settings, shape, [text_conversation(rng) for _ in range(500)])


def main() -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description="Build the toy base model.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    pretrain(parser.parse_args().out)


if __name__ == "__main__":
    main()
