import re
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from evals.report.svg import INKS, WIDTH, drawing, label, new_figure, tip, to_svg

HOSTILE = "</svg><script>alert(1)</script> $x$ <b onclick='x'> ]]> #010103 \x1b\u202e &amp; \ud800"


def svg_of(figure: Figure, name: str = "p") -> str:
    return str(to_svg(figure, name=name, title="A <title>", description="Says & shows"))


def draw(text: str) -> Figure:
    figure = new_figure(120)
    axes = figure.subplots()
    (line,) = axes.plot([0, 1, 2], [1, 3, 2], "o-", color=INKS["accent"])
    line.set_gid(tip(text))
    axes.scatter([1], [2], color=INKS["bad"])
    axes.set_title(label(text, 200))
    axes.set_xlabel(label(text, 200))
    axes.set_yticks([1, 2], [label(text, 200), "b"])
    return figure


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")  # the labels are longer than any real one
def test_hostile_text_stays_text_and_is_shown_whole() -> None:
    with drawing():
        text = svg_of(draw(HOSTILE))
    root = ElementTree.fromstring(text)
    assert {element.tag for element in root.iter()} <= {
        "svg",
        "g",
        "defs",
        "path",
        "use",
        "text",
        "clipPath",
        "rect",
        "title",
        "desc",
    }
    shown = "</svg><script>alert(1)</script> $x$ <b onclick='x'> ]]> #010103 \\x1b\\u202e &amp; \\ud800"
    assert [element.text for element in root.iter("text")].count(shown) == 3
    assert [element.text for element in root.iter("title")] == ["A <title>", shown]
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", text)
    names = {name for element in root.iter() for name in element.attrib}
    assert not {name for name in names if name.startswith("on") or name in ("class", "src")}


def test_only_places_inside_the_picture_are_referred_to() -> None:
    with drawing():
        text = svg_of(draw("plain"), "pic")
    root = ElementTree.fromstring(text)
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    assert all(own.startswith("pic-") for own in ids)
    targets = {element.attrib["href"].removeprefix("#") for element in root.iter() if "href" in element.attrib}
    clips = set(re.findall(r"url\(#([^)]*)\)", text))
    assert targets
    assert clips
    assert targets | clips <= set(ids)
    assert "url(" not in text.replace("url(#pic-", "")
    assert "http" not in text


def test_colours_are_the_pages_own_and_fonts_are_left_to_it() -> None:
    with drawing():
        text = svg_of(draw("plain"))
    styles = " ".join(re.findall(r'style="([^"]*)"', text))
    assert set(re.findall(r"#[0-9a-f]{3,8}|rgb\S*", styles)) == set()
    assert {"var(--accent)", "var(--bad)", "var(--muted)"} <= set(re.findall(r"var\(--\w+\)", styles))
    assert "font-family" not in text
    assert "<style" not in text


def test_a_reader_of_the_screen_is_told_what_the_picture_is() -> None:
    with drawing():
        root = ElementTree.fromstring(svg_of(draw("plain"), "pic"))
    assert root.attrib == {"viewBox": f"0 0 {WIDTH:g} 120", "role": "img", "aria-labelledby": "pic-title pic-desc"}
    assert [(child.tag, child.attrib, child.text) for child in root[:2]] == [
        ("title", {"id": "pic-title"}, "A <title>"),
        ("desc", {"id": "pic-desc"}, "Says & shows"),
    ]


def test_the_same_figure_is_drawn_the_same_each_time() -> None:
    with drawing():
        assert svg_of(draw("plain")) == svg_of(draw("plain"))


def test_labels_are_one_short_line() -> None:
    assert label("a\n b\tc") == "a b c"
    assert label("x" * 24) == "x" * 24
    assert label("x" * 25) == "x" * 23 + "\u2026"
