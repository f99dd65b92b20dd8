"""The arithmetic of memory, held against what PyTorch keeps and holds."""

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
import torch
from peft import get_peft_model
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from trl.kernels import ChunkedLogProbFunction

from orchestrator.config.schema import LoraConfig
from orchestrator.models.adapters import peft_config
from orchestrator.multi_lora.batch import PassSize, TokenRows, make_passes
from orchestrator.multi_lora.engine import MultiLoraEngine, token_losses
from orchestrator.multi_lora.slots import SlotSpec
from orchestrator.plan.memory import TILE, Training, _logits, layer_bytes, slots_within, training_memory, with_slots
from orchestrator.plan.passes import CPU_PASS_TOKENS, PassShape, Runner, largest_pass
from orchestrator.plan.shapes import BaseShape, base_shape

SIZES = {
    "hidden_size": 96, "intermediate_size": 160, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 32,
    "vocab_size": 300, "tie_word_embeddings": True,
}  # fmt: skip


def model_of(kind: str, layers: int, dtype: torch.dtype) -> PreTrainedModel:
    config = AutoConfig.for_model(kind, **SIZES, num_hidden_layers=layers, pad_token_id=None)
    return AutoModelForCausalLM.from_config(config, dtype=dtype).requires_grad_(False)


def rows_of(length: int) -> TokenRows:
    ids = np.random.default_rng(0).integers(0, 300, (2, length))
    return TokenRows.of([(row, row) for row in ids])


def kept_by(model: PreTrainedModel, runner: str, length: int, *, padded: bool, use_dora: bool = False) -> int:
    """Bytes that a forward pass of two rows keeps for the backward pass, without weights."""
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    if runner == "isolated":
        half = model.dtype != torch.float32
        adapted = get_peft_model(model, peft_config(LoraConfig(r=16, use_dora=use_dora))).train()
        weights = {parameter.untyped_storage().data_ptr() for parameter in adapted.parameters()}
        mask = torch.ones(2, length, dtype=torch.long)
        mask[0, length // 2 :] = 0 if padded else 1
        with hooks, torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
            adapted.base_model.model.model(
                input_ids=torch.ones(2, length, dtype=torch.long), attention_mask=mask, use_cache=False
            )
        return sum(seen.values())
    rows = rows_of(length)
    engine = MultiLoraEngine(model, rows, rows, batch_size=2, micro_batch_size=2)
    engine.admit("a", SlotSpec(rank=16, alpha=16, learning_rate=1e-4, max_steps=9))
    members = [(stack, None) for stack in engine._ordered()]
    held = list(model.parameters()) + [stack.work for stack, _ in members]
    weights = {tensor.untyped_storage().data_ptr() for tensor in held}
    piece = next(make_passes(rows, [[0, 1]], PassSize(2), engine.device))
    with engine._laid_out(members, piece, train=True), hooks:
        engine._hidden(piece)
    return sum(seen.values())


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize(
    ("runner", "dtype", "length", "padded"),
    [
        ("multi_lora", "bfloat16", 256, False),
        ("multi_lora", "bfloat16", 1152, False),
        ("multi_lora", "float32", 256, False),
        ("isolated", "float32", 256, False),
        ("isolated", "bfloat16", 256, False),
        ("isolated", "bfloat16", 256, True),
    ],
)
def test_what_a_layer_keeps_is_what_pytorch_keeps(
    kind: str, runner: str, dtype: str, length: int, padded: bool
) -> None:
    one, two = (
        kept_by(model_of(kind, layers, getattr(torch, dtype)), runner, length, padded=padded) for layers in (1, 2)
    )
    shape = base_shape(model_of(kind, 2, torch.float32), LoraConfig())
    training = Training(runner, dtype, on_gpu=False, rank=16, padded=padded)  # type: ignore[arg-type]  # parametrized
    planned = sum(layer_bytes(shape, training, PassShape(2, length, length)).values())
    assert planned == pytest.approx((two - one) / (2 * length), rel=0.04)


def most_held(work: Callable[[], None]) -> int:
    """The most bytes that PyTorch holds more than before during some work."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(int(event.nbytes()) for event in sorted(events, key=lambda event: event.start_ns())))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("vocabulary", [20_000, 40_000])
@pytest.mark.parametrize("runner", ["multi_lora", "isolated"])
def test_logits_take_what_pytorch_holds_for_them(shape: BaseShape, runner: Runner, vocabulary: int, dtype: str) -> None:
    tokens, features = 64, 8
    hidden = torch.randn(tokens, features, dtype=getattr(torch, dtype), requires_grad=runner == "isolated")
    head = torch.nn.Linear(features, vocabulary, bias=False, dtype=hidden.dtype).requires_grad_(False)
    targets = torch.zeros(tokens, dtype=torch.long)

    def work() -> None:
        if runner == "multi_lora":
            token_losses(hidden, head, targets, torch.ones(tokens))
            return
        outputs = ("log_probs", "entropy", "is_top1")  # what SFTTrainer asks for
        its = ChunkedLogProbFunction.apply(hidden, head.weight, None, targets, 1.0, TILE[1], None, 1.0, outputs)
        its[0].sum().backward()

    training = Training(runner, dtype, on_gpu=False, rank=16)
    planned = _logits(replace(shape, vocabulary=vocabulary), training, PassShape(1, tokens, tokens))
    unwritten = tokens * max(0, TILE[1] - vocabulary) * hidden.element_size() if runner == "isolated" else 0
    assert planned == pytest.approx(most_held(work) - unwritten, rel=0.02)


@pytest.fixture(scope="module")
def shape() -> BaseShape:
    return base_shape(model_of("qwen3", 4, torch.float32), LoraConfig())


def test_the_sizes_of_a_base_are_read_from_its_layers(shape: BaseShape) -> None:
    model = model_of("qwen3", 4, torch.float32)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    adapted = get_peft_model(model, peft_config(LoraConfig(r=8)))
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert shape.adapter_parameters(8) == trained
    assert (shape.layers, shape.queries, shape.keys, shape.head_norms, shape.gated) == (4, 192, 64, 256, True)
    assert shape.products == shape.parameters - 300 * 96


TRAINING = Training("multi_lora", "bfloat16", on_gpu=False, rank=16)


def test_memory_grows_with_slots_and_shrinks_with_recomputation(shape: BaseShape) -> None:
    one = PassShape(4, 512, 600)
    sizes = [with_slots(shape, TRAINING, one, slots).expected for slots in (1, 2, 4)]
    assert sizes == sorted(sizes)
    recomputed = training_memory(shape, replace(TRAINING, checkpointing=True), one)
    assert recomputed.expected < training_memory(shape, TRAINING, one).expected
    assert recomputed.low < recomputed.expected < recomputed.high


def test_as_many_slots_train_as_stay_within_the_room(shape: BaseShape) -> None:
    one = PassShape(4, 512, 600)
    room = with_slots(shape, TRAINING, one, 3).high
    assert slots_within(shape, TRAINING, one, room, most=8) == 3
    assert slots_within(shape, TRAINING, one, room, most=2) == 2
    assert slots_within(shape, TRAINING, one, 1, most=8) == 0


@pytest.mark.parametrize(
    ("longest", "threads", "tokens"),
    [(100, 1, 400), (512, 1, 1536), (1024, 1, 1536), (2000, 1, 2000), (1024, 2, 3072)],
)
def test_the_largest_pass_on_a_cpu_is_what_its_caches_hold(longest: int, threads: int, tokens: int) -> None:
    sizes = {"micro_batch": 4, "longest": longest, "threads": threads, "learned_share": 0.3}
    assert largest_pass("multi_lora", on_gpu=False, **sizes).tokens == tokens  # type: ignore[arg-type]
    assert largest_pass("multi_lora", on_gpu=True, **sizes).tokens == 4 * longest  # type: ignore[arg-type]
    assert largest_pass("isolated", on_gpu=False, **sizes).tokens == 4 * longest  # type: ignore[arg-type]


def test_the_planned_pass_is_never_smaller_than_one_that_is_made() -> None:
    drawn = np.random.default_rng(1)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for longest in (300, 700, 1100, 1600):
            lengths = drawn.integers(20, longest + 1, 64)
            rows = TokenRows.of([([1] * int(size), [1] * int(size)) for size in lengths])
            limit = PassSize(4, tokens=CPU_PASS_TOKENS, overhead=100)
            passes = make_passes(rows, [list(range(64))], limit, torch.device("cpu"))
            most = max(piece.ids.numel() for piece in passes)
            sizes = {"micro_batch": 4, "longest": int(lengths.max()), "threads": 1, "learned_share": 1.0}
            assert most <= largest_pass("multi_lora", on_gpu=False, **sizes).tokens  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_what_dora_keeps_beside_plain_lora(dtype: str) -> None:
    def of_a_layer(length: int, *, use_dora: bool) -> int:
        models = (model_of("llama", layers, getattr(torch, dtype)) for layers in (2, 4))
        two, four = (kept_by(model, "isolated", length, padded=False, use_dora=use_dora) for model in models)
        return (four - two) // 2

    tokens = 2 * (256 - 64)
    more = [of_a_layer(length, use_dora=True) - of_a_layer(length, use_dora=False) for length in (64, 256)]
    shape = base_shape(model_of("llama", 2, torch.float32), LoraConfig(r=16, use_dora=True))
    assert shape == base_shape(model_of("llama", 2, torch.float32), LoraConfig(r=16))
    plain = Training("isolated", dtype, on_gpu=False, rank=16)
    passed = PassShape(2, 128, 1)
    planned = layer_bytes(shape, replace(plain, use_dora=True), passed)["adapters' inputs"]
    planned -= layer_bytes(shape, plain, passed)["adapters' inputs"]
    kept = (more[1] - more[0]) / tokens  # some of what is counted is let go at once, and its place used again
    assert 0.6 * planned < kept < 1.4 * planned
