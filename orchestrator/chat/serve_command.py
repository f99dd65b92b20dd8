"""The shell command that serves an adapter with vLLM as it was evaluated, and the ranks that vLLM takes."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.core.errors import AdapterError
from orchestrator.core.records import ContentFormat, Record

SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM allows for `max_lora_rank`; time and memory grow with it."""

TEMPLATE = "chat_template.jinja"
"""The file beside an adapter with the chat template that renders what it was trained on."""
GENERATION = "generation_config.json"
"""The file beside an adapter whose template ends replies at a token that the base's own configuration lacks."""

_ON_GPU = ("vllm", "serve")
# The package of the CPU build has another name, which `vllm serve` does not find.
_ON_CPU = ("python", "-m", "vllm.entrypoints.openai.api_server", "--model")
# Without a size vLLM takes nearly all of the machine's memory, and refuses to start where less than that is free.
_CPU_SIZES = ("--enforce-eager", "--kv-cache-memory-bytes", str(1024**3), "--gpu-memory-utilization", "0.3")


SERVED_IN_FULL = (
    "It was scored on the dequantised weights of the base that it was trained on, and this serves it on the full base: "
    "`orchestrator export --to merged` writes a model that is served as it was scored."
)

SERVED_MERGED = "vLLM serves no DoRA: the line first writes the merged model, into a new folder beside where it runs."


class Scored(NamedTuple):
    """What an adapter was scored as.

    `base` is the folder or hub id that vLLM loads, `reply_format` how calls are written (one of REPLY_FORMATS),
    `on_cpu` whether vLLM was its build for CPUs, `dtype` what replies were computed in (None where unknown), `thinking`
    whether it may think before it speaks. `base_weights` is how a quantised base was held, as in the engine's record,
    `tensor_parallel` over how many GPUs the engine was split.
    """

    base: str
    reply_format: str
    on_cpu: bool
    dtype: str | None
    temperature: float
    thinking: bool = False
    base_weights: str | None = None
    tensor_parallel: int = 1


class ServeCommand(Record):
    """How to serve one adapter: a line for a POSIX shell. Clients ask for it by the model name `adapter_id`.

    `note` is what the line leaves to say: that vLLM cannot read the adapter's calls, or that the base is served in
    another precision than was scored. None where there is nothing.
    """

    adapter_id: str
    command: str
    note: str | None = None


def smallest_served_rank(ranks: Sequence[int]) -> int | None:
    """The smallest allowed `max_lora_rank` that fits all `ranks`; None when there are none.

    Raises:
        AdapterError: If a rank is above all that vLLM allows.
    """
    if not ranks:
        return None
    if max(ranks) > SERVED_RANKS[-1]:
        raise AdapterError(f"rank {max(ranks)} cannot be served", allowed=f"up to {SERVED_RANKS[-1]}")
    return next(served for served in SERVED_RANKS if served >= max(ranks))


def serve_command(
    adapter_id: str, folder: Path, rank: int | None, scored: Scored, *, content_format: ContentFormat | None = None
) -> ServeCommand:
    """The command that gives clients of the OpenAI API the replies that were scored.

    `folder` holds the adapter in PEFT format and the chat template, which is served with `content_format`. The base is
    served beside it, as `base`. With `rank` None the folder holds the merged model, which is served alone. Clients that
    name no temperature get that of the evaluation; the base's own sampling settings are left out, as there.

    Raises:
        AdapterError: If vLLM allows no such rank.
    """
    start = _ON_CPU if scored.on_cpu else _ON_GPU
    if rank is None:
        words = [*start, str(folder), "--served-model-name", adapter_id]
    else:
        words = [*start, scored.base, "--served-model-name", "base"]
        words += ["--enable-lora", "--max-lora-rank", str(smallest_served_rank([rank]))]
        words += ["--lora-modules", f"{adapter_id}={folder}"]
    words += ["--chat-template", str(folder / TEMPLATE)]
    words += ["--chat-template-content-format", content_format] if content_format is not None else []
    if rank is not None and scored.base_weights == "nf4":
        words += ["--quantization", "bitsandbytes"]
    words += ["--tensor-parallel-size", str(scored.tensor_parallel)] if scored.tensor_parallel > 1 else []
    parser, notes = REPLY_FORMATS[scored.reply_format].vllm_parser, list[str]()
    if parser is not None:
        words += ["--enable-auto-tool-choice", "--tool-call-parser", parser]
    else:
        notes.append(f"vLLM has no parser for calls written as {scored.reply_format}: clients get them as text.")
    if rank is not None and (scored.base_weights or "").startswith("dequantised"):
        notes.append(SERVED_IN_FULL)
    if scored.thinking and parser is not None:
        words += ["--reasoning-parser", REPLY_FORMATS[scored.reply_format].reasoning_parser]
    if scored.dtype is not None and (scored.on_cpu or scored.dtype != "float32"):
        words += ["--dtype", scored.dtype]  # on a GPU vLLM serves adapters in half precision only
    ends = str(folder) if (folder / GENERATION).is_file() else "vllm"
    words += ["--generation-config", ends, "--override-generation-config.temperature", f"{scored.temperature:g}"]
    words += ["--max-model-len", "auto", *(_CPU_SIZES if scored.on_cpu else ())]
    return ServeCommand(adapter_id=adapter_id, command=shlex.join(words), note=" ".join(notes) or None)
