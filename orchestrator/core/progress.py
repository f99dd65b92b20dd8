"""Progress for a person: live displays on a terminal, plain flushed lines everywhere else. Markup has no effect."""

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from orchestrator.core.text import duration_text

PLAIN_LINE_INTERVAL_S = 5.0
"""Without a terminal, a bar or a trial that goes on as before prints at most one line in this time."""

_console = Console(highlight=False)


def on_terminal() -> bool:
    """Whether stdout is a terminal that can redraw."""
    return sys.stdout.isatty() and not _console.is_dumb_terminal


def say(text: str) -> None:
    """Print one message, above a live display if one is shown."""
    if on_terminal():
        _console.print(Text(text), soft_wrap=True)
    else:
        print(text, flush=True)  # noqa: T201


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; each row has one cell per column."""
    if on_terminal():
        _console.print(_rich_table(title, columns, rows))
        return
    widths = [max(len(cells[i]) for cells in (columns, *rows)) for i in range(len(columns))]
    say(title)
    for cells in (columns, *rows):
        say("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _rich_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(Text(column))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


@contextmanager
def stage(title: str) -> Iterator[None]:
    """Say that a stage starts, and how long it took when it ends."""
    say(f"{title} ...")
    started = time.monotonic()
    outcome = "failed"
    try:
        yield
        outcome = "done"
    except KeyboardInterrupt:
        outcome = "interrupted"
        raise
    finally:
        say(f"{title}: {outcome} after {duration_text(time.monotonic() - started)}")


@contextmanager
def bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Count towards `total` (None: not known); yields a function that adds what was done since its last call.

    Calling it with 0 before anything is done starts the clock of the work itself.
    """
    if not on_terminal():
        counter = _PlainCounter(title, total)
        yield counter.advance
        counter.finish()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=_console) as progress:
        task = progress.add_task(title, total=total)
        yield lambda n: progress.advance(task, n)


class _PlainCounter:
    def __init__(self, title: str, total: int | None) -> None:
        self._title, self._total, self._done = title, total, 0
        self._started = self._last_line = time.monotonic()
        self._shown = -1

    def advance(self, n: int) -> None:
        if self._done == n == 0:  # the work begins only now
            self._started = time.monotonic()
        self._done += n
        if time.monotonic() - self._last_line >= PLAIN_LINE_INTERVAL_S:
            self._print()

    def finish(self) -> None:
        if self._shown != self._done:
            self._print()

    def _print(self) -> None:
        self._shown, self._last_line = self._done, time.monotonic()
        if self._total is None:
            say(f"{self._title}: {self._done:,}")
            return
        left = time_left_s(self._last_line - self._started, self._done, self._total)
        tail = f", about {duration_text(left)} left" if left else ""
        say(f"{self._title}: {self._done}/{self._total}{tail}")


def time_left_s(elapsed_s: float, steps_done: int, steps_possible: int) -> float | None:
    """Seconds left if the remaining steps take as long as those done; None before the first step."""
    if steps_done <= 0:
        return None
    return elapsed_s * max(steps_possible - steps_done, 0) / steps_done


RUNNING = "running"


@dataclass(frozen=True)
class _Trial:
    trial_id: str
    hyperparameters: Mapping[str, float | int]
    step: int
    eval_loss: float | None
    best_eval_loss: float
    status: str


class TrialBoard:
    """The `num_trials` trials of a search, each of at most `max_steps` optimizer steps.

    A live table on a terminal, else one line when a trial has news.
    """

    def __init__(self, num_trials: int, max_steps: int) -> None:
        self._num_trials, self._max_steps = num_trials, max_steps
        self._trials: dict[str, _Trial] = {}
        self._last_line: dict[str, float] = {}
        self._started = time.monotonic()
        self._live: Live | None = None
        # The live display redraws from a thread of its own.
        self._lock = threading.Lock()

    def __enter__(self) -> "TrialBoard":
        if on_terminal():
            self._live = Live(get_renderable=self._render, console=_console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(
        self,
        trial_id: str,
        *,
        hyperparameters: Mapping[str, float | int],
        step: int,
        eval_loss: float | None,
        status: str,
    ) -> None:
        """Record the latest of one trial; any `status` but "running" means that it has ended."""
        with self._lock:
            before = self._trials.get(trial_id)
            best = before.best_eval_loss if before else math.inf
            if eval_loss is not None and math.isfinite(eval_loss):
                best = min(best, eval_loss)
            self._trials[trial_id] = trial = _Trial(trial_id, dict(hyperparameters), step, eval_loss, best, status)
        if self._live is None and trial != before:
            self._print_line(trial, is_news=before is None or before.status != status)

    def _print_line(self, trial: _Trial, *, is_news: bool) -> None:
        now = time.monotonic()
        if not is_news and now - self._last_line[trial.trial_id] < PLAIN_LINE_INTERVAL_S:
            return
        self._last_line[trial.trial_id] = now
        given = " ".join(f"{name} {value:g}" for name, value in trial.hyperparameters.items())
        mark = " (best)" if trial.trial_id == self._best_id() else ""
        say(
            f"trial {trial.trial_id}: {given} | step {trial.step}/{self._max_steps}"
            f" | eval loss {_loss(trial.eval_loss)}{mark} | {trial.status} | {self._clock()}"
        )

    def _best_id(self) -> str | None:
        finite = [trial for trial in self._trials.values() if math.isfinite(trial.best_eval_loss)]
        return min(finite, key=lambda trial: trial.best_eval_loss).trial_id if finite else None

    def _clock(self) -> str:
        elapsed = time.monotonic() - self._started
        trials = self._trials.values()
        # A trial that ended early will not use the steps it had left.
        ended = [trial for trial in trials if trial.status != RUNNING]
        possible = sum(trial.step for trial in ended) + (self._num_trials - len(ended)) * self._max_steps
        left = time_left_s(elapsed, sum(trial.step for trial in trials), possible)
        return f"{duration_text(elapsed)} elapsed" + ("" if left is None else f", about {duration_text(left)} left")

    def _render(self) -> Group:
        with self._lock:
            best_id = self._best_id()
            rows = [self._row(trial, is_best=trial.trial_id == best_id) for trial in self._trials.values()]
            clock = self._clock()
        columns = ("trial", "r", "alpha", "learning rate", "step", "eval loss", "best", "status")
        return Group(_rich_table(f"{len(rows)} of {self._num_trials} trials", columns, rows), Text(clock))

    def _row(self, trial: _Trial, *, is_best: bool) -> tuple[str, ...]:
        given = (_number(trial.hyperparameters.get(name)) for name in ("r", "alpha", "learning_rate"))
        best = _loss(trial.best_eval_loss if math.isfinite(trial.best_eval_loss) else None)
        steps = f"{trial.step}/{self._max_steps}"
        return (trial.trial_id, *given, steps, _loss(trial.eval_loss), best + (" *" if is_best else ""), trial.status)


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _number(value: float | int | None) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
