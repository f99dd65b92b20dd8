"""What a search costs: multi-LoRA, beside a Ray Train job for each trial, and beside one process that loops TRL.

    python benchmarks/search.py                       # 16 trials of 100 steps on the toy base; about 20 minutes
    python benchmarks/search.py --trials 4 --steps 30 # a quick look

The candidates are drawn once, by the random searcher; every way trains the same list on the same tokens:

- `grid`: multi-LoRA, no early stopping. Not a contender: it gives the final loss of every candidate, by which the
  others are judged, and the tokens that a search without early stopping needs.
- `multi_lora`: `python -m jobs.search` with `search.runner: multi_lora`.
- `isolated`: the same with `search.runner: isolated`, Ray Tune with one TorchTrainer for each trial, as many at once as
  there are CPUs.
- `loop`: one process that trains one candidate after another with TRL as the isolated runner sets it up, on all cores,
  with the tokens loaded once and Ray's ASHA deciding in the same process.

Times are of whole commands, start-up and the local Ray cluster included; the data is prepared before. `to the best` is
when the first candidate that the grid puts within 0.25 % of its best had ended its training.

The ratio of the loop's time to the multi-LoRA search's is taken apart into three, each measured by itself:
samples (tokens trained on, from the trials' records), speed (tokens a second while training, from clocks around the
steps) and overhead (time beside the steps: start-up, evaluation, saving, waiting, each from its own clock).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config.schema import RunConfig
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import TrialRecord
from orchestrator.multi_lora.messages import EngineStatus, EngineUse
from orchestrator.run.folder import run_dir
from orchestrator.run.paths import RunDir

NEAR_THE_BEST = 0.0025
"""Ten per cent of the cells of published sweeps lie this near to the best."""

Candidate = tuple[float, ...]
"""Rank, alpha and learning rate."""


@dataclass(frozen=True)
class Way:
    """How one way of searching went. Seconds; `ended` maps a trial to when its training ended, of those that did."""

    name: str
    wall_s: float
    tokens: int
    tokens_per_s: float
    beside_s: float
    ended: dict[Candidate, float]
    stopped: int
    engines: list[EngineUse]


def main() -> None:
    """Run all ways and print the table."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="search-benchmark-") as storage:
        config = _config(Path(storage), options)
        _job("prepare", config, "data")
        grid, table = _grid(config)
        ways = [_searched(config, "multi_lora"), _loop(config, grid)]
        if not options.skip_isolated:
            ways.append(_searched(config, "isolated"))
        _print(ways, grid, table, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16, help="candidates")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps of a whole trial")
    parser.add_argument("--batch", type=int, default=8, help="samples of a step")
    parser.add_argument("--seed", type=int, default=0, help="of the candidates")
    parser.add_argument("--skip-isolated", action="store_true", help="leave out the slowest way")
    parser.add_argument("--loop", type=Path, help=argparse.SUPPRESS)  # this script's own child
    options = parser.parse_args()
    if options.loop:
        _loop_child(options.loop)
        sys.exit()
    return options


def _config(storage: Path, options: argparse.Namespace) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"base": "tiny"},
            "data": {
                "sources": [{"path": "synthetic", "catalogue": "easy", "limit": 1500}],
                "split": {"val": 0.03, "test": 0.17},
            },
            "train": {
                "max_steps": options.steps,
                "batch_size": options.batch,
                "micro_batch_size": options.batch,
                "early_stopping_patience": None,
            },
            "search": {
                "num_trials": options.trials,
                "searcher": "random",
                "seed": options.seed,
                "space": {"r": [4, 8, 16], "alpha": [16, 32], "learning_rate": {"min": 3e-4, "max": 2e-2}},
            },
            "resources": {"storage_path": str(storage)},
        }
    )


def _job(job: str, config: RunConfig, name: str, **search: Any) -> tuple[RunDir, float]:
    """Run a job under its own name, sharing the data of the first. Returns its run and its wall time in seconds."""
    update = {"name": name, "search": config.search.model_copy(update=search)}
    config = config.model_copy(update=update)
    run = run_dir(config)
    made = [run.root.parent / first for first in ("grid", "data")]  # the grid's run has the tokens too
    if not run.root.exists() and any(folder.exists() for folder in made):
        first = next(folder for folder in made if folder.exists())
        results = shutil.ignore_patterns("trials.jsonl", "adapters", "ray", "config.json")
        shutil.copytree(first, run.root, ignore=results)
    path = run.root.parent / f"{name}.json"
    path.write_text(config.model_dump_json(), encoding="utf-8")
    started = time.monotonic()
    with (run.root.parent / f"{name}.log").open("w", encoding="utf-8") as log:
        done = subprocess.run([sys.executable, "-m", f"jobs.{job}", "--config", str(path)], stdout=log, stderr=log)
    if done.returncode:
        sys.exit(f"{job} failed: {Path(log.name).read_text(encoding='utf-8')[-2000:]}")
    return run, time.monotonic() - started


def _candidate(record: TrialRecord) -> Candidate:
    return tuple(float(record.hyperparameters[key]) for key in ("r", "alpha", "learning_rate"))


def _grid(config: RunConfig) -> tuple[list[TrialRecord], dict[Candidate, float]]:
    """Every candidate trained to its end, in the order in which they were drawn, and their final losses."""
    run, _ = _job("search", config, "grid", scheduler="none")
    records = sorted(read_jsonl(run.trials, TrialRecord), key=lambda record: record.trial_id)
    losses = {_candidate(record): record.curve[-1].eval_loss for record in records if record.stop_reason == "finished"}
    return records, losses


def _searched(config: RunConfig, runner: str) -> Way:
    started = time.time()
    run, wall_s = _job("search", config, runner, runner=runner)
    records = list(read_jsonl(run.trials, TrialRecord))
    (search,) = run.ray.glob("search-*")
    ended = {}
    for record in records:
        if record.stop_reason == "finished":
            last = (search / "tune" / record.trial_id / "result.json").read_text(encoding="utf-8").splitlines()[-1]
            ended[_candidate(record)] = json.loads(last)["timestamp"] - started
    tokens = sum(record.tokens or 0 for record in records)
    stopped = sum(record.stop_reason == "lagging" for record in records)
    rate, beside_s, engines = (
        _clocks(search / "trials", started, started + wall_s) if runner == "multi_lora" else (0, 0, [])
    )
    return Way(runner, wall_s, tokens, rate, beside_s, ended, stopped, engines)


def _clocks(trials: Path, started: float, ended: float) -> tuple[float, float, list[EngineUse]]:
    """Tokens a second in training steps, seconds beside them, and what each engine's time went into."""
    ready, used = sorted(trials.glob("engine-?.json")), sorted(trials.glob("engine-?-use.json"))
    uses = [EngineUse.model_validate_json(path.read_text(encoding="utf-8")) for path in used]
    for path, use in zip(ready, uses, strict=True):
        status = EngineStatus.model_validate_json(path.read_text(encoding="utf-8"))
        print(f"multi-LoRA engine: {status.slots} slots, measured {status.measured}, {use}", file=sys.stderr)
    start_s = max(path.stat().st_mtime for path in ready) - started
    end_s = ended - min(path.stat().st_mtime for path in used)
    own_s = sum(use.eval_s + use.save_s + use.waiting_s for use in uses) / len(uses)
    return sum(use.tokens / use.train_s for use in uses), start_s + own_s + end_s, uses


def _loop(config: RunConfig, grid: Sequence[TrialRecord]) -> Way:
    folder = run_dir(config).root.parent
    settings = {
        "config": config.model_copy(update={"name": "grid"}).model_dump(mode="json"),
        "candidates": [record.hyperparameters for record in grid],
    }
    path = folder / "loop-settings.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    started = time.time()
    subprocess.run(
        [sys.executable, __file__, "--loop", str(path)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wall_s = time.time() - started
    trials = json.loads(path.with_suffix(".out").read_text(encoding="utf-8"))
    ended = {
        _candidate(record): trial["ended"] - started
        for record, trial in zip(grid, trials, strict=True)
        if trial["steps"] == config.train.max_steps
    }
    tokens, train_s = sum(trial["tokens"] for trial in trials), sum(trial["train_s"] for trial in trials)
    beside_s = trials[0]["began"] - started + sum(trial["beside_s"] for trial in trials)
    return Way("loop", wall_s, tokens, tokens / train_s, beside_s, ended, len(trials) - len(ended), [])


def _loop_child(path: Path) -> None:
    """Train the candidates one after the other in this process; writes when each ended and what its time went into."""
    import torch
    from datasets import load_from_disk
    from ray.tune.experiment import Trial
    from transformers import TrainerCallback, set_seed
    from trl import SFTConfig, SFTTrainer

    from orchestrator.models.adapters import peft_config
    from orchestrator.models.base import base_folder, load_frozen_base, load_tokenizer
    from orchestrator.run.cluster import WorkerShape
    from orchestrator.search.early_stopping import make_scheduler
    from orchestrator.search.heard import Heard
    from orchestrator.search.names import HYPERPARAMETERS, PREFIX
    from orchestrator.training.plan import plan_training
    from orchestrator.training.worker import OF_SAMPLES, trainer_settings

    settings = json.loads(path.read_text(encoding="utf-8"))
    config = RunConfig.model_validate(settings["config"])
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)
    run = run_dir(config)
    train, val = (load_from_disk(str(run.root / "data" / "tokens" / part)) for part in ("train", "val"))
    plan = plan_training(config, run, WorkerShape(1, float(cores), 0), num_samples=len(train))
    folder = base_folder(plan.model)
    tokenizer = load_tokenizer(folder, trust_remote_code=False)
    scheduler = make_scheduler(
        config.search.model_copy(update={"scheduler": "asha"}),
        plan,
        Heard(),
        num_trials=len(settings["candidates"]),
        group=1,
        answer=lambda *_: None,
    )
    scheduler.set_search_properties("eval_loss", "min")

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Clocks around the steps, and ASHA's decisions."""

        def __init__(self, trial: Trial) -> None:
            self.trial, self.train_s, self.tokens, self.steps = trial, 0.0, 0, 0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.step_began = time.perf_counter()

        def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            self.train_s += time.perf_counter() - self.step_began
            self.steps = state.global_step

        def on_log(self, _args: Any, _state: Any, _control: Any, logs: dict[str, Any], **_: Any) -> None:
            self.tokens = int(logs.get("num_tokens", self.tokens))

        def on_evaluate(self, _args: Any, state: Any, control: Any, metrics: dict[str, Any], **_: Any) -> None:
            result = {"training_iteration": state.global_step, "step": state.global_step, **metrics}
            control.should_training_stop |= scheduler.on_trial_result(None, self.trial, result) == "STOP"

    trials = []
    for number, candidate in enumerate(settings["candidates"]):
        began, clock = time.time(), time.perf_counter()
        chosen = plan.with_hyperparameters(candidate)
        trial = Trial("stub", stub=True, trial_name_creator=lambda _, name=f"{PREFIX}{number + 1}": name)
        trial.set_config({HYPERPARAMETERS: candidate})
        scheduler.on_trial_add(None, trial)
        watch = Watch(trial)
        set_seed(chosen.train.seed)
        with tempfile.TemporaryDirectory() as output_dir:
            SFTTrainer(
                model=load_frozen_base(folder, chosen.model),
                args=SFTConfig(**trainer_settings(chosen) | OF_SAMPLES | {"ddp_backend": None}, output_dir=output_dir),
                train_dataset=train,
                eval_dataset=val,
                processing_class=tokenizer,
                peft_config=peft_config(chosen.lora),
                callbacks=[watch],
            ).train()
        beside_s = time.perf_counter() - clock - watch.train_s
        trials.append(
            {
                "began": began,
                "ended": time.time(),
                "train_s": watch.train_s,
                "beside_s": beside_s,
                "tokens": watch.tokens,
                "steps": watch.steps,
            }
        )
    path.with_suffix(".out").write_text(json.dumps(trials), encoding="utf-8")


def _print(
    ways: Sequence[Way], grid: Sequence[TrialRecord], losses: dict[Candidate, float], options: argparse.Namespace
) -> None:
    best = min(losses.values())
    good = {candidate for candidate, loss in losses.items() if loss <= best * (1 + NEAR_THE_BEST)}
    whole = sum(record.tokens or 0 for record in grid)
    print(
        f"{len(grid)} candidates, {options.steps} steps of {options.batch}; {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(
        f"best final loss {best:.4f}; within {NEAR_THE_BEST:.2%} of it: {len(good)}; the whole grid: {whole:,} tokens"
    )
    print(f"{'way':<10}{'whole s':>9}{'to the best s':>15}{'stopped':>9}{'tokens':>12}{'tokens/s in steps':>19}")
    for way in ways:
        found = min((seconds for candidate, seconds in way.ended.items() if candidate in good), default=None)
        shown = "never" if found is None else f"{found:.0f}"
        rate = f"{way.tokens_per_s:,.0f}" if way.tokens_per_s else "-"
        print(f"{way.name:<10}{way.wall_s:>9.0f}{shown:>15}{way.stopped:>9}{way.tokens:>12,}{rate:>19}")
    ours, loop = ways[0], ways[1]
    for way in ways[1:]:
        print(f"{way.name} / multi_lora, whole: {way.wall_s / ours.wall_s:.2f}")
    samples, speed = loop.tokens / ours.tokens, ours.tokens_per_s / loop.tokens_per_s
    overhead = _overhead(loop) / _overhead(ours)
    print(
        f"loop / multi_lora = {loop.wall_s / ours.wall_s:.2f}: samples {samples:.2f} x speed {speed:.2f} x overhead "
        f"{overhead:.2f} = {samples * speed * overhead:.2f}"
    )
    print(f"early stopping avoids {1 - ours.tokens / whole:.0%} of the grid's tokens ({whole / ours.tokens:.2f} x)")
    starved, waiting, busy, opened = (
        sum(getattr(use, key) for use in ours.engines) / len(ours.engines)
        for key in ("starved_s", "waiting_s", "busy_slot_s", "open_slot_s")
    )
    occupied = f"slots busy {busy / opened:.1%} while new trials came" if opened else "no trial ever waited for a slot"
    print(
        f"multi_lora: nothing to train for {starved / len(grid):.2f} s a trial while more were to come, and for "
        f"{waiting - starved:.1f} s in the end; {occupied}"
    )


def _overhead(way: Way) -> float:
    """The whole over the time in training steps."""
    train_s = way.tokens / way.tokens_per_s
    return (train_s + way.beside_s) / train_s


if __name__ == "__main__":
    main()
