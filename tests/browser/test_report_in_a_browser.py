"""The report's page as a reader gets it: in Chromium, from a file, without network."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_run import BEST, make_cases, write_run
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from evals.report.write import write_report

pytestmark = pytest.mark.browser

PHONE_WIDTH, DESKTOP_WIDTH = 390, 1280
FLAGS = (
    "--headless",
    "--no-sandbox",  # a build machine runs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

ATTACKS = {
    "script": "<script>window.harmed = 'script'</script></pre></details></main></body>",
    "image": "<img src=x onerror=\"window.harmed = 'image'\"><svg onload=\"window.harmed = 'svg'\">",
    "style": "</style><style>body { display: none }</style><link rel=stylesheet href=http://evil.example/x.css>",
    "frame": "<iframe src=http://evil.example></iframe><meta http-equiv=refresh content='0; url=http://evil.example'>",
    "template": "{{ 7 * 7 }}{% raw %}{{ ''.__class__ }} ${7*7} <%= 7 %>",
    "handler": '" onmouseover="window.harmed = \'handler\'" autofocus onfocus="window.harmed = \'focus\'" x="',
    "control": "\x1b[2J\x1b]0;title\x07\x08\x08 \u202eesrever\u202c \u200bzero\ufeff \x00nul",
    "one long line": "y" * 5000,
    "one megabyte": "<b>z" * 250_000,
}
NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\u200b\u202a-\u202e\ufeff]")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Chromium without network, which keeps a log of its console and of its requests."""
    chromium, driver = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium or chromedriver is not installed: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    opened.execute_cdp_cmd("Network.enable", {})
    nothing = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    opened.execute_cdp_cmd("Network.emulateNetworkConditions", nothing)
    try:
        yield opened
    finally:
        opened.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a whole run, beside another one."""
    storage = tmp_path_factory.mktemp("runs")
    gates = {"gates": {"tool_call_validity": {"min": 0.9}, "latency_p95_s": {"max": 0.01}}}
    config, run = write_run(storage, "demo", settings=gates)
    _, older = write_run(storage, "older", skills={"base": 0.35, BEST: 0.7}, settings={"train": {"epochs": 2}})
    write_report(config, run, older)
    return run.report / "report.html"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which every text of data and model attacks the reader."""
    attacks, cases = list(ATTACKS.values()), make_cases(60)
    replies = {case.id: attacks[index % len(attacks)] for index, case in enumerate(cases)}
    asked = []
    for index, case in enumerate(cases):
        attack = attacks[(index + 4) % len(attacks)][:4000]
        messages = tuple(message.model_copy(update={"content": attack}) for message in case.messages)
        asked.append(case.model_copy(update={"messages": messages, "expected_text": case.expected_text and attack}))
    config, run = write_run(tmp_path_factory.mktemp("runs"), cases=asked, replies=replies)
    write_report(config, run)
    return run.report / "report.html"


def open_page(browser: webdriver.Chrome, page: Path, width: int = DESKTOP_WIDTH, **features: str) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < DESKTOP_WIDTH}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wanted = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
    for log in ("browser", "performance"):
        log_of(browser, log)
    browser.get(page.as_uri())


def run_script(browser: webdriver.Chrome, script: str) -> Any:
    return browser.execute_script(script)


def log_of(browser: webdriver.Chrome, name: str) -> list[dict[str, Any]]:
    """What came into a log since it was last read."""
    entries: list[dict[str, Any]] = browser.get_log(name)  # type: ignore[no-untyped-call]  # selenium leaves it untyped
    return entries


def open_all(browser: webdriver.Chrome) -> int:
    """Unfold every part of the page; the number of them."""
    script = "const all = document.querySelectorAll('details'); all.forEach(d => { d.open = true }); return all.length"
    return int(run_script(browser, script))


def requests_of(browser: webdriver.Chrome) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in log_of(browser, "performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@pytest.mark.parametrize("name", ["page", "hostile"])
def test_it_opens_without_network_asks_for_nothing_and_complains_of_nothing(
    browser: webdriver.Chrome, name: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(name)
    open_page(browser, path)
    assert open_all(browser) > 30
    assert requests_of(browser) == [path.as_uri()]
    assert log_of(browser, "browser") == []
    assert browser.title.startswith("demo: ")


def test_what_would_be_a_request_or_a_complaint_is_seen_by_these_tests(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    path = tmp_path / "bad.html"
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; img-src http:\">"
    path.write_text(f"{policy}<script>window.harmed = 1</script><img src=http://evil.example/x.png>", encoding="utf-8")
    open_page(browser, path)
    assert "http://evil.example/x.png" in requests_of(browser)
    assert any("Content Security Policy" in entry["message"] for entry in log_of(browser, "browser"))


def test_hostile_text_is_shown_as_text_and_does_nothing(browser: webdriver.Chrome, hostile: Path) -> None:
    open_page(browser, hostile)
    open_all(browser)
    run_script(browser, "document.querySelectorAll('*').forEach(e => e.dispatchEvent(new Event('mouseover')))")
    assert run_script(browser, "return window.harmed === undefined")
    assert browser.current_url == hostile.as_uri()
    foreign = "script, iframe, img, link, object, embed, form, base, body ~ *, main style, main meta"
    assert run_script(browser, f"return document.querySelectorAll('{foreign}').length") == 0
    assert run_script(browser, "return document.querySelectorAll('main').length") == 1
    handlers = (
        "return [...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).filter(n => n.startsWith('on'))"
    )
    assert run_script(browser, handlers) == []
    shown: list[str] = run_script(browser, "return [...document.querySelectorAll('pre')].map(e => e.textContent)")
    for name in ("script", "image", "style", "frame", "template", "handler"):
        assert ATTACKS[name] in shown, name
    assert "\\x1b[2J\\x1b]0;title\\x07\\x08\\x08 \\u202eesrever\\u202c \\u200bzero\\ufeff \\x00nul" in shown
    assert max(map(len, shown)) <= 2100
    text: str = run_script(browser, "return document.documentElement.textContent")
    assert not NOT_SHOWN.search(text)
    assert "998,000 more characters are not shown." in text
    assert hostile.stat().st_size < 1_000_000


@pytest.mark.parametrize("form", ["report.html", "cases.html", "cases/1.html"])
@pytest.mark.parametrize("width", [PHONE_WIDTH, 820, 1200])
@pytest.mark.parametrize("name", ["page", "hostile"])
def test_a_page_scrolls_only_down(
    browser: webdriver.Chrome, name: str, width: int, form: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(name)
    open_page(browser, path.parent / form, width)
    open_all(browser)
    assert run_script(browser, "return window.innerWidth") == width
    assert run_script(browser, "return document.documentElement.scrollWidth") == width
    wide = (
        "return [...document.querySelectorAll('svg, pre, .tile, details, td, select')].filter(e => "
        f"e.getBoundingClientRect().right > {width} && !e.closest('.scroll')).length"
    )
    assert run_script(browser, wide) == 0


@pytest.mark.parametrize("width", [PHONE_WIDTH, 820, 1200])
def test_exactly_the_tables_that_scroll_say_so(browser: webdriver.Chrome, page: Path, width: int) -> None:
    open_page(browser, page, width)
    open_all(browser)
    # Whether a table scrolls is known to its animation a frame after the page was laid out.
    tables = WebDriverWait(browser, 10).until(
        lambda _: (found := run_script(browser, TABLES)) and all(scrolls == hint for scrolls, hint in found) and found
    )
    assert any(scrolls for scrolls, _ in tables) or width > PHONE_WIDTH
    assert any(not scrolls for scrolls, _ in tables)


@pytest.mark.parametrize("width", [PHONE_WIDTH, 820])
def test_no_figure_or_interval_is_broken_in_two(browser: webdriver.Chrome, page: Path, width: int) -> None:
    open_page(browser, page, width)
    open_all(browser)
    assert run_script(browser, BROKEN_FIGURES) == []


def choose(browser: webdriver.Chrome, option: str) -> int:
    """Choose a value of a filter by the start of its words; the number of rows that are left."""
    script = (
        "const o = [...document.querySelectorAll('option')].find(o => o.textContent.startsWith(arguments[0]));"
        "o.selected = true; return [...document.querySelectorAll('tbody tr')].filter(r => r.offsetHeight).length"
    )
    return int(browser.execute_script(script, option))


def test_failing_cases_are_filtered_without_a_script(browser: webdriver.Chrome, page: Path) -> None:
    open_page(browser, page.parent / "cases.html")
    assert requests_of(browser) == [(page.parent / "cases.html").as_uri()]
    total = run_script(browser, "return document.querySelectorAll('tbody tr').length")
    listed = re.findall(r">(base) \(([\d,]+)\)<", (page.parent / "cases.html").read_text(encoding="utf-8"))
    left = choose(browser, "base (")
    assert left == int(listed[0][1]) < total
    assert choose(browser, "refusal (") < left
    assert run_script(browser, "return document.querySelectorAll('script').length") == 0
    open_page(browser, page.parent / "cases.html")
    browser.get((page.parent / "cases.html").as_uri() + "#adapter-1")
    rows = run_script(browser, "return [...document.querySelectorAll('tbody tr')].filter(r => r.offsetHeight).length")
    assert 0 < rows < total
    run_script(browser, "document.querySelector('tbody tr td a').click()")
    assert "/cases/1.html#case-1" in browser.current_url


def test_it_prints(browser: webdriver.Chrome, page: Path) -> None:
    open_page(browser, page)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    content = base64.b64decode(printed["data"])
    assert content.startswith(b"%PDF-")
    assert 4 <= len(re.findall(rb"/Type /Page\b", content)) <= 60
    assert len(content) > 50_000


TABLES = """
return [...document.querySelectorAll('.scroll')].filter(e => e.clientWidth).map(e =>
  [e.scrollWidth > e.clientWidth + 1, getComputedStyle(e.querySelector('.hint')).display !== 'none']);
"""
"""Of each table in sight: whether it scrolls, and whether its hint is shown."""

BROKEN_FIGURES = """
const broken = [], range = document.createRange();
const figures = /[+-]?\\d[\\d.,]*\\u00a0to\\u00a0[+-]?[\\d.]+|[+-]?\\d+[.,]\\d+/g;
for (const cell of document.querySelectorAll('td.num, .tile span')) {
  const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    for (const match of node.data.matchAll(figures)) {
      range.setStart(node, match.index);
      range.setEnd(node, match.index + match[0].length);
      if (new Set([...range.getClientRects()].map(r => Math.round(r.top))).size > 1) broken.push(match[0]);
    }
  }
}
return broken;
"""
"""Figures and intervals in cells and cards that stand on two lines."""


def test_what_is_folded_is_open_in_print_and_no_column_is_cut(browser: webdriver.Chrome, page: Path) -> None:
    open_page(browser, page, 718)  # what A4 leaves between usual margins, in CSS pixels
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    closed = (
        "return [...document.querySelectorAll('details.case > pre')].filter(e => !e.getBoundingClientRect().height)"
    )
    assert run_script(browser, f"{closed}.length") == 0
    assert run_script(browser, "return document.querySelectorAll('details.case > pre').length") > 30
    assert run_script(browser, "return document.querySelectorAll('details[open]').length") == 0
    cut = (
        "return [...document.querySelectorAll('td, th')].filter(e => e.getBoundingClientRect().right > 719)"
        ".map(e => e.closest('section').id + ': ' + e.textContent)"
    )
    assert run_script(browser, cut) == []
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


# Relative luminance and contrast as the Web Content Accessibility Guidelines 2.2 define them.
CONTRASTS = """
const channels = colour => colour.match(/[\\d.]+/g).map(Number);
const luminance = colour => channels(colour).slice(0, 3).map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = element => {
  for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if ((channels(colour)[3] ?? 1) === 1) return colour;
  }
  return 'rgb(255, 255, 255)';
};
const poor = new Set();
for (const e of document.querySelectorAll('main *')) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || ['title', 'desc'].includes(e.tagName)) continue;
  const style = getComputedStyle(e), ink = e instanceof SVGElement ? style.fill : style.color;
  const [a, b] = [luminance(ink), luminance(ground(e))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) poor.add(`${e.tagName}.${e.getAttribute('class')}: ${ink} on ${ground(e)}: ${ratio.toFixed(2)}`);
}
return [...poor];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_what_it_is_on(browser: webdriver.Chrome, page: Path, scheme: str) -> None:
    open_page(browser, page, prefers_color_scheme=scheme)
    open_all(browser)
    assert run_script(browser, "return matchMedia('(prefers-color-scheme: dark)').matches") is (scheme == "dark")
    assert run_script(browser, CONTRASTS) == []


def test_pictures_take_the_pages_colours_and_are_described(browser: webdriver.Chrome, page: Path) -> None:
    seen = []
    for scheme in ("light", "dark"):
        open_page(browser, page, prefers_color_scheme=scheme)
        seen.append(run_script(browser, "return getComputedStyle(document.querySelector('svg text')).fill"))
    assert seen[0] != seen[1]
    described = (
        "return [...document.querySelectorAll('svg')].map(s => s.getAttribute('aria-labelledby').split(' ')"
        ".map(id => document.getElementById(id).textContent))"
    )
    pictures = run_script(browser, described)
    assert len(pictures) > 15
    assert all(title and len(text) > 20 for title, text in pictures)
