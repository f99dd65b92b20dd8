"""The layout of a run folder, which nothing else knows.

<storage>/<name>/config.json  run.json  data/  trials.jsonl  adapters/<id>/  evals/<id>/  report/  ray/
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SplitName = Literal["train", "val", "test"]
StageName = Literal["prepare", "train", "search", "evaluate", "report"]


@dataclass(frozen=True)
class RunDir:
    """Paths of one run; `root` is absolute."""

    root: Path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.json"

    @property
    def ledger(self) -> Path:
        """The stage ledger."""
        return self.root / "run.json"

    @property
    def log(self) -> Path:
        """Tracebacks of unexpected errors."""
        return self.root / "job.log"

    @property
    def quarantine(self) -> Path:
        """Rows that could not become samples."""
        return self.root / "data" / "quarantine.jsonl"

    @property
    def card(self) -> Path:
        """What the data is: counts by source, kind and reason."""
        return self.root / "data" / "card.json"

    @property
    def trials(self) -> Path:
        """One TrialRecord a line."""
        return self.root / "trials.jsonl"

    @property
    def report(self) -> Path:
        """Folder of report.html, report.json and report.md."""
        return self.root / "report"

    @property
    def ray(self) -> Path:
        """Ray Train's and Ray Tune's own files."""
        return self.root / "ray"

    def split(self, part: SplitName) -> Path:
        """The canonical samples of one part."""
        return self.root / "data" / f"{part}.jsonl"

    def adapter(self, adapter_id: str) -> Path:
        """Folder of one adapter: PEFT files and adapter.json."""
        return self.root / "adapters" / adapter_id

    @property
    def cases(self) -> Path:
        """The held-out cases that every adapter is scored on."""
        return self.root / "evals" / "cases.jsonl"

    def generations(self, adapter_id: str) -> Path:
        """What one adapter (or `base`) replied."""
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

    def judgements(self, adapter_id: str) -> Path:
        """Second opinions of the judge model on those replies; there only where it was asked."""
        return self.root / "evals" / adapter_id / "judgements.jsonl"

    @property
    def judge(self) -> "RunDir":
        """Where the judge model's own replies lie, like those of an adapter."""
        return RunDir(self.root / "judge")
