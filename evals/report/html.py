"""report.html: one file that opens offline, without scripts. Everything printed is escaped by the template engine."""

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evals.report.blocks import Section
from evals.report.text import (
    chance_text,
    chance_word,
    difference_interval,
    difference_value,
    interval_text,
    shorten,
    time_text,
    value_text,
)
from evals.report.verdict import headline
from evals.report.view import View
from evals.stats.metrics import METRICS
from orchestrator.core.text import visible

MAX_ROWS = 500
"""Most rows that the page shows of any table."""


def render_html(view: View, sections: Sequence[Section]) -> str:
    """The whole page."""
    environment = Environment(
        loader=PackageLoader("evals.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters.update(time=time_text, shorten=shorten)
    environment.globals.update(
        METRICS=METRICS,
        MAX_ROWS=MAX_ROWS,
        value_text=value_text,
        interval_text=interval_text,
        chance_text=chance_text,
        chance_word=chance_word,
        difference_value=difference_value,
        difference_interval=difference_interval,
    )
    title = headline(view.report.verdict)
    return environment.get_template("report.html.j2").render(view=view, sections=sections, headline=title)


def _finalize(value: Any) -> Any:
    # Runs on everything the template prints, before escaping: no untrusted text can skip it.
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
