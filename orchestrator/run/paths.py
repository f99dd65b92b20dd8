"""The layout of a run folder, which nothing else knows.

<storage>/<name>/config.json  run.json  data/  trials.jsonl  adapters/<id>/  evals/<id>/  report/  ray/
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SplitName = Literal["train", "val", "test"]
StageName = Literal["prepare", "train", "search", "prefer", "evaluate", "report"]


def preferred_id(adapter_id: str) -> str:
    """The name of what an adapter of the run becomes by preferences."""
    return f"{adapter_id}-prefer"


class _Below:
    """An attribute of a run folder: the path `place` below its root."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __get__(self, run: "RunDir", _owner: type["RunDir"]) -> Path:
        return run.root / self._place


@dataclass(frozen=True)
class RunDir:
    """Paths of one run; `root` is absolute. `adapter_id` may be `base`, except for `adapter`."""

    root: Path

    config = _Below("config.json")
    """The resolved configuration."""
    ledger = _Below("run.json")
    """The stage ledger."""
    progress = _Below("progress.json")
    """How far the run is."""
    log = _Below("job.log")
    """Tracebacks of unexpected errors, warnings of libraries, messages of Ray."""
    quarantine = _Below("data/quarantine.jsonl")
    """Rows that could not become samples."""
    card = _Below("data/card.json")
    """What the data is: counts by source, kind and reason."""
    trials = _Below("trials.jsonl")
    """One TrialRecord a line."""
    report = _Below("report")
    """Folder of report.html, cases.html, report.json and report.md."""
    tracking = _Below("tracking")
    """Folder of what outside trackers are sent, and of their own logs."""
    events = _Below("tracking/events.jsonl")
    """What outside trackers are sent."""
    tensorboard = _Below("tensorboard")
    """TensorBoard's files, one folder a trial."""
    ray = _Below("ray")
    """Ray Train's and Ray Tune's own files."""
    cases = _Below("evals/cases.jsonl")
    """The held-out cases that every adapter is scored on."""
    selected = _Below("selection/selection.json")
    """By what rule a search chose its adapters, and what it saw of each; there only where not by eval loss alone."""
    budget = _Below("budget.json")
    """What a search with a budget spent, round by round, and why it ended."""
    latency = _Below("evals/latency.jsonl")
    """How long some of the cases took, each asked alone."""

    def split(self, part: SplitName) -> Path:
        """The canonical samples of one part."""
        return self.root / "data" / f"{part}.jsonl"

    def adapter(self, adapter_id: str) -> Path:
        """Folder of one adapter: PEFT files and adapter.json."""
        return self.root / "adapters" / adapter_id

    def adapter_record(self, adapter_id: str) -> Path:
        """What one adapter is."""
        return self.adapter(adapter_id) / "adapter.json"

    def generations(self, adapter_id: str) -> Path:
        """What the adapter replied."""
        return self.root / "evals" / adapter_id / "generations.jsonl"

    def scores(self, adapter_id: str) -> Path:
        """How those replies were judged."""
        return self.root / "evals" / adapter_id / "scores.json"

    def engine(self, adapter_id: str) -> Path:
        """How those replies were made."""
        return self.root / "evals" / adapter_id / "engine.json"

    def failure(self, adapter_id: str) -> Path:
        """Why an adapter could not be scored; there only where it could not."""
        return self.root / "evals" / adapter_id / "failure.json"

    def server_log(self, adapter_id: str) -> Path:
        """What the server said that was started to be held against those replies."""
        return self.root / "evals" / adapter_id / "server.log"

    def judgements(self, adapter_id: str) -> Path:
        """The judge model's second opinions on those replies; there only where it was asked."""
        return self.root / "evals" / adapter_id / "judgements.jsonl"

    def preferences(self, adapter_id: str) -> "RunDir":
        """What an adapter learns from preferences: its pairs, its replies to training prompts, and the training."""
        return RunDir(self.root / "preferences" / adapter_id)

    @property
    def selection(self) -> "RunDir":
        """What a search's adapters replied to validation cases, by checkpoint, where that has a say in its choice."""
        return RunDir(self.root / "selection")

    @property
    def full_base(self) -> "RunDir":
        """Where replies and scores on the full base lie, where adapters are scored on a quantised one and on that."""
        return RunDir(self.root / "full_base")

    @property
    def judge(self) -> "RunDir":
        """Where the judge model's own replies lie, like those of an adapter."""
        return RunDir(self.root / "judge")
