"""A suite's file as `cases.jsonl`: `python -m evals.cases`."""

import math
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from evals.cases.samples import Turns
from evals.records import Case
from orchestrator.config.evaluation import SuiteFormat
from orchestrator.core.errors import DataError
from orchestrator.core.records import SAMPLE_KINDS
from orchestrator.core.text import unit_text

_DESCRIPTION = """\
Read a file of questions and write one case a line: the prompt, the offered tools, and what its reply should be.

Then make replies with any model you like, one line of {"case_id": ..., "text": ...} for each case, and judge them
with python -m evals.score. A case holds `messages` and `tools` as chat templates take them."""

_EXAMPLE = """\
example:
  python -m evals.cases --format bfcl --input questions.jsonl --answers answers.jsonl --out cases.jsonl"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the cases of a file; returns the exit code."""
    from orchestrator.core.process import make_parser, run_command

    parser = make_parser("evals.cases", _DESCRIPTION, _EXAMPLE)
    formats = [name for part in get_args(SuiteFormat) for name in get_args(part) or (part,)]
    how = f"how rows are written: {', '.join(formats)}; auto, the default, looks at each row"
    parser.add_argument("--format", choices=formats, default="auto", metavar="FORMAT", help=how)
    parser.add_argument("--input", type=Path, required=True, help="the file of questions or conversations")
    beside = "bfcl: the file of accepted answers, if it is not beside the input"
    parser.add_argument("--answers", type=Path, help=beside)
    which = "all turns of the assistant, or the last"
    parser.add_argument("--turns", choices=get_args(Turns), default="all", help=which)
    parser.add_argument("--limit", type=int, metavar="N", help="use the first N rows")
    parser.add_argument("--out", type=Path, required=True, help="where the cases are written")
    return run_command(parser, _write_cases, arguments)


def _write_cases(given: Namespace) -> None:
    # The formats need the readers of the data, which whoever only scores replies does not.
    from evals.cases.suites import cases_from_file
    from orchestrator.core.files import dump_jsonl
    from orchestrator.core.process import output_file, show, write_output
    from orchestrator.data.formats.bfcl import answers_path

    if given.limit is not None and given.limit < 1:
        raise DataError(f"{given.limit} rows are asked for", where="--limit", allowed="a whole number at least 1")
    out = output_file(given.out, [given.input, given.answers, answers_path(given.input)])
    cases = cases_from_file(
        given.input,
        given.format,
        suite=given.input.name.partition(".")[0] or given.input.name,
        answers=given.answers,
        limit=given.limit,
        turns=given.turns,
    )
    write_output(out, dump_jsonl(cases))
    show(_summary(cases) + f"Written to {given.out}.\n")


def _summary(cases: Sequence[Case]) -> str:
    """How many cases there are of each kind, and how well a share of each will be known."""
    from scipy.stats import binomtest

    counted = "1 case" if len(cases) == 1 else f"{len(cases)} cases"
    lines = [f"{counted}; a share of one half of n would be known to the 95 % interval beside it."]
    for kind in SAMPLE_KINDS:
        count = sum(case.kind == kind for case in cases)
        if count:
            low, high = binomtest(math.ceil(count / 2), count).proportion_ci(method="wilson")
            lines.append(f"  {kind:<14} n {count:>6}   {unit_text(low)} to {unit_text(high)}")
    return "".join(line + "\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
