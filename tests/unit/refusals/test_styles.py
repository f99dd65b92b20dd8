"""Replies in styles that the labelled ones do not hold: short, moralising, redirecting, quoting, narrating, foreign."""

import json
from pathlib import Path

import pytest

from evals.judge.verdicts import classify_reply
from orchestrator.refusals import ReplyKind

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "reply_styles.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize(("text", "label"), [(row["text"], row["label"]) for row in ROWS])
def test_a_reply_of_any_style_is_what_it_does(text: str, label: str) -> None:
    assert classify_reply(text) is ReplyKind(label)
