"""The tools that synthetic conversations call: realistic JSON Schemas, sampled values and varied wording.

`tools.yaml` holds the tools; this module reads it and knows how values are drawn and worded. A request states its
required arguments, and each optional argument adds a clause when it is given, so the arguments of the expected call can
be read off the conversation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Literal

import yaml

from orchestrator.core.records import FunctionSpec, JsonObject, ToolSpec

Catalogue = Literal["full", "easy"]
Sampler = Callable[[Random], Any]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    "Ada Ben Cleo Dario Elif Farah Goran Hana Ivan Jun Kira Leo Mina Noor Omar Pia Quinn Rosa Sven"
    " Tara Uma Vera Wim Yara Zoe"
)
LAST_NAMES = _words(
    "Adler Bianchi Costa Dubois Eriksen Fischer Garcia Haddad Ito Jansen Kovacs Larsen Moreau Novak Okafor Petrov "
    "Rossi Sato Tanaka Weber"
)
CITIES = _words(
    "Accra Athens Bergen Boston Cairo Dakar Delhi Dublin Geneva Hanoi Havana Istanbul Jakarta Kyoto Lagos Lima Lisbon "
    "London Lyon Madrid Milan Nairobi Oslo Paris Prague Quito Riga Rome Seoul Sofia Sydney Tokyo Turin Vienna Warsaw "
    "Zurich"
)
PRODUCTS = _words(
    "backpack bicycle blender camera chair desk drill fan guitar headphones heater jacket kettle keyboard lamp laptop "
    "mixer monitor printer router scooter speaker tablet tent toaster watch"
)
TOPICS = _words(
    "astronomy batteries bees bridges chess climate coffee coral glaciers gravity jazz lasers maps medicine origami "
    "poetry rivers robotics satellites sleep soil tides trains vaccines volcanoes whales"
)
COMPANIES = _words("Acme Bluefin Cobalt Dynamo Everest Fathom Granite Helix Iris Juniper Krypton Lumen")
FOLDERS = ("reports", "invoices", "photos", "backup", "drafts", "archive", "music", "logs")
FILE_ENDINGS = ("pdf", "txt", "csv", "png", "zip", "md")


@dataclass(frozen=True)
class Argument:
    """One parameter of a tool: its schema, how a value is drawn and worded, and how to ask for it."""

    name: str
    schema: JsonObject
    sample: Sampler
    object_wording: str = ""
    """Format string for a value that is an object."""
    clauses: tuple[str, ...] = ()
    """Wordings that add this optional argument to a request, each with `{}` for the value; empty when required."""
    question: str = ""
    """What to ask when this required argument is missing."""

    def say(self, value: Any) -> str:
        """The value in words; a switch that is on needs none, its clause says it."""
        if isinstance(value, list):
            words = [self.say(each) for each in value]
            return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
        if isinstance(value, dict):
            return self.object_wording.format(**value)
        return "" if value is True else str(value)


@dataclass(frozen=True)
class Tool:
    """A tool, the requests that call it and the requests that leave one argument out."""

    name: str
    description: str
    arguments: tuple[Argument, ...]
    requests: tuple[str, ...]
    incomplete: dict[str, tuple[str, ...]]
    """Argument name -> requests without it; other required arguments may be named in braces."""
    easy: bool
    """Part of the easy catalogue: short schema, values copied word for word."""

    @property
    def required(self) -> tuple[Argument, ...]:
        """Arguments that every call must give."""
        return tuple(argument for argument in self.arguments if not argument.clauses)

    @property
    def optional(self) -> tuple[Argument, ...]:
        """Arguments that a call may leave out."""
        return tuple(argument for argument in self.arguments if argument.clauses)

    def spec(self) -> ToolSpec:
        """The tool as it is offered to a model."""
        parameters: JsonObject = {
            "type": "object",
            "properties": {argument.name: argument.schema for argument in self.arguments},
            "required": [argument.name for argument in self.required],
            "additionalProperties": False,
        }
        return ToolSpec(function=FunctionSpec(name=self.name, description=self.description, parameters=parameters))


def read_yaml(name: str) -> dict[str, Any]:
    """A data file of this folder."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return content


@cache
def tools_of(catalogue: Catalogue) -> tuple[Tool, ...]:
    """The tools of a catalogue; the easy ones come first in both."""
    if catalogue == "easy":
        return tuple(tool for tool in tools_of("full") if tool.easy)
    return tuple(_tool(name, entry) for name, entry in read_yaml("tools.yaml").items())


def _tool(name: str, entry: dict[str, Any]) -> Tool:
    return Tool(
        name,
        entry["description"],
        tuple(_argument(each, fields) for each, fields in entry["arguments"].items()),
        tuple(entry["requests"]),
        {missing: tuple(requests) for missing, requests in entry.get("incomplete", {}).items()},
        entry.get("easy", False),
    )


def _argument(name: str, fields: dict[str, Any]) -> Argument:
    schema = {key: value for key, value in fields.items() if key not in ("draw", "say", "ask", "clauses")}
    sample = _sampler(fields["draw"] if "draw" in fields else schema["enum"])
    return Argument(
        name, schema, sample, fields.get("say", ""), tuple(fields.get("clauses", ())), fields.get("ask", "")
    )


def _sampler(draw: Any) -> Sampler:
    """The sampler that `draw` describes: a name, a list to choose from, or `{sampler: its arguments}`."""
    if isinstance(draw, dict):
        ((name, arguments),) = draw.items()
        sampler = WITH_ARGUMENTS[name]
        return lambda rng: sampler(rng, *arguments)
    source = NAMED[draw] if isinstance(draw, str) else draw
    return source if callable(source) else lambda rng: rng.choice(source)


def _amount(rng: Random, low: int, high: int) -> float:
    return round(rng.randint(low * 4, high * 4) / 4, 2)


def _several(rng: Random, low: int, high: int, draw: Any) -> list[Any]:
    sample = _sampler(draw)
    count = rng.randint(low, high)
    values: list[Any] = []
    while len(values) < count:
        value = sample(rng)
        if value not in values:
            values.append(value)
    return values


def _line_items(rng: Random) -> list[JsonObject]:
    names = _several(rng, 1, 3, "products")
    return [{"name": name, "quantity": rng.randint(2, 40), "unit_price": rng.randint(3, 400)} for name in names]


WITH_ARGUMENTS: dict[str, Callable[..., Any]] = {"integer": Random.randint, "amount": _amount, "several": _several}
NAMED: dict[str, tuple[str, ...] | Sampler] = {
    "cities": CITIES,
    "companies": COMPANIES,
    "folders": FOLDERS,
    "products": PRODUCTS,
    "topics": TOPICS,
    "words": TOPICS + PRODUCTS,
    "person": lambda rng: f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}",
    "email": lambda rng: f"{rng.choice(FIRST_NAMES).lower()}@{rng.choice(COMPANIES).lower()}.com",
    "phone": lambda rng: f"+{rng.randint(10**9, 10**10 - 1)}",
    "address": lambda rng: {
        "street": f"{rng.choice(LAST_NAMES)} Street {rng.randint(1, 199)}",
        "city": rng.choice(CITIES),
    },
    "date": lambda rng: f"{rng.randint(2025, 2028)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
    "time": lambda rng: f"{rng.randint(6, 21):02d}:{rng.choice((0, 15, 30, 45)):02d}",
    "path": lambda rng: f"{rng.choice(FOLDERS)}/{rng.choice(TOPICS)}{rng.randint(1, 99)}.{rng.choice(FILE_ENDINGS)}",
    "order_number": lambda rng: f"A{rng.randint(1000, 9999)}",
    "four_digits": lambda rng: str(rng.randint(1000, 9999)),
    "event_title": lambda rng: f"{rng.choice(TOPICS)} review",
    "ticket_title": lambda rng: f"{rng.choice(PRODUCTS)} is broken",
    "chart_options": lambda rng: {"title": rng.choice(TOPICS)},
    "row_filter": lambda rng: {"column": "total", "operator": rng.choice("=<>"), "value": rng.randint(1, 5000)},
    "line_items": _line_items,
    "switched_on": lambda _: True,
}
