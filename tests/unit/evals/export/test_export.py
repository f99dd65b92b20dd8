import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from builders import make_config, make_trial, write_peft_checkpoint
from huggingface_hub import ModelCard
from report_run import BEST, make_cases, make_replies, write_run

from evals.export.card import write_card
from evals.export.export import export_adapter
from evals.export.verify import (
    MARGIN,
    Answers,
    OtherReply,
    Verification,
    compare_replies,
    other_replies,
    verification_lines,
    verify_export,
)
from evals.generate.as_served import as_served
from evals.generate.canary import Strength
from evals.generate.chosen import choose_adapter, read_report
from evals.generate.engines import Engines
from evals.generate.likelihoods import Likelihoods, in_strength
from evals.records import EngineRecord, Generation
from evals.report.write import write_report
from orchestrator.chat.template import served_template
from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import AdapterError, EvaluationError, InputError, RunConflictError
from orchestrator.core.files import parse_line
from orchestrator.core.records import AdapterRecord
from orchestrator.models.adapters import keep_adapter, read_adapter
from orchestrator.models.base import load_tokenizer
from orchestrator.run.paths import RunDir
from orchestrator.toy.tiny import tiny_base_folder


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    config, run = write_run(tmp_path_factory.mktemp("runs"))
    write_report(config, run)
    return run


def test_the_winner_is_the_one_of_the_report(reported: RunDir) -> None:
    assert choose_adapter(reported, "winner") == BEST
    assert choose_adapter(reported, BEST) == BEST
    with pytest.raises(RunConflictError, match=f"no adapter 'trial-7'.*winner, {BEST}"):
        choose_adapter(reported, "trial-7")


def test_without_a_report_only_a_single_adapter_is_the_best(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    with pytest.raises(RunConflictError, match="the run has no adapter"):
        choose_adapter(run, "winner")
    run.adapter("trial-1").mkdir(parents=True)
    assert choose_adapter(run, "winner") == "trial-1"
    run.adapter("trial-2").mkdir()
    with pytest.raises(RunConflictError, match=r"no report, so none is the best.*trial-1, trial-2.*--adapter"):
        choose_adapter(run, "winner")


def test_the_hub_reads_the_card(reported: RunDir) -> None:
    config = make_config(Path("runs"), base="Qwen/Qwen3-0.6B")
    record = parse_line(reported.adapter_record(BEST).read_text(encoding="utf-8"), AdapterRecord, where="record")
    engine = parse_line(reported.engine(BEST).read_text(encoding="utf-8"), EngineRecord, where="engine")
    report = read_report(reported)
    assert report is not None
    serve = as_served(config, record, engine, Path())
    card = ModelCard(write_card(config, record, report, serve, is_merged=False))
    assert card.data.get("base_model") == "Qwen/Qwen3-0.6B"
    assert card.data.get("library_name") == "peft"
    own = next(entry for entry in report.adapters if entry.id == BEST)
    found = {result.metric_type: result.metric_value for result in card.data.get("eval_results", [])}
    assert found == {name: metric.value for name, metric in own.metrics.items() if metric.value is not None}
    assert report.verdict.reason.split(".")[0][:40] in card.text.replace("\\", "")
    assert re.search(r"\| .+ \| 0\.\d+ \(0\.\d+ to [01]\.\d+, n=\d+\) \| 0\.\d+ \(", card.text)


def test_a_card_of_what_was_never_scored_says_so() -> None:
    record = AdapterRecord(id="trial-1", base="tiny", r=8, alpha=16, target_modules=("q_proj",), sha256="0" * 64)
    card = ModelCard(write_card(make_config(Path("runs")), record, None, None, is_merged=True))
    assert "It has not been scored." in card.text
    assert card.data.get("base_model") is None
    assert card.data.get("library_name") == "transformers"


@pytest.mark.parametrize("unknown", ["base", "reply_format"])
def test_a_card_without_the_command_that_serves_it_says_why(
    reported: RunDir, tmp_path: Path, unknown: Literal["base", "reply_format"]
) -> None:
    run, out = RunDir(tmp_path / "run"), tmp_path / "out"
    shutil.copytree(reported.root, run.root)
    checkpoint = write_peft_checkpoint(tmp_path / "checkpoint", tiny_base_folder())
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    shutil.rmtree(run.adapter(BEST))
    keep_adapter(checkpoint, run, make_trial(BEST), model=ModelConfig(base="tiny"), tokenizer=tokenizer)
    config, made = make_config(tmp_path), json.loads(run.engine(BEST).read_text(encoding="utf-8"))
    made |= {"base": "tiny", "reply_format": "hermes"}
    for content, place in ((made, tmp_path / "told"), ({**made, unknown: None}, out)):
        run.engine(BEST).write_text(json.dumps(content), encoding="utf-8")
        export_adapter(config, run, BEST, "adapter", place)
    missing = "The run does not say how the adapter's replies were made"
    assert "vllm.entrypoints" in (told := (tmp_path / "told" / "README.md").read_text(encoding="utf-8"))
    assert missing not in told
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "vllm" not in card
    assert missing in card
    assert "run `orchestrator evaluate` on the run, and export it again" in card


@pytest.fixture
def trained(tmp_path: Path, model_folder: Path) -> RunDir:
    run = RunDir(tmp_path / "runs" / "demo")
    tokenizer = load_tokenizer(model_folder, trust_remote_code=False)
    tokenizer.chat_template = served_template(str(tokenizer.chat_template), thinking=False)
    checkpoint = write_peft_checkpoint(tmp_path / "checkpoint", model_folder)
    keep_adapter(checkpoint, run, make_trial("trial-1"), model=ModelConfig(base=str(model_folder)), tokenizer=tokenizer)
    return run


def test_an_adapter_leaves_as_it_is_with_its_card(tmp_path: Path, trained: RunDir, model_folder: Path) -> None:
    config, out = make_config(tmp_path / "runs", base=str(model_folder)), tmp_path / "out"
    assert export_adapter(config, trained, "winner", "adapter", out) == "trial-1"
    assert read_adapter(out) == read_adapter(trained.adapter("trial-1"))
    assert {path.name for path in out.iterdir()} == {
        *(path.name for path in trained.adapter("trial-1").iterdir()),
        "README.md",
    }


@pytest.mark.parametrize("form", ["adapter", "merged", "gguf"])
def test_files_that_changed_since_training_stay_in_the_run(
    tmp_path: Path, trained: RunDir, model_folder: Path, form: str
) -> None:
    settings = trained.adapter("trial-1") / "adapter_config.json"
    content = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps(content | {"lora_alpha": 64}), encoding="utf-8")
    config = make_config(tmp_path / "runs", base=str(model_folder))
    with pytest.raises(AdapterError, match="not those that were recorded"):
        export_adapter(config, trained, "trial-1", form, tmp_path / "out")  # type: ignore[arg-type]  # one of the forms
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_base_stays_in_the_run(tmp_path: Path, trained: RunDir) -> None:
    with pytest.raises(AdapterError, match=r"trained on .* and the run's base is 'tiny'"):
        export_adapter(make_config(tmp_path / "runs"), trained, "trial-1", "merged", tmp_path / "out")


def verification(**fields: object) -> Verification:
    same = {"num_cases": 50, "same_prompts": 50, "same_replies": 50, "same_verdicts": 50}
    bounds = {"difference": 0.0, "low": -0.06, "high": 0.06, "margin": MARGIN}
    return Verification.model_validate({"kind": "merged", "adapter_id": "trial-1", **same, **bounds, **fields})


def test_what_counts_as_the_same() -> None:
    assert verification().outcome == "identical"
    assert verification(same_replies=49).outcome == "equivalent"
    assert verification(same_replies=49, low=-0.11).outcome == "differs"
    assert verification(same_replies=49, high=0.1).outcome == "differs"
    assert verification(same_prompts=49).outcome == "differs"


def test_it_is_told_in_sentences() -> None:
    assert verification_lines(verification()) == [
        "Of 50 held-out cases 50 prompts, 50 replies and 50 verdicts are those that were scored."
    ]
    other = OtherReply(case_id="test-1", cause="the weights are others: 'x', and 'y' was scored", by_rounding=False)
    fields = {"same_replies": 40, "same_verdicts": 41, "difference": -0.18, "low": -0.3, "high": -0.05}
    told = verification_lines(verification(**fields, others=(other,)))
    share = "the share of cases answered as asked differs by"
    assert told[1] == f"DIFFERS: 1 difference that rounding does not explain; {share} -0.18 (-0.30 to -0.05)."
    assert told[2] == "- test-1: the weights are others: 'x', and 'y' was scored"
    told = verification_lines(verification(same_replies=40, difference=0.0, low=-0.14, high=0.14))
    assert told[1].startswith(f"NOT SHOWN: only rounding tells replies apart, but {share} 0.00 (-0.14 to +0.14)")
    assert told[1].endswith("Ask more cases (--cases).")
    assert "chat template" in verification_lines(verification(same_prompts=0))[1]


def test_an_export_that_replies_to_nothing_is_an_error_and_not_equivalent() -> None:
    cases = make_cases(10)
    before = {reply.case_id: reply for reply in make_replies(cases, 0.9, seed=0, adapter_id=BEST)}
    broken = {"text": "", "finish_reason": "error", "error": "the engine died on it twice"}
    after = {case_id: reply.model_copy(update=broken) for case_id, reply in before.items()}
    with pytest.raises(EvaluationError, match="none of 10 cases got a reply; the first because the engine died"):
        compare_replies(cases, before, after, "hermes")
    assert compare_replies(cases, before, before, "hermes")["same_replies"] == 10


def test_a_case_without_a_reply_counts_as_another_reply_and_as_wrong() -> None:
    cases = make_cases(10)
    before = {reply.case_id: reply for reply in make_replies(cases, 0.9, seed=0, adapter_id=BEST)}
    same = compare_replies(cases, before, before, "hermes")
    right = next(case.id for case in cases if compare_replies([case], before, before, "hermes")["same_verdicts"])
    broken = before[right].model_copy(update={"finish_reason": "error", "error": "the engine died on it twice"})
    for silent in (broken, broken.model_copy(update={"text": ""})):  # whatever text it left
        found = compare_replies(cases, before, {**before, right: silent}, "hermes")
        assert (found["num_silent"], found["same_replies"], found["same_verdicts"]) == (1, 9, 9)
        assert found["difference"] == pytest.approx(-0.1)
        assert found["low"] < same["low"]
        (other,) = other_replies(cases, before, answers({**before, right: silent}), "bfloat16")
        assert other.cause.startswith("no reply (the engine died on it twice): ")
        told = verification(**{**found, "num_cases": 10, "others": (other,)})
        assert "1 case got no reply, which counts as another one and as wrong." in verification_lines(told)
        assert told.outcome == "differs"


def answers(replies: dict[str, Generation], likely: dict[str, Likelihoods] | None = None) -> Answers:
    """What replies in letters, each of which is a token."""
    return Answers(replies, likely or {}, decode=lambda tokens: "".join(map(chr, tokens)), ends=("$",))


@pytest.mark.parametrize(
    ("dtype", "gap", "by_rounding"),
    [("bfloat16", 0.4, True), ("bfloat16", 0.6, False), ("float32", 0.01, True), ("float32", 0.4, False)],
)
def test_every_other_reply_has_its_cause(dtype: str, gap: float, by_rounding: bool) -> None:
    cases = make_cases(3)
    before = {case.id: Generation(case_id=case.id, text="abc", finish_reason="stop") for case in cases}
    other = cases[1].id
    after = {**before, other: before[other].model_copy(update={"text": "axc"})}
    said = ({ord("a"): -0.1}, {ord("x"): -0.5, ord("b"): -0.5 - gap}, {ord("c"): -0.1}, {ord("$"): -0.1})
    found = list(
        other_replies(cases, before, answers(after, {other: Likelihoods(tuple(map(ord, "axc$")), said)}), dtype)
    )
    assert [(one.case_id, one.by_rounding) for one in found] == [(other, by_rounding)]
    assert (
        f"at token 1, {gap:.2g} apart" in found[0].cause or f"at token 1 what was scored is {gap:.2g}" in found[0].cause
    )
    told = verification(same_replies=49, others=found)
    assert told.outcome == ("equivalent" if by_rounding else "differs")
    assert verification_lines(told)[-1] == f"- {other}: {found[0].cause}"
    assert found[0].cause.endswith(": 'axc', and 'abc' was scored")


def test_an_adapter_in_another_strength_differs_though_no_reply_does() -> None:
    strength = Strength(off=0.4, from_base=1.0, moved=1.4)
    told = verification(strength=strength, other_strength=in_strength(strength, "bfloat16"))
    assert told.outcome == "differs"
    assert "its scale is another, or its weights are" in verification_lines(told)[-1]
    assert in_strength(strength.model_copy(update={"off": 0.2}), "bfloat16") is None


def test_replies_that_are_drawn_differ_by_chance() -> None:
    (case,) = make_cases(1)
    before = {case.id: Generation(case_id=case.id, text="abc", finish_reason="stop")}
    after = {case.id: before[case.id].model_copy(update={"text": "axc"})}
    (found,) = other_replies([case], before, replace(answers(after), temperature=0.7), "bfloat16")
    assert found.by_rounding
    assert found.cause.startswith("replies are drawn at temperature 0.7: 'axc'")


def test_a_record_that_does_not_say_how_calls_are_written_is_told(reported: RunDir, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    shutil.copytree(reported.root, run.root)
    made = json.loads(run.engine(BEST).read_text(encoding="utf-8"))
    run.engine(BEST).write_text(json.dumps({**made, "reply_format": None}), encoding="utf-8")
    config = make_config(tmp_path, base="tiny")
    folder = tmp_path / "export"
    folder.mkdir()
    shutil.copyfile(tiny_base_folder() / "config.json", folder / "config.json")
    with pytest.raises(RunConflictError, match=r"engine.json: it does not say how calls .*Run evaluate again"):
        verify_export(config, run, folder, BEST, Engines(1, on_gpu=False, actor_class=None), num_cases=5)


@pytest.fixture
def exported(reported: RunDir, tmp_path: Path, model_folder: Path) -> Path:
    """What looks like an adapter of the run; the run says how calls are written."""
    run, folder = RunDir(tmp_path / "run"), tmp_path / "export"
    shutil.copytree(reported.root, run.root)
    made = json.loads(run.engine(BEST).read_text(encoding="utf-8"))
    run.engine(BEST).write_text(json.dumps({**made, "reply_format": "hermes"}), encoding="utf-8")
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    other = RunDir(tmp_path / "other")
    checkpoint = write_peft_checkpoint(tmp_path / "checkpoint", model_folder)
    keep_adapter(checkpoint, other, make_trial("trial-7"), model=ModelConfig(base="tiny"), tokenizer=tokenizer)
    shutil.copytree(other.adapter("trial-7"), folder)
    return folder


def verified(exported: Path, *, num_cases: int = 5) -> None:
    config, run = make_config(exported.parent, base="tiny"), RunDir(exported.parent / "run")
    verify_export(config, run, exported, BEST, Engines(1, on_gpu=False, actor_class=None), num_cases=num_cases)


def test_another_adapter_than_the_one_it_is_held_against_is_told(exported: Path) -> None:
    with pytest.raises(InputError, match=rf"the adapter in it is trial-7, .* replies of {BEST}. Add --adapter trial-7"):
        verified(exported)


def test_no_case_is_no_question(exported: Path) -> None:
    with pytest.raises(InputError, match=r"--cases: 0 cases cannot be asked.*1 or more"):
        verified(exported, num_cases=0)


@pytest.mark.parametrize(
    ("file", "content", "line"),
    [
        ("tokenizer.json", "{", "its tokenizer cannot be read"),
        ("tokenizer.json", None, "its tokenizer cannot be read"),
        ("chat_template.jinja", None, "there is no chat template in it"),
    ],
)
def test_a_folder_whose_tokenizer_or_template_is_broken_is_one_line(
    exported: Path, file: str, content: str | None, line: str
) -> None:
    (exported / file).unlink(missing_ok=True) if content is None else (exported / file).write_text(content)
    with pytest.raises(InputError, match=line) as told:
        verified(exported)
    assert "\n" not in str(told.value)


def test_a_merged_model_whose_config_is_broken_is_one_line(exported: Path) -> None:
    for name in ("adapter_config.json", "adapter.json", "adapter_model.safetensors"):
        (exported / name).unlink()
    (exported / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"its (tokenizer|config.json) cannot be read") as told:
        verified(exported)
    assert "\n" not in str(told.value)
