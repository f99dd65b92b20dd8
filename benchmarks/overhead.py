"""What Ray and this project add to a training: `orchestrator train` beside the same TRL training as a bare script.

    python benchmarks/overhead.py                       # the toy base, two cores
    python benchmarks/overhead.py --base smollm2-135m --steps 12

Two questions, each with its contenders in turn, every one in a process of its own, for so many rounds:

- one worker: seconds of the bare script by those of `orchestrator train`, on as many threads. The same rows in the same
  batches, the same settings of TRL, no evaluation on the way; losses are compared as well.
- two workers: seconds of one worker with one thread by those of two workers with one thread each, at the same number of
  samples a step.

Seconds are those from the end of a step after the start to the end of the last, as each notes them; what happens before
is told apart. A figure is the median over the rounds, with the lowest and highest.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

SKIPPED = 5
"""Steps at the start that are not counted."""
RATE, RANK = 1e-3, 16


class Timed(NamedTuple):
    """A training: Unix time at the end of each step, its losses, and the seconds from its start to the first step."""

    ends: list[float]
    losses: list[float]
    before_s: float

    @property
    def train_s(self) -> float:
        """Seconds of the steps that count."""
        return self.ends[-1] - self.ends[SKIPPED - 1]


def settings(given: argparse.Namespace, storage: Path, name: str, workers: int, threads: int) -> dict[str, Any]:
    """A configuration that trains on the same rows whatever the workers."""
    return {
        "name": name,
        "model": {"base": given.base, **({"chat_template": "hermes"} if given.base != "tiny" else {})},
        "data": {"sources": [{"path": "synthetic", "catalogue": "easy", "limit": 400}], "max_length": 512},
        "lora": {"r": RANK, "alpha": 2 * RANK},
        "train": {
            "learning_rate": RATE,
            "max_steps": given.steps,
            "eval_steps": given.steps,
            "batch_size": given.batch,
            "micro_batch_size": given.batch // 2,
            "gradient_checkpointing": False,
        },
        "resources": {"storage_path": str(storage), "num_workers": workers, "cpus_per_worker": threads},
    }


def with_orchestrator(given: argparse.Namespace, storage: Path, name: str, workers: int, threads: int) -> Timed:
    """Train with the command, and read what its worker noted."""
    config = storage / f"{name}.yaml"
    config.write_text(yaml.safe_dump(settings(given, storage, name, workers, threads)), encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    started = time.time()
    command = [sys.executable, "-m", "orchestrator", "train", str(config)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    (path,) = (storage / name / "ray" / "train").glob("*/steps.jsonl")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return Timed([row["at"] for row in rows], [row["loss"] for row in rows], rows[0]["at"] - started)


def as_bare_script(tokens: Path, given: argparse.Namespace, storage: Path) -> Timed:
    """Train in a process that knows nothing of Ray."""
    out, started = storage / "bare.json", time.time()
    command = [sys.executable, __file__, "--bare", str(tokens), "--out", str(out)]
    command += [f"--{name}={getattr(given, name)}" for name in ("base", "steps", "batch", "threads")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = json.loads(out.read_text(encoding="utf-8"))
    return Timed(found["ends"], found["losses"], found["ends"][0] - started)


def train_bare(given: argparse.Namespace) -> None:
    """The bare script: TRL's trainer as a worker of this project sets it up, and a note of each step."""
    import torch
    from datasets import load_from_disk
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from orchestrator.config.schema import RunConfig
    from orchestrator.models.adapters import peft_config
    from orchestrator.models.base import base_folder, base_tokenizer, load_frozen_base
    from orchestrator.training.plan import TrainPlan
    from orchestrator.training.worker import OF_SAMPLES, trainer_settings

    config = RunConfig.model_validate(settings(given, Path("/nowhere"), "bare", 1, given.threads))
    plan = TrainPlan(
        model=config.model,
        lora=config.lora,
        train=config.train,
        train_tokens=str(given.bare / "train"),
        val_tokens=str(given.bare / "val"),
        num_workers=1,
        cpus_per_worker=given.threads,
        gpus_per_worker=0,
        max_steps=given.steps,
        eval_steps=given.steps,
        warmup_steps=max(1, round(config.train.warmup_ratio * given.steps)),
    )
    torch.set_num_threads(given.threads)
    noted: dict[str, list[float]] = {"ends": [], "losses": []}

    class Notes(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
        def on_log(self, *_: Any, logs: Any, **__: Any) -> None:
            if "loss" in logs:
                noted["ends"].append(time.time())
                noted["losses"].append(logs["loss"])

    with tempfile.TemporaryDirectory() as folder:
        alone = {"ddp_backend": None, "eval_strategy": "no", "save_strategy": "no", "eval_steps": None}
        trainer = SFTTrainer(
            model=load_frozen_base(base_folder(plan.model), plan.model),
            args=SFTConfig(**{**trainer_settings(plan), **OF_SAMPLES, **alone}, output_dir=folder),
            train_dataset=load_from_disk(plan.train_tokens),
            processing_class=base_tokenizer(plan.model),
            peft_config=peft_config(plan.lora),
            callbacks=[Notes()],
        )
        trainer.train()
    given.out.write_text(json.dumps(noted), encoding="utf-8")


def show(question: str, contenders: dict[str, Callable[[int], Timed]], rounds: int) -> dict[str, Any]:
    """Run the contenders in turn and print the first by the second, round by round."""
    first, second = contenders
    timed: dict[str, list[Timed]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, contender in contenders.items():
            timed[name].append(contender(number))
            its = timed[name][-1]
            print(
                f"{question}, round {number + 1}, {name}: {its.train_s:.2f} s, after {its.before_s:.1f} s", flush=True
            )
    ratios = [one.train_s / other.train_s for one, other in zip(timed[first], timed[second], strict=True)]
    losses = max(abs(a - b) for a, b in zip(timed[first][0].losses, timed[second][0].losses, strict=True))
    print(
        f"{question}: {first} takes {statistics.median(ratios):.3f} times as long as {second} "
        f"({min(ratios):.3f} to {max(ratios):.3f}); losses differ by at most {losses:.2g}"
    )
    return {
        "ratios": ratios,
        "loss_difference": losses,
        "seconds": {k: [t.train_s for t in v] for k, v in timed.items()},
    }


def main() -> None:
    """Measure, or be the bare script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--questions", nargs="+", choices=("one", "two"), default=["one", "two"])
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.bare is not None:
        train_bare(given)
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder)
        if "one" in given.questions:
            warm = with_orchestrator(given, storage, "tokens", 1, given.threads)  # makes the tokens, warms the caches
            print(f"the first training, which is not counted: {warm.train_s:.2f} s")
            tokens = storage / "tokens" / "data" / "tokens"
            found["one worker"] = show(
                "one worker",
                {
                    "the bare script": lambda _: as_bare_script(tokens, given, storage),
                    "orchestrator train": lambda number: with_orchestrator(
                        given, storage, f"one-{number}", 1, given.threads
                    ),
                },
                given.rounds,
            )
        if "two" in given.questions:
            found["two workers"] = show(
                "two workers",
                {
                    "one worker": lambda number: with_orchestrator(given, storage, f"alone-{number}", 1, 1),
                    "two workers": lambda number: with_orchestrator(given, storage, f"both-{number}", 2, 1),
                },
                given.rounds,
            )
    if given.out is not None:
        given.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
