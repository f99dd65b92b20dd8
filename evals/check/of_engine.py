"""What the vLLM engine would meet: prompts without room for a reply, replies cut off, too small a cache."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from transformers import PretrainedConfig

from evals.check.card import Finding, fatal, warning
from evals.generate.engines import engine_kv_cache_bytes
from evals.generate.settings import require_divisible_heads
from evals.records import Case
from orchestrator.chat.rendering import ChatFormat, chat_format, render_prompt, reply_format_of
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import InputError
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import Sample
from orchestrator.core.text import counted
from orchestrator.data.card import LeftOut
from orchestrator.data.tokens.tokenize import tokenize_samples
from orchestrator.models.base import base_folder, base_tokenizer, compute_dtype, load_settings
from orchestrator.run.cluster import cluster_address, local_capacity
from orchestrator.run.paths import RunDir

LOOKED_AT = 1000
"""Most held-out samples, and most cases of suites, whose lengths are looked at."""
KEPT = 0.95
"""Share of the expected replies that should fit `eval.max_new_tokens`."""


class _Turn(NamedTuple):
    """Tokens of a case's prompt and of the reply that the data has; 0 where it has none."""

    prompt: int
    reply: int


def engine_findings(config: RunConfig, folder: RunDir, suites: Sequence[Case]) -> Iterator[Finding]:
    """Everything that concerns the lengths of prompts and replies, and how calls are read in these."""
    base, trusts = base_folder(config.model), config.model.trust_remote_code
    tokenizer = base_tokenizer(config.model)
    try:
        reply_format_of(config.eval.reply_format, tokenizer)
        require_divisible_heads(config)
    except InputError as error:
        yield Finding(stops=True, text=str(error))
    form = chat_format(tokenizer, thinking=config.data.thinking)
    turns = [*_held_out_turns(config, folder, form), *_suite_turns(suites, form)]
    if not turns:
        return
    text = load_settings(base, trust_remote_code=trusts).get_text_config()
    wanted = config.eval.max_model_len or max(turn.prompt for turn in turns) + config.eval.max_new_tokens
    room = min(wanted, getattr(text, "max_position_embeddings", None) or wanted)
    yield from _lengths(config, turns, room)
    yield from _cache(config, text, room)


def _held_out_turns(config: RunConfig, folder: RunDir, form: ChatFormat) -> Iterator[_Turn]:
    samples = islice(read_jsonl(folder.split("test"), Sample), LOOKED_AT)
    for _, tokens, _ in tokenize_samples(form, samples, max_length=None, screen=False):
        spans = [] if isinstance(tokens, LeftOut) else [span for row in tokens.rows for span in row.spans]
        for span in spans if config.eval.turns == "all" else spans[-1:]:
            yield _Turn(span.start, span.end - span.start)


def _suite_turns(cases: Sequence[Case], form: ChatFormat) -> Iterator[_Turn]:
    for case in cases[:LOOKED_AT]:
        with suppress(InputError):  # what the template refuses is left out of the evaluation
            yield _Turn(len(render_prompt(form.tokenizer, case.messages, case.tools, thinking=form.thinking)), 0)


def _lengths(config: RunConfig, turns: Sequence[_Turn], room: int) -> Iterator[Finding]:
    unfit = [turn for turn in turns if turn.prompt >= room]
    if unfit:
        limits = config.eval.max_unscored_rate
        longest = max(turn.prompt for turn in unfit)
        what = (
            f"{len(unfit)} of {counted(len(turns), 'prompt')} leave no room for a reply: the engine takes {room:,} "
            f"tokens and the longest prompt has {longest:,}"
        )
        key = "eval.max_model_len" if config.eval.max_model_len else "model.base"
        fix = "Raise it, use a base with a longer context, or take these conversations out"
        if len(unfit) > limits * len(turns):
            yield fatal(what, where=key, allowed=f"{limits:.0%} without a reply (eval.max_unscored_rate)", fix=fix)
        else:
            yield warning(what, where=key, fix=fix)
    asked = [turn for turn in turns if turn.reply and turn.prompt < room]
    replies = sorted(turn.reply for turn in asked)
    cut = sum(turn.reply > min(config.eval.max_new_tokens, room - turn.prompt) for turn in asked)
    if cut:
        needed, longest = replies[math.ceil(KEPT * len(replies)) - 1], replies[-1]
        what = (
            f"{cut} of {counted(len(replies), 'expected reply', 'expected replies')} ({cut / len(replies):.0%}) are "
            f"longer than a reply may be and must be cut off; {KEPT:.0%} of them fit {needed} tokens, all fit {longest}"
        )
        make = fatal if cut == len(replies) else warning
        yield make(what, where="eval.max_new_tokens", fix=f"Raise it to {longest}")


def _cache(config: RunConfig, text: PretrainedConfig, room: int) -> Iterator[Finding]:
    """Whether one request of the longest kind fits an engine's key-value cache: if not, vLLM does not start."""
    gpus = config.resources.gpus_per_worker
    on_gpu = bool(local_capacity()["GPU"]) if gpus is None else gpus > 0
    given = engine_kv_cache_bytes(config.eval.kv_cache_gib, on_gpu=on_gpu)
    heads = getattr(text, "num_key_value_heads", None)
    if cluster_address(config.resources) or given is None or not heads:
        return
    kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
    full = kinds.count("full_attention")
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    bytes_a_value = 4 if compute_dtype(config.model.dtype) == "float32" else 2
    needed = 2 * full * heads * size * bytes_a_value * room / config.eval.tensor_parallel
    if needed > given:
        what = (
            f"a prompt and reply of {room:,} tokens need {needed / 2**30:.3g} GiB of key-value cache; the engine gets "
            f"{given / 2**30:.3g} GiB, with which vLLM does not start"
        )
        fix = f"Set it to {math.ceil(needed / 2**30 * 10 + 1) / 10:g}, or lower eval.max_new_tokens"
        yield fatal(what, where="eval.kv_cache_gib", fix=fix)
