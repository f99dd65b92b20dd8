"""A real multi-LoRA engine on a Qwen3 of two layers with random weights, and clients that follow its trials."""

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from orchestrator.core.errors import TrainingError
from orchestrator.core.records import EvalPoint
from orchestrator.multi_lora.batch import IGNORED, TokenRows
from orchestrator.multi_lora.engine import MultiLoraEngine
from orchestrator.multi_lora.messages import Evaluation
from orchestrator.multi_lora.scheduler import Cadence, SlotScheduler
from orchestrator.multi_lora.spec import SlotSpec

EVAL_STEPS, NUM_ROWS, BATCH_SIZE = 2, 20, 4


def make_spec(**fields: object) -> SlotSpec:
    """Rank 4 for six steps, which is three evaluations."""
    settled: dict[str, object] = {"rank": 4, "alpha": 8, "learning_rate": 1e-2, "max_steps": 6, "warmup_steps": 1}
    return SlotSpec(**{**settled, **fields})  # type: ignore[arg-type]


def random_rows(number: int, *, seed: int, longest: int = 24) -> TokenRows:
    """Rows of random tokens, of which about half are learned."""
    draw = np.random.default_rng(seed)
    rows = []
    for _ in range(number):
        ids = draw.integers(5, 200, size=int(draw.integers(6, longest)))
        labels = np.where(np.arange(len(ids)) < len(ids) // 2, IGNORED, ids)
        rows.append((ids.tolist(), labels.tolist()))
    return TokenRows.of(rows)


TRAIN, VAL = random_rows(NUM_ROWS, seed=1), random_rows(6, seed=2)


def make_engine(model_folder: Path, *, dtype: torch.dtype = torch.float64) -> MultiLoraEngine:
    """An engine on 20 rows of training data and six of evaluation, on one thread, with batches of four in two passes.

    In float64 rounding is too small to grow into anything, so that equal means equal.
    """
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype).requires_grad_(requires_grad=False)
    return MultiLoraEngine(model, TRAIN, VAL, batch_size=BATCH_SIZE, micro_batch_size=2)


def pairs_of(rows: TokenRows) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of each row."""
    bounds = itertools.pairwise(rows.offsets.tolist())
    return [(rows.ids[start:end].tolist(), rows.labels[start:end].tolist()) for start, end in bounds]


def mean_loss(model: torch.nn.Module, rows: TokenRows) -> float:
    """Mean loss of a plain model over all learned tokens, a row at a time."""
    total, learned = 0.0, 0
    for ids, its_labels in pairs_of(rows):
        labels = torch.tensor(its_labels)[1:]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
        total += torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum").item()
        learned += int((labels != IGNORED).sum())
    return total / learned


def make_trials(
    engine: MultiLoraEngine,
    storage: Path,
    *,
    slots: int = 4,
    patience: int | None = None,
    keep_best: int = 1,
    gather_s: float = 0.0,
    rungs: tuple[int, ...] = (),
) -> SlotScheduler:
    """SlotScheduler of a new engine on a storage that may hold what another left."""
    return SlotScheduler(
        engine,
        storage,
        slots=slots,
        cadence=Cadence(EVAL_STEPS, patience, keep_best, rungs=rungs),
        gather_s=gather_s,
    )


def advance_until_idle(trials: SlotScheduler, *, most_steps: int = 200) -> int:
    """Train until there is nothing to train. Returns the number of steps."""
    for steps in range(most_steps):
        if not trials.advance():
            return steps
    raise AssertionError(f"still at it after {most_steps} steps")


@contextmanager
def at_work(trials: SlotScheduler) -> Iterator[None]:
    """A thread that trains, as the actor's does, while the block runs."""
    ends = threading.Event()

    def work() -> None:
        torch.set_num_threads(1)
        try:
            while not ends.is_set():
                if not trials.advance():
                    trials.wait_for_work(0.02)
        except Exception as error:  # noqa: BLE001 - clients must hear of it, as from the actor
            trials.fail(TrainingError(f"{type(error).__name__}: {error}"))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join(timeout=60)
        assert not thread.is_alive()


def hear(trials: SlotScheduler, name: str, step: int) -> Evaluation:
    """What a client that waits for as long as it takes hears next."""
    evaluation = trials.evaluation_after(name, step, patience_s=600)
    assert evaluation is not None
    return evaluation


def follow(trials: SlotScheduler, name: str, spec: SlotSpec, *, heard: int = 0) -> list[Evaluation]:
    """What a client hears from `heard` on, to the trial's end; then it leaves."""
    trials.attach(name, spec)
    evaluations: list[Evaluation] = []
    while not evaluations or evaluations[-1].stop_reason is None:
        evaluations.append(hear(trials, name, heard))
        heard = evaluations[-1].step
    trials.detach(name)
    return evaluations


def follow_all(trials: SlotScheduler, specs: dict[str, SlotSpec]) -> dict[str, list[Evaluation]]:
    """What the clients of several trials hear, each in a thread of its own, while another thread trains."""
    heard: dict[str, list[Evaluation]] = {}
    failed: list[BaseException] = []

    def client(name: str) -> None:
        try:
            heard[name] = follow(trials, name, specs[name])
        except Exception as error:  # noqa: BLE001 - told where the test waits
            failed.append(error)

    for name, spec in specs.items():  # before the first step, and in this order
        trials.attach(name, spec)
    clients = [threading.Thread(target=client, args=(name,), daemon=True) for name in specs]
    with at_work(trials):
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join(timeout=120)
    assert not failed, failed
    return heard


def follow_at_once(
    trials: SlotScheduler, specs: dict[str, SlotSpec], *, most_steps: int = 200
) -> dict[str, list[Evaluation]]:
    """What clients hear that listen after every step, so that trials stay together; in one thread."""
    for name, spec in specs.items():
        trials.attach(name, spec)
    heard: dict[str, list[Evaluation]] = {name: [] for name in specs}
    running = True
    while running and most_steps:
        running, most_steps = trials.advance(), most_steps - 1
        for name, evaluations in heard.items():
            last = evaluations[-1].step if evaluations else 0
            if any(evaluation.step > last for evaluation in trials._trials[name].told):
                evaluations.append(hear(trials, name, last))
    return heard


Losses = list[tuple[int, float]]
"""Step and eval loss of each point of a curve."""


def losses_of(evaluations: Sequence[Evaluation]) -> Losses:
    """The curve that the last of these tells."""
    return points_of(evaluations[-1].curve)


def points_of(curve: Iterable[EvalPoint]) -> Losses:
    """A curve without its train losses."""
    return [(point.step, point.eval_loss) for point in curve]


def near(losses: Losses, *, rel: float = 1e-9) -> list[tuple[int, Any]]:
    """What equals these losses up to rounding."""
    return [(step, pytest.approx(loss, rel=rel)) for step, loss in losses]
