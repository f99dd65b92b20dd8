"""Replies made anywhere, judged: `python -m evals.score`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from orchestrator.chat.formats import REPLY_FORMATS

_DESCRIPTION = """\
Judge replies that were made anywhere: was each what its case asks for, and if not, why?

The cases come from python -m evals.cases. The replies are JSON lines of at least `case_id` and `text`, the text as the
model wrote it, calls and all. A case without a reply is counted and is in no figure."""

_EXAMPLE = """\
example:
  python -m evals.score --cases cases.jsonl --generations generations.jsonl --out scores.json

  a line of generations.jsonl, in the format hermes:
  {"case_id": "q1", "text": "<tool_call>{\\"name\\": \\"area\\", \\"arguments\\": {\\"base\\": 10}}</tool_call>"}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Score a file of replies; returns the exit code."""
    from evals.score.files import score_files
    from orchestrator.core.process import make_parser, run_command

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
