"""Conversations in any format of the training data as cases: the data's own reply is the expected one."""

from typing import Literal

from evals.cases.samples import Turns, cases_from_samples
from evals.records import Case
from orchestrator.config.fields import RowFormat
from orchestrator.core.records import JsonObject
from orchestrator.data.clean.quality import check_sample
from orchestrator.data.formats.canonical import sample_from_row
from orchestrator.data.formats.detect import detect_format
from orchestrator.data.rejection import Reason, RowRejected


def read_row(
    row: JsonObject, *, row_format: Literal["auto"] | RowFormat, source: str, turns: Turns = "all"
) -> list[Case]:
    """The cases of one conversation, checked as training data is: its calls fit the tools it offers.

    Raises:
        RowRejected: If the row is no good conversation, or no turn of the assistant in it can be a case.
    """
    named = detect_format(row).format if row_format == "auto" else row_format
    sample, _ = sample_from_row(row, named, source=source, keep_reasoning=False)
    sample, _ = check_sample(sample)
    cases = cases_from_samples([sample], turns=turns)
    if not cases:
        raise RowRejected(Reason.ROLES_OUT_OF_ORDER, "no turn of the assistant follows the user or a tool")
    return cases
