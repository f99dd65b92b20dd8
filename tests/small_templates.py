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
_GEMMA_VALUE = """{% macro plain(value, quote) %}{% if value is string %}{{ quote }}{{ value }}{{ quote }}\
{% elif value is mapping %}{{ '{' }}{% for k, v in value | items %}{{ k }}:{{ plain(v, quote) }}\
{% if not loop.last %},{% endif %}{% endfor %}{{ '}' }}{% elif value is sequence %}[{% for v in value %}\
{{ plain(v, quote) }}{% if not loop.last %},{% endif %}{% endfor %}]{% else %}{{ value | tojson }}{% endif %}\
{% endmacro %}"""
_M3 = "]<]minimax[>["
_ELEMENT = f"""{{% macro element(value) %}}{{% if value is mapping %}}\
{{% for k, v in value | items if v is not none %}}\
{_M3}<{{{{ k }}}}>{{{{ element(v) }}}}{_M3}</{{{{ k }}}}>{{% endfor %}}\
{{% elif value is sequence and value is not string %}}\
{{% for v in value %}}{_M3}<item>{{{{ element(v) }}}}{_M3}</item>{{% endfor %}}\
{{% else %}}{{{{ value if value is string else value | tojson }}}}{{% endif %}}{{% endmacro %}}"""
_XML = (
    f"<function={_NAME}>\n{{% for key, value in c.function.arguments | items %}}<parameter={{{{ key }}}}>"
    + _VALUE
    + "</parameter>\n{% endfor %}</function>\n"
)
_MIMO_VALUE = "{# <parameter=' + key + '>' #}"
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
    "minimax_m3": f'{_ELEMENT}{_M3}<tool_call>\n{_CALLS}{_M3}<invoke name="{_NAME}">'
    f"{{{{ element(c.function.arguments) }}}}{_M3}</invoke>\n{_END}{_M3}</tool_call>",
    "gigachat3": f"{_CALLS}<|function_call|>{_OBJECT}{_END}{{# <|role_sep|> #}}",
    "minimax_m1": f"<tool_calls>\n{_CALLS}{_OBJECT}\n{_END}</tool_calls>",
    "hunyuan": f"<tool_calls>[{_CALLS}{_OBJECT}{_COMMA}{_END}]</tool_calls>",
    "nemotron_v2": f"<TOOLCALL>[{_CALLS}{_OBJECT}{_COMMA}{_END}]</TOOLCALL>",
    "internlm": f"{_CALLS}<|action_start|><|plugin|>\n{_OBJECT}<|action_end|>{_END}",
    "seed_oss": f"{_CALLS}<seed:tool_call>\n{_XML}</seed:tool_call>{_END}",
    "mimo": f"{_MIMO_VALUE}{_CALLS}<tool_call>\n{_XML}</tool_call>{_END}",
    "functiongemma": _GEMMA_VALUE + f"{_CALLS}<start_function_call>call:{_NAME}"
    "{{ plain(c.function.arguments, '<escape>') }}<end_function_call>" + _END,
    "mistral": f"{_CALLS}[TOOL_CALLS]{_NAME}[ARGS]{_GIVEN}{_END}",
    "llama_json": "{# <|start_header_id|> #}"
    f'{_CALLS}{{"name": "{_NAME}", "parameters": {_GIVEN}}}{{% if not loop.last %}}; {{% endif %}}{_END}',
    "pythonic": f"[{{# [f(key=value)] #}}{_CALLS}{_PYTHON}{_COMMA}{_END}]",
    "hermes": f"{_CALLS}<tool_call>\n{_OBJECT}\n</tool_call>\n{_END}",  # as Granite 4 and SmolLM3 write them
    "json": f"{{# [{_OBJECT}] #}}[{_CALLS}{_OBJECT}{_COMMA}{_END}]",  # as xLAM and Hammer do
}
TEMPLATES = {name: f"{_TURNS}{ending}{{% endif %}}{{% endfor %}}" for name, ending in _ENDINGS.items()}
"""By format, a template that shows users and assistants, every one of these with calls."""

_OTHERS = {
    "mistral": f"[TOOL_CALLS] [{_CALLS}{_OBJECT}{_COMMA}{_END}]",
    "phi4_mini": f"functools[{_CALLS}{_OBJECT}{_COMMA}{_END}]",
    "glm4": f"{_CALLS}<tool_call>{_NAME}{{% for key, value in c.function.arguments | items %}}"
    f"<arg_key>{{{{ key }}}}</arg_key><arg_value>{_VALUE}</arg_value>{{% endfor %}}</tool_call>{_END}",
}
OTHERS = {name: f"{_TURNS}{ending}{{% endif %}}{{% endfor %}}" for name, ending in _OTHERS.items()}
"""By format, a second way in which models of the family write calls."""
