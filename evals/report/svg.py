"""From a matplotlib figure to an SVG that may stand in the report's page.

The figure is drawn with placeholder colours and its text as text. What matplotlib writes is parsed, stripped to shapes
and text, and written again: colours become the page's own variables, so a picture follows light, dark and print; the
fonts are the page's; ids are unique in the page; no style sheet, script, link or metadata is left. All text passes
through the XML writer, which escapes it.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args
from xml.etree import ElementTree

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from evals.report.text import shorten
from orchestrator.core.text import visible

Ink = Literal["ink", "muted", "line", "accent", "kept", "other", "bad", "good", "card"]
"""Colours by their name in `templates/report.css`."""

INKS: dict[Ink, str] = {name: f"#01010{place}" for place, name in enumerate(get_args(Ink))}
"""What each colour is called while matplotlib draws."""

WIDTH = 440.0
"""Width of every picture in SVG units; one unit is one CSS pixel where the picture is shown at this width."""
MAX_LABEL_CHARS = 24

_VARIABLES = {placeholder: f"var(--{ink})" for ink, placeholder in INKS.items()}
_SETTINGS: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,  # a label with two dollar signs is no formula
    "font.family": "DejaVu Sans",  # matplotlib's own: what is measured does not depend on the machine's fonts
    "font.size": 11.0,
    "text.color": INKS["ink"],
    "axes.labelcolor": INKS["muted"],
    "axes.edgecolor": INKS["line"],
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": INKS["line"],
    "grid.linewidth": 1.0,
    "xtick.color": INKS["line"],
    "ytick.color": INKS["line"],
    "xtick.labelcolor": INKS["muted"],
    "ytick.labelcolor": INKS["muted"],
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
}
_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_SHAPES = frozenset({"svg", "g", "defs", "path", "use", "text", "tspan", "clipPath", "rect"})
_TIP = "tip:"


@contextmanager
def drawing() -> Iterator[None]:
    """Everything inside is drawn in the report's style. matplotlib's settings are global: not for several threads."""
    with mpl.rc_context(_SETTINGS):
        yield


def new_figure(height: float) -> Figure:
    """An empty figure, WIDTH x `height` SVG units."""
    figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
    figure.patch.set_visible(False)
    return figure


def label(text: str, limit: int = MAX_LABEL_CHARS) -> str:
    """Text as a label: one line, without control characters, at most `limit` characters."""
    line = " ".join(visible(text).split())
    return line if len(line) <= limit else shorten(line, limit - 1).text + "\u2026"


def tip(text: str) -> str:
    """A group id for `Artist.set_gid` that becomes the text shown when a pointer rests on the artist."""
    return _TIP + " ".join(visible(text).split())


def to_svg(figure: Figure, *, name: str, title: str, description: str) -> Markup:
    """The figure as an `svg` element.

    Args:
        figure: Drawn inside `drawing()`, with colours from INKS.
        name: Letters and digits, unique in the page; ids begin with it.
        title: Read out by a screen reader, as is `description`.
        description: What the picture shows, in a sentence.
    """
    for axes in figure.axes:
        axes.patch.set_visible(False)
    with io.StringIO() as file, warnings.catch_warnings():
        # The text is drawn by the reader's fonts, not by the one that lacks the glyph.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        root = ElementTree.fromstring(file.getvalue())
    _clean(root)
    _rename_ids(root, name)
    for key in set(root.attrib) - {"viewBox"}:
        del root.attrib[key]
    root.attrib |= {"role": "img", "aria-labelledby": f"{name}-title {name}-desc"}
    for index, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, id=f"{name}-{tag}")
        element.text = visible(text)
        root.insert(index, element)
    # Markup tells the page not to escape it again: the XML writer has.
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _clean(element: ElementTree.Element) -> None:
    """Strip name spaces and everything that is neither shape nor text; swap colours; leave fonts to the page."""
    element.tag = element.tag.removeprefix(_SVG)
    for child in list(element):
        if child.tag.removeprefix(_SVG) in _SHAPES:
            _clean(child)
        else:
            element.remove(child)
    for key in list(element.attrib):
        value = element.attrib.pop(key)
        if key == "style":
            value = _style(value)
        elif key == "d":
            value = _rounded(" ".join(value.split()))
        elif key in ("x", "y"):
            value = _rounded(value)
        if key != "transform" or not value.startswith("rotate(-0 "):
            element.attrib[key.removeprefix(_XLINK)] = value
    if element.tag != "text":
        element.text = None
    element.tail = None


def _style(text: str) -> str:
    parts = [part.strip() for part in text.split(";")]
    kept = [part for part in parts if part and not part.startswith("font-family")]
    return re.sub(r"#[0-9a-f]{6}", lambda match: _VARIABLES.get(match[0], match[0]), "; ".join(kept))


def _rounded(text: str) -> str:
    return re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", text)


def _rename_ids(root: ElementTree.Element, name: str) -> None:
    """Keep only ids that are referred to, with `name` before them; ids made by `tip` become `title` elements."""
    text = " ".join(value for element in root.iter() for key, value in element.attrib.items() if key != "id")
    used = set(re.findall(r"#([\w-]+)", text))
    for element in list(root.iter()):
        own = element.attrib.pop("id", "")
        if own.startswith(_TIP):
            hint = ElementTree.Element("title")
            hint.text = own.removeprefix(_TIP)
            element.insert(0, hint)
        elif own in used:
            element.attrib["id"] = f"{name}-{own}"
        for key, value in element.attrib.items():
            if key != "id":
                element.attrib[key] = re.sub(r"(^|url\()#", rf"\1#{name}-", value)
