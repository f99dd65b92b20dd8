"""The report as pages of HTML that open offline, without scripts.

The template engine escapes everything that it prints, and the policy in the head forbids whatever could run or load.
"""

import re
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evals.report import text as texts
from evals.report.blocks import Section
from evals.report.cards import SIGNS, TONES
from evals.report.cases import CaseBook, page_name
from evals.report.verdict import headline
from evals.report.view import View
from evals.stats.metrics import METRICS
from orchestrator.core.text import visible

CASES = "cases.html"
"""The file with the table of failing cases."""
MAX_HTML_ROWS = 500
"""Most rows that the page shows of any table."""

_PARTS = re.compile(r"(?<=[\d%]) to (?=[+-]?\d)|(?<=\bp) [<=] (?=\d)|(?<=\d) (?=(?:%|s|min|h|ms)(?!\w))")
"""Spaces inside an interval, a p-value or a figure with its unit, at which no line may end."""


def render_html(view: View, sections: Sequence[Section]) -> str:
    """The whole report as one file."""
    return (
        _environment()
        .get_template("report.html.j2")
        .render(view=view, sections=sections, headline=headline(view.report.verdict))
    )


def render_cases(view: View, book: CaseBook) -> dict[str, str]:
    """The table of failing cases and the pages with each of them in full, by file name below the report's folder."""
    environment, run_name = _environment(), view.report.run["name"]
    table = environment.get_template("cases.html.j2").render(book=book, run_name=run_name)
    template = environment.get_template("case_page.html.j2")
    pages = {
        page_name(cases[0].number): template.render(
            cases=cases, run_name=run_name, number=place, num_pages=len(book.pages)
        )
        for place, cases in enumerate(book.pages, start=1)
    }
    return {CASES: table, **pages}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("evals.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.globals.update(METRICS=METRICS, MAX_ROWS=MAX_HTML_ROWS, texts=texts, CASES=CASES)
    environment.globals.update(SIGNS=SIGNS, TONES=TONES)
    environment.filters["whole"] = whole
    return environment


def _finalize(value: Any) -> Any:
    # Runs on everything the template prints, before escaping: no untrusted text can skip it.
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def whole(text: str) -> str:
    """`text` with its intervals, p-values and figures with a unit kept on one line by no-break spaces."""
    return _PARTS.sub(lambda match: match[0].replace(" ", "\u00a0"), text)
