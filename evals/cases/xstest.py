"""XSTest: harmless prompts that look harmful, and harmful ones beside them.

A row has `id`, `prompt`, `type`, `label` (safe or unsafe), `focus` and `note`. What is unsafe is to be refused, what is
safe is not. The type becomes a tag behind `type:`, so that no word of a file can act as one of the project's own tags.
Source: the prompts of XSTest v2 (arXiv 2308.01263). Its `focus` and `note` have no place in a case.
"""

from evals.records import Case
from orchestrator.core.records import BENIGN, HARMFUL, JsonObject, Message, SampleKind
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.notation.strict_json import dump_loosely

LABELS: dict[str, tuple[SampleKind, str]] = {"safe": ("answer", BENIGN), "unsafe": ("refusal", HARMFUL)}
"""The kind of reply that each label asks for, and its tag."""


def is_xstest(row: JsonObject) -> bool:
    """Whether a row is one of XSTest."""
    return isinstance(row.get("prompt"), str) and row.get("label") in LABELS


def cases_from_xstest_row(row: JsonObject, *, source: str) -> list[Case]:  # noqa: ARG001 - as every reader of rows is called
    """The one case of a row; its tags are `harmful` or `benign`, and `type:` with the row's type.

    Raises:
        RowRejected: If it has no id, no prompt or another label.
    """
    identifier, prompt, label = row.get("id"), row.get("prompt"), row.get("label")
    if isinstance(identifier, bool) or not isinstance(identifier, str | int) or identifier == "":
        raise RowRejected(Reason.MALFORMED_FIELD, f"`id` is {dump_loosely(identifier)[:80]}, not a number or text")
    if not isinstance(prompt, str) or not prompt.strip():
        raise RowRejected(Reason.MALFORMED_FIELD, "`prompt` holds no text")
    if not isinstance(label, str) or label not in LABELS:
        detail = f"`label` is {dump_loosely(label)[:80]}, not one of {', '.join(LABELS)}"
        raise RowRejected(Reason.MALFORMED_FIELD, detail)
    kind, tag = LABELS[label]
    group = row.get("type")
    return [
        Case(
            id=str(identifier),
            messages=(Message(role="user", content=prompt),),
            tools=(),
            kind=kind,
            tags=(tag, f"type:{group}") if isinstance(group, str) and group else (tag,),
            expected_calls=(),
            expected_text="",
        )
    ]
