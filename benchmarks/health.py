"""What seeded faults and healthy trainings look like, step by step: the series that health checks are held to.

    python benchmarks/health.py --out tests/unit/training/health_series.json                # faults, both trainers
    python benchmarks/health.py --healthy 100 --out /tmp/healthy.json                       # 100 healthy trials

The toy base learns the easy catalogue, in this process, without Ray: in slots of a multi-LoRA engine, and with TRL as a
worker sets it up. Each fault is made the way in which it happens: at the rows, the rate, or the gradient.
"""

import argparse
import json
import math
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig

from orchestrator.config.schema import RunConfig, TrainConfig
from orchestrator.core.steps import BaseReading, StepRow, read_steps
from orchestrator.data.prepare.prepare import prepare_data
from orchestrator.data.tokens.store import tokenize_run
from orchestrator.models.adapters import peft_config
from orchestrator.models.base import base_folder, base_tokenizer, load_frozen_base
from orchestrator.models.reading import read_base
from orchestrator.multi_lora.batch import TokenRows
from orchestrator.multi_lora.checkpoint import read_progress
from orchestrator.multi_lora.engine import MultiLoraEngine
from orchestrator.multi_lora.host import read_tokens
from orchestrator.multi_lora.scheduler import Cadence, SlotScheduler
from orchestrator.multi_lora.slots import SlotStack
from orchestrator.multi_lora.spec import SlotSpec
from orchestrator.run.folder import open_run
from orchestrator.training.plan import TrainPlan
from orchestrator.training.worker import OF_SAMPLES, StepTrainer, trainer_settings
from orchestrator.training.worker_reports import ReportToRay

RATE, BATCH, STEPS_OF_A_TRIAL, EVAL_STEPS, BROKEN_STEP = 4e-3, 4, 40, 5, 17
"""A healthy training of the toy base, and the step at which a batch is broken."""
Pair = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Case:
    """A training: what is done to its rows, its rate and its gradients."""

    name: str
    rate: float = RATE
    steps: int = STEPS_OF_A_TRIAL
    seed: int = 0
    rows: Callable[[list[Pair], list[Pair]], tuple[list[Pair], list[Pair]]] = lambda train, val: (train, val)
    template: str = "own"
    gradient: Callable[[torch.Tensor, int], None] | None = None


def _shuffled(train: list[Pair], val: list[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Each reply's tokens in another order."""
    draw = random.Random(0)

    def shuffle(pair: Pair) -> Pair:
        ids, labels = list(pair[0]), pair[1]
        places = [place for place, label in enumerate(labels) if label >= 0]
        tokens = [ids[place] for place in places]
        draw.shuffle(tokens)
        for place, token in zip(places, tokens, strict=True):
            ids[place] = token
        return ids, [ids[place] if label >= 0 else label for place, label in enumerate(labels)]

    return [shuffle(pair) for pair in train], val


def _exchanged(train: list[Pair], val: list[Pair]) -> tuple[list[Pair], list[Pair]]:
    """Each prompt with the reply of another."""
    order = list(range(len(train)))
    random.Random(0).shuffle(order)
    rows = []
    for (ids, labels), other in zip(train, order, strict=True):
        prompt = next(place for place, label in enumerate(labels) if label >= 0)
        reply = [label for label in train[other][1] if label >= 0]
        rows.append(([*ids[:prompt], *reply], [-100] * prompt + reply))
    return rows, val


def _zero(gradient: torch.Tensor, _step: int) -> None:
    gradient.zero_()


def _nan_once(gradient: torch.Tensor, step: int) -> None:
    if step == BROKEN_STEP:
        gradient.fill_(math.nan)


FAULTS = (
    Case("frozen adapter", gradient=_zero),
    Case("rate x 30", rate=RATE * 30),
    Case("rate / 100", rate=RATE / 100),
    Case("shuffled labels", rows=_shuffled),
    Case("replies of other prompts", rows=_exchanged),
    Case("20 samples for 40 epochs", rows=lambda train, val: (train[:20], val), steps=60),
    Case("wrong template", template="phi3"),
    Case("NaN batch", gradient=_nan_once),
    Case("leaking eval set", rows=lambda train, val: (train, train[: len(val)])),
)


def tokens_of(template: str, seed: int) -> tuple[RunConfig, list[Pair], list[Pair]]:
    """Train and val rows of the easy catalogue."""
    with tempfile.TemporaryDirectory() as storage:
        config = RunConfig.model_validate(
            {
                "name": "health",
                "model": {"base": "tiny", "chat_template": template},
                "data": {
                    "sources": [{"path": "synthetic", "catalogue": "easy", "limit": 200}],
                    "split": {"val": 0.08, "test": 0.05, "seed": seed},
                    "max_length": 512,
                },
                "resources": {"storage_path": storage},
            }
        )
        run = open_run(config)
        prepare_data(config, run, base_dir=Path.cwd())
        tokenize_run(config, run)
        tables = (read_tokens(run.root / "data" / "tokens" / part) for part in ("train", "val"))
        return config, *(table.first(len(table)) for table in tables)  # type: ignore[return-value]


def in_slots(config: RunConfig, cases: list[Case], train: list[Pair], val: list[Pair]) -> dict[str, Any]:
    """Train some cases of the same rows in slots of one engine; curves and steps by name."""
    model = load_frozen_base(base_folder(config.model), config.model)
    rows = (TokenRows.of(train), TokenRows.of(val))
    engine = MultiLoraEngine(model, *rows, batch_size=BATCH, micro_batch_size=BATCH)
    with tempfile.TemporaryDirectory() as storage, _gradients(cases[0].gradient):
        scheduler = SlotScheduler(engine, Path(storage), slots=len(cases), cadence=Cadence(EVAL_STEPS, None, 1))
        for case in cases:
            scheduler.attach(case.name, _spec(case))
        heard = {case.name: 0 for case in cases}
        while scheduler.advance():
            for name, step in heard.items():
                told = [its for its in scheduler._trials[name].told if its.step > step]
                if told:
                    heard[name] = told[-1].step
                    scheduler.evaluation_after(name, told[-1].step - 1, patience_s=1)
        return {
            case.name: (read_progress(Path(storage) / case.name).curve, read_steps(Path(storage) / case.name))
            for case in cases
        }


def _spec(case: Case) -> SlotSpec:
    return SlotSpec(rank=8, alpha=32, learning_rate=case.rate, max_steps=case.steps, warmup_steps=2, seed=case.seed)


@contextmanager
def _gradients(change: Callable[[torch.Tensor, int], None] | None) -> Iterator[None]:
    """Have the gradients of a stack changed before they are measured."""
    measure = SlotStack.gradient_norms

    def changed(stack: SlotStack, room: torch.Tensor) -> torch.Tensor:
        if change is not None:
            change(stack.grads, stack.steps[0] + 1)
        return measure(stack, room)

    SlotStack.gradient_norms = changed  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        SlotStack.gradient_norms = measure  # type: ignore[method-assign]


class _Kept(ReportToRay):
    """Keeps the curve, where a worker reports it to Ray."""

    def _report(self, state: Any, eval_loss: float, curve: Any, folder: Path | None) -> None:  # noqa: ARG002
        self.curve = curve
        if self._log is not None:
            self._log.flush()


def with_trl(config: RunConfig, case: Case, train: list[Pair], val: list[Pair]) -> Any:
    """Train one case as a worker does; its curve and steps."""
    plan = TrainPlan(
        model=config.model,
        lora=config.lora.model_copy(update={"r": 8, "alpha": 32}),
        train=TrainConfig(learning_rate=case.rate, batch_size=BATCH, micro_batch_size=BATCH, seed=case.seed),
        train_tokens="",
        val_tokens="",
        num_workers=1,
        cpus_per_worker=1,
        gpus_per_worker=0,
        max_steps=case.steps,
        eval_steps=EVAL_STEPS,
        warmup_steps=2,
    )
    parts = (Dataset.from_list([{"input_ids": ids, "labels": labels} for ids, labels in rows]) for rows in (train, val))
    with tempfile.TemporaryDirectory() as folder:
        kept = _Kept(Path(folder), patience=None)
        train_part, val_part = parts
        trainer = StepTrainer(
            model=load_frozen_base(base_folder(plan.model), plan.model),
            args=SFTConfig(**{**trainer_settings(plan), **OF_SAMPLES, "ddp_backend": None}, output_dir=folder),
            train_dataset=train_part,
            eval_dataset=val_part,
            processing_class=base_tokenizer(plan.model),
            peft_config=peft_config(plan.lora),
            callbacks=[kept],
        )
        trainer.processing_class = None
        if case.gradient is not None:
            change = case.gradient

            def changed(gradient: torch.Tensor) -> torch.Tensor:
                own = gradient.clone()
                change(own, trainer.state.global_step + 1)
                return own

            for parameter in trainer.model.parameters():
                if parameter.requires_grad:
                    parameter.register_hook(changed)
        trainer.train()
        return kept.curve, read_steps(Path(folder))


def described(case: Case, trainer: str, result: Any, reading: BaseReading, train: list[Pair], val: list[Pair]) -> Any:
    """A case as the fixture holds it."""
    curve, steps = result
    shared = len({tuple(ids) for ids, _ in val} & {tuple(ids) for ids, _ in train})
    return {
        "name": case.name,
        "trainer": trainer,
        "seed": case.seed,
        "learning_rate": case.rate,
        "max_steps": case.steps,
        "eval_steps": EVAL_STEPS,
        "train_rows": len(train),
        "val_rows": len(val),
        "shared_rows": shared,
        "base": reading.model_dump(mode="json"),
        "curve": [[point.step, round(point.eval_loss, 5), _rounded(point.train_loss)] for point in curve],
        "steps": [_short(row) for row in steps],
    }


def _short(row: StepRow) -> list[Any]:
    values = (row.loss, row.learning_rate, row.grad_norm, row.token_accuracy, row.epoch)
    return [row.step, *(_rounded(value) for value in values)]


def _rounded(value: float | None) -> float | str | None:
    return None if value is None else float(f"{value:.5g}") if math.isfinite(value) else str(value)


def main() -> None:
    """Record what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--healthy", type=int, default=0, help="record so many healthy trials instead of the faults")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--trainer", choices=("multi_lora", "trl"), default=None)
    given = parser.parse_args()
    torch.set_num_threads(1)
    records: list[Any] = []
    if given.healthy:
        draw = random.Random(given.first_seed)
        cases = [
            Case("healthy", rate=RATE * draw.choice([0.6, 1.0, 1.4]), seed=given.first_seed + number)
            for number in range(given.healthy)
        ]
        groups = [cases[first : first + 8] for first in range(0, len(cases), 8)]
    else:
        groups = [[Case("healthy")], *([case] for case in FAULTS)]
    for group in groups:
        config, *parts = tokens_of(group[0].template, group[0].seed)
        train, val = group[0].rows(*parts)
        base = load_frozen_base(base_folder(config.model), config.model)
        reading = read_base(base, train[:16])
        if given.trainer != "trl":
            named = [replace(case, name=f"{case.name}.{number}") for number, case in enumerate(group)]
            results = in_slots(config, named, train, val)
            for case, its in zip(group, named, strict=True):
                records.append(described(case, "multi_lora", results[its.name], reading, train, val))
        if given.trainer != "multi_lora":
            for case in group:
                records.append(described(case, "trl", with_trl(config, case, train, val), reading, train, val))
        print(group[0].name, [record["curve"][-1:] for record in records[-len(group) :]], flush=True)
        given.out.write_text(json.dumps(records) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
