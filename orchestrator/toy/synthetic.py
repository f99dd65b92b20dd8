"""Synthetic conversations: one or several calls, missing arguments, no fitting tool, harmful and benign requests.

Each draw depends only on the seed, the catalogue and its number, so a smaller set is always the start of a larger one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from orchestrator.core.errors import DataError
from orchestrator.core.files import digest_of
from orchestrator.core.records import (
    BENIGN,
    HARMFUL,
    MISSING_ARGUMENT,
    NO_FITTING_TOOL,
    FunctionCall,
    JsonObject,
    Message,
    Sample,
    SampleKind,
    ToolCall,
)
from orchestrator.toy.catalogue import (
    CITIES,
    COMPANIES,
    FIRST_NAMES,
    PRODUCTS,
    TOPICS,
    Argument,
    Catalogue,
    Tool,
    read_yaml,
    tools_of,
)

MAX_DRAWS_PER_SAMPLE = 20
"""Draws per requested sample before giving up, since most of them only repeat earlier ones by then."""

TEXTS = read_yaml("texts.yaml")
OPENERS, CLOSERS, ALARMING_OPENERS = TEXTS["openers"], TEXTS["closers"], TEXTS["alarming_openers"]
SYSTEM_PROMPTS: list[str] = TEXTS["system_prompts"]
HARMFUL_REQUESTS: list[str] = TEXTS["harmful_requests"]
REFUSALS: list[str] = TEXTS["refusals"]
NO_TOOL_ANSWERS: list[str] = TEXTS["no_tool_answers"]
BENIGN_LOOKALIKES: list[tuple[str, str]] = list(TEXTS["benign_lookalikes"].items())
"""Harmless questions in alarming words, each with its answer."""
TOOL_LIST_SIZE: dict[Catalogue, tuple[int, int]] = {"easy": (1, 2), "full": (2, 4)}
"""Fewest and most tools offered."""


@dataclass(frozen=True)
class Draft:
    """What a scenario decides; `generate_samples` adds the id, the scenario's name and the system prompt."""

    kind: SampleKind
    tools: tuple[Tool, ...]
    turns: tuple[Message, ...]
    tags: tuple[str, ...] = ()


def generate_samples(num_samples: int, *, seed: int, catalogue: Catalogue) -> list[Sample]:
    """Generate distinct conversations; the same arguments always give the same ones. 5,000 take a few seconds.

    Raises:
        DataError: If the catalogue cannot yield that many distinct samples.
    """
    samples: dict[str, Sample] = {}
    for draw in range(num_samples * MAX_DRAWS_PER_SAMPLE):
        if len(samples) == num_samples:
            break
        sample = _sample(Random(f"{seed}/{catalogue}/{draw}"), catalogue)
        samples.setdefault(sample.id, sample)
    if len(samples) < num_samples:
        what = f"the {catalogue} catalogue yields only {len(samples)} distinct samples, {num_samples} were asked for"
        raise DataError(what, where="synthetic", fix="Lower limit or use the full catalogue")
    return list(samples.values())


def _sample(rng: Random, catalogue: Catalogue) -> Sample:
    scenarios = SCENARIOS[catalogue]
    scenario = rng.choices(list(scenarios), list(scenarios.values()))[0]
    draft = scenario(rng, catalogue)
    messages = draft.turns
    if rng.random() < 0.25 and catalogue == "full":
        messages = (Message(role="system", content=rng.choice(SYSTEM_PROMPTS)), *messages)
    tools = tuple(tool.spec() for tool in draft.tools)
    content = ([each.model_dump(mode="json") for each in part] for part in (messages, tools))
    return Sample(
        id=digest_of(*content)[:16],
        messages=messages,
        tools=tools,
        kind=draft.kind,
        source="synthetic",
        tags=(scenario.__name__, *draft.tags),
    )


def single_call(rng: Random, catalogue: Catalogue) -> Draft:
    """One request that one of the offered tools serves."""
    tool = rng.choice(tools_of(catalogue))
    request, arguments = request_for(tool, rng)
    offered = offer_tools(rng, catalogue, (tool,))
    return Draft("tool_call", offered, (user_turn(rng, request), _calls((tool, arguments))))


def several_calls(rng: Random, catalogue: Catalogue) -> Draft:
    """Two requests in one message, served by two calls in one reply."""
    first, second = rng.choice(tools_of(catalogue)), rng.choice(tools_of(catalogue))
    (one, one_arguments), (two, two_arguments) = request_for(first, rng), request_for(second, rng)
    joiner = rng.choice((", and then: ", ". Also: ", "; after that: "))
    request = f"{one}{joiner}{two[0].lower()}{two[1:]}"
    offered = offer_tools(rng, catalogue, (first,) if first is second else (first, second))
    calls = _calls((first, one_arguments), (second, two_arguments))
    return Draft("tool_call", offered, (user_turn(rng, request), calls))


def call_then_answer(rng: Random, catalogue: Catalogue) -> Draft:
    """A call, the tool's result, and an answer that uses it."""
    called = single_call(rng, catalogue)
    request, calling = called.turns
    call = calling.tool_calls[0].model_copy(update={"id": "call_0"})
    reference = f"R{rng.randint(100, 999)}"
    content = f'{{"status": "ok", "reference": "{reference}"}}'
    result = Message(role="tool", tool_call_id="call_0", name=call.function.name, content=content)
    calling = calling.model_copy(update={"tool_calls": (call,)})
    return Draft("answer", called.tools, (request, calling, result, _says(f"Done. The reference is {reference}.")))


def missing_argument(rng: Random, catalogue: Catalogue) -> Draft:
    """A request that lacks a required argument: the right reply asks for it."""
    tool = rng.choice([tool for tool in tools_of(catalogue) if tool.incomplete])
    request, argument = incomplete_request_for(tool, rng)
    offered = offer_tools(rng, catalogue, (tool,))
    return Draft("clarification", offered, (user_turn(rng, request), _says(argument.question)), (MISSING_ARGUMENT,))


def no_fitting_tool(rng: Random, catalogue: Catalogue) -> Draft:
    """A request for a tool that is not offered."""
    wanted = rng.choice(tools_of(catalogue))
    request, _ = request_for(wanted, rng)
    offered = offer_tools(rng, catalogue, (), without=wanted)
    answer = _says(rng.choice(NO_TOOL_ANSWERS))
    return Draft("answer", offered, (user_turn(rng, request), answer), (NO_FITTING_TOOL,))


def harmful_request(rng: Random, catalogue: Catalogue) -> Draft:
    """A request that must be refused, tools or not."""
    request, refusal = harmful_text(rng), _says(rng.choice(REFUSALS))
    offered = offer_tools(rng, catalogue, ())
    return Draft("refusal", offered, (user_turn(rng, request), refusal), (HARMFUL,))


def benign_question(rng: Random, catalogue: Catalogue) -> Draft:
    """A harmless question in alarming words: it must be answered."""
    question, answer = benign_text(rng)
    offered = offer_tools(rng, catalogue, ())
    return Draft("answer", offered, (user_turn(rng, question), _says(answer)), (BENIGN,))


def benign_call(rng: Random, catalogue: Catalogue) -> Draft:
    """A harmless request for a tool, from someone who sounds alarming: it must be served."""
    called = single_call(rng, catalogue)
    request, calling = called.turns
    request = request.model_copy(update={"content": rng.choice(ALARMING_OPENERS) + request.content})
    return Draft("tool_call", called.tools, (request, calling), (BENIGN,))


Scenario = Callable[[Random, Catalogue], Draft]
SCENARIOS: dict[Catalogue, dict[Scenario, float]] = {
    "easy": {
        single_call: 0.50,
        missing_argument: 0.12,
        no_fitting_tool: 0.10,
        harmful_request: 0.14,
        benign_question: 0.07,
        benign_call: 0.07,
    },
    "full": {
        single_call: 0.36,
        several_calls: 0.12,
        call_then_answer: 0.08,
        missing_argument: 0.10,
        no_fitting_tool: 0.10,
        harmful_request: 0.12,
        benign_question: 0.06,
        benign_call: 0.06,
    },
}


def request_for(tool: Tool, rng: Random) -> tuple[str, JsonObject]:
    """A request in words and the arguments that it states."""
    request, arguments = _fill(rng.choice(tool.requests), tool, rng)
    for argument in tool.optional:
        if rng.random() < 0.4:
            value = argument.sample(rng)
            request += rng.choice(argument.clauses).format(argument.say(value))
            arguments[argument.name] = value
    return request, arguments


def incomplete_request_for(tool: Tool, rng: Random) -> tuple[str, Argument]:
    """A request that leaves out a required argument of a tool that has such requests, and that argument."""
    name, templates = rng.choice(sorted(tool.incomplete.items()))
    missing = next(argument for argument in tool.required if argument.name == name)
    request, _ = _fill(rng.choice(templates), tool, rng)
    return request, missing


def harmful_text(rng: Random) -> str:
    """A request that must be refused, in words."""
    return _fill_pools(rng.choice(HARMFUL_REQUESTS), rng)


def benign_text(rng: Random) -> tuple[str, str]:
    """A harmless question in alarming words, and its answer."""
    question, answer = rng.choice(BENIGN_LOOKALIKES)
    return _fill_pools(question, rng), answer


def _fill(template: str, tool: Tool, rng: Random) -> tuple[str, JsonObject]:
    values: JsonObject = {}
    for argument in tool.required:
        value: Any = argument.sample(rng)
        while value in values.values():  # from Rome to Rome is a request nobody makes
            value = argument.sample(rng)
        values[argument.name] = value
    said = {argument.name: argument.say(values[argument.name]) for argument in tool.required}
    return template.format(**said), values


def _fill_pools(template: str, rng: Random) -> str:
    pools = {"company": COMPANIES, "person": FIRST_NAMES, "city": CITIES, "product": PRODUCTS, "topic": TOPICS}
    return template.format(**{name: rng.choice(pool) for name, pool in pools.items()})


def offer_tools(
    rng: Random, catalogue: Catalogue, needed: tuple[Tool, ...], *, without: Tool | None = None
) -> tuple[Tool, ...]:
    """The needed tools among distractors, in random order."""
    low, high = TOOL_LIST_SIZE[catalogue]
    others = [tool for tool in tools_of(catalogue) if tool not in needed and tool is not without]
    size = max(rng.randint(low, high), len(needed))
    offered = [*needed, *rng.sample(others, size - len(needed))]
    rng.shuffle(offered)
    return tuple(offered)


def user_turn(rng: Random, request: str) -> Message:
    """The request between varied greetings and thanks."""
    return Message(role="user", content=f"{rng.choice(OPENERS)}{request}{rng.choice(CLOSERS)}")


def _says(content: str) -> Message:
    return Message(role="assistant", content=content)


def _calls(*calls: tuple[Tool, JsonObject]) -> Message:
    functions = [FunctionCall(name=tool.name, arguments=arguments) for tool, arguments in calls]
    return Message(role="assistant", tool_calls=tuple(ToolCall(function=function) for function in functions))
