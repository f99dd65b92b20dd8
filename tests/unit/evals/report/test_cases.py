import html
import re
from pathlib import Path

import pytest
from report_run import BEST, SECOND, WEAK, make_cases, write_run

from evals.records import Scores
from evals.report import cases as browser
from evals.report.text import REASONS
from evals.report.write import write_report
from orchestrator.core.files import read_jsonl
from orchestrator.run.paths import RunDir

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202e" + "y" * 9000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run of three adapters and a base on 150 cases, with its report."""
    config, run = write_run(tmp_path_factory.mktemp("runs"))
    write_report(config, run)
    return run


def read(run: RunDir, name: str = "cases.html") -> str:
    return (run.report / name).read_text(encoding="utf-8")


def scores(run: RunDir, adapter_id: str) -> Scores:
    return Scores.model_validate_json(run.scores(adapter_id).read_text(encoding="utf-8"))


def rows_of(run: RunDir) -> list[dict[str, str]]:
    """The table of failing replies: each row's cells by the name of their column, and the row's codes."""
    found = []
    for codes, row in re.findall(r'<tr data-in="([^"]*)">(.*?)</tr>', read(run), re.DOTALL):
        cells = re.findall(r'<td data-name="([^"]*)">(.*?)</td>', row, re.DOTALL)
        texts = {name: html.unescape(re.sub(r"<[^>]*>", " ", cell)).strip() for name, cell in cells}
        found.append({"codes": codes, "link": re.findall(r'href="([^"]*)"', row)[0], **texts})
    return found


def test_every_failing_reply_is_a_row_with_its_reason(whole: RunDir) -> None:
    expected = {
        (verdict.case_id, name, REASONS[verdict.reason])
        for name in (BEST, SECOND, WEAK, "base")
        for verdict in scores(whole, name).verdicts
        if verdict.reason
    }
    found = [(row["Case"].split()[-1], row["Adapter"], row["Reason: the reply"]) for row in rows_of(whole)]
    assert len(found) == len(expected) > 100
    assert set(found) == expected
    assert f"<h1>{len(expected)} failing replies</h1>" in read(whole)
    right = 4 * 150 - len(expected)
    assert f"{right} right replies not listed" in read(whole)


def test_every_row_leads_to_its_case_with_all_replies(whole: RunDir) -> None:
    for row in rows_of(whole)[:: len(rows_of(whole)) // 12]:
        name, anchor = row["link"].split("#")
        section = read(whole, name).split(f'<section id="{anchor}">')[1].split("</section>")[0]
        assert row["Case"].split()[-1] in section
        assert [f"<h3>{one} " in section for one in (BEST, SECOND, WEAK, "base")] == [True] * 4
        assert "get_weather(city: string)" in section
        assert section.count("<h4>Reply</h4>") == section.count('<p class="why">') == 4


def test_each_choice_names_how_many_rows_it_leaves(whole: RunDir) -> None:
    page, rows = read(whole), rows_of(whole)
    choices = re.findall(r'<option value="(\w+-\d+)">.* \(([\d,]+)\)</option>', page)
    assert len(choices) > 15
    for code, count in choices:
        assert sum(code in row["codes"].split() for row in rows) == int(count)
        assert f"option[value={code}]:checked" in page
        assert page.count(f'id="{code}"') == 1


def test_what_the_base_gets_right_is_marked(tmp_path: Path) -> None:
    config, run = write_run(tmp_path, cases=make_cases(40), skills={"base": 0.9, WEAK: 0.4})
    write_report(config, run)
    right = {verdict.case_id for verdict in scores(run, "base").verdicts if verdict.correct}
    wrong = {verdict.case_id for verdict in scores(run, WEAK).verdicts if not verdict.correct}
    marked = [row["Case"].split()[-1] for row in rows_of(run) if "base right" in row["Verdict"]]
    assert sorted(marked) == sorted(right & wrong) != []


def test_pages_of_an_earlier_report_do_not_stay(tmp_path: Path) -> None:
    config, run = write_run(tmp_path, cases=make_cases(20))
    stale = run.report / "cases" / "7.html"
    stale.parent.mkdir(parents=True)
    stale.write_text("old", encoding="utf-8")
    write_report(config, run)
    assert [path.name for path in (run.report / "cases").iterdir()] == ["1.html"]


def test_what_is_too_much_is_left_out_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser, "MAX_ROWS", 7)
    monkeypatch.setattr(browser, "CASES_A_PAGE", 2)
    config, run = write_run(tmp_path, cases=make_cases(30))
    write_report(config, run)
    rows = rows_of(run)
    total = sum(
        verdict.correct is not True for name in (BEST, SECOND, WEAK, "base") for verdict in scores(run, name).verdicts
    )
    assert len(rows) == 7 < total
    assert f"{total - 7} more failing replies not listed" in read(run)
    names = {row["link"].split("#")[0] for row in rows}
    assert {f"cases/{path.name}" for path in (run.report / "cases").iterdir()} == names
    for name in names:
        assert 1 <= read(run, name).count("<section id=") <= 2


def test_nothing_wrong_is_said(tmp_path: Path) -> None:
    cases = make_cases(4)
    config, run = write_run(tmp_path, cases=cases, skills={"base": 2.0})
    write_report(config, run)
    assert "<h1>0 failing replies</h1>" in read(run)
    assert rows_of(run) == []
    assert not list(run.report.glob("cases/*"))


def test_hostile_text_is_only_text_on_every_page(tmp_path: Path) -> None:
    asked = [
        case.model_copy(
            update={
                "id": f"{HOSTILE[:60]}{index}",
                "suite": HOSTILE[:40],
                "tags": (*case.tags, HOSTILE[:50]),
                "messages": (case.messages[0].model_copy(update={"content": HOSTILE}),),
            }
        )
        for index, case in enumerate(make_cases(12))
    ]
    config, run = write_run(tmp_path, cases=asked, replies={case.id: HOSTILE for case in asked})
    write_report(config, run)
    assert len(list(read_jsonl(run.cases, type(asked[0])))) == 12
    for name in ("cases.html", "cases/1.html"):
        page = read(run, name)
        assert "<script" not in page
        assert "<img" not in page
        assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", page)
        assert "default-src 'none'; style-src 'unsafe-inline'" in page
    assert "&lt;script&gt;alert(1)" in read(run, "cases/1.html")
    assert f"{len(HOSTILE) - 4000:,} more characters are not shown." in read(run, "cases/1.html")
