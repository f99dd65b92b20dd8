"""What a section of the report is made of; the page and Markdown draw the same blocks, each in its own way.

Texts are plain and may be untrusted: whoever draws a block escapes them. `page_only` keeps a block out of Markdown.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from evals.records import FailureReason, Metric
from evals.report.charts import Picture
from evals.report.text import Shown, interval_text, number_text
from evals.stats.metrics import value_text
from orchestrator.core.records import MetricName

Tone = Literal["", "good", "bad"]


class Datum(NamedTuple):
    """A value of a table: a number, foreign text, a name on one line, an id or one of our own codes.

    `note` stands below it in the page and in brackets in Markdown.
    """

    text: str
    look: Literal["", "num", "text", "name", "id", "code"] = ""
    note: str = ""
    badge: str = ""
    tone: Tone = ""


Value = Datum | str | int
"""What a row of a table holds; a number stands for a `Datum` that looks like one."""


@dataclass(frozen=True)
class Table:
    """A table, in which the column or row of the chosen adapter is marked.

    The first column of `results` names the rows. The page folds the table under `fold`; `where` says where rows that
    are left out are found.
    """

    kind: ClassVar = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[Value]]
    look: Literal["", "results", "pairs"] = ""
    where: str = "report.json"
    fold: str = ""
    page_only: bool = False

    def data(self, limit: int) -> list[list[Datum]]:
        """At most `limit` rows in full."""
        return [[_datum(value) for value in row] for row in self.rows[:limit]]


def _datum(value: Value) -> Datum:
    return value if isinstance(value, Datum) else Datum(f"{value:,}", "num") if isinstance(value, int) else Datum(value)


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar = "heading"
    text: str
    note: str = ""
    level: Literal[3, 4] = 3
    page_only: bool = False


@dataclass(frozen=True)
class Note:
    """A paragraph, or lines for a shell."""

    kind: ClassVar = "note"
    text: str
    look: Literal["", "muted", "code"] = "muted"
    page_only: bool = False


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side. With `legend`, the word for the chosen adapter, they are of trials, the first one tall."""

    kind: ClassVar = "pictures"
    pictures: Sequence[Picture]
    legend: str = ""
    page_only: bool = True


class Text(NamedTuple):
    """A long text under its name."""

    name: str
    shown: Shown
    badge: str = ""
    tone: Tone = ""
    note: str = ""


class Offered(NamedTuple):
    """A tool that a case offers: its signature on one line, and its schema."""

    signature: str
    schema: Shown


class Scene(NamedTuple):
    """What the model was given: the tools on offer and the turns so far, with what is left out of each in words."""

    tools: Sequence[Offered] = ()
    turns: Sequence[Text] = ()
    more_tools: str = ""
    more_turns: str = ""


class Exhibit(NamedTuple):
    """One case that the page folds, with texts one below the other and side by side.

    `scene` is what the model was given, `why` a sentence on how the reply is judged.
    """

    case_id: str
    case: str
    summary: str
    why: str = ""
    scene: Scene | None = None
    texts: Sequence[Text] = ()
    beside: Sequence[Text] = ()
    badge: str = ""
    tone: Tone = ""
    code: FailureReason | None = None


@dataclass(frozen=True)
class Exhibits:
    """Cases with their replies, with the id of their adapter where that is not plain; a group is folded as a whole."""

    kind: ClassVar = "exhibits"
    items: Sequence[Exhibit]
    adapter_id: str = ""
    note: str = ""
    is_group: bool = False
    more: str = ""
    page_only: bool = False


Block = Table | Heading | Note | Pictures | Exhibits


class Section(NamedTuple):
    """A part of the report with its own anchor."""

    anchor: str
    title: str
    blocks: Sequence[Block]
    note: str = ""


def figure(name: MetricName, metric: Metric | None) -> Datum:
    """A figure above its interval and number of cases."""
    if metric is None or metric.value is None:
        return Datum("not scored", "num", metric.why if metric else "")
    return Datum(value_text(name, metric.value), "num", interval_text(name, metric))


def numbers(title: str, texts: Iterable[str]) -> list[Datum]:
    """A row of numbers that are texts already, under its title."""
    return [Datum(title), *(Datum(text, "num") for text in texts)]


def number(value: float | None) -> str:
    """A setting as text, empty where it is not set."""
    return "" if value is None else number_text(value)


def drawn(pictures: Iterable[Picture | None]) -> list[Picture]:
    """The pictures for which there was something to draw."""
    return [picture for picture in pictures if picture is not None]
