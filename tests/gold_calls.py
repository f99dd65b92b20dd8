"""Calls of tools with schemas, rendered by the chat templates that TRL ships, to be read back."""

from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from typing import Any, NamedTuple

from builders import make_tool
from hypothesis import strategies as st

from orchestrator.chat.template_input import plain_tools
from orchestrator.core.records import FunctionCall, JsonObject, ToolCall, ToolSpec

_TRL = find_spec("trl")
assert _TRL is not None
SHIPPED = Path(str(_TRL.origin)).parent / "chat_templates"
"""Templates of many families; importing TRL itself would take many seconds."""


def shipped(name: str) -> str:
    return (SHIPPED / f"{name}.jinja").read_text(encoding="utf-8")


class Gold(NamedTuple):
    """Calls that a reply makes, and the tools that were offered for it."""

    tools: list[ToolSpec]
    calls: list[tuple[str, JsonObject]]

    @property
    def tool_calls(self) -> list[ToolCall]:
        return [ToolCall(function=FunctionCall(name=name, arguments=given)) for name, given in self.calls]

    def rendered(self, tokenizer: Any, template: str, before: str, content: str = "") -> str:
        """The last turn of a conversation: what stands behind the last `before`."""
        calls = [{"type": "function", "function": {"name": name, "arguments": given}} for name, given in self.calls]
        turns = [{"role": "user", "content": "Go."}, {"role": "assistant", "content": content, "tool_calls": calls}]
        whole = tokenizer.apply_chat_template(turns, plain_tools(self.tools), chat_template=template, tokenize=False)
        return str(whole[whole.rindex(before) + len(before) :])


_NUMBERS_AND_CONSTANTS = ("", "3", "-1.5", "true", "null", "{}", '["a"]')
_MARKS = ('say "hi"', "it's", "a < b </b>", "\n", " x ", "\\n", "Ünï", "{")
ODD_TEXTS = st.sampled_from([*_NUMBERS_AND_CONSTANTS, *_MARKS])
TEXTS = ODD_TEXTS | st.text()
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: not iskeyword(name))
SMALL = st.integers(-(2**31), 2**31)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What stands in objects and arrays."""
    return st.recursive(leaves, lambda part: st.lists(part, max_size=2) | st.dictionaries(NAMES, part, max_size=2))


ANYTHING = nested(st.none() | st.booleans() | SMALL | FLOATS | TEXTS)


def typed_values(
    texts: st.SearchStrategy[str], inner: st.SearchStrategy[Any]
) -> st.SearchStrategy[tuple[JsonObject, Any]]:
    """Pairs of a schema and a value that it takes; `inner` stands in objects and arrays."""

    def of(schema: JsonObject, values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[JsonObject, Any]]:
        return values.map(lambda value: (schema, value))

    return st.one_of(
        of({"type": "string"}, texts),
        of({}, texts),
        of({"type": "integer"}, SMALL),
        of({"type": "number"}, FLOATS | SMALL),
        of({"type": "boolean"}, st.booleans()),
        of({"enum": [1, 2, 3]}, st.sampled_from([1, 2, 3])),
        of({"anyOf": [{"type": "integer"}, {"type": "boolean"}]}, SMALL | st.booleans()),
        of({"type": "object"}, st.dictionaries(NAMES, inner, max_size=2)),
        of({"type": "array", "items": {}}, st.lists(inner, max_size=2)),
    )


@st.composite
def gold_calls(
    draw: st.DrawFn,
    texts: st.SearchStrategy[str] = TEXTS,
    inner: st.SearchStrategy[Any] = ANYTHING,
    max_calls: int = 3,
    names: st.SearchStrategy[str] = NAMES,
) -> Gold:
    """One to `max_calls` calls of tools that have the schemas of what is given to them."""
    values = typed_values(texts, inner)
    tools: list[ToolSpec] = []
    calls: list[tuple[str, JsonObject]] = []
    for name in draw(st.lists(names, min_size=1, max_size=max_calls, unique=True)):
        given = draw(st.dictionaries(names, values, max_size=3))
        tools.append(make_tool(name, **{key: schema for key, (schema, _) in given.items()}))
        calls.append((name, {key: value for key, (_, value) in given.items()}))
    return Gold(tools, calls)


@st.composite
def broken(draw: st.DrawFn, text: str, tags: tuple[str, ...]) -> str:
    """A text that is cut anywhere, or in which one of its tags is left out, doubled, or changed for another."""
    places = [(at, tag) for tag in tags for at in range(len(text)) if text.startswith(tag, at)]
    how = draw(st.sampled_from(["cut", "left out", "doubled", "changed"] if places else ["cut"]))
    if how == "cut":
        return text[: draw(st.integers(0, len(text)))]
    at, tag = draw(st.sampled_from(places))
    other = {"left out": "", "doubled": tag * 2, "changed": draw(st.sampled_from(tags))}[how]
    return text[:at] + other + text[at + len(tag) :]
