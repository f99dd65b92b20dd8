"""Whether a search by generated replies finds a better adapter than one by eval loss, and what that costs.

    python benchmarks/objective.py                       # the toy base, 3 seeds
    python benchmarks/objective.py --seeds 5 --base smollm2-135m --steps 30

For each seed (of the data, the search and the training) two searches of the same space and number of trials: one by
eval loss, one by the objective under the constraint. The first adapter of each is scored on the same held-out cases,
and the paired difference in the objective is that of the second less the first. Device seconds are those of the
trials, and of the engine that scored them. Over the seeds: the mean difference with the p of a sign-flip test over
seeds, which cannot be below 2 / 2^seeds.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from evals.records import Scores
from evals.stats.objective import Aim, Gap, compare_sides
from evals.stats.selected import read_selection
from orchestrator.config.load import load_config
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import TrialRecord
from orchestrator.run.folder import run_dir
from orchestrator.run.paths import RunDir

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "demo.yaml"
OBJECTIVE = "{tool_call_accuracy: 1, no_call_accuracy: 1}"
CONSTRAINTS = "{tool_call_accuracy: {min: 0.5}}"


class Found(NamedTuple):
    """One seed: the gap on held-out cases, what either search spent, and whether the first adapters differ."""

    gap: Gap | None
    by_loss_s: float
    by_score_s: float
    scoring_s: float
    wall_s: tuple[float, float]


def command(*words: str) -> float:
    """Run a command of the orchestrator; its seconds."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "orchestrator", *words], check=False, env=os.environ)
    if done.returncode not in (0, 2):
        sys.exit(done.returncode)
    return time.monotonic() - started


def settings(args: argparse.Namespace, storage: Path, seed: int, name: str) -> list[str]:
    """`--set` options of one search."""
    values = {
        "name": name,
        "resources.storage_path": str(storage),
        "model.base": args.base,
        "data.split": f"{{val: 0.15, test: 0.25, seed: {seed}}}",
        "search.seed": str(seed),
        "train.seed": str(seed),
        "search.num_trials": str(args.trials),
        "search.keep": "1",
        "train.max_steps": str(args.steps),
        "eval.latency_cases": "0",
    }
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


def device_seconds(run: RunDir) -> float:
    """Seconds of devices that the trials used."""
    return sum(trial.device_s or 0.0 for trial in read_jsonl(run.trials, TrialRecord))


def scores(run: RunDir, adapter: str) -> Scores:
    """What an adapter made of the held-out cases."""
    return Scores.model_validate_json(run.scores(adapter).read_text(encoding="utf-8"))


def one_seed(args: argparse.Namespace, storage: Path, seed: int) -> Found:
    """Both searches of a seed, and their first adapters on held-out cases."""
    aim = ["--set", f"search.objective={OBJECTIVE}", "--set", f"search.constraints={CONSTRAINTS}"]
    common = settings(args, storage, seed, f"loss-{seed}")
    loss_wall = command("search", str(CONFIG), *common)
    scored = [*settings(args, storage, seed, f"score-{seed}"), *aim]
    score_wall = command("search", str(CONFIG), *scored)
    options = [value for word, value in itertools.pairwise(scored) if word == "--set"]
    run = run_dir(load_config(CONFIG, options))
    loss_run = RunDir(run.root.parent / f"loss-{seed}")
    first = next(trial.adapter_id for trial in read_jsonl(loss_run.trials, TrialRecord) if trial.adapter_id)
    other = run.root.parent / "others" / f"by-loss-{seed}"
    other.parent.mkdir(exist_ok=True)
    other.symlink_to(loss_run.adapter(first))
    command("evaluate", str(CONFIG), *scored, "--adapter", str(other))
    selection = read_selection(run)
    assert selection is not None
    gap = compare_sides(
        Aim.of(load_config(CONFIG, options).search).weights, scores(run, selection.kept[0]), scores(run, other.name)
    )
    spent = device_seconds(run), selection.scoring_s
    return Found(gap, device_seconds(loss_run), spent[0], spent[1], (loss_wall, score_wall))


def sign_flips(differences: list[float]) -> float:
    """Two-sided p of the mean under exchange of the two searches of any seed."""
    seen = abs(sum(differences))
    flips = itertools.product((1, -1), repeat=len(differences))
    sums = [abs(sum(sign * value for sign, value in zip(signs, differences, strict=True))) for signs in flips]
    return sum(value >= seen - 1e-12 for value in sums) / len(sums)


def main() -> None:
    """Run all seeds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--storage", type=Path, default=None)
    args = parser.parse_args()
    storage = args.storage or Path(tempfile.mkdtemp())
    storage.mkdir(parents=True, exist_ok=True)
    found = {}
    for seed in range(args.first, args.first + args.seeds):
        one = found[seed] = one_seed(args, storage, seed)
        line = {
            "seed": seed,
            "difference": one.gap and round(one.gap.difference, 4),
            "p": one.gap and round(one.gap.p_value, 4),
            "by_loss_s": round(one.by_loss_s, 1),
            "by_score_s": round(one.by_score_s, 1),
            "scoring_s": round(one.scoring_s, 1),
            "ratio": round((one.by_score_s + one.scoring_s) / one.by_loss_s, 3),
            "wall_s": [round(seconds, 1) for seconds in one.wall_s],
        }
        print(json.dumps(line), flush=True)
    differences = [one.gap.difference for one in found.values() if one.gap is not None]
    mean = sum(differences) / max(1, len(differences))
    print(json.dumps({"mean_difference": round(mean, 4), "p_over_seeds": sign_flips(differences)}))


if __name__ == "__main__":
    main()
