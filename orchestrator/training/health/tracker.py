"""Checks the health of each trial while it trains: says each finding once, and keeps all in `run.json`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from datasets import load_from_disk

from orchestrator.config.schema import RangeConfig, RunConfig
from orchestrator.core.files import parse_line
from orchestrator.core.progress import say
from orchestrator.core.records import EvalPoint, Finding, StopReason
from orchestrator.core.steps import BASE, BaseReading
from orchestrator.run.folder import read_ledger, record_findings
from orchestrator.run.paths import RunDir
from orchestrator.tracking.tracker import RunInfo
from orchestrator.training.health.checks import findings_of, rate_at_edge
from orchestrator.training.health.series import Point, Series, Setting

EVERY_STEPS, EVERY_SHARE = 4, 32
"""Between evaluations, a trial is looked at after so many steps, or this part of those that it has done: a look goes
through all of them, and a long training is looked at no more often than it can change."""
OF_THE_RUN = ("eval_set_leaks", "eval_set_small", "unknown_template", "rate_at_edge")
"""Findings about what all trials share; said of the run, once."""


class Health:
    """A tracker that tells and records findings."""

    def run_started(self, run: RunInfo) -> None:
        """Read what the trials train with."""
        self._run, self._info = RunDir(run.folder), run
        self._series: dict[str, Series] = {}
        self._next: dict[str, int] = {}
        self._rates: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._found = {_key(its): its for its in read_ledger(self._run).findings}
        self._said: set[tuple[str, str | None]] = set()
        self._setting = _setting(self._run, run)

    def trial_started(self, trial: str, hyperparameters: Mapping[str, float | int], step: int) -> None:
        """Forget what was found of an earlier training under this name that is not gone on with."""
        if trial not in self._series:
            self._series[trial] = Series(trial, self._setting, [], [], resumed=step > 0)
        self._next.pop(trial, None)
        if not step:
            self._found = {key: its for key, its in self._found.items() if its.trial != trial}
        self._rates[trial] = float(hyperparameters.get("learning_rate", math.nan))

    def step(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        """Note the step, and look now and then."""
        series = self._series[trial]
        point = Point(
            step,
            values["loss"],
            values["learning_rate"],
            values.get("grad_norm"),
            values.get("token_accuracy"),
            values["epoch"],
        )
        series.steps.append(point)
        if step >= self._next.get(trial, EVERY_STEPS) or not math.isfinite(point.loss):
            self._next[trial] = step + max(EVERY_STEPS, step // EVERY_SHARE)
            self._look(trial)

    def metrics(self, trial: str, step: int, values: Mapping[str, float]) -> None:
        """Note the evaluation, and look."""
        loss, train = values["eval_loss"], values.get("train_loss")
        if math.isfinite(loss):
            self._series[trial].curve.append(EvalPoint(step=step, eval_loss=loss, train_loss=train))
            self._best[trial] = min(loss, self._best.get(trial, math.inf))
        self._look(trial)

    def trial_ended(self, trial: str, reason: StopReason) -> None:
        """Look for the last time."""
        if reason != "failed":
            self._look(trial)

    def run_ended(self) -> None:
        """Look at the search as a whole."""
        if self._best:
            best = min(self._best, key=lambda trial: self._best[trial])
            low, high = _ends(_config(self._run), list(self._rates.values()))
            if found := rate_at_edge(self._rates[best], low, high, num_trials=len(self._best)):
                self._tell([found])

    def _look(self, trial: str) -> None:
        series = self._series[trial]
        if series.setting.base is None and (base := _reading(self._run)) is not None:
            self._setting = replace(self._setting, base=base)
            series = self._series[trial] = replace(series, setting=self._setting)
        self._tell(findings_of(series))

    def _tell(self, findings: list[Finding]) -> None:
        of_the_run = [
            its.model_copy(update={"trial": None, "step": None}) for its in findings if its.name in OF_THE_RUN
        ]
        news = [its for its in findings if its.name not in OF_THE_RUN] + of_the_run
        news = [its for its in news if _key(its) not in self._said]
        for its in news:
            self._said.add(_key(its))
            if _key(its) in self._found:
                continue  # said before the run was interrupted
            self._found[_key(its)] = its
            say(f"{'Warning' if its.is_alarm else 'Note'}, {its.trial or 'this run'}: {its.evidence} {its.advice}")
        if news:
            record_findings(self._run, list(self._found.values()))


def _key(its: Finding) -> tuple[str, str | None]:
    return its.name, its.trial


def _setting(run: RunDir, info: RunInfo) -> Setting:
    config = _config(run)
    val_rows, shared = _rows(run)
    return Setting(
        max_steps=info.max_steps,
        warmup_steps=config.train.warmup_steps(info.max_steps) if config is not None else 0,
        val_rows=val_rows,
        shared_rows=shared,
    )


def _config(run: RunDir) -> RunConfig | None:
    return RunConfig.model_validate_json(run.config.read_text(encoding="utf-8")) if run.config.is_file() else None


def _rows(run: RunDir) -> tuple[int | None, int]:
    """Rows of the eval set, and how many of them have the tokens of a row that is trained on."""
    folders = [run.root / "data" / "tokens" / part for part in ("train", "val")]
    if not all(folder.is_dir() for folder in folders):
        return None, 0
    val = list(_token_bytes(folders[1]))
    wanted = set(val)
    learned = {row for row in _token_bytes(folders[0]) if row in wanted}
    return len(val), sum(row in learned for row in val)


def _token_bytes(folder: Path) -> Iterator[bytes]:
    """The tokens of each row, without a Python object for every token."""
    for chunk in load_from_disk(str(folder)).with_format("arrow")[:].column("input_ids").chunks:
        ids = chunk.values.to_numpy()
        for start, end in pairwise(chunk.offsets.to_numpy().tolist()):
            yield ids[start:end].tobytes()


def _reading(run: RunDir) -> BaseReading | None:
    """What the base makes of the rows, from the latest training of the run."""
    places: list[Path] = [*run.ray.glob(f"search-*/trials/{BASE}"), *run.ray.glob(f"train/{BASE}")]
    newest = max(places, key=lambda path: path.stat().st_mtime, default=None)
    return None if newest is None else parse_line(newest.read_text("utf-8"), BaseReading, where=str(newest))


def _ends(config: RunConfig | None, tried: Sequence[float]) -> tuple[float, float]:
    """The least and the largest learning rate of the space; where it names none, of those that were tried."""
    rates = config.search.space.learning_rate if config is not None else None
    if isinstance(rates, RangeConfig):
        return rates.min, rates.max
    return min(rates or tried), max(rates or tried)
