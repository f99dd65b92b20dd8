"""The trials of a training or search as they go on: a live table on a terminal, plain lines everywhere else."""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.core import progress
from orchestrator.core.text import bytes_text, duration_text, range_text, sparkline

RUNNING = "running"
COLUMNS = ("trial", "r", "alpha", "rate", "step", "loss", "best", "status")
"""Eight columns fit 80 characters: losses are eval losses, the rate is the learning rate."""
STEP_COLUMNS = ("trial", "epoch", "train loss", "rate", "gradient", "right", "tokens/s", "memory", "curve")
"""Of the trials that train: what their latest step says; `right` is the share of tokens that are the likeliest."""
CURVE_WIDTH = 12
LOSSES_KEPT = 400
"""Train losses that a curve is drawn from; of more, every other is forgotten."""
STEP_LINE_S = 10.0, 30.0
"""Without a terminal: seconds between two lines about steps, in the first minute and after it."""
LINES_BESIDE = 6
"""Lines of a terminal that the table leaves for its head, the clock and what lies above."""


@dataclass(frozen=True)
class _Trial:
    """One trial; `began_at` is the step at which it was started or resumed."""

    trial_id: str
    hyperparameters: Mapping[str, float | int]
    began_at: int
    step: int
    eval_loss: float | None
    best_eval_loss: float
    status: str

    @property
    def is_running(self) -> bool:
        return self.status == RUNNING


class TrialBoard:
    """The `num_trials` trials of a search, each of at most `max_steps` optimizer steps.

    A live table on a terminal, else one line when a trial has news. `num_ended` of the trials ended in an earlier
    session and are not shown.
    """

    def __init__(self, num_trials: int, max_steps: int, num_ended: int = 0) -> None:
        self._num_trials, self._max_steps, self._num_ended = num_trials, max_steps, num_ended
        self._trials: dict[str, _Trial] = {}
        self._last_line: dict[str, float] = {}
        self._started: float | None = None
        self._first_report: tuple[float, int] | None = None
        """When the first evaluation came, and the steps done until then: before it, workers had to start."""
        self._displays = ExitStack()
        self._is_live = False
        self._steps: dict[str, Mapping[str, float]] = {}
        self._losses: dict[str, list[float]] = {}
        self._last_step_line = 0.0
        # The live display redraws from a thread of its own.
        self._lock = threading.Lock()

    def __enter__(self) -> "TrialBoard":
        self._is_live = progress.on_terminal()
        if self._is_live:
            self._displays.enter_context(progress.redrawing())
            self._displays.enter_context(
                Live(get_renderable=self._render, console=progress.console, refresh_per_second=2)
            )
        return self

    def __exit__(self, *_error: object) -> None:
        self._displays.close()
        self._is_live = False

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
            if self._started is None:
                self._started = time.monotonic()
            before = self._trials.get(trial_id)
            best, began_at = (before.best_eval_loss, before.began_at) if before else (math.inf, step)
            if eval_loss is not None and math.isfinite(eval_loss):
                best = min(best, eval_loss)
            trial = _Trial(trial_id, dict(hyperparameters), began_at, step, eval_loss, best, status)
            self._trials[trial_id] = trial
            step = max(step, before.step) if before and before.is_running else step
            trial = replace(trial, step=step)
            self._trials[trial_id] = trial
            if self._first_report is None and step > began_at:
                self._first_report = (time.monotonic(), self._steps_done())
        if not self._is_live and trial != before:
            self._print_line(trial, is_news=before is None or before.status != status)

    def step(self, trial_id: str, step: int, values: Mapping[str, float]) -> None:
        """Record a step of a trial that runs, between its evaluations; `values` as `Tracker.step` hears them."""
        with self._lock:
            before = self._trials[trial_id]
            self._trials[trial_id] = replace(before, step=max(step, before.step))
            self._steps[trial_id] = values
            losses = self._losses.setdefault(trial_id, [])
            losses.append(values["loss"])
            if len(losses) > LOSSES_KEPT:
                del losses[::2]
            if self._first_report is None:
                self._first_report = (time.monotonic(), self._steps_done())
        if not self._is_live:
            progress.alive()
            self._print_step(self._trials[trial_id], values)

    def _print_step(self, trial: _Trial, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        last = max(self._last_step_line, self._last_line.get(trial.trial_id, 0.0))
        early, later = STEP_LINE_S
        if now - last < (early if now - (self._started or now) < 60 else later):
            return
        self._last_step_line = now
        said = ", ".join(step_texts(values).values())
        progress.say(f"{trial.trial_id}: step {trial.step}/{self._max_steps}, {said} ({self._clock()})")

    def _print_line(self, trial: _Trial, *, is_news: bool) -> None:
        now = time.monotonic()
        if not is_news and now - self._last_line[trial.trial_id] < progress.PLAIN_LINE_INTERVAL_S:
            return
        self._last_line[trial.trial_id] = now
        if trial.is_running and is_news:
            given = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in trial.hyperparameters.items())
            begins = f"goes on at step {trial.step}" if trial.step else "begins"
            progress.say(f"{trial.trial_id} {begins}: {given}")
            return
        mark = " (best)" if trial.trial_id == self._best_id() else ""
        status = "" if trial.is_running else f", {trial.status}"
        steps = f"{trial.step}/{self._max_steps}"
        clock = self._clock()
        progress.say(f"{trial.trial_id}: step {steps}, eval loss {loss_text(trial.eval_loss)}{mark}{status} ({clock})")

    def _best_id(self) -> str | None:
        finite = [trial for trial in self._trials.values() if math.isfinite(trial.best_eval_loss)]
        return min(finite, key=lambda trial: trial.best_eval_loss).trial_id if finite else None

    def _clock(self) -> str:
        now = time.monotonic()
        elapsed = 0.0 if self._started is None else now - self._started
        left = self._time_left(now)
        return duration_text(elapsed) + (f", {range_text(*left)} left" if left is not None and left[1] else "")

    def _steps_done(self) -> int:
        return sum(trial.step - trial.began_at for trial in self._trials.values())

    def _time_left(self, now: float) -> tuple[float, float] | None:
        """At most all steps of every trial, at least as many steps as the trials that ended took.

        Unknown before the second evaluation, and before a trial of several has ended.
        """
        trials = self._trials.values()
        ended = [trial.step for trial in trials if not trial.is_running]
        if self._first_report is None or (self._num_trials > 1 and not ended):
            return None
        since, done_before = self._first_report
        done = self._steps_done() - done_before
        to_begin = max(self._num_trials - self._num_ended - len(trials), 0)
        typical = sum(ended) / len(ended) if ended else self._max_steps
        steps = [trial.step for trial in trials if trial.is_running] + [0] * to_begin
        least = done + sum(max(typical - step, 0) for step in steps)
        most = done + sum(self._max_steps - step for step in steps)
        return progress.time_left_s(now - since, done, least, most)

    def _render(self) -> Group:
        with self._lock:
            best_id = self._best_id()
            trials = self._shown(progress.console.size.height - LINES_BESIDE)
            rows = [self._row(trial, is_best=trial.trial_id == best_id) for trial in trials]
            seen, clock = self._num_ended + len(self._trials), self._clock()
            training = [self._step_row(trial) for trial in trials if trial.is_running and trial.trial_id in self._steps]
        hidden = f", {len(self._trials) - len(rows)} of them not shown" if len(rows) < len(self._trials) else ""
        tables = [_table(f"{seen} of {self._num_trials} trials{hidden}", COLUMNS, rows)]
        if training and len(rows) + len(training) + LINES_BESIDE < progress.console.size.height:
            tables.append(_table("The latest steps", STEP_COLUMNS, training))
        return Group(*tables, Text(clock))

    def _shown(self, most: int) -> list[_Trial]:
        """As many trials as fit, in the order in which they began: those that run, then the best."""
        by_need = sorted(self._trials.values(), key=lambda trial: (not trial.is_running, trial.best_eval_loss))
        kept = {trial.trial_id for trial in by_need[: max(most, 1)]}
        return [trial for trial in self._trials.values() if trial.trial_id in kept]

    def _step_row(self, trial: _Trial) -> tuple[str, ...]:
        its, curve = self._steps[trial.trial_id], sparkline(self._losses[trial.trial_id], CURVE_WIDTH)
        rate, accuracy = f"{its['learning_rate']:.2g}", its.get("token_accuracy")
        return (
            trial.trial_id,
            f"{its['epoch']:.2f}",
            loss_text(its["loss"]),
            rate,
            _number(its.get("grad_norm")),
            "-" if accuracy is None else f"{accuracy:.0%}",
            f"{its['tokens_per_s']:,.0f}",
            bytes_text(its["memory_bytes"]),
            curve,
        )

    def _row(self, trial: _Trial, *, is_best: bool) -> tuple[str, ...]:
        given = (_number(trial.hyperparameters.get(name)) for name in ("r", "alpha", "learning_rate"))
        best = loss_text(trial.best_eval_loss)
        steps = f"{trial.step}/{self._max_steps}"
        return (
            trial.trial_id,
            *given,
            steps,
            loss_text(trial.eval_loss),
            best + (" *" if is_best else ""),
            trial.status,
        )


def step_texts(values: Mapping[str, float]) -> dict[str, str]:
    """What a step says, for a line of text, by metric; `values` as `Tracker.step` hears them."""
    texts = {
        "loss": f"train loss {loss_text(values['loss'])}",
        "learning_rate": f"learning rate {values['learning_rate']:.2g}",
        "grad_norm": f"gradient norm {_number(values.get('grad_norm'))}",
        "token_accuracy": f"{values.get('token_accuracy', 0.0):.0%} of tokens right",
        "tokens_per_s": f"{values['tokens_per_s']:,.0f} tokens/s",
        "memory_bytes": bytes_text(values["memory_bytes"]),
    }
    return {name: text for name, text in texts.items() if name in values}


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(Text(column), no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def loss_text(value: float | None) -> str:
    """An eval loss in a terminal; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.4f}"


def _number(value: float | int | None) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
