"""A tracker is one file and one row in one table."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from builders import make_plan

ROOT = Path(__file__).resolve().parents[2]
LAST_ROW = "    Health,\n"
TRACKER = '''
"""Notes: a line of a file for each call."""

import json
from collections.abc import Mapping
from pathlib import Path

from orchestrator.core.records import StopReason
from orchestrator.tracking.tracker import RunInfo


class Notes:
    """Writes `notes.jsonl` into the run's folder."""

    def run_started(self, run: RunInfo) -> None:
        self._path = run.folder / "notes.jsonl"
        self._note("run_started", run.num_trials, run.max_steps)

    def trial_started(self, trial: str, hyperparameters: Mapping[str, float | int], step: int) -> None:
        self._note("trial_started", trial, dict(hyperparameters), step)

    def step(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        self._note("step", trial, step, dict(values))

    def metrics(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        self._note("metrics", trial, step, dict(values))

    def trial_ended(self, trial: str, reason: StopReason) -> None:
        self._note("trial_ended", trial, reason)

    def run_ended(self) -> None:
        self._note("run_ended")

    def _note(self, *words: object) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(words) + "\\n")
'''
HYPERPARAMETERS = {"r": 8, "alpha": 16, "learning_rate": 1e-3}
STEP = {"loss": 3, "learning_rate": 1e-4, "tokens": 9, "tokens_per_s": 2, "memory_bytes": 7, "epoch": 1}
PROGRAM = """
import pickle
import sys
from pathlib import Path

from ray.tune.experiment import Trial

from orchestrator.core.steps import StepLog, StepRow
from orchestrator.search.names import storage_name
from orchestrator.search.tell import TellTrackers
from orchestrator.training.listen import Listener
from orchestrator.training.plan import TrainPlan
from orchestrator.training.trackers import tracked
from orchestrator.tracking.tracker import RunInfo

points = [{"step": 5, "eval_loss": 2.0, "train_loss": 2.5}]
with (
    tracked(RunInfo(Path.cwd(), num_trials=2, max_steps=10), ()) as trackers,
    Listener(trackers) as listener,
):
    tell = TellTrackers(listener, TrainPlan.model_validate_json(sys.argv[1]), Path.cwd(), Path.cwd())
    for name, result in (
        ("trial-1", {"step": 5, "eval_loss": 2.0, "diverged": False, "curve": points, "tokens": 70}),
        ("trial-2", {"step": 5, "eval_loss": 1e9, "diverged": True, "curve": []}),
    ):
        config = {"hyperparameters": {"r": 8, "alpha": 16, "learning_rate": 1e-3}}
        trial = Trial("train", trial_name_creator=lambda _, name=name: name, stub=True, config=config)
        tell.on_trial_start(0, [trial], trial)
        if name == "trial-1":
            log = StepLog(Path(storage_name(name, config["hyperparameters"])), 0)
            log.add(StepRow.model_validate_json(sys.argv[2]))
            log.flush()
        tell.on_trial_result(0, [trial], trial, result)
        trial.run_metadata.last_result = result
        tell.on_trial_complete(0, [trial], trial)
    tell.on_trial_error(0, [trial], trial)
pickle.loads(pickle.dumps(tell))
"""


def test_a_tracker_is_one_file_and_one_row(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "orchestrator", tree / "orchestrator", ignore=shutil.ignore_patterns("__pycache__"))
    (tree / "orchestrator/training/notes.py").write_text(TRACKER.lstrip(), encoding="utf-8")
    table = tree / "orchestrator/training/trackers.py"
    text = table.read_text(encoding="utf-8")
    assert text.count(LAST_ROW) == 1
    imports = "from orchestrator.training.notes import Notes\n"
    changed = text.replace(LAST_ROW, f"{LAST_ROW}    Notes,\n").replace(
        "\nfrom orchestrator", f"\n{imports}from orchestrator", 1
    )
    table.write_text(changed, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    command = [sys.executable, "-c", PROGRAM, make_plan(max_steps=10).model_dump_json()]
    command.append(json.dumps({"step": 1, "at": 0, **STEP}))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    notes = [json.loads(line) for line in (tmp_path / "notes.jsonl").read_text(encoding="utf-8").splitlines()]
    assert str(notes.pop(6)[3]) == "{'eval_loss': nan}"
    assert notes == [
        ["run_started", 2, 10],
        ["trial_started", "trial-1", HYPERPARAMETERS, 0],
        ["step", "trial-1", 1, STEP],
        ["metrics", "trial-1", 5, {"eval_loss": 2.0, "train_loss": 2.5, "tokens": 70.0}],
        ["trial_ended", "trial-1", "lagging"],
        ["trial_started", "trial-2", HYPERPARAMETERS, 0],
        ["trial_ended", "trial-2", "diverged"],
        ["trial_ended", "trial-2", "failed"],
        ["run_ended"],
    ]
