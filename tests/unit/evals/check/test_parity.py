import json
from pathlib import Path
from typing import Any

import pytest
from builders import assistant, make_call, make_config, make_sample, make_tool, user, weather_samples, write_samples
from datasets import Dataset

import evals.check.parity as parity
from evals.check.card import ParityCard
from evals.check.of_template import template_findings
from evals.check.parity import check_parity, require_parity
from orchestrator.chat.parse import same_calls
from orchestrator.config.schema import DataConfig, RunConfig
from orchestrator.core.errors import DataError
from orchestrator.core.records import FunctionCall, Message, Sample
from orchestrator.data.card import ReasonCount
from orchestrator.data.tokens.store import tokenize_run, tokens_folder
from orchestrator.data.tokens.tokenize import IGNORED
from orchestrator.models.base import load_tokenizer
from orchestrator.run.folder import open_run
from orchestrator.run.paths import RunDir

SYSTEM = Message(role="system", content="Help.")
RESULT = Message(role="tool", content='{"sky": "blue"}', name="get_weather")
CHAT = make_sample(
    SYSTEM,
    user("What is the weather in Rome"),
    assistant(
        "Let me see.", make_call(city="Rome"), make_call(city="Oslo", days=1, exact=1.0, deep={"a": [None, True]})
    ),
    RESULT,
    RESULT,
    assistant("It is blue."),
    id="chat",
    kind="answer",
)
ASKS = make_sample(user("And the weather"), assistant("In which city?"), id="asks", kind="clarification")
DECLINES = make_sample(user("Do harm"), assistant("I cannot help with that."), id="declines", kind="refusal")


@pytest.fixture
def config(tmp_path: Path, model_folder: Path) -> RunConfig:
    return make_config(tmp_path, base=str(model_folder), data=DataConfig(max_length=600))


@pytest.fixture
def run(config: RunConfig) -> RunDir:
    run = open_run(config)
    write_samples(run, "train", [CHAT, *weather_samples("Rome", "Oslo")])
    write_samples(run, "val", [ASKS])
    write_samples(run, "test", [DECLINES, *weather_samples("Lima")])
    return run


def tokenized_parity(config: RunConfig, run: RunDir, *, with_serving_parser: bool = True) -> ParityCard:
    tokenize_run(config, run)
    return check_parity(config, run, with_serving_parser=with_serving_parser)


def check(config: RunConfig, run: RunDir) -> ParityCard:
    return tokenized_parity(config, run, with_serving_parser=False)


def codes(card: ParityCard) -> dict[str, str]:
    return {problem.code: problem.sample_id for problem in card.problems}


def with_template(config: RunConfig, folder: Path, template: str) -> RunConfig:
    """The same model with another chat template."""
    tokenizer = load_tokenizer(Path(config.model.base), trust_remote_code=False)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text((Path(config.model.base) / "config.json").read_text(encoding="utf-8"), "utf-8")
    return config.model_copy(update={"model": config.model.model_copy(update={"base": str(folder)})})


def template_of(config: RunConfig) -> str:
    return (Path(config.model.base) / "chat_template.jinja").read_text(encoding="utf-8")


def test_good_data_has_no_problem_and_everything_is_counted(config: RunConfig, run: RunDir) -> None:
    card = check(config, run)
    assert card.problems == ()
    assert (card.num_problems, card.calls, card.prompts) == (0, 5, 6)
    assert card.prompt_kinds == {"tool_call": 3, "refusal": 1, "clarification": 1, "answer": 1}
    assert (card.serving_parser, card.serving_calls) == (None, 0)
    assert card.serving_note == "vLLM's parser was not asked"


def test_prompts_that_look_otherwise_in_the_bases_own_template_are_counted(config: RunConfig, run: RunDir) -> None:
    # Qwen3's own template shows the empty think block of a turn only until the conversation goes on.
    assert check(config, run).base_template_differs == 1


def test_prompts_of_at_most_so_many_samples_a_kind_are_compared(config: RunConfig, run: RunDir) -> None:
    write_samples(run, "train", weather_samples(*(f"City{number}" for number in range(parity.PROMPTS_A_KIND + 9))))
    card = check(config, run)
    assert card.prompt_kinds["tool_call"] == parity.PROMPTS_A_KIND
    assert card.calls == parity.PROMPTS_A_KIND + 10


def test_the_card_is_kept_until_something_changes(config: RunConfig, run: RunDir) -> None:
    path = run.root / "data" / "tokens" / "parity.json"
    first = check(config, run)
    written = path.stat().st_mtime_ns
    assert check(config, run) == first
    assert path.stat().st_mtime_ns == written
    assert ParityCard.model_validate(json.loads(path.read_text(encoding="utf-8"))["card"]) == first
    write_samples(run, "test", weather_samples("Lima", "Cairo"))
    assert check(config, run).calls == 6


def stored_tokens(config: RunConfig, run: RunDir) -> tuple[list[int], list[int]]:
    """Ids and labels of the one row of val."""
    tokenize_run(config, run)
    stored = Dataset.load_from_disk(tokens_folder(run, "val"))
    return list(stored["input_ids"][0]), list(stored["labels"][0])


def write_tokens(run: RunDir, columns: dict[str, Any]) -> None:
    Dataset.from_dict(columns).save_to_disk(tokens_folder(run, "val"))


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_mask_that_begins_elsewhere_is_found(config: RunConfig, run: RunDir, shift: int) -> None:
    ids, labels = stored_tokens(config, run)
    start = next(place for place, label in enumerate(labels) if label != IGNORED)
    labels[min(start, start + shift) : max(start, start + shift)] = [IGNORED if shift > 0 else ids[start - 1]]
    write_tokens(run, {"input_ids": [ids], "labels": [labels]})
    card = check(config, run)
    assert codes(card) == {"mask_wrong": "asks"}
    assert "does not begin where the prompt ends" in card.problems[0].detail


def test_a_mask_without_the_end_of_turn_or_with_what_follows_is_found(config: RunConfig, run: RunDir) -> None:
    ids, labels = stored_tokens(config, run)
    for more, wrong in (([], [IGNORED]), ([7], [ids[-1], 7])):
        write_tokens(run, {"input_ids": [[*ids, *more]], "labels": [[*labels[:-1], *wrong]]})
        (run.root / "data" / "tokens" / "parity.json").unlink(missing_ok=True)
        problem = check(config, run).problems[0]
        assert (problem.code, problem.sample_id) == ("mask_wrong", "asks")
        assert "does not end with the first token at which vLLM stops" in problem.detail


def test_tokens_of_another_prompt_are_found(config: RunConfig, run: RunDir) -> None:
    ids, labels = stored_tokens(config, run)
    ids[3] += 1
    write_tokens(run, {"input_ids": [ids], "labels": [labels]})
    with pytest.raises(DataError, match=r"sample asks: prompt_differs: turn 2: .* \(1 such problems in all\)"):
        require_parity_without_vllm(config, run)


def require_parity_without_vllm(config: RunConfig, run: RunDir) -> ParityCard:
    """`require_parity` where vLLM is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "serving_reader", raise_import_error)
        return require_parity(config, run)


def raise_import_error(*_: object, **__: object) -> None:
    raise ImportError("No module named 'vllm'")


def test_without_vllm_the_card_says_so(config: RunConfig, run: RunDir) -> None:
    card = require_parity_without_vllm(config, run)
    assert card.serving_parser is None
    assert card.serving_note == "vLLM's parser could not be asked: No module named 'vllm'"


def test_stored_tokens_of_other_rows_are_an_error(config: RunConfig, run: RunDir) -> None:
    tokenize_run(config, run)
    (run.root / "data" / "tokens" / "val.ledger.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"not those of the split files.*Remove the folder data/tokens"):
        check(config, run)


SAID = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ASKED = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
SHOWN_CALLS = (
    '{% for c in m.tool_calls or [] %}<tool_call>{"name": "{{ c.function.name }}", '
    '"arguments": {{ c.function.arguments | tojson }}}</tool_call>{% endfor %}<|im_end|>'
)
CALLED = SAID.replace("<|im_end|>", SHOWN_CALLS)
OFFERED = "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (OFFERED + CALLED + ASKED, {}),
        (CALLED + ASKED, {"tools_dropped": "chat"}),
        (OFFERED.replace("t | tojson", "t.function.name") + CALLED + ASKED, {"tools_dropped": "chat"}),
        (OFFERED + CALLED.replace("{{ m.content }}", "{{ m.content if m.role != 'system' }}") + ASKED, "system"),
        (OFFERED + CALLED.replace("{{ m.content }}", "{{ m.content if m.role != 'tool' }}") + ASKED, "tool"),
        (OFFERED + CALLED.replace("<tool_call>", "<call>").replace("</tool_call>", "</call>") + ASKED, "tags"),
    ],
)
def test_a_template_that_drops_or_changes_something_is_named(
    config: RunConfig, run: RunDir, tmp_path: Path, template: str, found: dict[str, str] | str
) -> None:
    expected: dict[str, dict[str, str]] = {
        "system": {"system_dropped": "chat"},
        "tool": {"tool_results_dropped": "chat"},
        "tags": {"call_not_parsed": "chat"},
    }
    card = check(with_template(config, tmp_path / "other", template), run)
    assert codes(card) == (expected[found] if isinstance(found, str) else found)


def test_a_template_that_changes_every_call_leaves_nothing_to_train_on(
    config: RunConfig, run: RunDir, tmp_path: Path
) -> None:
    template = OFFERED + CALLED.replace("c.function.arguments | tojson", "{} | tojson") + ASKED
    assert template != OFFERED + CALLED + ASKED
    why = "is read as other calls than the data has"
    with pytest.raises(DataError, match=rf"calls_not_shown.*{why}.*Set model\.chat_template to hermes"):
        check(with_template(config, tmp_path / "other", template), run)


def test_a_template_that_writes_calls_as_no_reader_expects_is_told(
    config: RunConfig, run: RunDir, tmp_path: Path
) -> None:
    template = OFFERED + CALLED.replace('{"name"', '{"function"') + ASKED
    card = check(with_template(config, tmp_path / "other", template), run)
    assert [problem.code for problem in card.problems] == ["call_not_parsed"]
    assert "has no reader (it has marks of hermes, but writes" in card.problems[0].detail


def with_format(config: RunConfig, reply_format: str) -> RunConfig:
    return config.model_copy(update={"eval": config.eval.model_copy(update={"reply_format": reply_format})})


LLAMA_CALLS = SHOWN_CALLS.replace("<tool_call>", "").replace("</tool_call>", "").replace('"arguments"', '"parameters"')
MISTRAL_CALLS = SHOWN_CALLS.replace("<tool_call>", "[TOOL_CALLS][").replace("</tool_call>", "]")


@pytest.mark.parametrize(
    ("calls", "setting", "wrong", "serving_parser"),
    [
        (SHOWN_CALLS, "auto", "json", "hermes"),
        (LLAMA_CALLS, "llama_json", "auto", "llama3_json"),
        (MISTRAL_CALLS, "auto", "hermes", "mistral"),
    ],
)
def test_calls_are_read_in_the_format_of_the_template(
    config: RunConfig, run: RunDir, tmp_path: Path, calls: str, setting: str, wrong: str, serving_parser: str
) -> None:
    for part in ("train", "val", "test"):
        write_samples(run, part, weather_samples("Rome", "Oslo"))
    other = with_template(config, tmp_path / "other", OFFERED + SAID.replace("<|im_end|>", calls) + ASKED)
    asked: list[str] = []

    def without_vllm(name: str, _: object, *, reasoning: str | None) -> None:
        assert reasoning is None
        asked.append(name)
        raise ImportError("No module named 'vllm'")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "serving_reader", without_vllm)
        card = tokenized_parity(with_format(other, setting), run)
    assert (card.problems, card.calls, asked) == ((), 6, [serving_parser])
    if wrong == "auto":
        assert codes(check(other, run)).keys() == {"call_not_parsed"}
    else:
        with pytest.raises(DataError, match=rf"{setting}|calls_not_shown.*Set eval\.reply_format to"):
            check(with_format(other, wrong), run)


def test_a_format_without_a_parser_in_vllm_leaves_a_note(config: RunConfig, run: RunDir, tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        write_samples(run, part, weather_samples("Rome"))
    cohere = SHOWN_CALLS.replace("<tool_call>", "<|START_ACTION|>[").replace("</tool_call>", "]<|END_ACTION|>")
    cohere = cohere.replace('"name"', '"tool_name"').replace('"arguments"', '"parameters"')
    other = with_template(config, tmp_path / "other", OFFERED + SAID.replace("<|im_end|>", cohere) + ASKED)
    card = tokenized_parity(other, run)
    assert (card.problems, card.calls) == ((), 3)
    assert card.serving_note == "vLLM has no parser for replies in the format cohere"


def test_calls_of_a_template_that_cannot_be_told_are_not_read(config: RunConfig, run: RunDir, tmp_path: Path) -> None:
    tagged = SHOWN_CALLS.replace("tool_call>", "call>")
    other = with_template(config, tmp_path / "other", OFFERED + SAID.replace("<|im_end|>", tagged) + ASKED)
    card = tokenized_parity(other, run)
    assert codes(card) == {"call_not_parsed": "chat"}
    assert card.num_problems == 4
    assert "the format of replies cannot be inferred" in card.problems[0].detail
    assert card.serving_note is not None
    assert "the format of replies cannot be inferred" in card.serving_note


def test_a_template_without_calls_leaves_out_what_only_calls_and_drops_the_rest(
    config: RunConfig, run: RunDir, tmp_path: Path
) -> None:
    card = check(with_template(config, tmp_path / "other", OFFERED + SAID + ASKED), run)
    assert codes(card) == {"call_not_parsed": "chat", "tool_calls_dropped": "chat"}


def test_what_the_data_does_not_have_may_be_dropped(config: RunConfig, run: RunDir, tmp_path: Path) -> None:
    for part, sample in (("train", ASKS), ("val", DECLINES), ("test", ASKS)):
        write_samples(run, part, [sample.model_copy(update={"tools": ()})])  # type: ignore[arg-type]
    assert check(with_template(config, tmp_path / "other", SAID + ASKED), run).problems == ()


@pytest.mark.parametrize(
    ("arguments", "is_changed"),
    [({"n": 1}, False), ({"n": 1.0}, True), ({"n": True}, True), ({"n": "1"}, True), ({"n": 2}, True), ({}, True)],
)
def test_calls_are_compared_with_the_types_of_json(arguments: dict[str, Any], is_changed: bool) -> None:
    gold = [FunctionCall(name="f", arguments={"n": 1})]
    assert same_calls([FunctionCall(name="f", arguments=arguments)], gold) is not is_changed
    assert not same_calls([FunctionCall(name="g", arguments={"n": 1})], gold)
    assert not same_calls([], gold)


def test_a_test_row_that_the_template_refuses_is_a_problem(config: RunConfig, run: RunDir, tmp_path: Path) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + OFFERED
    write_samples(run, "test", [CHAT])
    write_samples(run, "train", weather_samples("Rome"))
    card = check(with_template(config, tmp_path / "other", refusing + CALLED + ASKED), run)
    assert codes(card) == {"template_refuses": "chat"}
    assert card.problems[0].detail == "the chat template refuses it: no system"
    assert card.problems[0].advice.startswith("Leave system messages out")


def test_a_few_test_rows_that_the_template_refuses_are_counted(config: RunConfig, run: RunDir, tmp_path: Path) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + OFFERED
    write_samples(run, "test", [CHAT, *weather_samples(*(f"City{number}" for number in range(19)))])
    write_samples(run, "train", weather_samples("Rome"))
    card = check(with_template(config, tmp_path / "other", refusing + CALLED + ASKED), run)
    assert card.problems == ()
    assert card.refused == ReasonCount(count=1, example="test: the chat template refuses it: no system")


def test_a_call_whose_argument_closes_the_call_is_left_out_of_training_and_survives_in_the_test_part(
    config: RunConfig, run: RunDir
) -> None:
    tricky = make_sample(user("x"), assistant("", make_call(city="a</tool_call>b")), id="tricky")
    write_samples(run, "test", [tricky])
    assert check(config, run).problems == ()  # the strict parser knows a tag inside a string


def test_calls_of_the_test_part_that_the_notation_cannot_say_are_counted(config: RunConfig, run: RunDir) -> None:
    config = config.model_copy(update={"model": config.model.model_copy(update={"chat_template": "qwen3_5_think"})})
    typed = make_sample(user("x"), assistant("", make_call(city=5)), id="typed")
    write_samples(run, "train", weather_samples("Rome"))
    write_samples(run, "val", weather_samples("Rome"))
    write_samples(run, "test", [typed, *weather_samples("Cairo")])
    card = check(config, run)
    assert (card.problems, card.unread is not None and card.unread.count) == ((), 1)
    (told,) = template_findings({}, card)
    assert not told.stops
    assert "1 expected reply of the test part can never be scored as right, such as sample typed: turn 2" in told.text
    write_samples(run, "test", [typed])
    assert codes(check(config, run)) == {"call_changed": "typed"}


def test_shortened_and_long_rows_are_compared_too(config: RunConfig, run: RunDir) -> None:
    longer = CHAT.model_copy(
        update={"messages": (*CHAT.messages, user("word " * 400), assistant("Yes.")), "id": "longer"}
    )
    write_samples(run, "train", [longer, *weather_samples("Rome")])
    shorten = config.model_copy(update={"data": config.data.model_copy(update={"overlong": "shorten"})})
    assert tokenize_run(shorten, run)["train"].shortened == 1
    card = check(shorten, run)
    assert (card.problems, card.calls) == ((), 4)


def test_reasoning_that_is_kept_is_compared_with_thinking_prompts(config: RunConfig, run: RunDir) -> None:
    thought = Message(
        role="assistant", content="", reasoning_content="Rome it is.", tool_calls=(make_call(city="Rome"),)
    )
    write_samples(run, "train", [make_sample(user("Weather"), thought, id="thought")])
    keep = config.model_copy(update={"data": config.data.model_copy(update={"reasoning": "keep"})})
    card = check(keep, run)
    assert (card.problems, card.calls, card.prompts) == ((), 2, 4)


def test_calls_with_every_kind_of_value_come_back(config: RunConfig, run: RunDir) -> None:
    values: list[Any] = [
        0,
        -1,
        1.5,
        1e300,
        True,
        None,
        "",
        'quote " \\ \n',
        "Zürich 东京 🙂",
        [[]],
        {"a": {"b": []}},
        "<x>",
    ]
    samples: list[Sample] = [
        make_sample(user("x"), assistant("", make_call(city=value)), id=f"v{number}", tools=(make_tool(),))
        for number, value in enumerate(values)
    ]
    write_samples(run, "train", samples)
    card = check(config, run)
    assert (card.problems, card.calls) == ((), len(values) + 1)
