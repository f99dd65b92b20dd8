"""Progress for a person: live displays on a terminal, plain flushed lines everywhere else. Markup has no effect."""

import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from orchestrator.core.interrupt import is_interrupted
from orchestrator.core.text import duration_text, range_text, shown, visible_json

PLAIN_LINE_INTERVAL_S = 5.0
"""Without a terminal, a bar or a trial that goes on as before prints at most one line in this time."""
QUIET_S = 8.0
"""After this time without a line, a stage says what it waits for."""
SELDOM_S = 30.0
"""What has gone on for long is told again after a quarter of its time, but at least this often."""
PLAIN_WIDTH = 80
"""Columns of what is no terminal, unless COLUMNS says otherwise."""
LEAST_TEXT_WIDTH = 30
"""Columns below which the text of a table's last column is not wrapped."""
SURE_SHARE = 0.1
"""The share of the work after which the time left is told."""
SPREAD = 0.8, 1.25
"""The time left is told as a range: these multiples of the estimate."""

console = Console(highlight=False)

_planned: ContextVar[tuple[str, ...]] = ContextVar("planned", default=())


class _Signs:
    """When this process last showed something, what it is at, and how many displays redraw themselves."""

    last_s = 0.0
    redrawn = 0
    doing: tuple[tuple[str, float], ...] = ()


def on_terminal() -> bool:
    """Whether stdout is a terminal that can redraw."""
    return sys.stdout.isatty() and not console.is_dumb_terminal


def width() -> int:
    """Columns that a line may take."""
    return shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns


def say(text: str) -> None:
    """Print one message, above a live display if one is shown. What it quotes has no effect, and secrets stay out."""
    _print(shown(text))


def say_json(document: str) -> None:
    """Print a JSON document that a person may look at, too."""
    _print(visible_json(document))


def _print(text: str) -> None:
    _Signs.last_s = time.monotonic()
    if on_terminal():
        console.print(Text(text), soft_wrap=True)
    else:
        print(text, flush=True)  # noqa: T201


def alive() -> None:
    """Something is seen to go on that will be told later: no stage needs to say that it is still at work."""
    _Signs.last_s = time.monotonic()


@contextmanager
def redrawing() -> Iterator[None]:
    """While a display redraws itself, no stage needs to say that it is still at work."""
    _Signs.redrawn += 1
    try:
        yield
    finally:
        _Signs.redrawn -= 1


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; each row has one cell per column.

    Where it is too wide, the texts of its last column are wrapped, and where that is not enough, each row is a block of
    lines. Nothing is cut.
    """
    widths = [max(len(cells[i]) for cells in (columns, *rows)) for i in range(len(columns))]
    before = sum(widths[:-1]) + 2 * len(widths[:-1])
    room = width() - before
    longest_word = max((len(word) for cells in (columns, *rows) for word in cells[-1].split()), default=0)
    say(title)
    if widths[-1] > room and (room < LEAST_TEXT_WIDTH or longest_word > room):
        _show_blocks(columns, rows)
        return
    for cells in (columns, *rows):
        start = "".join(f"{cell:<{wide}}  " for cell, wide in zip(cells[:-1], widths[:-1], strict=True))
        first, *rest = _wrapped(cells[-1], max(room, 1)) or [""]
        say((start + first).rstrip())
        for line in rest:
            say(" " * before + line)


def _show_blocks(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for first, *rest in rows:
        say(f"- {first}")
        for column, cell in zip(columns[1:], rest, strict=True):
            for line in _wrapped(f"{column}: {cell}" if column else cell, width() - 4) if cell else ():
                say(f"    {line}")


def _wrapped(text: str, room: int) -> list[str]:
    return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)


# Stages


@contextmanager
def stages(*titles: str) -> Iterator[None]:
    """The stages of a command, in order: each says which of how many it is."""
    token = _planned.set(titles)
    try:
        yield
    finally:
        _planned.reset(token)


def numbered(title: str) -> str:
    """`2 of 4: search` where the command has several stages, else `search`."""
    planned = _planned.get()
    if title not in planned or len(planned) == 1:
        return title
    return f"{planned.index(title) + 1} of {len(planned)}: {title}"


@contextmanager
def stage(title: str) -> Iterator[None]:
    """Say that a stage starts, what it waits for when it is silent for long, and how long it took when it ends."""
    say(f"{numbered(title)} ...")
    started = time.monotonic()
    outcome = "failed"
    try:
        with signs_of_life(title):
            yield
        outcome = "done"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or is_interrupted():
            outcome = "interrupted"
        raise
    finally:
        say(f"{title}: {outcome} after {duration_text(time.monotonic() - started)}")


@contextmanager
def signs_of_life(title: str) -> Iterator[None]:
    """Say every few seconds what `title` is at, unless something else is shown."""
    ended = threading.Event()
    thread = threading.Thread(target=_give_signs, args=(title, ended), daemon=True)
    thread.start()
    try:
        with doing("at work"):
            yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Name what takes long without a word of its own, such as `starting Ray`."""
    before = _Signs.doing
    _Signs.doing = (*before, (what, time.monotonic()))
    try:
        yield
    finally:
        _Signs.doing = before


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """On a terminal, show that `what` goes on until the block ends, then nothing of it."""
    if not on_terminal():
        yield
        return
    with redrawing(), console.status(Text(shown(what))):
        yield


def _give_signs(title: str, ended: threading.Event) -> None:
    while not ended.wait(QUIET_S / 8):
        now = time.monotonic()
        if not _Signs.doing or _Signs.redrawn:
            continue
        what, since = _Signs.doing[-1]
        if now - _Signs.last_s >= max(QUIET_S, min((now - since) / 4, SELDOM_S)):
            say(f"{title}: {what}, {duration_text(now - since)} so far")


# Bars


@contextmanager
def bar(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Count towards `total` (None: not known); yields a function that adds what was done since its last call.

    Calling it with 0 before anything is done starts the clock of the work itself.
    """
    if not on_terminal():
        counter = _PlainCounter(title, total)
        with doing(title):
            yield counter.advance
        counter.finish()
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), MofNCompleteColumn())
    with redrawing(), Progress(*columns, TimeElapsedColumn(), _TimeLeft(), console=console) as progress:
        task = progress.add_task(shown(title), total=total)
        yield lambda n: progress.advance(task, n)


class _TimeLeft(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(_left_text(task.elapsed or 0.0, task.completed, task.total or 0))


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
        left = _left_text(self._last_line - self._started, self._done, self._total)
        say(f"{self._title}: {self._done}/{self._total}{', ' if left else ''}{left}")


def _left_text(elapsed_s: float, done: float, total: float) -> str:
    """How much longer the work takes if it goes on like this; empty while too little of it is done to know."""
    left = time_left_s(elapsed_s, done, total, total)
    return f"{range_text(*left)} left" if left is not None and left[1] else ""


def time_left_s(elapsed_s: float, done: float, least: float, most: float) -> tuple[float, float] | None:
    """Seconds left, as a range, after `done` of at least `least` and at most `most` units of work.

    None until a tenth of the most is done: early steps tell too little.
    """
    if done <= 0 or done < SURE_SHARE * most:
        return None
    low, high = SPREAD
    per_unit = elapsed_s / done
    return low * per_unit * max(least - done, 0), high * per_unit * max(most - done, 0)
