"""SlotScheduler on an engine that runs out of memory: slots halve, and no trial loses anything."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from multi_lora_runs import Losses, advance_until_idle, follow_all, losses_of, make_engine, make_spec, make_trials, near
from torch.utils._python_dispatch import TorchDispatchMode

from orchestrator.core.errors import TrainingError
from orchestrator.multi_lora.checkpoint import read_progress
from orchestrator.multi_lora.engine import MultiLoraEngine

SPECS = {f"t{number}": make_spec(rank=(4, 20)[number % 2], seed=number) for number in range(5)}


class OneRefusal(TorchDispatchMode):  # type: ignore[misc]  # torch is not followed
    """Memory runs out at one operation, counted from 0."""

    def __init__(self, operation: int) -> None:
        super().__init__()
        self.left = operation

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left == -1:
            raise torch.OutOfMemoryError("refused")
        return func(*args, **(kwargs or {}))


def refuse(engine: MultiLoraEngine, method: str, refusals: dict[int, int]) -> Callable[[], int]:
    """Let the engine run out of memory in some calls of a method: call number -> number of the operation.

    Returns:
        How often it was called so far.
    """
    real: Callable[..., Any] = getattr(engine, method)
    calls = 0

    def limited(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls - 1 not in refusals:
            return real(*arguments)
        with OneRefusal(refusals[calls - 1]) as memory:
            result = real(*arguments)
        assert memory.left >= 0, "the operation was not reached"
        return result

    setattr(engine, method, limited)
    return lambda: calls


@pytest.fixture(scope="module")
def undisturbed(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Losses]:
    storage = tmp_path_factory.mktemp("undisturbed")
    heard = follow_all(make_trials(make_engine(model_folder), storage), SPECS)
    return {name: losses_of(evaluations) for name, evaluations in heard.items()}


def assert_same(found: dict[str, Any], undisturbed: dict[str, Losses]) -> None:
    assert found.keys() == undisturbed.keys()
    for name, evaluations in found.items():
        assert [evaluation.stop_reason for evaluation in evaluations] == [None, None, "finished"]
        assert losses_of(evaluations) == near(undisturbed[name])


@pytest.mark.parametrize("operation", [0, 7, 90, 200, 300, 400])
def test_a_step_that_does_not_fit_halves_the_slots_and_changes_no_loss(
    model_folder: Path, tmp_path: Path, undisturbed: dict[str, Losses], operation: int
) -> None:
    engine = make_engine(model_folder)
    trials = make_trials(engine, tmp_path, slots=4)
    refuse(engine, "train_step", {2: operation})
    assert_same(follow_all(trials, SPECS), undisturbed)
    assert trials.use().slots == trials.slots == 2
    assert engine.micro_batch_size == 2


def test_steps_that_do_not_fit_again_and_again_end_with_one_slot_and_one_row(
    model_folder: Path, tmp_path: Path, undisturbed: dict[str, Losses]
) -> None:
    engine = make_engine(model_folder)
    trials = make_trials(engine, tmp_path, slots=4)
    refuse(engine, "train_step", {3: 40, 4: 40, 5: 40})
    assert_same(follow_all(trials, SPECS), undisturbed)
    assert (trials.slots, engine.micro_batch_size) == (1, 1)
    tokens = sum(read_progress(tmp_path / name).tokens for name in SPECS)
    assert trials.use().tokens == tokens  # steps that failed count for nothing


@pytest.mark.parametrize("operation", [0, 10, 60])
def test_an_evaluation_that_does_not_fit_is_done_in_parts(
    model_folder: Path, tmp_path: Path, undisturbed: dict[str, Losses], operation: int
) -> None:
    engine = make_engine(model_folder)
    trials = make_trials(engine, tmp_path, slots=4)
    calls = refuse(engine, "eval_loss", {0: operation, 1: operation, 5: operation})
    assert_same(follow_all(trials, SPECS), undisturbed)
    assert calls() > 6
    assert trials.slots == 4


def test_an_evaluation_of_one_slot_that_does_not_fit_is_done_with_fewer_rows(
    model_folder: Path, tmp_path: Path, undisturbed: dict[str, Losses]
) -> None:
    engine = make_engine(model_folder)
    refuse(engine, "eval_loss", {0: 20})
    found = follow_all(make_trials(engine, tmp_path, slots=1), SPECS)
    assert_same(found, undisturbed)
    assert engine.micro_batch_size == 1


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_slot_that_does_not_fit_beside_the_others_waits_for_one_of_theirs(
    model_folder: Path, tmp_path: Path, undisturbed: dict[str, Losses], call: int
) -> None:
    engine = make_engine(model_folder)
    trials = make_trials(engine, tmp_path, slots=4)
    refuse(engine, "admit", {call: 3})
    assert_same(follow_all(trials, SPECS), undisturbed)
    assert trials.use().slots == trials.slots == call
    assert engine.micro_batch_size == 2


@pytest.mark.parametrize(
    ("method", "refusals"), [("train_step", {0: 5, 1: 5}), ("eval_loss", {0: 5, 1: 5}), ("admit", {0: 5})]
)
def test_a_single_row_of_a_single_slot_that_does_not_fit_is_told_to_all(
    model_folder: Path, tmp_path: Path, method: str, refusals: dict[int, int]
) -> None:
    engine = make_engine(model_folder)
    trials = make_trials(engine, tmp_path, slots=1)
    refuse(engine, method, refusals)
    trials.attach("a", make_spec())
    with pytest.raises(TrainingError, match=r"single row of a single adapter does not fit the memory \(refused\)"):
        advance_until_idle(trials)


def test_an_error_that_is_not_about_memory_is_not_swallowed(model_folder: Path, tmp_path: Path) -> None:
    engine = make_engine(model_folder)
    trials = make_trials(engine, tmp_path)

    def broken() -> None:
        raise RuntimeError("shapes differ")

    engine.train_step = broken  # type: ignore[method-assign, assignment]
    trials.attach("a", make_spec())
    with pytest.raises(RuntimeError, match="shapes differ"):
        trials.advance()


def limited_process(storage: Path) -> None:
    """Runs in a process of its own: trials under a limit on memory that four slots exceed and two do not."""
    import resource

    from multi_lora_runs import follow_at_once, random_rows
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from orchestrator.multi_lora.sizing import OutOfMemory, attempt

    def limit(free: int | None) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = resource.RLIM_INFINITY if free is None else pages * resource.getpagesize() + free
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))

    def needed(engine: MultiLoraEngine) -> int:
        """Bytes beyond those in use that a step takes, to 4 MB."""
        low, high = 0, 1 << 27
        while high - low > 1 << 22:
            middle = (low + high) // 2
            limit(middle)
            refused = isinstance(attempt(engine.train_step), OutOfMemory)
            limit(None)
            low, high = (middle, high) if refused else (low, middle)
        return high

    torch.set_num_threads(1)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 256}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 64}
    model = Qwen3ForCausalLM(Qwen3Config(**sizes, **heads)).requires_grad_(requires_grad=False)
    train, val = random_rows(16, seed=1, longest=400), random_rows(4, seed=2, longest=400)
    engine = MultiLoraEngine(model, train, val, batch_size=8, micro_batch_size=8)
    specs = {str(number): make_spec(seed=number, max_steps=4) for number in range(5)}
    undisturbed = follow_at_once(make_trials(engine, storage / "undisturbed"), specs)
    bytes_of = {}
    for number in range(4):
        engine.admit(f"probe-{number}", make_spec(seed=number))
        bytes_of[number + 1] = needed(engine) if number % 2 else 0
    for name in engine.slots:
        engine.evict(name)
    trials = make_trials(engine, storage / "limited")
    limit((bytes_of[2] + bytes_of[4]) // 2)
    limited = follow_at_once(trials, specs)
    limit(None)
    curves = [{name: losses_of(heard) for name, heard in found.items()} for found in (undisturbed, limited)]
    print(json.dumps({"bytes": bytes_of, "slots": trials.slots, "curves": curves}))  # noqa: T201


@pytest.mark.slow
def test_a_processor_whose_memory_is_really_full_trains_all_trials_in_fewer_slots(tmp_path: Path) -> None:
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
import importlib.util
spec = importlib.util.spec_from_file_location("limited", {__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from pathlib import Path
module.limited_process(Path({str(tmp_path)!r}))
"""
    # Every large tensor gets pages of its own, which go back to the system when it is freed.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144"}
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["bytes"]["4"] > 1.3 * found["bytes"]["2"]
    assert found["slots"] == 2
    undisturbed, limited = found["curves"]
    assert undisturbed.keys() == limited.keys()
    for name, points in undisturbed.items():
        assert [tuple(point) for point in limited[name]] == near(points, rel=1e-5)
        assert [step for step, _ in points] == [2, 4]
