"""Calls of DeepSeek V3.2: functions with parameters in tags that are marked as DSML.

    prose <｜DSML｜function_calls>
    <｜DSML｜invoke name="get_weather">
    <｜DSML｜parameter name="city" string="true">Oslo</｜DSML｜parameter>
    <｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>
    </｜DSML｜invoke>
    </｜DSML｜function_calls> prose

Each parameter says whether it is a text, which stands there as it is, or strict JSON. `sections` says what is an
attempt. Where the schema of a tool asks for it, vLLM's parser makes numbers of texts and texts of numbers.
"""

from orchestrator.chat.formats.reply import (
    Attempt,
    ParseFault,
    ReplyFormat,
    Schemas,
    clip,
    named_call,
    not_a_call,
    problem,
)
from orchestrator.chat.formats.sections import Sections, invoke_body, invoke_call
from orchestrator.core.records import JsonObject
from orchestrator.notation.strict_json import StrictJsonError, first_fault, parse

DSML = "｜DSML｜"
_CALL = invoke_call(DSML)


def _to_call(name: str, parameters: list[tuple[str, ...]], _schemas: Schemas) -> Attempt:
    arguments: JsonObject = {}
    for key, is_text, text in parameters:
        if key in arguments:
            return not_a_call(f"the argument {clip(key)} is given twice")
        try:
            arguments[key] = text if is_text == "true" else parse(text)
        except StrictJsonError as error:
            reason: ParseFault = "not_json" if error.fault.detail.startswith("not JSON") else "not_strict_json"
            return problem(reason, f"the argument {clip(key)} is {error.fault.detail}")
    if fault := first_fault([name, arguments]):
        return problem("not_strict_json", fault.detail)
    return named_call(name, arguments)


def dsml_format(name: str, tag: str, reasoning_parser: str) -> ReplyFormat:
    """The format of DSML whose sections have this tag."""
    section = (f"<{DSML}{tag}>", f"</{DSML}{tag}>")
    sections = Sections(section, _CALL, invoke_body(DSML, r' string="(true|false)"', _to_call))
    return ReplyFormat(
        name=name,
        is_shown_in=lambda template: DSML in template and f"{tag}>" in template,
        read=sections.read,
        mark=section[0],
        closing_tag=section[1],
        other_marks=_CALL,
        vllm_parser=name,
        reasoning_parser=reasoning_parser,
    )


DEEPSEEK_V32 = dsml_format("deepseek_v32", "function_calls", "deepseek_r1")
