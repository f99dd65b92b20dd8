import json
import re
from pathlib import Path
from typing import Any

import pytest
from builders import assistant, make_call, make_tool, user

from evals.records import Case, Generation, Metric, Report, Scores
from evals.report.write import write_report
from evals.stats.data_card import HOW_TO_READ_LEAKS, DataTable, data_sentences, data_tables, leak_warning
from orchestrator.config.schema import RunConfig
from orchestrator.core.files import dump_jsonl, write_text_atomic
from orchestrator.data.card import (
    DataCard,
    FormatCount,
    LeakCard,
    Overlap,
    ReasonCount,
    RepeatCount,
    SourceCard,
    ToolCard,
)
from orchestrator.data.prepare.prepare import prepare_data
from orchestrator.run.paths import RunDir

HOSTILE = (
    "</td></table><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\x1b[31m\u202e | `x` |"
    " [link](http://evil.example) **bold** @someone\n# heading\n\n| a |\n|---|\n{{ 7 * 7 }} {% raw %}"
)
NOTHING = Overlap(count=0, n=90)


def make_source(**changes: Any) -> SourceCard:
    source = SourceCard(
        path="chats.jsonl",
        files=("chats.jsonl",),
        sha256="0123456789abcdef" * 4,
        formats={"messages": FormatCount(rows=1200, why="it has a list `messages`")},
        limit=None,
        rows=1200,
        samples=1150,
        quarantined={"duplicate": 30, "unknown_tool": 20},
        repaired_nulls=0,
        ignored_fields={},
        num_renamed=0,
    )
    return source.model_copy(update=changes)


def make_leak(**changes: Any) -> LeakCard:
    leak = LeakCard(prompts=NOTHING, arguments=NOTHING, tools=NOTHING, near_duplicates=NOTHING)
    return leak.model_copy(update=changes)


def make_card(**changes: Any) -> DataCard:
    card = DataCard(
        rows=1200,
        samples=1150,
        quarantined=50,
        repaired_nulls=0,
        groups=1100,
        moved_groups=0,
        pruned_tools=0,
        num_tools=1,
        sources=(make_source(),),
        reasons={
            "duplicate": ReasonCount(count=30, example="chats.jsonl:9: the same messages and tools as chats.jsonl:2"),
            "unknown_tool": ReasonCount(count=20, example="chats.jsonl:7: turn 2: nosuch is not offered"),
        },
        flags={"secret": ReasonCount(count=3, example="chats.jsonl:4: it seems to hold a Slack token")},
        kinds={"tool_call": 1000, "answer": 150},
        inferred_kinds=0,
        tags={},
        parts={"train": 970, "val": 90, "test": 90},
        part_kinds={"train": {"tool_call": 850, "answer": 120}, "val": {"tool_call": 90}, "test": {"answer": 30}},
        leaks={"val": make_leak(), "test": make_leak()},
        tools={"get_weather": ToolCard(offered=1100, calls=1000)},
    )
    return card.model_copy(update=changes)


def table(card: DataCard, title: str) -> DataTable:
    (found,) = [table for table in data_tables(card) if table.title == title]
    return found


@pytest.mark.parametrize(("count", "said"), [(1, "1 turn of the assistant is"), (2, "2 turns of the assistant are")])
def test_turns_that_another_row_teaches_are_counted_in_good_grammar(count: int, said: str) -> None:
    *_, sentence = data_sentences(make_card(untaught_turns=count))
    assert sentence == f"{said} learned in another row that begins alike, and only shown here."


def report_of(tmp_path: Path, card: object) -> tuple[Report, str, str]:
    """The report of a run that scored the base alone, as record, page and Markdown."""
    run = RunDir(tmp_path / "demo")
    case = Case(
        id="case-1", messages=(user("Hello"),), tools=(), kind="answer", tags=(), expected_calls=(), expected_text="Hi"
    )
    metric = Metric(value=0.5, n=90, low=0.4, high=0.6)
    scores = Scores(
        adapter_id="base",
        num_cases=1,
        num_unscored=0,
        metrics={"no_call_accuracy": metric},
        cells={},
        suites={},
        verdicts=(),
    )
    reply = Generation(
        case_id="case-1", text="Hi", finish_reason="stop", prompt_tokens=1, output_tokens=1, latency_s=0.1
    )
    write_text_atomic(run.cases, dump_jsonl([case]))
    write_text_atomic(run.scores("base"), scores.model_dump_json())
    write_text_atomic(run.generations("base"), dump_jsonl([reply]))
    if card is not None:
        write_text_atomic(run.card, card.model_dump_json() if isinstance(card, DataCard) else json.dumps(card))
    report = write_report(RunConfig.model_validate({"name": "demo", "model": {"base": "tiny"}}), run)
    return report, (run.report / "report.html").read_text(), (run.report / "report.md").read_text()


def test_sources_say_rows_samples_format_and_what_told() -> None:
    mixed = {"messages": FormatCount(rows=2, why="a list"), "glaive": FormatCount(rows=1000, why="a text `chat`")}
    card = make_card(sources=(make_source(), make_source(path="b", limit=1002, formats=mixed, sha256=None, rows=1002)))
    assert table(card, "Sources").rows == (
        ("chats.jsonl", "messages (it has a list `messages`)", 1200, 1150, 50, "0123456789ab"),
        ("b (at most 1,002 rows)", "messages, 2 rows (a list); glaive, 1,000 rows (a text `chat`)", 1002, 1150, 50, ""),
    )


def test_kinds_are_counted_by_part_and_in_sum() -> None:
    found = table(make_card(), "Samples by kind and part")
    assert found.head == ("Kind", "train", "val", "test", "all")
    assert found.rows == (("tool call", 850, 90, 0, 1000), ("answer", 120, 0, 30, 150), ("all", 970, 90, 90, 1150))


def test_what_was_set_aside_or_flagged_is_shown_by_reason_with_the_first() -> None:
    card = make_card()
    assert table(card, "Set aside").rows == (
        ("duplicate", 30, "chats.jsonl:9: the same messages and tools as chats.jsonl:2"),
        ("unknown_tool", 20, "chats.jsonl:7: turn 2: nosuch is not offered"),
    )
    assert table(card, "Kept, but look at these").rows == (
        ("secret", 3, "chats.jsonl:4: it seems to hold a Slack token"),
    )


def test_leaks_are_shown_as_counts_of_n_with_the_first_of_each() -> None:
    leak = make_leak(
        prompts=Overlap(count=12, n=90, example="chats.jsonl:3: Weather?"),
        arguments=Overlap(count=1000, n=2000, example="Bergen"),
        tools=Overlap(count=4, n=5),
    )
    card = make_card(leaks={"val": make_leak(), "test": leak})
    found = table(card, "Shared with training")
    assert found.head == ("Part", "Prompts", "Near-duplicates", "Text arguments", "Tools")
    assert found.rows == (
        ("val", "0 of 90", "0 of 90", "0 of 90", "0 of 90"),
        ("test", "12 of 90", "0 of 90", "1,000 of 2,000", "4 of 5"),
    )
    assert found.note == HOW_TO_READ_LEAKS
    assert table(card, "What is shared").rows == (
        ("test", "prompt", "chats.jsonl:3: Weather?"),
        ("test", "text argument", "Bergen"),
    )


def test_sentences_tell_what_happened_to_the_rows() -> None:
    assert data_sentences(make_card()) == ["1,200 rows became 1,150 samples; 50 (4.2%) were set aside."]
    fields = {f"f{number}": 10 - number for number in range(10)}
    card = make_card(
        repeats={
            "duplicate": RepeatCount(count=1, row="a.jsonl:2 (Hi -> Hello)", kept="a.jsonl:1 (Hi -> Hello)"),
            "near_duplicate": RepeatCount(count=300, row="a.jsonl:4 (Hi! -> Hello)", kept="a.jsonl:1 (Hi -> Hello)"),
        },
        inferred_kinds=575,
        default_systems=230,
        repaired_nulls=7,
        moved_groups=2,
        pruned_tools=9,
        sources=(make_source(num_renamed=4, ignored_fields=fields), make_source(num_renamed=1)),
    )
    assert data_sentences(card)[1:] == [
        "1 (0.1%) row is the same as another, such as a.jsonl:2 (Hi -> Hello), beside a.jsonl:1 (Hi -> Hello).",
        "300 (25.0%) rows are almost the same as others, such as a.jsonl:4 (Hi! -> Hello), "
        "beside a.jsonl:1 (Hi -> Hello).",
        "The kind of 575 (50.0%) samples was inferred from the last turn.",
        "230 (20.0%) samples had no system message and got that of data.system.",
        "7 nulls that a table had filled in were taken out.",
        "5 samples got a new id, the own one being taken.",
        "2 of 1,100 groups of samples that start alike were moved to another part, so that no part lacks a kind.",
        "9 offers of held-out tools were taken out of samples of parts that must not see them.",
        "Fields that hold something and were not used: f0 (10 rows), f1 (9 rows), f2 (8 rows), f3 (7 rows), "
        "f4 (6 rows), f5 (5 rows), f6 (4 rows), f7 (3 rows) and 2 more.",
    ]


def test_tools_come_by_calls_and_those_never_called_are_counted() -> None:
    tools = {name: ToolCard(offered=5, calls=calls) for name, calls in {"a": 0, "b": 3, "c": 7}.items()}
    found = table(make_card(tools=tools, num_tools=3), "Tools")
    assert found.rows == (("c", 5, 7), ("b", 5, 3), ("a", 5, 0))
    assert found.note == "1 of 3 tools is offered and never called."


@pytest.mark.parametrize(
    ("prompts", "near", "said"),
    [
        ((0, 90), (0, 90), None),
        ((12, 90), (0, 90), "12 of 90 held-out samples repeat a prompt of training: the scores may be too good."),
        ((1, 90), (0, 90), "1 of 90 held-out samples repeats a prompt of training: the scores may be too good."),
        ((0, 1), (1, 1), "1 of 1 held-out sample nearly repeats a sample of training: the scores may be too good."),
        (
            (12, 90),
            (3, 90),
            "12 of 90 held-out samples repeat a prompt of training and "
            "3 of 90 held-out samples nearly repeat a sample of training: the scores may be too good.",
        ),
    ],
)
def test_repeated_samples_of_the_test_part_are_warned_of(
    prompts: tuple[int, int], near: tuple[int, int], said: str | None
) -> None:
    leak = make_leak(prompts=Overlap(count=prompts[0], n=prompts[1]), near_duplicates=Overlap(count=near[0], n=near[1]))
    assert leak_warning(make_card(leaks={"val": make_leak(), "test": leak})) == said


def test_what_scores_do_not_depend_on_is_not_warned_of() -> None:
    shared = Overlap(count=90, n=90)
    leaks = {
        "val": make_leak(prompts=shared, near_duplicates=shared),
        "test": make_leak(tools=shared, arguments=shared),
    }
    assert leak_warning(make_card(leaks=leaks)) is None
    assert leak_warning(make_card(leaks={})) is None


def test_the_verdict_says_that_held_out_prompts_are_in_training(tmp_path: Path) -> None:
    leak = make_leak(prompts=Overlap(count=12, n=90, example="chats.jsonl:3: Weather?"))
    report, page, text = report_of(tmp_path, make_card(leaks={"val": make_leak(), "test": leak}))
    said = "12 of 90 held-out samples repeat a prompt of training: the scores may be too good."
    assert report.verdict.reason == f"No adapter was scored, so none can be recommended. {said}"
    header = page[: page.index("</header>")]
    assert said in header
    assert text[: text.index("## ")].rstrip().endswith(said)


def test_a_clean_card_leaves_the_verdict_alone_and_is_in_all_three_forms(tmp_path: Path) -> None:
    report, page, text = report_of(tmp_path, make_card())
    assert report.verdict.reason == "No adapter was scored, so none can be recommended."
    assert DataCard.model_validate(report.data) == make_card()
    assert "| chats.jsonl | messages (it has a list \\`messages\\`) | 1,200 | 1,150 | 50 | 0123456789ab |" in text
    assert "### Shared with training\n\nShared prompts and near-duplicates make scores too good;" in text
    assert "| test | 0 of 90 | 0 of 90 | 0 of 90 | 0 of 90 |" in text
    assert re.search(r'<td class="text">test</td>(<td class="text">0 of 90</td>){4}', page)
    assert HOW_TO_READ_LEAKS in page
    assert re.search(r'<th>Source</th><th>Format, and why</th><th class="num">Rows</th>', page)


def test_hostile_names_and_examples_are_only_text(tmp_path: Path) -> None:
    found = {HOSTILE: ReasonCount(count=1, example=HOSTILE)}
    shared = Overlap(count=1, n=1, example=HOSTILE)
    source = make_source(path=HOSTILE, formats={HOSTILE: FormatCount(rows=1, why=HOSTILE)}, ignored_fields={HOSTILE: 1})
    card = make_card(
        sources=(source,),
        reasons=found,
        flags=found,
        tags={HOSTILE: 1},
        tools={HOSTILE: ToolCard(offered=1, calls=1)},
        leaks={"test": make_leak(prompts=shared, arguments=shared, tools=shared, near_duplicates=shared)},
    )
    _, page, text = report_of(tmp_path, card)
    places = 1 + 3 + 2 + 2 + 1 + 1 + 4  # field, source, reason, flag, tag, tool, what is shared
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == places
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("{{ 7 * 7 }} {% raw %}") == places
    assert page.count("\\x1b[31m\\u202e") == places
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", page + text)
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == places
    assert text.count(r"\| \`x\` \| \[link\](http:\/\/evil.example) \*\*bold\*\*") == places
    assert "<script" not in text
    assert "http://" not in text
    assert "\n# heading" not in text
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1, block


def test_long_examples_and_tables_are_cut_with_a_note(tmp_path: Path) -> None:
    tools = {f"tool_{number:04}": ToolCard(offered=1, calls=2000 - number) for number in range(600)}
    reasons = {"call_in_text": ReasonCount(count=1, example="z" * 3000)}
    _, page, text = report_of(tmp_path, make_card(tools=tools, num_tools=600, reasons=reasons))
    assert "<summary>600 rows</summary>" in page
    assert "tool_0499" in page
    assert "tool_0500" not in page
    assert "100 more rows: see data/card.json." in page
    assert f'{"z" * 2000} <span class="muted">(shortened)</span>' in page
    assert "z" * 2001 not in page
    assert "| tool\\_0011 | 1 | 1,989 |" in text
    assert "tool\\_0012" not in text
    assert "588 more rows: see data/card.json." in text
    assert f"| call\\_in\\_text | 1 | {'z' * 400} (shortened) |" in text


def test_a_card_of_another_version_is_one_line_and_stops_nothing(tmp_path: Path) -> None:
    old = make_card().model_dump(mode="json")
    del old["leaks"], old["flags"]
    report, page, text = report_of(tmp_path, old)
    line = (
        "data/card.json was written by another version (flags: Field required), so it is not shown here and nothing "
        "is said about leaks; report.json holds it as it is."
    )
    assert line in page
    assert line in text
    assert report.data == old
    assert "Shared with training" not in page + text


def test_a_run_without_a_card_says_so(tmp_path: Path) -> None:
    report, page, text = report_of(tmp_path, None)
    assert report.data == {}
    assert "This run has no data card." in page
    assert "## Data\n\nThis run has no data card.\n" in text


def test_the_card_of_real_rows_is_shown_whole(tmp_path: Path) -> None:
    tool = make_tool().model_dump(mode="json")
    rows = [
        {
            "messages": [
                user(f"What is the weather in town number {number}, {'abcdefghij'[number % 10] * 9}?").model_dump(),
                assistant("", make_call(city=f"Town {number}")).model_dump(exclude_none=True),
            ],
            "tools": [tool],
        }
        for number in range(40)
    ]
    lines = [json.dumps(row) for row in rows]
    (tmp_path / "chats.jsonl").write_text("\n".join([*lines, lines[0], '{"messages": <b>']) + "\n")
    config = RunConfig.model_validate(
        {
            "name": "demo",
            "model": {"base": "tiny"},
            "data": {"sources": [{"path": "chats.jsonl"}], "near_duplicate_threshold": None},
        }
    )
    card = prepare_data(config, RunDir(tmp_path / "prepared"), base_dir=tmp_path)
    _, page, text = report_of(tmp_path, card)
    assert "42 rows became 40 samples; 2 (4.8%) were set aside." in text
    assert re.search(r"\| chats\.jsonl \| messages \(.+\) \| 42 \| 40 \| 2 \| [0-9a-f]{12} \|", text)
    assert re.search(
        r"\| duplicate \| 1 \| .*chats\.jsonl:41: the same messages and tools as .*chats\.jsonl:1 \|", text
    )
    assert re.search(
        r'<td class="text">malformed_json</td><td class="num">1</td><td class="text">.*chats.jsonl:42: ', page
    )
    assert "| get\\_weather | 40 | 40 |" in text
