"""Small chat templates of notations for which TRL ships none: an assistant's turn begins with `<assistant>`."""

_TURNS = "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}{% else %}<assistant>{{ m.content }}"
_CALLS = "{% for c in m.tool_calls %}"
_END = "{% endfor %}"
_NAME, _GIVEN = "{{ c.function.name }}", "{{ c.function.arguments | tojson }}"
_OBJECT = f'{{"name": "{_NAME}", "arguments": {_GIVEN}}}'
_COMMA = "{% if not loop.last %}, {% endif %}"
_PYTHON = (
    _NAME + "({% for key, value in c.function.arguments | items %}{{ key }}={% if value is string %}"
    r"""{{ '"' }}{{ value | replace('\\', '\\\\') | replace('"', '\\"') | replace('\n', '\\n') }}{{ '"' }}"""
    "{% else %}{{ value | tojson }}{% endif %}" + _COMMA + "{% endfor %})"
)
_VALUE = "{{ value if value is string else value | tojson }}"
_DSML = (
    f'<｜DSML｜invoke name="{_NAME}">\n{{% for key, value in c.function.arguments | items %}}'
    """<｜DSML｜parameter name="{{ key }}" string="{{ 'true' if value is string else 'false' }}">"""
    + _VALUE
    + "</｜DSML｜parameter>\n{% endfor %}</｜DSML｜invoke>\n"
)
_INVOKE = _DSML.replace("｜DSML｜", "").replace(""" string="{{ 'true' if value is string else 'false' }}\"""", "")
_ENDINGS = {
    "deepseek_v31": f"<｜tool▁calls▁begin｜>{_CALLS}<｜tool▁call▁begin｜>{_NAME}<｜tool▁sep｜>{_GIVEN}"
    f"<｜tool▁call▁end｜>{_END}<｜tool▁calls▁end｜>",
    "kimi_k2": f"<|tool_calls_section_begin|>{_CALLS}<|tool_call_begin|>functions.{_NAME}:{{{{ loop.index0 }}}}"
    f"<|tool_call_argument_begin|>{_GIVEN}<|tool_call_end|>{_END}<|tool_calls_section_end|>",
    "granite": f"<|tool_call|>[{_CALLS}{_OBJECT}{_COMMA}{_END}]",
    "phi4_mini": f"{_CALLS}<|tool_call|>{_OBJECT}<|/tool_call|>{_END}",
    "llama4_pythonic": "{# <|header_start|> [f(key=value)] #}"
    f"<|python_start|>[{_CALLS}{_PYTHON}{_COMMA}{_END}]<|python_end|>",
    "olmo3": f"<function_calls>\n{_CALLS}{_PYTHON}\n{_END}</function_calls>",
    "cohere": f'<|START_ACTION|>[{_CALLS}{{"tool_call_id": "{{{{ loop.index0 }}}}", "tool_name": "{_NAME}", '
    f'"parameters": {_GIVEN}}}{_COMMA}{_END}]<|END_ACTION|>',
    "deepseek_v32": f"<｜DSML｜function_calls>\n{_CALLS}{_DSML}{_END}</｜DSML｜function_calls>",
    "deepseek_v4": f"<｜DSML｜tool_calls>\n{_CALLS}{_DSML}{_END}</｜DSML｜tool_calls>",
    "minimax_m2": f"<minimax:tool_call>\n{_CALLS}{_INVOKE}{_END}</minimax:tool_call>",
    "hermes": f"{_CALLS}<tool_call>\n{_OBJECT}\n</tool_call>\n{_END}",  # as Granite 4 and SmolLM3 write them
    "json": f"{{# [{_OBJECT}] #}}[{_CALLS}{_OBJECT}{_COMMA}{_END}]",  # as xLAM and Hammer do
}
TEMPLATES = {name: f"{_TURNS}{ending}{{% endif %}}{{% endfor %}}" for name, ending in _ENDINGS.items()}
"""By format, a template that shows users and assistants, every one of these with calls."""
