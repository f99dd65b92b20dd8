"""Tokens a second and peak memory of each method beside plain LoRA, in this system and in bare TRL.

    python benchmarks/methods.py [--only NAME ...] [--base FOLDER] [--rows N] [--length N] [--threads N] [--rounds N]

Every contender trains rank 16 on all linear layers in a process of its own, on the same random rows of many lengths,
four rows a step and two a pass, and recomputes no layer. `bare` is TRL's SFTTrainer as it is shipped otherwise, with
`quantization_config` and `peft_config`; `isolated` and `engine` (one slot) are the runners of this system. Tokens are
those of the rows, without padding; the first step is not timed. One thread on a CPU is timed by its own clock, which
stands still while others have the core. Others still share its caches and memory, so a contender is set beside a run
of `bare-lora` made just before it: the ratio of the two rates is given, of several rounds the median with the lowest
and the highest; that of `bare-lora` to itself is what ratios vary by. The peak is the process's (`VmHWM`), on a GPU the
allocator's; beside it stands what `plan` expects of this system's runners. Prints a row of a Markdown table as each
ends.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from orchestrator.config.schema import Optimizer, Quantization

BASE = Path("~/.cache/tool-lora-orchestrator/smollm2-135m-instruct").expanduser()
LEARNED, BATCH, MICRO, RANK = 0.3, 4, 2, 16
BESIDE = "bare-lora"
"""What every contender is set beside."""


class Contender(NamedTuple):
    """What trains, and on what."""

    trainer: str
    quantization: Quantization = "none"
    optimizer: Optimizer = "adamw"
    lora: Mapping[str, Any] = MappingProxyType({})
    train: Mapping[str, Any] = MappingProxyType({})


CONTENDERS = {
    "bare-lora": Contender("bare"),
    "bare-nf4": Contender("bare", "nf4"),
    "isolated-lora": Contender("isolated"),
    "isolated-nf4": Contender("isolated", "nf4"),
    "isolated-int8": Contender("isolated", "int8"),
    "isolated-adamw8": Contender("isolated", "none", "adamw_8bit"),
    "isolated-dora": Contender("isolated", lora={"use_dora": True}),
    "isolated-rslora": Contender("isolated", lora={"use_rslora": True}),
    "isolated-loraplus": Contender("isolated", train={"loraplus_lr_ratio": 16.0}),
    "isolated-neftune": Contender("isolated", train={"neftune_noise_alpha": 5.0}),
    "isolated-packing": Contender("isolated", train={"sample_packing": "auto"}),
    "engine-lora": Contender("multi_lora"),
    "engine-nf4": Contender("multi_lora", "nf4"),
}


def write_rows(base: Path, folder: Path, *, number: int, longest: int) -> str:
    """Random rows of many lengths."""
    from datasets import Dataset

    vocabulary = json.loads((base / "config.json").read_text())["vocab_size"]
    drawn = np.random.default_rng(0)
    lengths = np.clip(drawn.lognormal(np.log(longest / 2), 0.5, number).astype(int), 32, longest)
    lengths[:MICRO] = longest  # a pass that is as large as the plan expects
    ids = [drawn.integers(0, vocabulary, length) for length in lengths]
    labels = [np.where(np.arange(len(row)) < (1 - LEARNED) * len(row), -100, row) for row in ids]
    Dataset.from_dict({"input_ids": ids, "labels": labels}).save_to_disk(folder)
    return str(folder)


def with_ours(contender: Contender, base: Path, tokens: str, place: Path, *, steps: int, threads: int) -> Any:
    """Steps of a runner of this system."""
    import torch

    from orchestrator.config.schema import LoraConfig, ModelConfig, TrainConfig
    from orchestrator.core.memory import hold_little_memory
    from orchestrator.probe.request import ProbeRequest
    from orchestrator.probe.steps import Job, train_alone, train_slots

    hold_little_memory()
    train = {"batch_size": BATCH, "micro_batch_size": MICRO, "optimizer": contender.optimizer, **contender.train}
    request = ProbeRequest(
        runner="multi_lora" if contender.trainer == "multi_lora" else "isolated",
        model=ModelConfig.model_validate({"base": str(base), "quantization": contender.quantization}),
        lora=LoraConfig.model_validate({"r": RANK, **contender.lora}),
        train=TrainConfig.model_validate({**train, "gradient_checkpointing": False}),
        train_tokens=tokens, val_tokens=tokens, slots=1, threads=threads, gpus=int(torch.cuda.is_available()),
    )  # fmt: skip
    job = Job(request, BATCH, ((),) * steps, (), 1.0)
    runner = train_slots if contender.trainer == "multi_lora" else train_alone
    timed = runner(job, (tokens, tokens), str(place), in_order=False)
    return timed.seconds, timed.tokens, timed.peak


def with_trl(contender: Contender, base: Path, tokens: str, place: Path, *, steps: int, threads: int) -> Any:
    """Steps of TRL as shipped, but for recomputing layers, timed by the clock of the others."""
    import torch
    from datasets import load_from_disk
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from orchestrator.models.memory import memory_peak

    settings: dict[str, Any] = {"dtype": torch.bfloat16}
    if contender.quantization == "nf4":
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    clock = time.process_time if threads == 1 and not torch.cuda.is_available() else time.perf_counter
    ends: list[float] = []
    seen: list[int] = []

    class Clock(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(clock())

        def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
            if "num_tokens" in logs:
                seen.append(int(logs["num_tokens"]))

    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, **settings),
        args=SFTConfig(
            output_dir=str(place), max_steps=steps, per_device_train_batch_size=MICRO, logging_steps=1,
            gradient_accumulation_steps=BATCH // MICRO, dataset_kwargs={"skip_prepare_dataset": True},
            report_to="none", disable_tqdm=True, save_strategy="no", gradient_checkpointing=False,
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=load_from_disk(tokens),
        peft_config=LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[Clock()],
    )  # fmt: skip
    began = clock()
    trainer.train()
    return np.diff([began, *ends]).tolist(), np.diff([0, *seen]).tolist(), memory_peak()


def planned(contender: Contender, base: Path, longest: int) -> int:
    """Bytes that `plan` expects of a runner of this system."""
    import torch

    from orchestrator.config.schema import LoraConfig
    from orchestrator.models.base import empty_base
    from orchestrator.plan.settle import Wanted, settle
    from orchestrator.plan.shapes import base_shape

    wanted = Wanted(
        "multi_lora" if contender.trainer == "multi_lora" else "isolated", "bfloat16", checkpointing=False,
        on_gpu=torch.cuda.is_available(), rank=RANK, micro_batch=MICRO, longest=longest, learned_share=LEARNED,
        quantization=contender.quantization, optimizer=contender.optimizer,
        use_dora=contender.lora.get("use_dora", False),
    )  # fmt: skip
    shape = base_shape(empty_base(base, trust_remote_code=False), LoraConfig())
    return settle(shape, wanted, 1 << 60).memory(shape).expected


def run(name: str, base: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Train as one contender does, in this process."""
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(arguments.threads)
    contender, steps = CONTENDERS[name], arguments.rows // BATCH
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        tokens = write_rows(base, place / "rows", number=arguments.rows, longest=arguments.length)
        train = with_trl if contender.trainer == "bare" else with_ours
        seconds, counts, peak = train(contender, base, tokens, place, steps=steps, threads=arguments.threads)
    return {"rate": sum(counts[1:]) / sum(seconds[1:]), "peak": peak}


def measured(name: str) -> dict[str, float]:
    """What a contender does, in a process of its own; a peak of 0 means that it failed, which is printed."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    if done.returncode:
        print(f"{name}: {done.stderr[-1500:]}", flush=True)
        return {"rate": 0.0, "peak": 0.0}
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Measure all contenders, or those named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--child")
    arguments = parser.parse_args()
    if arguments.child:
        print("\n" + json.dumps(run(arguments.child, arguments.base, arguments)))
        return 0
    print(f"| contender | tokens/s | times {BESIDE} | peak, GiB | planned |\n|---|---|---|---|---|")
    for name in arguments.only:
        pairs = [(measured(BESIDE), measured(name)) for _ in range(arguments.rounds)]
        if any(not one["peak"] for pair in pairs for one in pair):
            continue
        rate, peak = (median(found[of] for _, found in pairs) for of in ("rate", "peak"))
        ratios = [found["rate"] / beside["rate"] for beside, found in pairs]
        ratio = f"{median(ratios):.2f}" + (f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else "")
        contender, plan = CONTENDERS[name], ""
        if contender.trainer != "bare":
            plan = f"{planned(contender, arguments.base, arguments.length) / 2**30:.2f}"
        print(f"| {name} | {rate:,.0f} | {ratio} | {peak / 2**30:.2f} | {plan} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
