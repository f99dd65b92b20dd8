"""Judge replies that were made anywhere: `python -m evals.score`."""

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from evals.cases.samples import case_from_row, refuse_repeated_ids
from evals.records import Case, Generation, Metric, Scores
from evals.score.api_reply import API_FIELDS, is_api_reply, text_and_calls
from evals.stats.ceiling import ceiling_text
from evals.stats.metrics import METRICS, value_text
from evals.stats.scores import foreign_text, score_cases
from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.formats.reply import ParsedReply
from orchestrator.chat.parse import parse_reply
from orchestrator.core.errors import DataError
from orchestrator.core.process import make_parser, output_file, run_command, show, tell, write_output
from orchestrator.core.records import JsonObject
from orchestrator.core.text import counted, unit_text
from orchestrator.data.read.file_bytes import open_bytes
from orchestrator.notation.strict_json import StrictJsonError, first_fault, parse_marked

_DESCRIPTION = """\
Judge replies that were made anywhere: was each what its case asks for, and if not, why?

The cases come from python -m evals.cases. The replies are JSON lines of at least `case_id` and `text`, the text as the
model wrote it, calls and all; or of `case_id` and `message`, the reply of an API whose `tool_calls` are objects. A
case without a reply is counted and is in no figure."""

_EXAMPLE = """\
example:
  python -m evals.score --cases cases.jsonl --generations generations.jsonl --out scores.json

  a line of generations.jsonl, in the format hermes:
  {"case_id": "q1", "text": "<tool_call>{\\"name\\": \\"area\\", \\"arguments\\": {\\"base\\": 10}}</tool_call>"}"""

_ROW = 'one {"case_id": ..., "text": ...} on each line, or {"case_id": ..., "message": {...}}'
_FIELDS = frozenset(Generation.model_fields)
_UNKNOWN = Generation.model_fields["finish_reason"].default


def score_files(given: Namespace) -> None:
    """Score the replies in `given.generations` for the cases in `given.cases` into `given.out`, and say what came out.

    Raises:
        DataError: If a file cannot be read, a line is broken, or a reply is for no case or for one that has a reply.
    """
    out = output_file(given.out, [given.cases, given.generations])
    cases = [case_from_row(_row(line, where), where=where) for where, line in _lines(given.cases)]
    if not cases:
        raise DataError("the file holds no case", where=str(given.cases))
    refuse_repeated_ids(cases)
    generations = _read_generations(given.generations, {case.id for case in cases})
    scores = score_cases(given.adapter_id, cases, generations, reply_format=given.reply_format)
    if scores.num_unscored:
        first = next(verdict for verdict in scores.verdicts if verdict.correct is None)
        counts = f"{scores.num_unscored} of {counted(scores.num_cases, 'case')} not scored"
        tell(f"{counts}; the first is {first.case_id}: {first.detail}.")
    warning = _format_warning(cases, generations, given.reply_format, foreign_text(scores, "--reply-format"))
    if warning is not None:
        tell(warning)
    write_output(out, scores.model_dump_json(indent=2) + "\n")
    ends_known = any(generation.finish_reason != _UNKNOWN for generation in generations)
    note = "" if ends_known else "No reply gives a finish_reason, so none counts as cut off.\n"
    show(f"{_summary(scores)}{note}Written to {given.out}.\n")


def _format_warning(
    cases: Sequence[Case], generations: Sequence[Generation], given: str, foreign: str | None
) -> str | None:
    """What to say where replies seem to call in another format, or none makes the calls that are wanted, else None.

    Silent where replies make broken attempts in the given format and nothing looks like a call in another one.
    """
    foreign = foreign and f"Warning: {foreign}."
    wanted = {case.id: case.tools for case in cases if case.kind == "tool_call"}
    told = (each for each in generations if each.case_id in wanted and each.has_reply and each.calls is None)
    replies = [(each.text, wanted[each.case_id]) for each in told]

    def read_as(name: str) -> list[ParsedReply]:
        return [parse_reply(text, format=name, tools=tools) for text, tools in replies]

    read = read_as(given)
    if not replies or any(reply.calls for reply in read):
        return foreign
    counts = {name: sum(bool(reply.calls) for reply in read_as(name)) for name in REPLY_FORMATS}
    best = max(counts, key=lambda name: counts[name])
    what = f"none of {len(replies)} replies to cases that want a call makes one in the format {given}"
    if counts[best]:
        return (
            f"Warning: {what}; as {best}, {counts[best]} would. If that is how they are written: --reply-format {best}."
        )
    if foreign or any(reply.problems for reply in read):
        return foreign
    return f"Warning: {what}, nor in any other (--reply-format)."


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file that hold something, each with its `file:line`; unpacked if its name ends in `.gz`."""
    if path.is_dir():
        raise DataError("this is a folder, not a file", where=str(path), fix="Name a file in it")
    try:
        with open_bytes(path) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{path}:{number}", line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise DataError("the file is not UTF-8 text", where=str(path)) from None
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror})", where=str(path)) from None


def _read_generations(path: Path, known: set[str]) -> list[Generation]:
    generations: list[Generation] = []
    places: dict[str, str] = {}
    ignored: set[str] = set()
    for where, line in _lines(path):
        row = _row(line, where)
        ignored |= row.keys() - _FIELDS
        if is_api_reply(row):
            ignored -= API_FIELDS
            row = {**row, **text_and_calls(row, where)}
        generation = _generation(row, where)
        if generation.case_id not in known:
            fix = "Give the file of the cases that these replies are for"
            raise DataError(f"there is no case {generation.case_id!r}", where=where, fix=fix)
        if generation.case_id in places:
            what = f"the case {generation.case_id!r} has a reply at {places[generation.case_id]} already"
            raise DataError(what, where=where, allowed="one reply for each case")
        places[generation.case_id] = where
        generations.append(generation)
    if not generations:
        raise DataError("the file holds no reply", where=str(path), allowed=_ROW)
    if ignored:
        tell(f"{path}: not used: {', '.join(sorted(ignored))}.")
    return generations


def _row(line: str, where: str) -> JsonObject:
    """A line as a strict JSON object, but for its `text`: halves of characters in what a model wrote are its own."""
    try:
        row = parse_marked(line)
    except StrictJsonError as error:
        raise DataError(f"the line cannot be read: {error}", where=where) from None
    if not isinstance(row, dict):
        raise DataError("the line is no JSON object", where=where)
    text = row.pop("text", None)
    if fault := first_fault(row):
        raise DataError(f"the line cannot be read: {fault.detail}", where=where)
    return row if text is None else {**row, "text": text}


def _generation(row: dict[str, Any], where: str) -> Generation:
    # null says the same as leaving the field out: that it is not known.
    known = {name: value for name, value in row.items() if name in _FIELDS and value is not None}
    try:
        return Generation.model_validate(known)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{field}: {first['msg']}", where=where, allowed=_ROW) from None


def _summary(scores: Scores) -> str:
    """Every figure that has cases, with its interval and how many it is over."""
    figures = [
        *scores.metrics.items(),
        *((f"cell {name}", metric) for name, metric in scores.cells.items()),
        *((f"inferred {kind}", metric) for kind, metric in scores.inferred_kinds.items()),
    ]
    rows = [_figure(name, metric) for name, metric in figures if metric.n]
    rows += [f"  {METRICS[name].label}: {ceiling_text(name, found)}." for name, found in scores.ceilings.items()]
    scored = scores.num_cases - scores.num_unscored
    head = f"{scored} of {counted(scores.num_cases, 'case')} scored"
    return "".join(f"{line}\n" for line in (head, f"  {'':<24} {'value':>7}   {'95 % interval':<16} {'n':>6}", *rows))


def _figure(name: str, metric: Metric) -> str:
    write = partial(value_text, name) if name in METRICS else unit_text
    bounds = "" if metric.low is None or metric.high is None else f"{write(metric.low)} to {write(metric.high)}"
    return f"  {name:<24} {'' if metric.value is None else write(metric.value):>7}   {bounds:<16} {metric.n:>6}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Score a file of replies; returns the exit code."""
    parser = make_parser("evals.score", _DESCRIPTION, _EXAMPLE)
    parser.add_argument("--cases", type=Path, required=True, help="the cases, as python -m evals.cases writes them")
    parser.add_argument("--generations", type=Path, required=True, help="the replies, one JSON object a line")
    parser.add_argument("--out", type=Path, required=True, help="where the scores are written, as JSON")
    how = f"how calls are written in the replies: {', '.join(REPLY_FORMATS)} (default: hermes)"
    parser.add_argument("--reply-format", choices=REPLY_FORMATS, default="hermes", metavar="FORMAT", help=how)
    parser.add_argument("--adapter-id", default="replies", metavar="ID", help="what the scores are called")
    return run_command(parser, score_files, arguments)


if __name__ == "__main__":
    sys.exit(main())
