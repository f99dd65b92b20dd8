"""The tools that synthetic conversations call: realistic JSON Schemas, value generators and varied wording.

A request template names its required arguments in braces; each optional argument carries clauses that are appended to
the request when it is given. What a clause or template says is exactly what the call must contain, so every expected
argument can be read off the conversation.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from orchestrator.core.records import FunctionSpec, JsonObject, ToolSpec

Sampler = Callable[[Random], Any]
Speller = Callable[[Any], str]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    "Ada Ben Cleo Dario Elif Farah Goran Hana Ivan Jun Kira Leo Mina Noor Omar Pia Quinn Rosa Sven"
    " Tara Uma Vera Wim Yara Zoe"
)
LAST_NAMES = _words(
    "Adler Bianchi Costa Dubois Eriksen Fischer Garcia Haddad Ito Jansen Kovacs Larsen Moreau Novak"
    " Okafor Petrov Rossi Sato"
    " Tanaka Weber"
)
CITIES = _words(
    "Accra Athens Bergen Boston Cairo Dakar Delhi Dublin Geneva Hanoi Havana Istanbul Jakarta Kyoto"
    " Lagos Lima Lisbon London"
    " Lyon Madrid Milan Nairobi Oslo Paris Prague Quito Riga Rome Seoul Sofia Sydney Tokyo Turin"
    " Vienna Warsaw Zurich"
)
PRODUCTS = _words(
    "backpack bicycle blender camera chair desk drill fan guitar headphones heater jacket kettle"
    " keyboard lamp laptop mixer"
    " monitor printer router scooter speaker tablet tent toaster watch"
)
TOPICS = _words(
    "astronomy batteries bees bridges chess climate coffee coral glaciers gravity jazz lasers maps"
    " medicine origami poetry"
    " rivers robotics satellites sleep soil tides trains vaccines volcanoes whales"
)
COMPANIES = _words("Acme Bluefin Cobalt Dynamo Everest Fathom Granite Helix Iris Juniper Krypton Lumen")
CURRENCIES = ("USD", "EUR", "GBP", "JPY", "CHF", "INR", "BRL", "KRW")
LANGUAGES = ("French", "German", "Spanish", "Italian", "Japanese", "Korean", "Hindi", "Polish")
FOLDERS = ("reports", "invoices", "photos", "backup", "drafts", "archive", "music", "logs")
FILE_ENDINGS = ("pdf", "txt", "csv", "png", "zip", "md")
SERVICES = ("auth", "billing", "search", "mail", "cache", "gateway", "queue", "storage")


@dataclass(frozen=True)
class Argument:
    """One parameter of a tool: its schema, how a value is drawn, how it is said, and how it is asked for."""

    name: str
    schema: JsonObject
    sample: Sampler
    say: Speller = str
    clauses: tuple[str, ...] = ()
    """Wordings that add this optional argument to a request, each with `{}` for the value; empty when required."""
    question: str = ""
    """What to ask when this required argument is missing."""


@dataclass(frozen=True)
class Tool:
    """A tool, the requests that call it and the requests that leave one argument out."""

    name: str
    description: str
    arguments: tuple[Argument, ...]
    requests: tuple[str, ...]
    incomplete: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Argument name -> requests without it; other required arguments may be named in braces."""
    easy: bool = False
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


def _from(pool: tuple[str, ...] | list[str]) -> Sampler:
    return lambda rng: rng.choice(pool)


def _integers(low: int, high: int) -> Sampler:
    return lambda rng: rng.randint(low, high)


def _amounts(low: int, high: int) -> Sampler:
    return lambda rng: round(rng.randint(low * 4, high * 4) / 4, 2)


def _person(rng: Random) -> str:
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"


def _email(rng: Random) -> str:
    return f"{rng.choice(FIRST_NAMES).lower()}@{rng.choice(COMPANIES).lower()}.com"


def _date(rng: Random) -> str:
    return f"{rng.randint(2025, 2028)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def _time(rng: Random) -> str:
    return f"{rng.randint(6, 21):02d}:{rng.choice((0, 15, 30, 45)):02d}"


def _path(rng: Random) -> str:
    return f"{rng.choice(FOLDERS)}/{rng.choice(TOPICS)}{rng.randint(1, 99)}.{rng.choice(FILE_ENDINGS)}"


def _code(prefix: str) -> Sampler:
    return lambda rng: f"{prefix}{rng.randint(1000, 9999)}"


def _several(sample: Sampler, low: int, high: int) -> Sampler:
    def draw(rng: Random) -> list[Any]:
        count = rng.randint(low, high)
        values: list[Any] = []
        while len(values) < count:
            value = sample(rng)
            if value not in values:
                values.append(value)
        return values

    return draw


def _listing(values: list[Any]) -> str:
    words = [str(value) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _string(description: str, **extra: Any) -> JsonObject:
    return {"type": "string", "description": description, **extra}


def _enum(description: str, values: tuple[str, ...]) -> JsonObject:
    return {"type": "string", "enum": list(values), "description": description}


def _integer(description: str, low: int, high: int) -> JsonObject:
    return {"type": "integer", "minimum": low, "maximum": high, "description": description}


def _strings(description: str) -> JsonObject:
    return {"type": "array", "items": {"type": "string"}, "minItems": 1, "description": description}


DATE = r"^\d{4}-\d{2}-\d{2}$"
CLOCK = r"^\d{2}:\d{2}$"


def _city(name: str = "city", question: str = "Which city do you mean?") -> Argument:
    return Argument(name, _string("Name of the city."), _from(CITIES), question=question)


def _address_of(rng: Random) -> JsonObject:
    return {"street": f"{rng.choice(LAST_NAMES)} Street {rng.randint(1, 199)}", "city": rng.choice(CITIES)}


EASY_TOOLS: tuple[Tool, ...] = (
    Tool(
        "get_weather",
        "Current weather in a city.",
        (
            _city(),
            Argument(
                "unit",
                _enum("Temperature unit.", ("celsius", "fahrenheit")),
                _from(("celsius", "fahrenheit")),
                clauses=(" in {}", ", in {} please", " (use {})"),
            ),
        ),
        (
            "What is the weather in {city}",
            "How warm is it in {city} right now",
            "Tell me the weather for {city}",
            "Do I need a coat in {city} today",
            "Give me the current weather of {city}",
        ),
        {"city": ("What is the weather like", "How warm is it outside", "Do I need an umbrella")},
        easy=True,
    ),
    Tool(
        "convert_currency",
        "Converts an amount of money.",
        (
            Argument("amount", {"type": "number", "description": "Amount of money."}, _integers(2, 999)),
            Argument("source", _enum("From.", CURRENCIES), _from(CURRENCIES), question="From which currency?"),
            Argument("target", _enum("To.", CURRENCIES), _from(CURRENCIES), question="To which currency?"),
        ),
        (
            "Convert {amount} {source} to {target}",
            "How much is {amount} {source} in {target}",
            "Change {amount} {source} into {target}",
            "What do I get in {target} for {amount} {source}",
        ),
        {"target": ("Convert {amount} {source} for me", "I have {amount} {source}, please change them")},
        easy=True,
    ),
    Tool(
        "set_timer",
        "Starts a countdown timer.",
        (
            Argument(
                "minutes",
                _integer("Length.", 1, 180),
                _integers(1, 180),
                question="For how many minutes should it run?",
            ),
            Argument(
                "label",
                _string("Name of the timer."),
                _from(PRODUCTS),
                clauses=(" called {}", " named {}", " labelled {}"),
            ),
        ),
        (
            "Set a timer for {minutes} minutes",
            "Start a {minutes} minute timer",
            "Count down {minutes} minutes",
            "I need a timer of {minutes} minutes",
        ),
        {"minutes": ("Set a timer for me", "Start a countdown", "I need a timer")},
        easy=True,
    ),
    Tool(
        "translate_text",
        "Translates text.",
        (
            Argument("text", _string("Text to translate."), _from(TOPICS), question="Which text should I translate?"),
            Argument("language", _enum("Target.", LANGUAGES), _from(LANGUAGES), question="Into which language?"),
        ),
        (
            "Translate {text} to {language}",
            "How do you say {text} in {language}",
            "What is {text} in {language}",
            "Put the word {text} into {language}",
        ),
        {
            "language": ("Translate {text} for me", "Please translate the word {text}"),
            "text": ("Translate something to {language}", "I need a translation into {language}"),
        },
        easy=True,
    ),
    Tool(
        "send_email",
        "Sends an email.",
        (
            Argument("to", _string("Address.", format="email"), _email, question="To which address should I send it?"),
            Argument("subject", _string("Subject line."), _from(TOPICS), question="What should the subject be?"),
        ),
        (
            "Email {to} about {subject}",
            "Send an email to {to} with the subject {subject}",
            "Write to {to} about {subject}",
            "Send {to} a mail about {subject}",
        ),
        {"to": ("Send an email about {subject}", "Write a mail with the subject {subject}")},
        easy=True,
    ),
    Tool(
        "play_music",
        "Plays music of a genre.",
        (
            Argument(
                "genre", _string("Genre."), _from(("jazz", "rock", "folk", "soul", "opera", "techno", "blues", "pop"))
            ),
            Argument(
                "volume",
                _integer("Loudness.", 1, 100),
                _integers(1, 100),
                clauses=(" at volume {}", " with the volume at {}"),
            ),
        ),
        ("Play some {genre}", "Put on {genre} music", "I want to hear {genre}", "Start a {genre} playlist"),
        easy=True,
    ),
    Tool(
        "find_product",
        "Searches the shop.",
        (
            Argument("product", _string("What to look for."), _from(PRODUCTS), question="What are you looking for?"),
            Argument(
                "max_price",
                {"type": "number", "description": "Highest price."},
                _integers(5, 900),
                clauses=(" under {}", " for at most {}", " below {}"),
            ),
        ),
        ("Find a {product}", "Search the shop for a {product}", "I want to buy a {product}", "Show me a {product}"),
        {"product": ("Find something in the shop", "I want to buy something", "Search the shop for me")},
        easy=True,
    ),
    Tool(
        "book_table",
        "Books a restaurant table.",
        (
            _city(question="In which city?"),
            Argument("guests", _integer("Number of people.", 1, 20), _integers(1, 20), question="For how many guests?"),
        ),
        (
            "Book a table in {city} for {guests} people",
            "Reserve a table for {guests} in {city}",
            "I need a restaurant in {city} for {guests} guests",
        ),
        {
            "guests": ("Book a table in {city}", "Reserve a restaurant in {city} for us"),
            "city": ("Book a table for {guests} people", "Reserve a table for {guests}"),
        },
        easy=True,
    ),
)

FULL_TOOLS: tuple[Tool, ...] = (
    *EASY_TOOLS,
    Tool(
        "search_flights",
        "Finds flights between two cities on a date.",
        (
            _city("origin", "Where does the flight start?"),
            _city("destination", "Where do you want to fly to?"),
            Argument("date", _string("Day of travel, ISO 8601.", pattern=DATE), _date, question="On which day?"),
            Argument(
                "cabin",
                _enum("Class of travel.", ("economy", "premium", "business", "first")),
                _from(("economy", "premium", "business", "first")),
                clauses=(" in {} class", ", {} class"),
            ),
            Argument(
                "passengers",
                {**_integer("Number of travellers.", 1, 9), "default": 1},
                _integers(2, 9),
                clauses=(" for {} travellers", ", {} passengers"),
            ),
        ),
        (
            "Find flights from {origin} to {destination} on {date}",
            "I want to fly from {origin} to {destination} on {date}",
            "Which flights leave {origin} for {destination} on {date}",
        ),
        {
            "date": ("Find flights from {origin} to {destination}", "I want to fly from {origin} to {destination}"),
            "destination": ("Find a flight from {origin} on {date}", "I must leave {origin} on {date} by plane"),
        },
    ),
    Tool(
        "create_event",
        "Adds an event to the calendar.",
        (
            Argument(
                "title",
                _string("What it is."),
                lambda rng: f"{rng.choice(TOPICS)} review",
                question="What is it called?",
            ),
            Argument("date", _string("Day, ISO 8601.", pattern=DATE), _date, question="On which day?"),
            Argument(
                "start", _string("Start, 24 h clock.", pattern=CLOCK), _time, question="At what time does it start?"
            ),
            Argument(
                "attendees",
                _strings("Who is invited."),
                _several(_email, 1, 3),
                _listing,
                clauses=(" with {}", " and invite {}"),
            ),
        ),
        (
            "Put a {title} in my calendar on {date} at {start}",
            "Schedule a {title} for {date}, {start}",
            "Create an event called {title} on {date} at {start}",
        ),
        {"start": ("Schedule a {title} on {date}", "Put a {title} in my calendar on {date}")},
    ),
    Tool(
        "create_invoice",
        "Writes an invoice to a customer.",
        (
            Argument("customer", _string("Company billed."), _from(COMPANIES), question="Which customer is it for?"),
            Argument(
                "items",
                {
                    "type": "array",
                    "minItems": 1,
                    "description": "What is billed.",
                    "items": {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string"},
                            "quantity": {"type": "integer", "minimum": 1},
                            "unit_price": {"type": "number"},
                        },
                        "required": ["name", "quantity", "unit_price"],
                    },
                },
                lambda rng: [
                    {"name": name, "quantity": rng.randint(2, 40), "unit_price": rng.randint(3, 400)}
                    for name in _several(_from(PRODUCTS), 1, 3)(rng)
                ],
                lambda items: _listing([f"{i['quantity']} x {i['name']} at {i['unit_price']}" for i in items]),
                question="What should be billed?",
            ),
            Argument(
                "currency",
                _enum("Currency of the prices.", CURRENCIES),
                _from(CURRENCIES),
                clauses=(" in {}", ", priced in {}"),
            ),
        ),
        ("Invoice {customer} for {items}", "Bill {customer} for {items}", "Write an invoice to {customer}: {items}"),
        {"items": ("Write an invoice to {customer}", "Bill {customer}")},
    ),
    Tool(
        "ship_parcel",
        "Orders the pick-up of a parcel.",
        (
            Argument(
                "address",
                {
                    "type": "object",
                    "description": "Where it goes.",
                    "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
                    "required": ["street", "city"],
                    "additionalProperties": False,
                },
                _address_of,
                lambda a: f"{a['street']}, {a['city']}",
                question="What is the address?",
            ),
            Argument(
                "weight_kg",
                {"type": "number", "exclusiveMinimum": 0},
                _amounts(1, 30),
                question="How heavy is it in kg?",
            ),
            Argument(
                "express",
                {"type": "boolean", "description": "Next-day delivery."},
                lambda _rng: True,
                lambda _: "",
                clauses=(" by express{}", ", express{}"),
            ),
        ),
        ("Ship a parcel of {weight_kg} kg to {address}", "Send {weight_kg} kg to {address}"),
        {"address": ("Ship a parcel of {weight_kg} kg", "Please send a parcel, it weighs {weight_kg} kg")},
    ),
    Tool(
        "get_stock_price",
        "Price of a company's share.",
        (
            Argument("company", _string("Company name."), _from(COMPANIES), question="Which company?"),
            Argument(
                "date", _string("Trading day; today when absent.", pattern=DATE), _date, clauses=(" on {}", " as of {}")
            ),
        ),
        ("What is the share price of {company}", "How is {company} stock doing", "Quote {company} for me"),
        {"company": ("What is the share price", "Give me a stock quote")},
    ),
    Tool(
        "search_papers",
        "Searches scientific papers.",
        (
            Argument("query", _string("Search words."), _from(TOPICS), question="On which subject?"),
            Argument(
                "year_from",
                _integer("Earliest year.", 1950, 2030),
                _integers(1980, 2025),
                clauses=(" since {}", " from {} on"),
            ),
            Argument(
                "limit",
                {**_integer("Most results.", 1, 50), "default": 10},
                _integers(1, 50),
                clauses=(", at most {}", " (no more than {})"),
            ),
        ),
        ("Find papers about {query}", "Search the literature on {query}", "Which papers cover {query}"),
        {"query": ("Find some papers for me", "Search the literature")},
    ),
    Tool(
        "read_file",
        "Returns the text of a file.",
        (Argument("path", _string("Path of the file."), _path, question="Which file?"),),
        ("Read {path}", "Show me the contents of {path}", "What is in {path}", "Open {path}"),
        {"path": ("Read the file", "Show me what is in that file")},
    ),
    Tool(
        "delete_file",
        "Deletes one file.",
        (
            Argument("path", _string("Path of the file."), _path, question="Which file should I delete?"),
            Argument(
                "permanent",
                {"type": "boolean", "description": "Skip the bin.", "default": False},
                lambda _rng: True,
                lambda _: "",
                clauses=(" permanently{}", ", skip the bin{}"),
            ),
        ),
        ("Delete {path}", "Remove the file {path}", "Get rid of {path}"),
        {"path": ("Delete the file", "Remove that file")},
    ),
    Tool(
        "move_file",
        "Moves a file into a folder.",
        (
            Argument("path", _string("The file."), _path, question="Which file?"),
            Argument("folder", _string("Where to."), _from(FOLDERS), question="Into which folder?"),
        ),
        ("Move {path} to {folder}", "Put {path} into the folder {folder}"),
        {"folder": ("Move {path}", "Put {path} somewhere else")},
    ),
    Tool(
        "run_query",
        "Runs a read-only query on a table.",
        (
            Argument(
                "table",
                _string("Table name."),
                _from(("orders", "users", "events", "payments", "visits")),
                question="On which table?",
            ),
            Argument(
                "columns",
                _strings("Columns to return."),
                _several(_from(("id", "name", "date", "total", "status", "country")), 1, 3),
                _listing,
                question="Which columns?",
            ),
            Argument(
                "filter",
                {
                    "type": "object",
                    "properties": {
                        "column": {"type": "string"},
                        "operator": {"type": "string", "enum": ["=", "<", ">"]},
                        "value": {"type": "number"},
                    },
                    "required": ["column", "operator", "value"],
                },
                lambda rng: {"column": "total", "operator": rng.choice("=<>"), "value": rng.randint(1, 5000)},
                lambda f: f"{f['column']} {f['operator']} {f['value']}",
                clauses=(" where {}", ", only rows with {}"),
            ),
        ),
        ("Select {columns} from {table}", "Get {columns} out of the table {table}", "Query {table} for {columns}"),
        {"table": ("Select {columns} for me", "Get me {columns} from the database")},
    ),
    Tool(
        "restart_service",
        "Restarts a service.",
        (
            Argument("service", _enum("Which one.", SERVICES), _from(SERVICES), question="Which service?"),
            Argument(
                "environment",
                _enum("Where.", ("staging", "production")),
                _from(("staging", "production")),
                clauses=(" in {}", " on {}"),
            ),
        ),
        ("Restart {service}", "Restart the {service} service", "Bounce the {service} service"),
        {"service": ("Restart the service", "Something hangs, restart it")},
    ),
    Tool(
        "scale_service",
        "Sets the number of replicas of a service.",
        (
            Argument("service", _enum("Which one.", SERVICES), _from(SERVICES), question="Which service?"),
            Argument("replicas", _integer("How many.", 0, 64), _integers(1, 64), question="To how many replicas?"),
        ),
        ("Scale {service} to {replicas} replicas", "Run {replicas} replicas of {service}"),
        {"replicas": ("Scale {service}", "Give {service} more replicas")},
    ),
    Tool(
        "get_logs",
        "Latest log lines of a service.",
        (
            Argument("service", _enum("Which one.", SERVICES), _from(SERVICES), question="Which service?"),
            Argument(
                "level",
                _enum("Lowest severity.", ("debug", "info", "warning", "error")),
                _from(("debug", "info", "warning", "error")),
                clauses=(" at level {}", ", only {} and above"),
            ),
            Argument(
                "lines",
                _integer("How many lines.", 1, 1000),
                _integers(10, 1000),
                clauses=(", last {} lines", " ({} lines)"),
            ),
        ),
        ("Show the logs of {service}", "What does {service} log", "Get me the {service} logs"),
        {"service": ("Show me the logs", "What is in the logs")},
    ),
    Tool(
        "create_ticket",
        "Opens a support ticket.",
        (
            Argument(
                "title",
                _string("Short summary."),
                lambda rng: f"{rng.choice(PRODUCTS)} is broken",
                question="What is it about?",
            ),
            Argument(
                "priority",
                _enum("Urgency.", ("low", "normal", "high", "urgent")),
                _from(("low", "normal", "high", "urgent")),
                question="How urgent is it?",
            ),
            Argument(
                "tags",
                _strings("Labels."),
                _several(_from(SERVICES), 1, 3),
                _listing,
                clauses=(", tagged {}", " with the tags {}"),
            ),
        ),
        ("Open a {priority} ticket: {title}", "File a ticket saying {title}, priority {priority}"),
        {"priority": ("Open a ticket: {title}", "File a ticket saying {title}")},
    ),
    Tool(
        "add_contact",
        "Saves a person in the address book.",
        (
            Argument("name", _string("Full name."), _person, question="What is the person called?"),
            Argument(
                "phone",
                _string("Number.", pattern=r"^\+\d+$"),
                lambda rng: f"+{rng.randint(10**9, 10**10 - 1)}",
                question="What is the number?",
            ),
            Argument("company", _string("Employer."), _from(COMPANIES), clauses=(" of {}", ", who works at {}")),
        ),
        ("Save {phone} as the number for {name}", "Add {phone} to my contacts under {name}"),
        {"phone": ("Add {name} to my contacts", "Save the number of {name}")},
    ),
    Tool(
        "track_order",
        "Where an order is.",
        (
            Argument(
                "order_id",
                _string("Order number.", pattern=r"^A\d{4}$"),
                _code("A"),
                question="What is the order number?",
            ),
        ),
        ("Where is order {order_id}", "Track {order_id}", "Has {order_id} been shipped yet"),
        {"order_id": ("Where is my order", "Has my parcel been shipped")},
    ),
    Tool(
        "refund_order",
        "Pays back an order, whole or in part.",
        (
            Argument(
                "order_id",
                _string("Order number.", pattern=r"^A\d{4}$"),
                _code("A"),
                question="What is the order number?",
            ),
            Argument(
                "reason",
                _enum("Why.", ("damaged", "late", "unwanted", "wrong_item")),
                _from(("damaged", "late", "unwanted", "wrong_item")),
                question="What is the reason?",
            ),
            Argument(
                "amount",
                {"type": "number", "exclusiveMinimum": 0},
                _amounts(1, 300),
                clauses=(", pay back {}", ", but only {}"),
            ),
        ),
        ("Refund {order_id}, reason {reason}", "Pay back order {order_id} as {reason}"),
        {"order_id": ("I want a refund, reason {reason}", "Refund my last order as {reason}")},
    ),
    Tool(
        "calculate_route",
        "Distance and time between two cities.",
        (
            _city("start", "Where does the trip start?"),
            _city("end", "Where does it end?"),
            Argument(
                "mode",
                _enum("Means of travel.", ("car", "train", "bike", "foot")),
                _from(("car", "train", "bike", "foot")),
                clauses=(" by {}", ", going by {}"),
            ),
            Argument(
                "avoid",
                {
                    "type": "array",
                    "items": {"type": "string", "enum": ["tolls", "ferries", "motorways"]},
                    "uniqueItems": True,
                },
                _several(_from(("tolls", "ferries", "motorways")), 1, 2),
                _listing,
                clauses=(", avoiding {}", " without {}"),
            ),
        ),
        (
            "How do I get from {start} to {end}",
            "Plan a route from {start} to {end}",
            "How far is it from {start} to {end}",
        ),
        {"end": ("Plan a route from {start}", "I am in {start}, how do I get there")},
    ),
    Tool(
        "set_thermostat",
        "Sets the temperature of a room.",
        (
            Argument(
                "room",
                _enum("Room.", ("kitchen", "bedroom", "office", "hall")),
                _from(("kitchen", "bedroom", "office", "hall")),
                question="In which room?",
            ),
            Argument(
                "temperature",
                {"type": "number", "minimum": 5, "maximum": 30, "description": "Degrees Celsius."},
                _amounts(6, 29),
                question="To what temperature?",
            ),
        ),
        ("Set the {room} to {temperature} degrees", "Heat the {room} to {temperature}"),
        {"temperature": ("Make the {room} warmer", "Heat the {room}")},
    ),
    Tool(
        "control_light",
        "Switches and dims a light.",
        (
            Argument(
                "room",
                _enum("Room.", ("kitchen", "bedroom", "office", "hall")),
                _from(("kitchen", "bedroom", "office", "hall")),
                question="In which room?",
            ),
            Argument("state", _enum("On or off.", ("on", "off")), _from(("on", "off")), question="On or off?"),
        ),
        ("Turn the {room} light {state}", "Switch {state} the light in the {room}"),
        {"room": ("Turn the light {state}", "Switch {state} the light")},
    ),
    Tool(
        "make_chart",
        "Draws a chart of numbers.",
        (
            Argument(
                "values",
                {"type": "array", "items": {"type": "number"}, "minItems": 2},
                _several(_integers(1, 99), 2, 6),
                _listing,
                question="Which numbers?",
            ),
            Argument(
                "kind",
                _enum("Shape.", ("bar", "line", "pie")),
                _from(("bar", "line", "pie")),
                question="Which kind of chart?",
            ),
            Argument(
                "options",
                {
                    "type": "object",
                    "properties": {"title": {"type": "string"}, "width": {"type": "integer"}},
                    "required": ["title"],
                },
                lambda rng: {"title": rng.choice(TOPICS)},
                lambda o: str(o["title"]),
                clauses=(" titled {}", ", with the title {}"),
            ),
        ),
        ("Draw a {kind} chart of {values}", "Plot {values} as a {kind} chart"),
        {"values": ("Draw a {kind} chart", "I need a {kind} chart")},
    ),
    Tool(
        "schedule_backup",
        "Backs a folder up regularly.",
        (
            Argument("folder", _string("Folder."), _from(FOLDERS), question="Which folder?"),
            Argument("every_hours", _integer("Interval.", 1, 168), _integers(1, 168), question="How often, in hours?"),
            Argument(
                "keep",
                _integer("Copies kept.", 1, 100),
                _integers(2, 100),
                clauses=(" and keep {} copies", ", keeping {}"),
            ),
        ),
        ("Back up {folder} every {every_hours} hours", "Every {every_hours} hours save a copy of {folder}"),
        {"every_hours": ("Back up {folder} regularly", "Set up a backup of {folder}")},
    ),
    Tool(
        "lookup_word",
        "Dictionary entry of a word.",
        (Argument("word", _string("The word."), _from(TOPICS + PRODUCTS), question="Which word?"),),
        ("Define {word}", "What does the word {word} mean", "Look up {word}"),
        {"word": ("Look up a word for me", "What does this word mean")},
    ),
    Tool(
        "block_card",
        "Blocks a payment card.",
        (
            Argument(
                "last_digits",
                _string("Last four digits.", pattern=r"^\d{4}$"),
                lambda rng: str(rng.randint(1000, 9999)),
                question="What are its last four digits?",
            ),
            Argument(
                "reason",
                _enum("Why.", ("lost", "stolen", "fraud")),
                _from(("lost", "stolen", "fraud")),
                question="Was it lost, stolen or misused?",
            ),
        ),
        ("Block the card ending in {last_digits}, it is {reason}", "My card {last_digits} was {reason}, block it"),
        {"last_digits": ("Block my card, it is {reason}", "My card was {reason}, block it")},
    ),
)
