import hashlib
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.errors import DataError
from orchestrator.core.records import BENIGN, HARMFUL, MISSING_ARGUMENT, NO_FITTING_TOOL, Sample, ToolCall
from orchestrator.toy import synthetic
from orchestrator.toy.catalogue import Catalogue, tools_of
from orchestrator.toy.synthetic import (
    BENIGN_LOOKALIKES,
    HARMFUL_REQUESTS,
    NO_TOOL_ANSWERS,
    REFUSALS,
    SCENARIOS,
    generate_samples,
)

CATALOGUES: tuple[Catalogue, ...] = ("full", "easy")
MANY = 5000
SHA256 = {
    "full": "ef377baa974873e5030c6e031bf57fed55571eabce7897f7c6e0826a6ed8e6cd",
    "easy": "7d93d8190ddeae7b1719c1205ee8b0fb5f69ca2dff9d0f5186cf3d5b92a09b99",
}
"""Of 2,000 samples of seed 0 as JSON lines: the shipped toy base and the figures of the demo rest on this text."""
FLAGS = {"express": ("express",), "permanent": ("permanently", "skip the bin")}
"""How the switches of the catalogue are said: they have no value to read."""


@pytest.fixture(scope="module", params=CATALOGUES)
def many(request: pytest.FixtureRequest) -> list[Sample]:
    catalogue: Catalogue = request.param
    return generate_samples(MANY, seed=3, catalogue=catalogue)


@pytest.fixture(scope="module")
def some_full() -> list[Sample]:
    return generate_samples(1500, seed=0, catalogue="full")


def by_scenario(samples: list[Sample]) -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.tags[0], []).append(sample)
    return found


def calls_of(sample: Sample) -> list[ToolCall]:
    return [call for message in sample.messages for call in message.tool_calls]


def request_of(sample: Sample) -> str:
    return next(message.content for message in sample.messages if message.role == "user")


def leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The values inside an argument, each with the name of the key that holds it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, name)
    else:
        yield name, value


def can_be_read(value: Any, name: str, request: str) -> bool:
    if value is True:
        return any(word in request for word in FLAGS[name])
    if isinstance(value, (int, float)):
        return re.search(rf"(?<![\w.]){re.escape(str(value))}(?!\w|\.\d)", request) is not None
    return str(value) in request


def test_5000_distinct_samples_in_seconds(many: list[Sample]) -> None:
    assert len(many) == MANY
    assert len({sample.id for sample in many}) == MANY
    content = {json.dumps(sample.model_dump(mode="json", include={"messages", "tools"})) for sample in many}
    assert len(content) == MANY
    started = time.monotonic()
    generate_samples(1000, seed=4, catalogue="full")
    assert time.monotonic() - started < 10


def test_every_call_names_an_offered_tool_and_fits_its_schema(many: list[Sample]) -> None:
    checked = 0
    for sample in many:
        schemas = {tool.function.name: tool.function.arguments_schema for tool in sample.tools}
        for call in calls_of(sample):
            jsonschema.validate(
                call.function.arguments,
                schemas[call.function.name],
                cls=jsonschema.Draft202012Validator,
                format_checker=jsonschema.FormatChecker(),
            )
            checked += 1
    assert checked > MANY / 2


def test_every_expected_value_can_be_read_in_the_request(many: list[Sample]) -> None:
    for sample in many:
        request = request_of(sample)
        for call in calls_of(sample):
            for name, value in leaves(call.function.arguments, ""):
                where = name or next(key for key, each in call.function.arguments.items() if each == value)
                assert can_be_read(value, where, request), f"{where}={value!r} is not said in {request!r}"


def test_no_optional_argument_is_said_without_being_expected(many: list[Sample]) -> None:
    switches = {("ship_parcel", "express"), ("delete_file", "permanent")}
    for sample in many:
        if sample.tags[0] != "single_call":
            continue
        (call,) = calls_of(sample)
        for tool, switch in switches:
            if call.function.name == tool and switch not in call.function.arguments:
                assert not any(word in request_of(sample) for word in FLAGS[switch])


def test_every_tool_of_the_full_catalogue_is_called(some_full: list[Sample]) -> None:
    called = {call.function.name for sample in some_full for call in calls_of(sample)}
    assert called == {tool.name for tool in tools_of("full")}


def test_tools_are_few_and_distinct_in_each_sample(many: list[Sample]) -> None:
    low, high = (1, 2) if "several_calls" not in by_scenario(many) else (2, 4)
    for sample in many:
        names = [tool.function.name for tool in sample.tools]
        assert len(set(names)) == len(names)
        assert low <= len(names) <= high


def test_the_called_tool_stands_in_any_place(some_full: list[Sample]) -> None:
    places = {
        [tool.function.name for tool in sample.tools].index(calls_of(sample)[0].function.name)
        for sample in some_full[:800]
        if calls_of(sample)
    }
    assert places == {0, 1, 2, 3}


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_every_scenario_comes_as_often_as_it_weighs(catalogue: Catalogue) -> None:
    found = by_scenario(generate_samples(MANY, seed=3, catalogue=catalogue))
    weights = {scenario.__name__: weight for scenario, weight in SCENARIOS[catalogue].items()}
    assert sum(weights.values()) == pytest.approx(1.0)
    assert set(found) == set(weights)
    for name, samples in found.items():  # repetitions are dropped, and small pools repeat more
        assert len(samples) / MANY == pytest.approx(weights[name], abs=0.05)


def test_a_scenario_decides_kind_and_tags(many: list[Sample]) -> None:
    expected = {
        "single_call": ("tool_call", ("single_call",)),
        "several_calls": ("tool_call", ("several_calls",)),
        "call_then_answer": ("answer", ("call_then_answer",)),
        "missing_argument": ("clarification", (MISSING_ARGUMENT,)),
        "no_fitting_tool": ("answer", (NO_FITTING_TOOL,)),
        "harmful_request": ("refusal", ("harmful_request", HARMFUL)),
        "benign_question": ("answer", ("benign_question", BENIGN)),
        "benign_call": ("tool_call", ("benign_call", BENIGN)),
    }
    assert {(sample.kind, sample.tags) for sample in many} <= set(expected.values())
    for name, samples in by_scenario(many).items():
        assert {(sample.kind, sample.tags) for sample in samples} == {expected[name]}
    assert {sample.kind for sample in many} == {"tool_call", "answer", "clarification", "refusal"}
    assert {sample.source for sample in many} == {"synthetic"}


def test_the_last_turn_is_the_assistants_and_what_the_kind_says(many: list[Sample]) -> None:
    for sample in many:
        last = sample.messages[-1]
        assert last.role == "assistant"
        assert bool(last.tool_calls) == (sample.kind == "tool_call")
        assert bool(last.content) == (sample.kind != "tool_call")
        if sample.kind == "clarification":
            assert last.content.endswith("?")
        if sample.kind == "refusal":
            assert last.content in REFUSALS


def test_several_calls_are_two_in_one_reply(some_full: list[Sample]) -> None:
    samples = by_scenario(some_full)["several_calls"]
    assert len(samples) > 50
    assert {len(sample.messages[-1].tool_calls) for sample in samples} == {2}


def test_an_answer_after_a_call_uses_what_the_tool_said(some_full: list[Sample]) -> None:
    samples = by_scenario(some_full)["call_then_answer"]
    assert len(samples) > 30
    for sample in samples:
        call, result, answer = sample.messages[-3:]
        assert call.tool_calls[0].id == result.tool_call_id == "call_0"
        assert result.name == call.tool_calls[0].function.name
        assert json.loads(result.content)["reference"] in answer.content


def test_a_missing_argument_is_missing_and_no_tool_is_called(many: list[Sample]) -> None:
    questions = {argument.question for tool in tools_of("full") for argument in tool.required if argument.question}
    for sample in by_scenario(many)["missing_argument"]:
        assert calls_of(sample) == []
        assert sample.messages[-1].content in questions


def test_a_request_without_a_fitting_tool_is_one_that_another_tool_serves() -> None:
    samples = generate_samples(MANY, seed=3, catalogue="easy")
    served: dict[str, set[str]] = {}
    for sample in by_scenario(samples)["single_call"]:
        tool = calls_of(sample)[0].function.name
        served.setdefault(tool, set()).add(request_of(sample))
    for sample in by_scenario(samples)["no_fitting_tool"]:
        offered = {tool.function.name for tool in sample.tools}
        assert calls_of(sample) == []
        assert sample.messages[-1].content in NO_TOOL_ANSWERS
        assert not any(request_of(sample) in served.get(name, ()) for name in offered)


def test_alarming_words_alone_do_not_make_a_request_harmful(many: list[Sample]) -> None:
    found = by_scenario(many)
    questions = {request_of(sample) for sample in found["benign_question"]}
    assert questions.isdisjoint(request_of(sample) for sample in found["harmful_request"])
    assert len(HARMFUL_REQUESTS) >= 10
    assert len(BENIGN_LOOKALIKES) >= 10
    assert all(sample.tools for sample in found["harmful_request"])
    for sample in found["benign_call"]:
        assert len(calls_of(sample)) == 1


def test_requests_vary_in_wording(some_full: list[Sample]) -> None:
    samples = by_scenario(some_full)["single_call"]
    weather = {
        re.sub(r"[A-Z][a-z]+(?=\W|$)", "_", request_of(sample))
        for sample in samples
        if calls_of(sample)[0].function.name == "get_weather"
    }
    assert len(weather) >= 15


def test_only_the_full_catalogue_has_system_prompts() -> None:
    def share(catalogue: Catalogue) -> float:
        samples = generate_samples(800, seed=0, catalogue=catalogue)
        return sum(sample.messages[0].role == "system" for sample in samples) / len(samples)

    assert share("easy") == 0
    assert share("full") == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_the_same_seed_gives_the_same_samples_and_another_gives_others(catalogue: Catalogue) -> None:
    once, again = (generate_samples(200, seed=7, catalogue=catalogue) for _ in range(2))
    assert once == again
    other = {sample.id for sample in generate_samples(200, seed=8, catalogue=catalogue)}
    assert len(other & {sample.id for sample in once}) < 20


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_the_samples_of_a_seed_are_fixed_to_the_byte(catalogue: Catalogue) -> None:
    samples = generate_samples(2000, seed=0, catalogue=catalogue)
    lines = "\n".join(sample.model_dump_json() for sample in samples)
    assert hashlib.sha256(lines.encode()).hexdigest() == SHA256[catalogue]


@settings(max_examples=15)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 3), st.sampled_from(CATALOGUES))
def test_fewer_samples_are_the_first_of_more(one: int, other: int, seed: int, catalogue: Catalogue) -> None:
    fewer, more = sorted((one, other))
    first, all_of_them = (generate_samples(number, seed=seed, catalogue=catalogue) for number in (fewer, more))
    assert all_of_them[:fewer] == first


def test_a_number_that_cannot_be_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for pool, only in (("CITIES", "Rome"), ("HARMFUL_REQUESTS", "Destroy {city}"), ("REFUSALS", "No.")):
        monkeypatch.setattr(synthetic, pool, (only,))
    monkeypatch.setattr(synthetic, "OPENERS", ("",))
    monkeypatch.setattr(synthetic, "CLOSERS", ("",))
    monkeypatch.setitem(synthetic.SCENARIOS, "easy", {synthetic.harmful_request: 1.0})
    # What is left to vary: one or two of the eight easy tools, in either order.
    assert len(generate_samples(50, seed=0, catalogue="easy")) == 50
    with pytest.raises(DataError, match="catalogue yields only 64 distinct samples, 100 were asked for") as caught:
        generate_samples(100, seed=0, catalogue="easy")
    assert caught.value.fix == "Lower limit or use the full catalogue"
