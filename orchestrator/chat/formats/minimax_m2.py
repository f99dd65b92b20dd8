"""Calls of MiniMax M2: functions with parameters in tags, in a section of their own.

    prose <minimax:tool_call>
    <invoke name="get_weather">
    <parameter name="city">Oslo</parameter>
    </invoke>
    </minimax:tool_call> prose

Values have no types: the module `typed` reads them by the tool's schema. White space around them belongs to them.
`sections` says what is an attempt.
"""

from orchestrator.chat.formats.reply import Attempt, ReplyFormat, Schemas
from orchestrator.chat.formats.sections import Sections, invoke_body, invoke_call
from orchestrator.chat.formats.typed import typed_call

_SECTION = ("<minimax:tool_call>", "</minimax:tool_call>")
_CALL = invoke_call("")


def _to_call(name: str, parameters: list[tuple[str, ...]], schemas: Schemas) -> Attempt:
    return typed_call(name, ((key, text) for key, text in parameters), schemas)


MINIMAX_M2 = ReplyFormat(
    name="minimax_m2",
    is_shown_in=lambda template: _SECTION[0] in template,
    read=Sections(_SECTION, _CALL, invoke_body("", "", _to_call)).read,
    mark=_SECTION[0],
    closing_tag=_SECTION[1],
    other_marks=_CALL,
    vllm_parser="minimax_m2",
    reasoning_parser="minimax_m2",
)
