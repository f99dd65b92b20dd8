"""When2Call: is a call right, is something missing, can no tool do it, or is the answer known?

A row has `question`, `tools`, `answers` (a reply of each sort) and `correct_answer`: tool_call, request_for_info,
cannot_answer or direct. The published multiple choice is not asked here: the model replies in its own words, and the
reply is judged by what it does.
"""

from evals.cases.conversations import read_row as read_conversation
from evals.records import Case
from orchestrator.core.records import NO_FITTING_TOOL, JsonObject
from orchestrator.data.formats.when2call import is_choice
from orchestrator.data.rejection import Reason, RowRejected


def read_row(row: JsonObject, *, source: str) -> list[Case]:
    """The one case of a row, with its `uuid` as id.

    A question that cannot be answered asks for a reply that says so, also where the row offers no tool at all.

    Raises:
        RowRejected: If it is no such question.
    """
    if not is_choice(row):
        raise RowRejected(Reason.UNKNOWN_FORMAT, "the row has not all of `question`, `answers` and `correct_answer`")
    identifier = row.get("id") if row.get("id") is not None else row.get("uuid")
    (case,) = read_conversation({**row, "id": identifier}, row_format="messages", source=source)
    if row["correct_answer"] == "cannot_answer" and NO_FITTING_TOOL not in case.tags:
        case = case.model_copy(update={"tags": (*case.tags, NO_FITTING_TOOL)})
    return [case]
