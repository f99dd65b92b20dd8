"""No sentence of a report has the wrong number, however little or much there is to report on."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from report_run import BEST, BROKEN, SECOND, make_cases, write_run

from evals.report.render import gist_lines
from evals.report.write import write_report
from orchestrator.core.files import write_text_atomic
from orchestrator.run.paths import RunDir

NOUNS = (
    "trials|adapters|cases|replies|samples|rows|conversations|sets|tokens|settings|figures|tools|turns|requests|gates|"
    "characters|groups|engines|prompts|comparisons|nulls|offers"
)
FAULTS = re.compile(
    rf"(?<![\d.,:/-])1\s+(?:(?!of\b)[a-z-]+\s+){{0,2}}(?:{NOUNS})\b|\beach of 1\b|"
    rf"(?<![\d.,])(?:0|2|[1-9]\d+) (?:{NOUNS}) was\b|\bnan\b|\bNone\b(?!\.| of)"
)


def test_faults_are_found() -> None:
    for text in ("1 trials", "1 failed cases", "1 of 1 cases", "each of 1 adapters", "2 samples was", "12 rows was"):
        assert FAULTS.search(text), text
    for text in ("1 trial", "11 trials", "0.1 cases", "1 set of replies", "21 of 21 cases", "trial-1 calls", "None."):
        assert not FAULTS.search(text), text


def texts_of(run: RunDir) -> dict[str, str]:
    """Every page as a reader sees it: without markup, data and the model's texts."""
    found = {}
    for path in (*run.report.glob("*.html"), *run.report.glob("cases/*.html"), run.report / "report.md"):
        text = path.read_text(encoding="utf-8").replace("\u00a0", " ")
        text = re.sub(r"<(style|pre|svg|code|option|summary)\b.*?</\1>", "|", text, flags=re.DOTALL)
        found[path.name] = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " | ", text))
    return found


def only_first(run: RunDir) -> None:
    """Leave one trial in the run."""
    write_text_atomic(run.trials, run.trials.read_text(encoding="utf-8").splitlines()[0] + "\n")


def without_replies(run: RunDir) -> None:
    """Let the base be an adapter of which nothing tells how its replies were made."""
    run.engine("base").unlink()


SHAPES: dict[str, tuple[int, dict[str, float], dict[str, object], Callable[[RunDir], None] | None]] = {
    "one of each": (1, {"base": 0.0, BEST: 2.0}, {"gates": {"tool_call_validity": {"min": 0.5}}}, only_first),
    "one case, nothing right": (1, {"base": 0.0, BEST: -1.0}, {}, only_first),
    "two cases, no base": (2, {BEST: 0.6}, {}, only_first),
    "base alone": (10, {"base": 0.5}, {"gates": {"refusal_recall": {"min": 0.5}}}, without_replies),
    "no winner": (40, {"base": 0.3, BEST: 0.8, SECOND: 0.8}, {}, None),
    "a winner with a gate missed": (
        150, {"base": 0.2, BEST: 0.95, SECOND: 0.5}, {"gates": {"latency_p95_s": {"max": 0.001}}}, None,
    ),
    "none above the base": (60, {"base": 0.9, BEST: 0.4}, {}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_no_report_has_a_noun_in_the_wrong_number(name: str, tmp_path: Path) -> None:
    num_cases, skills, settings, change = SHAPES[name]
    config, run = write_run(tmp_path, cases=make_cases(num_cases), skills=skills, settings=settings)
    if change is not None:
        change(run)
    if num_cases == 1:
        run.failure(BROKEN).unlink()
    report = write_report(config, run)
    texts = {**texts_of(run), "terminal": " ".join(gist_lines(report))}
    assert set(texts) >= {"report.html", "report.md", "cases.html", "terminal"}
    faults = {where: [match[0] for match in FAULTS.finditer(text)] for where, text in texts.items()}
    assert not {where: found for where, found in faults.items() if found}
