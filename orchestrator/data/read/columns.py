r"""`data.sources[].fields`: fields that the formats read, taken from columns with other names.

    fields: {messages: dialog, tools: meta.tools, kind: label?, instruction: "{title}\n{description}"}

A column is named as it is, or by a path: parts between dots, numbers for places in a list, through JSON text on the
way. In a template each `{column}` stands for the column's text. `?` at the end allows a row to hold nothing there.
"""

from collections.abc import Mapping
from functools import lru_cache
from string import Formatter
from typing import Any, NamedTuple

from orchestrator.core.errors import ConfigError
from orchestrator.core.records import JsonObject
from orchestrator.data.rejection import Reason, RowRejected
from orchestrator.notation.strict_json import StrictJsonError, dump_loosely, parse

OPTIONAL = "?"
MOST_NAMED = 20
"""Columns that a message about a missing one names."""


class Column(NamedTuple):
    """A column as `fields` names it."""

    name: str
    is_optional: bool


class Recipe(NamedTuple):
    """What a field is made of: text, each followed by a column or None; the value of one column if no template."""

    parts: tuple[tuple[str, Column | None], ...]
    is_template: bool

    @property
    def columns(self) -> list[Column]:
        """The columns named."""
        return [column for _, column in self.parts if column is not None]


class Mapped(NamedTuple):
    """A row under the names that the formats read, and the columns that were found in it."""

    row: JsonObject
    found: tuple[str, ...]


@lru_cache
def read_recipe(text: str) -> Recipe:
    """What a value of `fields` says; ConfigError for a template that names no column in some braces, or adds to one."""
    if "{" not in text and "}" not in text:
        return Recipe((("", _column(text)),), is_template=False)
    try:
        pieces = list(Formatter().parse(text))
    except ValueError as error:
        raise _bad_template(text, str(error)) from None
    parts: list[tuple[str, Column | None]] = []
    for literal, name, spec, conversion in pieces:
        if name == "" or spec or conversion:
            raise _bad_template(text, "braces hold the name of a column and nothing else")
        parts.append((literal, None if name is None else _column(name)))
    recipe = Recipe(tuple(parts), is_template=True)
    if not recipe.columns:
        raise _bad_template(text, "it names no column")
    return recipe


def _column(text: str) -> Column:
    name = text.strip().removesuffix(OPTIONAL)
    return Column(name, is_optional=name != text.strip())


def _bad_template(text: str, problem: str) -> ConfigError:
    return ConfigError(
        f"the template {text!r} cannot be read: {problem}",
        where="data.sources.fields",
        allowed="text with columns in braces, such as {title} or {meta.topic?}; {{ and }} are braces in the text",
    )


def map_fields(row: JsonObject, fields: Mapping[str, str]) -> Mapped:
    """The row with every field taken from its columns; a column that was taken is not read under its own name too.

    MISSING_COLUMN if the row holds nothing in a column that is not optional: it is absent or null.
    """
    values, found = {}, {}
    for field, text in fields.items():
        recipe = read_recipe(text)
        for column in recipe.columns:
            value = look_up(row, column.name)
            if value is not None:
                found[column.name] = value
            elif not column.is_optional:
                named = ", ".join(name[:40] for name in list(row)[:MOST_NAMED]) or "(none)"
                detail = f"nothing in the column {column.name!r}, which `fields` gives for `{field}`"
                raise RowRejected(Reason.MISSING_COLUMN, f"{detail}; the row has {named}")
        if any(column.name in found for column in recipe.columns):
            values[field] = _value(recipe, found)
    taken = {name if name in row else name.partition(".")[0] for name in found}
    return Mapped({name: value for name, value in row.items() if name not in taken} | values, tuple(found))


def _value(recipe: Recipe, found: JsonObject) -> Any:
    if not recipe.is_template:
        return found[recipe.columns[0].name]
    texts = (literal + _text(found.get(column.name) if column else None) for literal, column in recipe.parts)
    return "".join(texts)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else dump_loosely(value)


def look_up(row: JsonObject, name: str) -> Any:
    """What a row holds in a column of this name or at this path; None for nothing."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        value = _parsed(value)
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def _parsed(value: Any) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return parse(value)
    except StrictJsonError:
        return None
