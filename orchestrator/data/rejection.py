"""Why a row cannot become a sample."""

from enum import StrEnum


class Reason(StrEnum):
    """Reason codes of `data/quarantine.jsonl`."""

    MALFORMED_JSON = "malformed_json"
    """The row is not strict JSON: broken syntax, NaN, duplicate keys, a number too long."""
    NESTED_TOO_DEEPLY = "nested_too_deeply"
    INVALID_UNICODE = "invalid_unicode"
    """A string holds half a surrogate pair."""
    ROW_NOT_AN_OBJECT = "row_not_an_object"
    UNKNOWN_FORMAT = "unknown_format"
    """The row is neither `messages` nor ShareGPT, or not the one that the config asks for."""
    MALFORMED_FIELD = "malformed_field"
    """A field has the wrong type, such as a turn that is not an object or an id that is a list."""
    UNSUPPORTED_CONTENT = "unsupported_content"
    """Something that is not text, a tool call or a tool result: images, reasoning parts, `function_call` fields."""
    EMPTY_CONVERSATION = "empty_conversation"
    EMPTY_TURN = "empty_turn"
    """A user turn without text, or an assistant turn with neither text nor calls."""
    UNKNOWN_ROLE = "unknown_role"
    NO_USER_TURN = "no_user_turn"
    NO_ASSISTANT_TURN = "no_assistant_turn"
    ROLES_OUT_OF_ORDER = "roles_out_of_order"
    ENDS_WITHOUT_ASSISTANT = "ends_without_assistant"
    """The last turn is not the assistant's, so that there is nothing to learn after it."""
    CALL_IN_TEXT = "call_in_text"
    """A call is written as text in the content of a turn."""
    CALL_NOT_JSON = "call_not_json"
    """A ShareGPT function_call turn that is not strict JSON."""
    ARGUMENTS_NOT_JSON = "arguments_not_json"
    ARGUMENTS_NOT_OBJECT = "arguments_not_object"
    ARGUMENTS_DO_NOT_FIT_SCHEMA = "arguments_do_not_fit_schema"
    UNKNOWN_TOOL = "unknown_tool"
    """A call names a tool that the row does not offer."""
    TOOLS_NOT_JSON = "tools_not_json"
    INVALID_TOOL = "invalid_tool"
    """A tool without a name, or of another type than function."""
    INVALID_TOOL_SCHEMA = "invalid_tool_schema"
    """A tool's parameters are no valid JSON Schema of an object, or refer to another document."""
    DUPLICATE_TOOL = "duplicate_tool"
    TOOL_RESULT_WITHOUT_CALL = "tool_result_without_call"
    CALL_WITHOUT_RESULT = "call_without_result"
    """A call before the last turn that no tool message answers."""
    UNKNOWN_KIND = "unknown_kind"
    KIND_DISAGREES = "kind_disagrees"
    """The given kind says tool_call and the last turn has none, or the reverse."""
    DUPLICATE = "duplicate"
    """The same messages and tools as an earlier sample."""


class RowRejected(Exception):
    """One row cannot become a sample. Caught where rows are collected, never shown as a traceback.

    Args:
        reason: The code that the quarantine counts.
        detail: What is wrong in this row, in one clause.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")
