"""How far plans are from what is measured: peak memory of training processes, and tokens a second.

    python benchmarks/plan.py [--only NAME ...] [--base FOLDER]

Each configuration trains two optimizer steps of real code in a process of its own, on random rows, and its peak
resident memory (`VmHWM`; on a GPU the allocator's peak) is set beside the plan's. `--base` is a folder with
SmolLM2-135M; Qwen3 shapes get random weights. Prints a Markdown table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

BASE = Path("~/.cache/tool-lora-orchestrator/smollm2-135m-instruct").expanduser()
LEARNED = 0.3
QWEN = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 32000, "tie_word_embeddings": True}  # fmt: skip


class Case(NamedTuple):
    """One configuration; `rows` train in a micro batch, of `length` tokens each."""

    base: str
    runner: str
    dtype: str
    checkpointing: bool
    length: int
    rows: int
    slots: int = 1
    rank: int = 16


CASES = {
    "smol-engine": Case("smol", "multi_lora", "bfloat16", False, 1024, 4, 2, 64),
    "smol-engine-ckpt": Case("smol", "multi_lora", "bfloat16", True, 1024, 4, 2, 64),
    "smol-engine-512": Case("smol", "multi_lora", "bfloat16", False, 512, 2),
    "smol-trl": Case("smol", "isolated", "bfloat16", False, 512, 2),
    "smol-trl-ckpt": Case("smol", "isolated", "bfloat16", True, 512, 2),
    "qwen-engine-fp32": Case("qwen", "multi_lora", "float32", False, 512, 2),
    "qwen-engine-2048": Case("qwen", "multi_lora", "bfloat16", False, 2048, 1),
    "qwen-trl-fp32": Case("qwen", "isolated", "float32", False, 512, 4),
    "qwen-trl-1024": Case("qwen", "isolated", "bfloat16", False, 1024, 2),
    "tiny-engine": Case("tiny", "multi_lora", "float32", False, 512, 4, 4),
    "tiny-trl": Case("tiny", "isolated", "float32", False, 512, 4),
}


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
    if not folder.is_dir():
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **QWEN), dtype=torch.bfloat16)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(BASE).save_pretrained(folder)
    return folder


def measure(case: Case, folder: Path) -> dict[str, Any]:
    """Train two steps in this process; returns peak bytes and seconds of the second step."""
    import numpy as np
    import torch

    from orchestrator.core.memory import give_back_freed_memory

    give_back_freed_memory()
    torch.set_num_threads(1)
    drawn = np.random.default_rng(0)
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    rows = [(drawn.integers(0, vocabulary, case.length), drawn.integers(0, vocabulary, case.length)) for _ in range(8)]
    for _, labels in rows:
        labels[: int((1 - LEARNED) * case.length)] = -100
    train = _train_slots if case.runner == "multi_lora" else _train_trl
    seconds = train(case, folder, rows)
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"peak": int(peak.split()[1]) * 1024, "seconds": seconds}


def _train_slots(case: Case, folder: Path, rows: list[Any]) -> float:
    import datasets  # noqa: F401 - what an engine's process has loaded
    import ray  # noqa: F401

    from orchestrator.config.schema import ModelConfig
    from orchestrator.models.base import load_frozen_base
    from orchestrator.multi_lora.base_checks import checkpoint_layers
    from orchestrator.multi_lora.batch import TokenRows
    from orchestrator.multi_lora.engine import MultiLoraEngine
    from orchestrator.multi_lora.slots import SlotSpec

    model = load_frozen_base(folder, ModelConfig.model_validate({"base": str(folder), "dtype": case.dtype}))
    if case.checkpointing:
        checkpoint_layers(model)
    tokens = TokenRows.of(rows)
    engine = MultiLoraEngine(model, tokens, tokens, batch_size=case.rows, micro_batch_size=case.rows)
    for number in range(case.slots):
        engine.admit(str(number), SlotSpec(rank=case.rank, alpha=16, learning_rate=1e-4, max_steps=9, seed=number))
    for _ in range(2):
        started = time.perf_counter()
        engine.train_step()
    return time.perf_counter() - started


def _train_trl(case: Case, folder: Path, rows: list[Any]) -> float:
    import torch.distributed
    from datasets import Dataset

    from orchestrator.config.schema import LoraConfig, ModelConfig, TrainConfig
    from orchestrator.training.plan import TrainPlan
    from orchestrator.training.worker import make_trainer

    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    table = Dataset.from_dict({"input_ids": [ids.tolist() for ids, _ in rows], "labels": [y.tolist() for _, y in rows]})
    with tempfile.TemporaryDirectory() as place:
        table.save_to_disk(f"{place}/tokens")
        plan = TrainPlan(
            model=ModelConfig.model_validate({"base": str(folder), "dtype": case.dtype, "chat_template": "hermes"}),
            lora=LoraConfig.model_validate({"r": case.rank}),
            train=TrainConfig(
                batch_size=case.rows, micro_batch_size=case.rows, gradient_checkpointing=case.checkpointing
            ),
            train_tokens=f"{place}/tokens", val_tokens=f"{place}/tokens", num_workers=1, cpus_per_worker=1,
            gpus_per_worker=0, max_steps=2, eval_steps=100, warmup_steps=0,
        )  # fmt: skip
        trainer = make_trainer(plan, place, callbacks=[])
        return float(trainer.train().metrics["train_runtime"]) / 2


def planned(case: Case, folder: Path) -> dict[str, Any]:
    """The plan of a case."""
    from orchestrator.config.schema import LoraConfig
    from orchestrator.models.base import empty_base
    from orchestrator.plan.memory import Training, training_memory
    from orchestrator.plan.passes import PassShape, largest_pass
    from orchestrator.plan.shapes import base_shape

    shape = base_shape(empty_base(folder, trust_remote_code=False), LoraConfig())
    training = Training(case.runner, case.dtype, False, case.rank, case.slots, case.checkpointing, padded=False)
    limits = {"on_gpu": False, "micro_batch": case.rows, "longest": case.length, "threads": 1}
    one = largest_pass(case.runner, **limits, learned_share=LEARNED)
    rows = one.rows if one.length == case.length else one.rows - 1  # all rows are equally long
    largest = PassShape(rows, case.length, int(rows * case.length * LEARNED)).of_slots(case.slots)
    plan = training_memory(shape, training, largest)
    return {"parts": dict(plan.parts), "low": plan.low, "expected": plan.expected, "high": plan.high}


def main() -> int:
    """Measure all cases, or those named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=list(CASES))
    parser.add_argument("--child", nargs=2)
    arguments = parser.parse_args()
    if arguments.child:
        print("\n" + json.dumps(measure(CASES[arguments.child[0]], Path(arguments.child[1]))))
        return 0
    print("| configuration | planned, GiB | measured, GiB | off by | step, s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        for name in arguments.only:
            folder = base_of(CASES[name], Path(place))
            command = [sys.executable, __file__, "--child", name, str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(done.stderr[-2000:])
                continue
            found, plan = json.loads(done.stdout.splitlines()[-1]), planned(CASES[name], folder)
            off = plan["expected"] / found["peak"] - 1
            print(
                f"| {name} | {plan['expected'] / 2**30:.2f} ({plan['low'] / 2**30:.2f} to {plan['high'] / 2**30:.2f}) "
                f"| {found['peak'] / 2**30:.2f} | {off:+.0%} | {found['seconds']:.1f} |", flush=True
            )  # fmt: skip
            print({key: round(value / 2**30, 2) for key, value in plan["parts"].items()}, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
