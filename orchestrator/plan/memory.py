"""Memory that a training takes at its peak, part by part. Pure arithmetic; docs/planning.md says where it comes from.

The bytes that layers keep for the backward pass are those that PyTorch was seen to keep, tensor by tensor, for a
decoder layer of transformers in either runner.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from orchestrator.config.schema import Optimizer, Quantization
from orchestrator.models.quantised import BYTES_A_WEIGHT
from orchestrator.plan.passes import PassShape, Runner
from orchestrator.plan.shapes import BaseShape

GIB = 2**30
BLOCKED_UP_TO = 1024
"""Longest row of the multi-LoRA engine's own attention, which keeps its probabilities for the backward pass."""
BLOCK = 128
"""Queries that it takes at a time."""
LOGITS_AT_ONCE = 1 << 24
"""Logits of one chunk in the multi-LoRA engine."""
TILE = (4096, 32768)
"""Tokens and vocabulary entries of TRL's tile of logits."""
TILE_COPIES = 29
"""Bytes of each logit that PyTorch holds beside the tile where no kernel turns it into its gradient: seven copies in
float32, and which is the target's."""
NARROWEST = 16
"""The multi-LoRA engine pads ranks to a power of two that is no smaller."""
FULL = 4
"""Bytes of a number in float32: what adapters, gradients and AdamW's moments are kept in."""
PROCESS_BYTES = {"multi_lora": int(0.67 * GIB), "isolated": int(0.75 * GIB)}
"""Python, PyTorch, transformers and Ray in the process of either runner, before a model is loaded."""
GPU_CONTEXT_BYTES = int(0.55 * GIB)
"""What CUDA and its libraries keep on a GPU."""
DORA_COPIES = 2
"""What DoRA keeps of each output of an adapted layer beside plain LoRA: what base and adapter made of it."""
SPREAD = (0.9, 1.1)
"""Low and high as shares of what is expected, without the weights, which are known: kernels keep room of their own."""
GAPS = {"bfloat16": 0.6, "float16": 0.6, "float32": 0.3}
"""What a heap loses on a processor as a share of what layers keep, by dtype. Rows of equal lengths lose nothing, some
twice as much."""

BYTES: Mapping[str, int] = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True)
class Training:
    """What decides the memory of one training process. `slots` and `rank` are those trained at once, and the largest.

    `quantization` is how linear layers keep the frozen weights, as in `model.quantization`.
    `padded` is whether rows of other lengths share a pass, so that attention needs a mask (TRL).
    `shards` is among how many workers the weights are split (`train.sharding`).
    """

    runner: Runner
    dtype: str
    on_gpu: bool
    rank: int
    slots: int = 1
    checkpointing: bool = False
    padded: bool = True
    quantization: Quantization = "none"
    optimizer: Optimizer = "adamw"
    shards: int = 1
    use_dora: bool = False

    @property
    def width(self) -> int:
        """The rank with padding."""
        if self.runner == "isolated":
            return self.rank
        return max(NARROWEST, 1 << (self.rank - 1).bit_length())


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes at the peak. `parts` are what is expected, by part; `low` and `high` bound their sum."""

    parts: Mapping[str, int]
    low: int
    high: int

    @property
    def expected(self) -> int:
        """The sum of all parts."""
        return sum(self.parts.values())


def training_memory(shape: BaseShape, training: Training, largest: PassShape) -> MemoryPlan:
    """The peak of a training process on its device; of the machine's memory where that is a CPU."""
    weights = weights_bytes(shape, training.dtype, training.quantization) // training.shards
    process = GPU_CONTEXT_BYTES if training.on_gpu else PROCESS_BYTES[training.runner]
    kept = _kept(shape, training, largest)
    parts = {
        "process": process,
        "weights": weights,
        **_adapters(shape, training),
        **_gathered(shape, training),
        **kept,
        **_gaps(training, sum(kept.values())),
        "logits or backward pass": max(_logits(shape, training, largest), _backward(shape, training, largest)),
    }
    loading = _loading(shape, training)
    if loading > sum(parts.values()):
        parts["whole base while it is split"] = loading - sum(parts.values())
    sure = process + weights
    gaps = parts.get("gaps", 0)
    rest = sum(parts.values()) - sure - gaps
    low = max(loading, sure + int(SPREAD[0] * rest))
    return MemoryPlan(parts, low=low, high=sure + int(SPREAD[1] * rest) + 2 * gaps)


def weights_bytes(shape: BaseShape, dtype: str, quantization: Quantization) -> int:
    """Bytes of a base's weights; those of a quantised one with room for the matrix that is dequantised at a time."""
    number = BYTES[dtype]
    if quantization == "none":
        return shape.parameters * number
    plain = shape.parameters - shape.linear + shape.largest
    return plain * number + int(shape.linear * BYTES_A_WEIGHT[quantization])


def _adapters(shape: BaseShape, training: Training) -> dict[str, int]:
    numbers = training.slots * training.width * shape.adapted // training.shards
    if training.runner == "isolated":
        moments = 2 * numbers * (FULL if training.optimizer == "adamw" else 1)
        return {"adapters": FULL * numbers, "gradients": FULL * numbers, "optimizer": moments}
    work = BYTES[training.dtype]  # what the products use, and room for the update
    return {"adapters": (FULL + work) * numbers, "gradients": FULL * numbers, "optimizer": 3 * FULL * numbers}


def _gathered(shape: BaseShape, training: Training) -> dict[str, int]:
    """What a worker holds of split weights beside its share: two layers, of which one is on its way, and the head."""
    if training.shards == 1:
        return {}
    head = shape.vocabulary * shape.hidden
    layers = 2 * (shape.parameters - head) / shape.layers
    return {"gathered layers and head": int((layers + head) * BYTES[training.dtype])}


def _loading(shape: BaseShape, training: Training) -> int:
    """What a worker on a processor holds before the base is split: all of it. A GPU gets its share layer by layer."""
    if training.shards == 1 or training.on_gpu:
        return 0
    return PROCESS_BYTES[training.runner] + weights_bytes(shape, training.dtype, training.quantization)


def _kept(shape: BaseShape, training: Training, largest: PassShape) -> dict[str, int]:
    """What layers keep for the backward pass, by kind; with checkpointing all of one layer, and the inputs of all."""
    of_layer = layer_bytes(shape, training, largest)
    if not training.checkpointing:
        return {kind: int(count * shape.layers * largest.tokens) for kind, count in of_layer.items()}
    inputs = shape.layers * shape.hidden * BYTES[training.dtype] * largest.tokens
    return {"inputs of layers": inputs, "one layer": int(sum(of_layer.values()) * largest.tokens)}


def _gaps(training: Training, kept: int) -> dict[str, int]:
    """What the C library's heap loses where passes of other lengths follow each other."""
    return {} if training.on_gpu else {"gaps": int(GAPS[training.dtype] * kept)}


def layer_bytes(shape: BaseShape, training: Training, largest: PassShape) -> dict[str, float]:
    """Bytes that one decoder layer keeps of each token, by kind of layer."""
    number, half = BYTES[training.dtype], training.dtype != "float32"
    autocast = training.runner == "isolated" and half
    blocked = training.runner == "multi_lora" and not training.on_gpu and half and largest.length <= BLOCKED_UP_TO
    masked = training.runner == "isolated" and training.padded and largest.rows > 1
    norms = FULL * (2 * shape.hidden + shape.head_norms + 2)
    if blocked:
        # Queries, keys and values of every head, what comes out, and the probabilities up to each token's block.
        attention = number * (4 * shape.queries + shape.heads * (largest.length + BLOCK) / 2)
    else:
        repeated = shape.queries if masked else shape.keys
        attention = number * (2 * shape.queries + 2 * repeated) + FULL * shape.heads
        attention += number * largest.length if masked else 0
    feed_forward = number * shape.inner * (3 if shape.gated else 1)
    inner = number * training.width * shape.adapted_layers
    # Autocast copies the input of every adapter; else layers with the same input share it.
    inputs = shape.adapted_inputs if autocast else 2 * shape.hidden + shape.inner
    adapters = number * inputs + inner
    if training.use_dora:
        adapters += DORA_COPIES * number * (shape.adapted / shape.layers - shape.adapted_inputs)
    return {"norms": norms, "attention": attention, "feed-forward": feed_forward, "adapters' inputs": adapters}


def _logits(shape: BaseShape, training: Training, largest: PassShape) -> int:
    number = BYTES[training.dtype]
    if training.runner == "multi_lora":
        return min(LOGITS_AT_ONCE, largest.learned * shape.vocabulary) * 2 * FULL  # logits, and their exponentials
    if training.on_gpu:  # a kernel makes their gradient in their place
        return min(TILE[0], largest.learned) * TILE[1] * number
    # The tile is as wide for any vocabulary, but columns that nothing is written to take no memory.
    return min(TILE[0], largest.tokens) * min(TILE[1], shape.vocabulary) * (number + TILE_COPIES)


def _backward(shape: BaseShape, training: Training, largest: PassShape) -> int:
    """Gradients of a layer's activations while it is gone through."""
    number = BYTES[training.dtype]
    lengths = 2 * FULL * shape.largest if training.use_dora else 0  # the merged matrix whose rows are measured
    return lengths + int(largest.tokens * (3 * number * shape.inner + 3 * FULL * shape.hidden))


def slots_within(shape: BaseShape, training: Training, one_slot: PassShape, room: int, *, most: int) -> int:
    """The most slots, up to `most`, whose training is expected to stay within `room` bytes; 0 where none does."""
    fitting = (slots for slots in range(most, 0, -1) if with_slots(shape, training, one_slot, slots).high <= room)
    return next(fitting, 0)


def with_slots(shape: BaseShape, training: Training, one_slot: PassShape, slots: int) -> MemoryPlan:
    """The memory of a training with so many slots, whose passes hold `one_slot` of each."""
    return training_memory(shape, replace(training, slots=slots), one_slot.of_slots(slots))


class Serving(NamedTuple):
    """What decides the memory of a vLLM engine, split over `parts` GPUs; only NF4 on a GPU is held in few bits."""

    dtype: str
    on_gpu: bool
    largest_rank: int
    quantization: Quantization = "none"
    parts: int = 1


def serving_memory(shape: BaseShape, serving: Serving, *, cache: int) -> MemoryPlan:
    """The peak of an engine, on each of its GPUs or on the processor, with a key-value cache of `cache` bytes."""
    held: Quantization = "nf4" if serving.on_gpu and serving.quantization == "nf4" else "none"
    split = {
        "weights": weights_bytes(shape, serving.dtype, held),
        "adapters": shape.adapter_parameters(serving.largest_rank) * BYTES[serving.dtype],
        "key-value cache": cache,
    }
    process = {"process": GPU_CONTEXT_BYTES if serving.on_gpu else ENGINE_PROCESS_BYTES}
    parts = process | {part: size // serving.parts for part, size in split.items()}
    everything = sum(parts.values())
    return MemoryPlan(parts, low=int(0.9 * everything), high=int(1.2 * everything))


ENGINE_PROCESS_BYTES = int(1.4 * GIB)
"""Python, PyTorch and vLLM in the process of an engine without a GPU."""


def cache_bytes_of(shape: BaseShape, dtype: str, tokens: int) -> int:
    """Key-value cache of so many tokens."""
    return 2 * shape.layers * shape.keys * BYTES[dtype] * tokens


def gib(count: float) -> str:
    """Bytes for a person: `1.3 GiB`."""
    return f"{count / GIB:.1f} GiB" if count >= 0.095 * GIB else f"{count / 2**20:.0f} MiB"
