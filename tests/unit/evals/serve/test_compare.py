"""What a client got against what was scored, with the parser and the tokenizer of the toy base."""

from typing import Any

import pytest
from builders import weather_samples

from evals.cases.samples import cases_from_samples
from evals.generate.canary import Strength
from evals.generate.engine import Prompt
from evals.generate.likelihoods import in_strength
from evals.records import Case, EngineRecord, Generation
from evals.serve.check import (
    AS_SCORED,
    NAMED,
    NONE,
    REQUIRED,
    STREAMED,
    WITHOUT_TOOLS,
    Scored,
    ServeCheck,
    cases_to_ask,
    named_tool,
    what_is_known,
)
from evals.serve.client import Answer
from evals.serve.compare import (
    Difference,
    Knowledge,
    in_forced,
    in_prompt,
    in_reading,
    in_reply,
    in_settings,
    same_calls,
)
from evals.serve.tell import check_lines
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import InputError, RunConflictError
from orchestrator.core.records import AdapterRecord
from orchestrator.models.base import load_tokenizer
from orchestrator.toy.tiny import tiny_base_folder

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
CALLS = (("get_weather", '{"city": "Rome"}'),)
TOKENIZER = load_tokenizer(tiny_base_folder(), trust_remote_code=False)


@pytest.fixture(scope="module")
def knows() -> Knowledge:
    return what_is_known(RunConfig(), "hermes", TOKENIZER, dtype="bfloat16")


@pytest.fixture(scope="module")
def case() -> Case:
    return cases_from_samples(weather_samples("Rome"))[0]


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER.encode(text, add_special_tokens=False))


def scored(case: Case, knows: Knowledge, text: str = CALL, **fields: object) -> Generation:
    prompt = Prompt(case.id, knows.prompt(case, case.tools)).sha256
    made = {"case_id": case.id, "text": text, "finish_reason": "stop", "prompt_sha256": prompt}
    return Generation.model_validate(made | fields)


def answer(case: Case, knows: Knowledge, text: str = CALL, **fields: Any) -> Answer:
    """As a server would give it that reads the text rightly."""
    calls = CALLS if text == CALL else ()
    whole = Answer(
        prompt=tuple(knows.prompt(case, case.tools)),
        tokens=(*ids(text), TOKENIZER.eos_token_id),
        content="" if calls else text,
        thinking=None,
        calls=calls,
        finish_reason="tool_calls" if calls else "stop",
    )
    return whole._replace(**fields)


def causes(found: list[Difference]) -> list[tuple[str, str]]:
    return [(one.part, one.cause) for one in found]


def test_what_was_scored_differs_in_nothing(case: Case, knows: Knowledge) -> None:
    for text in (CALL, "I cannot do that."):
        got, before = answer(case, knows, text), scored(case, knows, text)
        for way in (AS_SCORED, STREAMED):
            assert in_prompt(case, way, before, got, knows) == []
            assert in_reading(case, way, before, got, knows) == []
        assert in_reply(case, AS_SCORED, before, None, got, knows) == []


def test_another_prompt_is_told_with_the_place(case: Case, knows: Knowledge) -> None:
    right = knows.prompt(case, case.tools)
    other = answer(case, knows, prompt=(*right[:5], *ids(" Hello"), *right[5:]))
    ((part, cause),) = causes(in_prompt(case, AS_SCORED, scored(case, knows), other, knows))
    assert part == "prompt"
    assert "at token 5 the server has" in cause
    assert "Hello" in cause
    assert "chat template" in cause
    ((_, cause),) = causes(in_prompt(case, WITHOUT_TOOLS, scored(case, knows), answer(case, knows), knows))
    assert "chat template" in cause
    bare = answer(case, knows, prompt=tuple(knows.prompt(case, ())))
    assert in_prompt(case, WITHOUT_TOOLS, scored(case, knows), bare, knows) == []


def test_a_prompt_that_the_run_renders_otherwise_since_is_told(case: Case, knows: Knowledge) -> None:
    before = scored(case, knows, prompt_sha256="0" * 64)
    ((_, cause),) = causes(in_prompt(case, AS_SCORED, before, answer(case, knows), knows))
    assert "run evaluate again" in cause


def test_a_parser_that_reads_other_calls_is_told(case: Case, knows: Knowledge) -> None:
    stale = answer(case, knows, calls=(), content=CALL, finish_reason="stop")
    for way in (AS_SCORED, STREAMED):
        ((part, cause),) = causes(in_reading(case, way, scored(case, knows), stale, knows))
        assert part == "calls"
        assert "reads no call where the parser hermes reads get_weather(" in cause
    other = answer(case, knows, calls=(("get_weather", '{"city": "Oslo"}'),))
    assert [part for part, _ in causes(in_reading(case, AS_SCORED, scored(case, knows), other, knows))] == ["calls"]
    assert in_reading(case, NONE, scored(case, knows), stale, knows) == []
    called = in_reading(case, NONE, scored(case, knows), answer(case, knows), knows)
    assert [part for part, _ in causes(called)] == ["calls"]


def test_arguments_are_compared_as_json() -> None:
    assert same_calls([("f", '{"a": 1, "b": 2}')], [("f", '{"b":2,"a":1}')])
    assert not same_calls([("f", '{"a": 1}')], [("f", '{"a": true}')])
    assert not same_calls([("f", "{}")], [("g", "{}")])
    assert not same_calls([("f", "{}")], [])
    assert same_calls([("f", "{broken")], [("f", "{broken")])


def test_text_thoughts_and_finish_reason_are_held_too(case: Case, knows: Knowledge) -> None:
    before = scored(case, knows, "Rome is warm.")
    for fields, part in (
        ({"content": "Rome is"}, "text"),
        ({"thinking": "Hm."}, "thoughts"),
        ({"finish_reason": "length"}, "finish reason"),
    ):
        found = in_reading(case, AS_SCORED, before, answer(case, knows, "Rome is warm.", **fields), knows)
        assert [one.part for one in found] == [part]


def likely(text: str, place: int, wanted: str, gap: float) -> tuple[dict[int, float], ...]:
    """Each token of the text far ahead, but at one place the first token of what was wanted."""
    tokens = (*ids(text), TOKENIZER.eos_token_id)
    spread = [{token: -0.1, 3: -9.0} for token in tokens]
    spread[place] = {tokens[place]: -0.1, ids(wanted)[place]: -0.1 - gap}
    return tuple(spread)


@pytest.mark.parametrize(("gap", "by_rounding", "word"), [(0.1, True, "near tie"), (3.0, False, "weights are others")])
def test_another_reply_is_a_near_tie_or_not(
    case: Case, knows: Knowledge, gap: float, by_rounding: bool, word: str
) -> None:
    said, wanted = "Rome is warm.", "Oslo is warm."
    assert ids(said)[0] != ids(wanted)[0]
    got = answer(case, knows, said, likely=likely(said, 0, wanted, gap))
    (found,) = in_reply(case, AS_SCORED, scored(case, knows, wanted), None, got, knows)
    assert (found.part, found.by_rounding) == ("reply", by_rounding)
    assert word in found.cause


def test_a_tie_between_tokens_that_begin_alike_is_found_before_the_texts_part(case: Case, knows: Knowledge) -> None:
    said, wanted = 'say "bread" now', 'say "bread", now'
    place = next(i for i, (one, other) in enumerate(zip(ids(said), ids(wanted), strict=False)) if one != other)
    assert wanted.startswith(TOKENIZER.decode(ids(said)[: place + 1]))
    got = answer(case, knows, said, likely=likely(said, place, wanted, 0.1))
    (found,) = in_reply(case, AS_SCORED, scored(case, knows, wanted), None, got, knows)
    assert found.cause.startswith(f"a near tie at token {place}, 0.1 apart")
    assert found.by_rounding


def test_a_token_that_was_not_likely_at_all_is_of_other_weights(case: Case, knows: Knowledge) -> None:
    got = answer(case, knows, "Rome is warm.", likely=likely("Rome is warm.", 0, "Lima is warm.", 1.0))
    (found,) = in_reply(case, AS_SCORED, scored(case, knows, "Oslo is warm."), None, got, knows)
    assert "what was scored is not among the 2 likeliest at token 0" in found.cause
    assert not found.by_rounding


def test_the_bases_reply_and_a_drawn_one_are_told(case: Case, knows: Knowledge) -> None:
    said = "Rome is warm."
    got, before = answer(case, knows, said), scored(case, knows)
    (found,) = in_reply(case, AS_SCORED, before, scored(case, knows, said), got, knows)
    assert "the base replies so: the adapter is not in force" in found.cause
    first = ids(said)[0]
    drawn = got._replace(likely=({first: -2.0, ids(CALL)[0]: -0.2},) * len(got.tokens))
    (found,) = in_reply(case, AS_SCORED, before, None, drawn, knows)
    assert "replies are drawn" in found.cause
    assert not found.by_rounding


def test_forced_calls_are_calls(case: Case, knows: Knowledge) -> None:
    assert named_tool(case) == "get_weather"
    assert in_forced(case, REQUIRED, None, answer(case, knows)) == []
    assert in_forced(case, NAMED, "get_weather", answer(case, knows)) == []
    for fields, word in (
        ({"calls": ()}, "makes 0 calls"),
        ({"calls": (("other", "{}"),)}, "calls 'other'"),
        ({"calls": (("get_weather", "[1]"),)}, "the arguments of get_weather are '[1]'"),
        ({"calls": (("get_weather", "{"),)}, "the arguments of get_weather are '{'"),
    ):
        ((part, cause),) = causes(in_forced(case, REQUIRED, None, answer(case, knows, **fields)))
        assert part == "calls"
        assert word in cause
    assert len(in_forced(case, NAMED, "get_weather", answer(case, knows, calls=CALLS * 2))) == 1
    assert in_forced(case, REQUIRED, None, answer(case, knows, calls=(), finish_reason="length")) == []


def checked(*differences: Difference, **fields: object) -> ServeCheck:
    counts = {"num_cases": 50, "same_prompts": 50, "same_readings": 50, "same_replies": 50, "same_verdicts": 50}
    bounds = {"difference": 0.0, "low": -0.05, "high": 0.05, "margin": 0.1, "asked": {"as scored": 50, "streamed": 8}}
    names = {"url": "http://here", "model": "tools", "adapter_id": "trial-1", "canary": None, "strength": None}
    return ServeCheck.model_validate(counts | bounds | names | {"differences": differences} | fields)


def test_the_outcome_is_that_of_the_differences() -> None:
    tie = Difference(case_id="a", asked="as scored", part="reply", cause="a near tie", by_rounding=True)
    wrong = Difference(case_id="b", asked="streamed", part="calls", cause="another parser")
    assert checked().outcome == "as scored"
    assert checked(tie, same_replies=50, num_cases=50).outcome == "as scored"
    assert checked(tie, same_replies=49).outcome == "equivalent"
    assert checked(tie, same_replies=49, low=-0.2).outcome == "differs"
    assert checked(wrong).outcome == "differs"


def test_every_difference_is_told() -> None:
    wrong = Difference(case_id="b", asked="streamed", part="calls", cause="another parser")
    lines = list(check_lines(checked(wrong)))
    assert lines[0] == "Of 50 held-out cases 50 prompts, 50 replies and 50 verdicts are those that were scored."
    assert "Also asked: 8 streamed." in lines
    assert "- b, streamed: the calls: another parser" in lines
    assert lines[-1].startswith("DIFFERS: 1 difference that rounding does not explain")
    tie = Difference(case_id="a", asked="as scored", part="reply", cause="a near tie", by_rounding=True)
    (*_, last) = check_lines(checked(tie, same_replies=49, low=-0.2))
    assert last.startswith("NOT SHOWN: only rounding tells replies apart, but the share of cases")
    assert last.endswith("Ask more cases (--cases).")
    assert list(check_lines(checked()))[-1] == "tools is served as it was scored."


def strength(off: float, from_base: float = 6.0) -> Strength:
    return Strength(off=off, from_base=from_base, moved=6.0)


def test_first_tokens_are_as_likely_as_they_were_up_to_rounding() -> None:
    def cause(found: Strength, dtype: str = "float32") -> str:
        return in_strength(found, dtype) or ""

    assert cause(strength(0.009)) == ""
    assert cause(strength(0.24), "bfloat16") == ""
    assert cause(strength(0.29)) == ""  # 5 % of what it moves them by
    assert cause(strength(0.31), "bfloat16").endswith("its scale is another, or its weights are")
    assert cause(strength(6.0, 0.01)).endswith("they are the base's, and the adapter is not in force")
    assert cause(strength(6.0, 5.0)).endswith("its scale is another, or its weights are")


def test_settings_that_make_another_scale_are_named() -> None:
    scored: dict[str, Any] = {"r": 16, "lora_alpha": 16, "use_rslora": True, "alpha_pattern": {}}
    assert in_settings(scored, scored) is None
    assert in_settings({"r": 16, "lora_alpha": 16.0, "use_rslora": True, "task_type": "x"}, scored) is None
    found = in_settings({"r": 16, "lora_alpha": 32}, scored)
    why = "lora_alpha is 32 where 16 was scored and use_rslora is null where true was scored"
    assert found == f"its scale is another, for {why}"


def test_how_strongly_it_is_in_force_is_told() -> None:
    told = list(check_lines(checked(strength=strength(0.012))))
    assert "Their first tokens are 0.012 off in log probability on average; the adapter moves them by 6." in told
    assert any(line.startswith("The run kept no log probabilities of its canaries") for line in check_lines(checked()))


def test_no_case_is_no_question(case: Case) -> None:
    record = AdapterRecord(id="trial-1", base="tiny", r=8, alpha=16, target_modules=("q_proj",), sha256="0" * 64)
    engine = EngineRecord(
        adapter_id="trial-1", inputs_sha256="0", weights_sha256="0", applied_as="merged", device="cpu", num_engines=1
    )
    before = Scored(record, engine, "hermes", [case], {}, {}, {})
    assert cases_to_ask(before, 5) == [case]
    with pytest.raises(InputError, match=r"--cases: 0 cases cannot be asked.*1 or more"):
        cases_to_ask(before, 0)
    with pytest.raises(RunConflictError, match="no replies to held-out cases"):
        cases_to_ask(before._replace(cases=[]), 5)
