import re
from collections.abc import Iterator
from random import Random
from string import Formatter
from typing import Any

import jsonschema
import pytest

from orchestrator.core.records import JsonObject
from orchestrator.toy.catalogue import Argument, Tool, tools_of

EASY_TOOLS, FULL_TOOLS = tools_of("easy"), tools_of("full")
DRAWS = 200
EASY_LIMIT = 3
"""Most arguments of an easy tool."""


def names_in(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name}


def schemas_in(schema: JsonObject) -> Iterator[JsonObject]:
    yield schema
    inner = [*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])]
    for each in inner:
        yield from schemas_in(each)


def draws(argument: Argument) -> list[Any]:
    rng = Random(0)
    return [argument.sample(rng) for _ in range(DRAWS)]


every_tool = pytest.mark.parametrize("tool", FULL_TOOLS, ids=lambda tool: tool.name)
every_argument = pytest.mark.parametrize(
    "argument", [pytest.param(each, id=f"{tool.name}.{each.name}") for tool in FULL_TOOLS for each in tool.arguments]
)


def test_there_are_at_least_25_tools_of_different_names() -> None:
    names = [tool.name for tool in FULL_TOOLS]
    assert len(names) >= 25
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", name) for name in names)


def test_the_easy_tools_are_some_of_the_full_ones_and_short() -> None:
    easy = [tool.name for tool in EASY_TOOLS]
    assert set(easy) < {tool.name for tool in FULL_TOOLS}
    assert easy == [tool.name for tool in FULL_TOOLS if tool.easy]
    for tool in EASY_TOOLS:
        assert len(tool.arguments) <= EASY_LIMIT
        kinds = {argument.schema["type"] for argument in tool.arguments}
        assert kinds <= {"string", "number", "integer"}, f"{tool.name} is not easy to copy"


def test_the_shapes_that_real_schemas_have_are_there() -> None:
    schemas = [schema for tool in FULL_TOOLS for schema in schemas_in(tool.spec().function.arguments_schema)]
    top = [argument.schema for tool in FULL_TOOLS for argument in tool.arguments]
    assert any("enum" in schema for schema in schemas)
    assert any(schema["type"] == "object" and schema.get("properties") for schema in top)
    assert any(schema["type"] == "array" and schema["items"]["type"] == "object" for schema in top)
    assert any(schema["type"] == "array" and schema["items"]["type"] == "string" for schema in top)
    assert {"number", "integer", "boolean", "string"} <= {schema["type"] for schema in schemas}
    assert any(schema.get("minimum") is not None for schema in schemas)
    assert any("pattern" in schema for schema in schemas)
    assert sum(bool(tool.optional) for tool in FULL_TOOLS) >= 10
    assert any(not tool.optional for tool in FULL_TOOLS)


@every_tool
def test_a_tool_offers_a_valid_closed_schema(tool: Tool) -> None:
    parameters = tool.spec().function.arguments_schema
    jsonschema.Draft202012Validator.check_schema(parameters)
    assert parameters["required"] == [argument.name for argument in tool.required]
    assert set(parameters["properties"]) == {argument.name for argument in tool.arguments}
    assert parameters["additionalProperties"] is False
    assert (tool.spec().function.description or "").endswith(".")
    assert tool.required


@every_argument
def test_every_value_that_is_drawn_fits_its_schema(argument: Argument) -> None:
    validator = jsonschema.Draft202012Validator(argument.schema)
    for value in draws(argument):
        validator.validate(value)


@every_argument
def test_different_values_are_worded_differently(argument: Argument) -> None:
    said: dict[str, Any] = {}
    for value in draws(argument):
        assert said.setdefault(argument.say(value), value) == value


@every_tool
def test_requests_state_every_required_argument_in_several_wordings(tool: Tool) -> None:
    assert len(set(tool.requests)) == len(tool.requests) >= 2
    for request in tool.requests:
        assert names_in(request) == {argument.name for argument in tool.required}


@every_tool
def test_an_optional_argument_is_added_in_several_wordings(tool: Tool) -> None:
    for argument in tool.optional:
        assert len(set(argument.clauses)) >= 2
        assert all(clause.count("{}") == 1 for clause in argument.clauses)


@every_tool
def test_an_incomplete_request_lacks_its_argument_alone_and_can_be_asked_about(tool: Tool) -> None:
    required = {argument.name: argument for argument in tool.required}
    for missing, requests in tool.incomplete.items():
        assert required[missing].question.endswith("?")
        assert len(set(requests)) >= 2
        for request in requests:
            assert missing not in names_in(request)
            assert names_in(request) <= set(required)
            assert request not in tool.requests


def test_most_tools_have_an_incomplete_request() -> None:
    assert sum(bool(tool.incomplete) for tool in FULL_TOOLS) >= 25
