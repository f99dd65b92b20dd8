"""How far plans are from what is measured: peak memory of a process, and the time of its steps.

    python benchmarks/plan.py [--only NAME ...] [--base FOLDER]

For each configuration it plans, measures the few steps of a probe, and then trains whole batches with the real
runner in a process of its own, on other random rows of the same lengths. Peak resident memory (`VmHWM`; on a GPU the
allocator's peak) is set beside the plan's, seconds of a token beside those that the probe foretells; with one thread on
a CPU both are processor time, which other programs change little. `serving` makes replies with a vLLM engine.
`--base` is a folder with SmolLM2-135M; Qwen3 shapes get random weights. Prints a row of a Markdown table as each ends.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from orchestrator.plan.passes import Runner

BASE = Path("~/.cache/tool-lora-orchestrator/smollm2-135m-instruct").expanduser()
LEARNED, ROWS = 0.3, 48
QWEN = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 32000, "tie_word_embeddings": True}  # fmt: skip
REPLIES, PROMPT, REPLY, CACHE_GIB = 24, 300, 40, 1.0


class Case(NamedTuple):
    """One configuration: rows of up to `length` tokens, so many `micro` in a pass and `batch` in a step of a slot."""

    base: str
    runner: Runner
    dtype: str
    checkpointing: bool
    length: int
    micro: int
    batch: int
    slots: int = 1
    rank: int = 16


CASES = {
    "tiny-engine": Case("tiny", "multi_lora", "float32", False, 512, 4, 8, 4),
    "tiny-trl": Case("tiny", "isolated", "float32", False, 512, 4, 8),
    "smol-engine-512": Case("smol", "multi_lora", "bfloat16", False, 512, 2, 4),
    "smol-engine-1024-ckpt": Case("smol", "multi_lora", "bfloat16", True, 1024, 2, 2, 2, 64),
    "smol-trl-512": Case("smol", "isolated", "bfloat16", False, 512, 2, 4),
    "smol-trl-512-ckpt": Case("smol", "isolated", "bfloat16", True, 512, 2, 4),
    "qwen-engine-512-fp32": Case("qwen", "multi_lora", "float32", False, 512, 2, 4),
    "qwen-engine-2048": Case("qwen", "multi_lora", "bfloat16", False, 2048, 1, 2),
    "qwen-trl-512-fp32": Case("qwen", "isolated", "float32", False, 512, 4, 4),
    "qwen-trl-1024": Case("qwen", "isolated", "bfloat16", False, 1024, 2, 4),
}
SERVING = "serving"


def base_of(case: Case, place: Path) -> Path:
    """The folder of a case's base."""
    if case.base == "smol":
        return BASE
    if case.base == "tiny":
        from orchestrator.toy.tiny import tiny_base_folder

        return tiny_base_folder()
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = place / "qwen"
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **QWEN), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(folder)
    return folder


def write_rows(case: Case, base: Path, folder: Path, seed: int) -> str:
    """Random rows of many lengths, the longest as long as the case says."""
    from datasets import Dataset

    vocabulary = json.loads((base / "config.json").read_text())["vocab_size"]
    drawn = np.random.default_rng(seed)
    lengths = np.clip(drawn.lognormal(np.log(case.length / 2), 0.5, ROWS).astype(int), 32, case.length)
    lengths[: case.micro] = case.length
    ids = [drawn.integers(0, vocabulary, length) for length in lengths]
    labels = [np.where(np.arange(len(row)) < (1 - LEARNED) * len(row), -100, row) for row in ids]
    Dataset.from_dict({"input_ids": ids, "labels": labels}).save_to_disk(folder)
    return str(folder)


def request_of(case: Case, base: Path, place: Path) -> Any:
    """What the probe is asked, on rows of a first kind; the run has those of another."""
    from orchestrator.config.schema import LoraConfig, ModelConfig, TrainConfig
    from orchestrator.probe.request import ProbeRequest

    tokens = write_rows(case, base, place / "planned", 0)
    train = {"batch_size": case.batch, "micro_batch_size": case.micro, "gradient_checkpointing": case.checkpointing}
    return ProbeRequest(
        runner=case.runner, model=ModelConfig.model_validate({"base": str(base), "dtype": case.dtype}),
        lora=LoraConfig.model_validate({"r": case.rank}), train=TrainConfig.model_validate(train),
        train_tokens=tokens, val_tokens=tokens, slots=case.slots, threads=1, gpus=0,
    )  # fmt: skip


def planned(case: Case, base: Path) -> Any:
    """The memory that is planned for a case."""
    from orchestrator.config.schema import LoraConfig
    from orchestrator.models.base import empty_base
    from orchestrator.plan.settle import Wanted, settle
    from orchestrator.plan.shapes import base_shape

    wanted = Wanted(
        case.runner, case.dtype, on_gpu=False, rank=case.rank, micro_batch=case.micro, longest=case.length,
        learned_share=LEARNED, most_slots=case.slots, checkpointing=case.checkpointing,
    )  # fmt: skip
    shape = base_shape(empty_base(base, trust_remote_code=False), LoraConfig())
    return settle(shape, wanted, 1 << 60).memory(shape)


def run(name: str, base: Path, place: Path) -> dict[str, float]:
    """Train whole batches as the runner does, in this process: peak, and seconds of a token."""
    import torch

    from orchestrator.core.memory import hold_little_memory
    from orchestrator.probe import steps as probe
    from orchestrator.probe.steps import Job, train_alone, train_slots

    if name == SERVING:
        return serve(base)
    probe.BUDGET_S = math.inf  # all rows, for a probe's time would end among the longest
    hold_little_memory()
    torch.set_num_threads(1)
    case, request = CASES[name], request_of(CASES[name], base, place)
    tokens = write_rows(case, base, place / "run", 1)
    steps = ROWS // case.batch
    job = Job(request, case.batch, ((),) * steps, (), 1.0)
    train = train_slots if case.runner == "multi_lora" else train_alone
    timed = train(job, (tokens, tokens), str(place), in_order=False)
    return {"peak": timed.peak, "seconds": sum(timed.seconds[1:]) / sum(timed.tokens[1:])}


def serve(base: Path) -> dict[str, float]:
    """Make replies with a vLLM engine in this process: peak, and seconds of a reply."""
    from evals.generate.engine import Batch, Engine, EngineSettings, Prompt
    from orchestrator.config.schema import ModelConfig
    from orchestrator.models.memory import memory_peak

    settings = EngineSettings(
        base=ModelConfig.model_validate({"base": str(base), "dtype": "bfloat16"}), dtype="bfloat16", on_gpu=False,
        max_model_len=1024, max_lora_rank=16, kv_cache_bytes=int(CACHE_GIB * 2**30), max_new_tokens=REPLY,
        temperature=0.0, seed=0,
    )  # fmt: skip
    drawn = np.random.default_rng(0)
    engine = Engine(settings)
    started = time.perf_counter()
    batches = engine.answer([Prompt(str(i), drawn.integers(0, 40_000, PROMPT).tolist()) for i in range(REPLIES)], None)
    replies = [reply for batch in batches if isinstance(batch, Batch) for reply in batch.generations]
    took = time.perf_counter() - started
    made = sum(reply.output_tokens or 0 for reply in replies)
    return {"peak": memory_peak(), "seconds": took / REPLIES, "reply": made / REPLIES}


def foretold(name: str, base: Path, place: Path) -> tuple[Any, float]:
    """The plan of a case: its memory, and seconds of a token as a probe has them."""
    from orchestrator.config.schema import LoraConfig
    from orchestrator.models.base import empty_base
    from orchestrator.plan.memory import GIB, Serving, serving_memory
    from orchestrator.plan.shapes import base_shape
    from orchestrator.probe import measure, processes

    if name == SERVING:
        shape = base_shape(empty_base(base, trust_remote_code=False), LoraConfig())
        cache = int(CACHE_GIB * GIB)
        return serving_memory(shape, Serving("bfloat16", on_gpu=False, largest_rank=16), cache=cache), float("nan")
    memory = planned(CASES[name], base)
    processes.user_cache = lambda: place  # type: ignore[attr-defined]  # a probe is measured anew for each row
    probe = measure.Probe(request_of(CASES[name], base, place), processes=1, planned=memory.high, key=name)
    its = measure.measured(probe)
    return memory, 1 / its.tokens_per_s


def row(name: str) -> str:
    """One configuration, planned and measured."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        base = BASE if name == SERVING else base_of(CASES[name], place)
        memory, seconds = foretold(name, base, place)
        command = [sys.executable, __file__, "--child", name, str(base), folder]
        environment = os.environ | ({} if name == SERVING else {"OMP_NUM_THREADS": "1"})  # as in a worker of Ray
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            return f"{name}: {done.stderr[-1500:]}"
        found = json.loads(done.stdout.splitlines()[-1])
    print({part: round(size / 2**30, 2) for part, size in memory.parts.items()}, file=sys.stderr)
    sizes = [f"{size / 2**30:.2f}" for size in (memory.expected, found["peak"])]
    off = f"{memory.expected / found['peak'] - 1:+.0%}"
    times = [f"{1000 * value:.2f}" for value in (seconds, found["seconds"])]
    return "| " + " | ".join([name, *sizes, off, *times, f"{seconds / found['seconds'] - 1:+.0%}"]) + " |"


def main() -> int:
    """Measure all cases, or those named."""
    global BASE
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=[*CASES, SERVING], metavar="NAME")
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--child", nargs=3)
    arguments = parser.parse_args()
    if arguments.child:
        name, base, place = arguments.child
        print("\n" + json.dumps(run(name, Path(base), Path(place))))
        return 0
    BASE = arguments.base
    columns = ("configuration", "planned, GiB", "measured", "off by", "foretold, ms a token", "measured", "off by")
    print("| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for name in arguments.only:
        print(row(name), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
