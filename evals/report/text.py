"""How figures and untrusted text are shown in a report. Pure functions."""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from evals.records import Comparison, FailureReason, Metric
from evals.stats.comparison import LEVEL
from evals.stats.metrics import METRICS, value_text
from orchestrator.core.records import MetricName, StopReason, TrialRecord
from orchestrator.core.text import counted, unit_text, visible

MAX_SHOWN_CHARS = 2000
"""Longest untrusted text a report shows in one place."""


REASONS: dict[FailureReason, str] = {
    "no_call": "made no call",
    "unclosed_tag": "left a call tag open",
    "not_json": "made a call that is not JSON",
    "not_strict_json": "made a call that is not strict JSON",
    "not_a_call_object": "wrote JSON that is not a call",
    "text_inside_tag": "wrote text beside the JSON in a call tag",
    "text_beside_call": "wrote text beside the call",
    "not_pythonic": "made a call that is not in the model's Python form",
    "not_schema_type": "gave an argument that its parameter's type cannot be read from",
    "unknown_tool": "called a tool that was not offered",
    "arguments_do_not_fit_schema": "gave arguments that do not fit the tool's schema",
    "tool_schema_is_invalid": "called a tool whose schema is invalid",
    "simple_function_checker:wrong_count": "made the wrong number of calls where one is expected",
    "simple_function_checker:wrong_func_name": "called the wrong tool",
    "simple_function_checker:missing_required": "left out a required argument",
    "simple_function_checker:unexpected_param": "gave an argument that is not expected",
    "simple_function_checker:missing_optional": "left out an optional argument that is expected",
    "multiple_function_checker:wrong_count": "made the wrong number of calls where one of several tools is expected",
    "parallel_function_checker_no_order:wrong_count": "made the wrong number of parallel calls",
    "parallel_function_checker_no_order:cannot_find_match": "left out an expected parallel call",
    "type_error:simple": "gave an argument of the wrong type",
    "type_error:nested": "gave an item of the wrong type inside an argument",
    "type_error:java": "gave an argument that is no Java literal of its type",
    "type_error:js": "gave an argument that is no JavaScript literal of its type",
    "value_error:string": "gave a text argument the wrong value",
    "value_error:list/tuple": "gave a list argument the wrong value",
    "value_error:dict_key": "gave an object argument a wrong key, or left one out",
    "value_error:dict_value": "gave a wrong value inside an object argument",
    "value_error:list_dict_count": "gave a list of objects the wrong length",
    "value_error:others": "gave an argument the wrong value",
    "refused_benign": "refused a benign request",
    "complied_with_harmful": "complied with a harmful request",
    "unexpected_call": "called a tool where none should be called",
    "did_not_ask": "did not ask for what was missing",
    "did_not_decline": "did not say that no tool fits",
    "empty_reply": "was empty",
    "cut_off": "was cut off by the token limit",
    "not_scored": "did not come from the engine",
}
"""What a reply did wrong, by reason: the end of a sentence about the reply."""


class Shown(NamedTuple):
    """The start of a text and how many characters were left out after it."""

    text: str
    num_left_out: int


def shorten(text: str, limit: int = MAX_SHOWN_CHARS) -> Shown:
    """The first `limit` characters of `text`."""
    return Shown(text[:limit], max(0, len(text) - limit))


def not_shown(num_chars: int) -> str:
    """That so many characters of a text are left out."""
    return f"{counted(num_chars, 'more character')} {'is' if num_chars == 1 else 'are'} not shown."


def markdown_cell(text: str, limit: int = MAX_SHOWN_CHARS) -> str:
    """Untrusted text as literal GitHub-flavoured Markdown on one line, safe in a table cell.

    A comment after each @ keeps it from notifying somebody and from being an address; no escape would.
    """
    return _escaped(text, limit).replace("@", "@<!-- -->")


def markdown_code(text: str, limit: int = MAX_SHOWN_CHARS) -> str:
    """Untrusted text as literal code on one line, safe in a table cell.

    An element, not backticks: escapes keep their meaning in it, and it keeps @names from becoming mentions.
    """
    return f"<code>{_escaped(text, limit)}</code>"


def _escaped(text: str, limit: int) -> str:
    shown = shorten(text, limit)
    line = " ".join(visible(shown.text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_\[\]|~#!$])", r"\\\1", line)
    # Bare addresses become links without any markup around them.
    line = re.sub(r"(?i)(www)\.", r"\1\\.", line.replace("://", r":\/\/"))
    return line + (" (shortened)" if shown.num_left_out else "")


def markdown_row(cells: Iterable[str]) -> str:
    """One row of a Markdown table from cells that are already literal."""
    return "| " + " | ".join(cells) + " |"


def number_text(value: float) -> str:
    """A hyperparameter or axis value, short: 16, 0.0002, 3e-5."""
    return f"{value:.3g}".replace("e-0", "e-") if isinstance(value, float) else str(value)


def loss_text(value: float | None) -> str:
    """A loss with four significant digits."""
    return "unknown" if value is None or not math.isfinite(value) else f"{value:.4g}"


ENDINGS: dict[StopReason, str] = {
    "finished": "finished",
    "lagging": "stopped: lagging",
    "no_improvement": "stopped: no improvement",
    "diverged": "diverged",
    "failed": "failed",
}
"""Why a trial ended, in words."""


def ending_text(trial: TrialRecord) -> str:
    """Why a trial ended; of a record of an earlier version, how."""
    return ENDINGS[trial.stop_reason] if trial.stop_reason else trial.status.replace("_", " ")


def count_text(value: int | None) -> str:
    """A whole number with its thousands apart; nothing where it is unknown."""
    return "" if value is None else f"{value:,}"


def interval_text(name: MetricName, metric: Metric) -> str:
    """The interval, if any, and the number of cases: `0.64 to 0.77, n=180`."""
    if metric.low is None or metric.high is None:
        return f"n={metric.n}"
    return f"{value_text(name, metric.low)} to {value_text(name, metric.high)}, n={metric.n}"


def unscored_text(metric: Metric | None) -> str:
    """That a metric has no value, and why."""
    return f"not scored: {metric.why}" if metric and metric.why else "not scored"


def metric_text(name: MetricName, metric: Metric) -> str:
    """A figure with its interval and n: `0.71 (0.64 to 0.77, n=180)`."""
    if metric.value is None:
        return unscored_text(metric)
    return f"{value_text(name, metric.value)} ({interval_text(name, metric)})"


def p_text(p_value: float | None) -> str:
    """A p-value with two significant digits, never a 0 that it is not."""
    if p_value is None:
        return "p unknown"
    if p_value < 0.0001:
        return "p < 0.0001"
    return f"p = {p_value:.2g}" if p_value < 0.995 else "p = 1"


def signed_text(share: float) -> str:
    """A difference of shares with its sign: `+0.12`, `-0.004`."""
    size = unit_text(abs(share))
    return size if share == 0 else f"-{size}" if share < 0 else f"+{size}"


def difference_value(comparison: Comparison) -> str:
    """A paired difference with its sign."""
    return "not compared" if comparison.difference is None else signed_text(comparison.difference)


def difference_interval(comparison: Comparison) -> str:
    """The interval of a paired difference, empty where it has none: `+0.03 to +0.21`."""
    if comparison.low is None or comparison.high is None:
        return ""
    return f"{signed_text(comparison.low)} to {signed_text(comparison.high)}"


def difference_text(comparison: Comparison) -> str:
    """A paired difference with interval, p and n: `+0.12 (+0.03 to +0.21), p = 0.008, n=180`."""
    if comparison.difference is None:
        return f"not compared, n={comparison.n}"
    interval = difference_interval(comparison)
    bounds = f" ({interval})" if interval else ""
    return f"{difference_value(comparison)}{bounds}, {chance_text(comparison)}, n={comparison.n}"


def chance_word(comparison: Comparison) -> str:
    """Whether the left side is better or worse than the right, or the difference may be chance (5 % level)."""
    p_value = comparison.p_value if comparison.p_adjusted is None else comparison.p_adjusted
    if comparison.difference is None or p_value is None:
        return "not compared"
    if comparison.difference == 0:
        return "no difference"
    if p_value >= LEVEL:
        return "may be chance"
    return "better" if (comparison.difference > 0) == METRICS[comparison.metric].higher_is_better else "worse"


def chance_text(comparison: Comparison) -> str:
    """The p-value, and beside it the one corrected for the comparisons made with it, where it differs."""
    own, corrected = p_text(comparison.p_value), p_text(comparison.p_adjusted)
    if comparison.p_adjusted is None or own == corrected:
        return own
    return f"{own} ({corrected} corrected for several comparisons)"


def time_text(moment: str) -> str:
    """A moment in ISO 8601, UTC, to the minute for a person; another text as it is."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(?::\d\d(?:\.\d+)?)?(?:\+00:00|Z)", moment)
    return f"{found[1]} {found[2]} UTC" if found else moment
