"""Small bases of several architectures, engines on copies of them, and what tells two adapters apart."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from multi_lora_runs import pairs_of, random_rows
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from orchestrator.multi_lora.base_checks import checkpoint_layers
from orchestrator.multi_lora.batch import TokenRows
from orchestrator.multi_lora.engine import MultiLoraEngine, StepResult
from orchestrator.multi_lora.slots import Pair, SlotSpec, SlotState


def rows_of_at_least(tokens: int, number: int, *, seed: int) -> TokenRows:
    """Rows of so many tokens to 39, all below 200, of which the second half is learned."""
    drawn = pairs_of(random_rows(4 * number, seed=seed, longest=40))
    long_enough = [(ids, labels) for ids, labels in drawn if len(ids) >= tokens][:number]
    assert len(long_enough) == number
    return TokenRows.of(long_enough)


TRAIN, VAL = rows_of_at_least(8, 24, seed=1), rows_of_at_least(8, 7, seed=2)
"""What small engines learn and are measured on, four tokens a row or more: see `rows_keep_their_bits`."""

SIZES = {
    "vocab_size": 208,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
}
HEADS_OF_16: dict[str, object] = {"head_dim": 16}
ARCHITECTURES: dict[str, dict[str, object]] = {
    "qwen3": HEADS_OF_16,
    "llama": {"attention_bias": True, "mlp_bias": True},
    "gemma3_text": {**HEADS_OF_16, "sliding_window": 8},
    "mistral": {"sliding_window": 8},
    "gpt_neox": {},
    "bloom": {"n_layer": 2, "n_head": 2},
    "qwen3_next": {
        **HEADS_OF_16,
        "linear_num_value_heads": 2,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "num_experts": 0,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "gemma2": HEADS_OF_16,
    "granite": {"logits_scaling": 8.0},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "qwen3_moe": {**HEADS_OF_16, "num_experts": 4, "moe_intermediate_size": 32, "num_experts_per_tok": 2},
    "xglm": {"d_model": 32, "attention_heads": 2, "ffn_dim": 64, "num_layers": 2},
}
"""What makes a small model of an architecture small, beside `SIZES`."""


def small_base(kind: str = "qwen3", *, dtype: torch.dtype = torch.float32, **settings: object) -> PreTrainedModel:
    """A model of two layers of 32 with random weights, large enough that its attention matters."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **ARCHITECTURES[kind], **settings})
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(requires_grad=False)


def make_spec(rank: int = 8, **fields: object) -> SlotSpec:
    """Alpha 16 at a high learning rate, so that a few steps move the adapter far."""
    settled: dict[str, object] = {"alpha": 16, "learning_rate": 5e-3, "max_steps": 12, "warmup_steps": 2, "seed": 7}
    return SlotSpec(rank=rank, **{**settled, **fields})  # type: ignore[arg-type]


def make_engine(
    model: PreTrainedModel,
    specs: Mapping[str, SlotSpec],
    *,
    batch_size: int = 4,
    micro_batch_size: int = 4,
    gradient_checkpointing: bool = False,
    train: TokenRows = TRAIN,
) -> MultiLoraEngine:
    """An engine on a copy of the model, with these slots."""
    own = copy.deepcopy(model)
    if gradient_checkpointing:
        checkpoint_layers(own)
    engine = MultiLoraEngine(own, train, VAL, batch_size=batch_size, micro_batch_size=micro_batch_size)
    for name, spec in specs.items():
        engine.admit(name, spec)
    return engine


def train_steps(engine: MultiLoraEngine, steps: int) -> dict[str, list[StepResult]]:
    """Results of some steps for each slot."""
    results: dict[str, list[StepResult]] = {}
    for _ in range(steps):
        for name, result in engine.train_step().items():
            results.setdefault(name, []).append(result)
    return results


def difference(one: Mapping[str, Pair], other: Mapping[str, Pair]) -> float:
    """The largest absolute difference between two sets of matrices with the same names."""
    assert one.keys() == other.keys()
    return max(float((a - b).abs().max()) for name in one for a, b in zip(one[name], other[name], strict=True))


def same_bits(one: SlotState, other: SlotState) -> bool:
    """Whether two slots stand at the same step with the same adapter and moments, to the last bit."""
    return one.step == other.step and all(
        torch.equal(a, b)
        for part, its in (
            (one.adapter, other.adapter),
            (one.exp_avg, other.exp_avg),
            (one.exp_avg_sq, other.exp_avg_sq),
        )
        for name in part
        for a, b in zip(part[name], its[name], strict=True)
    )


def flat(pairs: Mapping[str, Pair]) -> torch.Tensor:
    """All numbers of a set of matrices in one row, in float64."""
    return torch.cat([matrix.double().flatten() for pair in pairs.values() for matrix in pair])


def relative_differences(one: Sequence[float], other: Sequence[float]) -> float:
    """The largest relative difference between numbers in equal places."""
    return max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))


def rows_keep_their_bits(dtype: torch.dtype) -> bool:
    """Whether this machine's products give a row the same bits however many rows there are.

    Everything that a slot shares with others is such a product. PyTorch promises nothing here, but MKL and oneDNN keep
    to it with AVX2 and AVX-512 from four rows a thread on.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    kept = True
    for inner, outer in ((32, 64), (64, 32), (32, 208)):
        rows, weight = (torch.randn(size, inner, generator=generator).to(dtype) for size in (200, outer))
        whole = rows @ weight.mT
        for first, last in ((0, 4), (3, 9), (50, 83), (100, 200)):
            kept &= torch.equal(rows[first:last] @ weight.mT, whole[first:last])
    torch.set_num_threads(threads)
    return kept


@contextmanager
def counted_rows(layer: torch.nn.Module) -> Iterator[list[int]]:
    """How many rows each call of a layer is given, while this lasts."""
    counts: list[int] = []
    hook = layer.register_forward_hook(lambda _layer, inputs, _output: counts.append(inputs[0].shape[:-1].numel()))
    try:
        yield counts
    finally:
        hook.remove()


def in_full_precision(model: PreTrainedModel) -> PreTrainedModel:
    """The model with PyTorch's RMS norms instead of transformers', which round to float32 even in a float64 model."""
    for name, norm in list(model.named_modules()):
        if type(norm).__name__.endswith("RMSNorm"):
            is_gemma = hasattr(norm, "eps")
            epsilon = norm.eps if is_gemma else norm.variance_epsilon
            plain = torch.nn.RMSNorm(norm.weight.shape, eps=epsilon, dtype=norm.weight.dtype)
            weight = 1.0 + norm.weight if is_gemma else norm.weight
            plain.weight = torch.nn.Parameter(weight, requires_grad=False)
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, plain)
    return model
