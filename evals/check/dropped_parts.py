"""What a chat template leaves out of a conversation, told by words that no template writes."""

from evals.check.card import ParityProblemCode
from orchestrator.chat.rendering import ChatFormat
from orchestrator.chat.template_input import RowLeftOut, plain_tools
from orchestrator.core.records import FunctionCall, FunctionSpec, Message, ToolCall, ToolSpec

PARTS: tuple[ParityProblemCode, ...] = ("system_dropped", "tools_dropped", "tool_calls_dropped", "tool_results_dropped")
"""What a template may leave out as a whole."""


def dropped_parts(form: ChatFormat, code: ParityProblemCode) -> list[str]:
    """What of a conversation with this part does not appear in its text. A template that refuses it drops nothing."""
    ask = Message(role="user", content="What is it like?")
    call = ToolCall(function=FunctionCall(name="orchard_lantern", arguments={"meadow_key": "harbour_value"}))
    result = Message(role="tool", name="orchard_lantern", content="glacier_result")
    called = (ask, Message(role="assistant", tool_calls=(call,)), result)
    parameters = {"type": "object", "properties": {"meadow_key": {"type": "string"}}}
    tool = FunctionSpec(name="orchard_lantern", description="copper_description", parameters=parameters)
    of_tool = {"orchard_lantern": "tools", "copper_description": "descriptions", "meadow_key": "parameters of tools"}
    of_call = {"orchard_lantern": "tool calls", "meadow_key": "arguments", "harbour_value": "values of arguments"}
    system = Message(role="system", content="violet_system")
    probes: dict[str, tuple[tuple[Message, ...], dict[str, str]]] = {
        "system_dropped": ((system, ask), {"violet_system": "system messages"}),
        "tools_dropped": ((ask,), of_tool),
        "tool_calls_dropped": (called, of_call),
        "tool_results_dropped": (called, {"glacier_result": "tool results"}),
    }
    messages, words = probes[code]
    # Some templates show calls only where tools are offered: one of another name, so that it hides no call.
    other = FunctionSpec(name="plain_tool", description="Does nothing.", parameters={"type": "object"})
    offers = [(tool,)] if code == "tools_dropped" else [(), (other,)]
    texts = []
    for functions in offers:
        offered = plain_tools([ToolSpec(function=function) for function in functions])
        try:
            texts.append(form.text(form.plain(messages), offered, prompt=True))
        except RowLeftOut:
            return []
    return [what for word, what in words.items() if not any(word in text for text in texts)]
