"""Text for a person: untrusted text made safe to show, durations and counts."""

import json
import math
import os
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

# Control characters (but tab and newline), invisible and direction-changing ones, and halves of surrogate pairs:
# they can hide or reorder text on screen, and the last cannot be written as UTF-8.
# Tag characters and other default-ignorable ones can carry text that only a machine reads.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)


_SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|KEY|CONNECTION_STRING)(?:_ID)?$", re.IGNORECASE
)
"""Names of variables of the environment whose values are nobody's business."""
_LEAST_SECRET = 8
"""Characters of a value that can be a secret; shorter ones are words that stand everywhere."""
_IN_URL = re.compile(
    r"(?P<before>://)[^\s/?#@'\"]+(?=@)"
    r"|(?P<name>[?&](?:[\w.-]*(?:token|secret|passwo?r?d|signature|credential|api_?key)[\w.-]*|key|sig)=)[^\s&'\"]+",
    re.IGNORECASE,
)
"""A user with a password before the host of a URL, and values of its query that let someone in."""
HIDDEN = "***"


def visible(text: str) -> str:
    r"""`text` with control, invisible and direction-changing characters written as escapes such as `\x1b`."""
    return escaped(text.replace("\r\n", "\n"))


def escaped(text: str) -> str:
    """As `visible`, character by character, so that a text may come in pieces."""
    return _INVISIBLE.sub(lambda match: _escape(match[0]), text)


def visible_json(document: str) -> str:
    """A JSON document as `visible`, and still the same document: JSON's own escapes stand for those characters."""
    return _INVISIBLE.sub(lambda match: match[0] if match[0] in "\r\n" else json.dumps(match[0])[1:-1], document)


def without_secrets(text: str) -> str:
    """`text` without the secrets of this process's environment, and without what lets someone in at a URL in it."""
    for secret in _secrets():
        text = text.replace(secret, HIDDEN)
    return _IN_URL.sub(lambda match: f"{match['before'] or match['name']}{HIDDEN}", text)


def shown(text: str) -> str:
    """`text` of whatever origin for a terminal or a log."""
    return visible(without_secrets(text))


def _secrets() -> list[str]:
    """The longest first, because one may hold another."""
    named = {value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name)}
    return sorted((value for value in named if len(value) >= _LEAST_SECRET and not _is_path(value)), key=len)[::-1]


def _is_path(value: str) -> bool:
    return value.startswith(("/", "~")) and Path(value).expanduser().exists()


def _escape(character: str) -> str:
    code = ord(character)
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def duration_text(seconds: float) -> str:
    """A duration as `4.2 s`, `3 min 07 s` or `2 h 05 min`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: `1 case`, `2,000 cases`; `plural` where it is not the noun with an s."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def range_text(low_s: float, high_s: float) -> str:
    """How long something may take: `20 to 40 s`, `3 to 5 min`, `1 to 2.5 h`; the ends are rounded outwards."""
    unit, per, step = ("s", 1, 10) if high_s <= 90 else ("min", 60, 1) if high_s <= 90 * 60 else ("h", 3600, 0.5)
    low, high = math.floor(low_s / per / step) * step, math.ceil(high_s / per / step) * step
    return f"{low:g} to {high:g} {unit}" if low else f"up to {high:g} {unit}"


BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 12) -> str:
    """A curve of at most so many characters, between its least and its largest value; what is not finite is `x`."""
    if not values:
        return ""
    chosen = [values[round(place * (len(values) - 1) / max(1, width - 1))] for place in range(min(width, len(values)))]
    if len(values) <= width:
        chosen = list(values)
    finite = [value for value in chosen if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    span = high - low or 1.0
    return "".join(
        BARS[round((value - low) / span * (len(BARS) - 1))] if math.isfinite(value) else "x" for value in chosen
    )


def bytes_text(count: float) -> str:
    """Memory as `512 MB` or `9.6 GB`."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def unit_text(value: float) -> str:
    """A share with two decimals, more where two would claim a 0 or 1 that it is not."""
    value = round(value, 9)  # the bounds of an interval may miss 0 or 1 by a rounding error
    for digits in (2, 3, 4):
        text = f"{value:.{digits}f}"
        if float(text) not in (0.0, 1.0) or float(text) == value:
            return text
    return "<0.0001" if value < 0.5 else ">0.9999"


def num_same(one: str, other: str) -> int:
    """With how many equal characters two texts begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
