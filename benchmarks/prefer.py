"""What preferences change: an adapter before and after them on the same held-out cases, over several seeds.

    python benchmarks/prefer.py                            # the toy base, 3 seeds
    python benchmarks/prefer.py --seeds 1 --only 0         # one of them; finished runs are read and not made again
    python benchmarks/prefer.py --config configs/smollm2-135m.yaml --set eval.max_cases=80

Each seed is a run of its own, `stages: [sft, prefer]`, whose search, training, sampling and order of pairs have that
seed; the data and its split are the same. The goal is that refusal accuracy, or how often the adapter says that no tool
fits, gets better (p < 0.05 over all seeds together) while at most 2 points of the calls are lost.

A case counts once for each seed, and a case's seeds are kept together: p is that of the sign-flip test over cases.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean

from evals.records import Scores
from evals.stats.comparison import sign_flip_p
from evals.stats.metrics import METRICS
from evals.stats.preferred import CALLS, COMPARED, MOST_LOST
from orchestrator.core.records import MetricName
from orchestrator.run.paths import RunDir, preferred_id

GOALS: tuple[MetricName, ...] = ("refusal_accuracy", "no_tool_accuracy")
LEVEL = 0.05


def main() -> None:
    """Make the runs that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/demo.yaml")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=int, help="make the run of this seed alone")
    parser.add_argument("--storage", type=Path, default=Path("runs"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    seeds = range(options.seeds) if options.only is None else [options.only]
    for seed in seeds:
        make(options.config, seed, options.storage, options.overrides)
    made = [read(run_of(options.storage, options.config, seed)) for seed in seeds]
    print(json.dumps(table(made), indent=2))


def run_of(storage: Path, config: str, seed: int) -> RunDir:
    """Where the run of a seed lies."""
    return RunDir(storage.resolve() / f"prefer-{Path(config).stem}-{seed}")


def make(config: str, seed: int, storage: Path, overrides: Sequence[str]) -> None:
    """Do, or go on with, the run of a seed."""
    run = run_of(storage, config, seed)
    settings = [
        f"name={run.root.name}",
        f"resources.storage_path={storage.resolve()}",
        "stages=[sft, prefer]",
        *(f"{section}.seed={seed}" for section in ("train", "search", "prefer")),
        *overrides,
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    subprocess.run([sys.executable, "-m", "orchestrator", "run", config, *words], check=True)


def read(run: RunDir) -> tuple[Scores, Scores]:
    """The scores of a run's adapter before preferences and after."""
    (place,) = run.root.glob("preferences/*/trials.jsonl")
    start = place.parent.name
    before, after = (run.scores(name).read_text(encoding="utf-8") for name in (start, preferred_id(start)))
    return Scores.model_validate_json(before), Scores.model_validate_json(after)


def table(made: Sequence[tuple[Scores, Scores]]) -> dict[str, object]:
    """Per figure: the shares before and after of each seed, the mean difference, and p over all."""
    rows = {name: row for name in COMPARED if (row := compared(name, made))}
    better = [name for name in GOALS if name in rows and is_better(rows[name])]
    calls = rows[CALLS]["difference"] if CALLS in rows else 0.0
    reached = bool(better) and calls >= -MOST_LOST
    return {"seeds": len(made), "figures": rows, "better": better, "calls": calls, "goal": reached}


def is_better(row: dict[str, float]) -> bool:
    """Whether a figure is shown to be better."""
    return row["difference"] > 0 and row["p"] < LEVEL


def compared(name: MetricName, made: Sequence[tuple[Scores, Scores]]) -> dict[str, float]:
    """One figure over all seeds; empty without cases. Differences are positive where it got better."""
    sign = 1 if METRICS[name].higher_is_better else -1
    leads, before, after = defaultdict[str, int](int), list[bool](), list[bool]()
    for scores in made:
        for case_id, was, is_ in outcomes(name, *scores):
            leads[case_id] += sign * (is_ - was)
            before.append(was)
            after.append(is_)
    if not before:
        return {}
    return {
        "cases": len(before) / len(made),
        "before": round(fmean(before), 4),
        "after": round(fmean(after), 4),
        "difference": round(sign * (fmean(after) - fmean(before)), 4),
        "p": sign_flip_p(list(leads.values())),
    }


def outcomes(name: MetricName, before: Scores, after: Scores) -> Iterator[tuple[str, bool, bool]]:
    """Each case of a figure that was scored both times, with both outcomes."""
    outcome = METRICS[name].outcome
    assert outcome is not None
    later = {verdict.case_id: verdict for verdict in after.verdicts if verdict.correct is not None}
    for verdict in before.verdicts:
        both = outcome(verdict), outcome(later[verdict.case_id]) if verdict.case_id in later else None
        if verdict.correct is not None and both[0] is not None and both[1] is not None:
            yield verdict.case_id, both[0], both[1]


if __name__ == "__main__":
    main()
