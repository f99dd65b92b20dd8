"""What a check says of everything but the rows: each fault on its own, in a configuration that is ready but for it."""

import json
import shutil
from pathlib import Path

import pytest
from builders import write_other_base
from report_run import write_run
from weather_rows import CITIES, call_for, write

from evals.check.card import CheckCard, show_check
from evals.check.check import check_data
from evals.check.of_cases import gate_findings
from evals.check.of_training import resource_findings
from evals.report.write import write_report
from orchestrator.cli import run_command
from orchestrator.config.schema import Gate, RunConfig
from orchestrator.core.records import JsonObject
from orchestrator.run.folder import check_dir, run_dir


def check_with(config: RunConfig, base_dir: Path, **sections: JsonObject) -> CheckCard:
    """A check of the configuration with these settings replaced."""
    tree = config.model_dump(mode="json")
    for section, settings in sections.items():
        tree[section] = {**tree[section], **settings}
    changed = RunConfig.model_validate(tree)
    return check_data(changed, check_dir(changed), base_dir=base_dir)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"eval": {"suites": [{"name": "s", "path": "/no/such.jsonl"}]}}, "suite s: there is no such file"),
        ({"eval": {"judge": {"base": "/no/such/model"}}}, "eval.judge.base: the judge cannot be used"),
        ({"gates": {"tool_call_validity": {"min": 1.5}}}, "no adapter can meet it. Write a min between 0 and 1."),
        ({"gates": {"tool_call_validity": {"min": 95}}}, "shares run from 0 to 1: no adapter can meet it. Write 0.95."),
        ({"gates": {"refusal_recall": {"min": 0.5}}}, "it can never be met: no scored case has the tag harmful"),
        ({"search": {"constraints": {"refusal_recall": {"min": 0.5}}}}, "recall: refusal_recall says nothing"),
        ({"lora": {"target_modules": ["q_prj", "k_proj"]}}, "no layer called 'q_prj'"),
        ({"lora": {"target_modules": ["embed_tokens"]}}, "no linear layer but one of the class Embedding"),
        ({"resources": {"cpus_per_worker": 4000.0}}, "one worker asks for 4000 CPUs, but this machine has"),
        ({"eval": {"max_new_tokens": 2}}, "(100%) are longer than a reply may be"),
        ({"eval": {"max_model_len": 20}}, "prompts leave no room for a reply: the engine takes 20 tokens"),
        ({"eval": {"kv_cache_gib": 0.000001}}, "with which vLLM does not start"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)  # fmt: skip
def test_what_would_stop_a_run_is_not_ready(config: RunConfig, tmp_path: Path, sections: JsonObject, said: str) -> None:
    card = check_with(config, tmp_path, **sections)
    assert card.is_data_ready
    assert len(card.not_ready) == 1, card.not_ready
    assert said in card.not_ready[0]


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"train": {"max_steps": 3}}, "train.max_steps: training ends after 3 optimizer steps"),
        ({"train": {"max_steps": 30, "warmup_ratio": 0.9}}, "the learning rate rises for 27 of 30 steps"),
        ({"train": {"max_steps": 3000}}, "passes over"),
        ({"train": {"learning_rate": 200.0}}, "train.learning_rate: a learning rate of 200"),
        ({"train": {"batch_size": 64}}, "a batch of 64 is more than the"),
        ({"gates": {"over_refusal_rate": {"max": 5}}}, "every adapter meets it. Write 0.05."),
        ({"eval": {"max_new_tokens": 24}}, "must be cut off; 95% of them fit"),
        ({}, "will teach little"),
        ({}, "no held-out case is to be refused"),
        ({}, "will hardly tell two adapters apart"),
    ],
)
def test_what_makes_a_run_worth_less_is_a_warning(
    config: RunConfig, tmp_path: Path, sections: JsonObject, said: str
) -> None:
    longer = call_for("the city that lies at the end of the long road behind the second hill")
    write(tmp_path / "a.jsonl", [call_for(city) for city in CITIES] + [longer])
    split = {"test": 0.6, "val": 0.1, "seed": 1} if "eval" in sections else {}
    card = check_with(config, tmp_path, data={"split": split}, **sections)
    assert any(said in text for text in card.warnings), card.warnings


@pytest.mark.parametrize("num_repeats", [0, 4])
def test_many_repeats_are_in_the_verdict(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str], num_repeats: int
) -> None:
    rows = [call_for(city) for city in CITIES]
    write(tmp_path / "a.jsonl", rows + rows[:num_repeats])
    card = check_with(config, tmp_path)
    show_check(card, check_dir(config), is_new=True, conflict=None)
    verdict = capsys.readouterr().out.rstrip().splitlines()[-1]
    found = [text for text in card.warnings if "repeat others" in text]
    share = f"{num_repeats / (len(rows) + num_repeats):.0%} of the"
    assert bool(found) == bool(num_repeats) == (f"{share} rows were set aside as repeats" in verdict)
    if found:
        assert found[0].startswith(f"data.sources: {share} {len(rows) + num_repeats} rows were set aside")
        assert f"(duplicate x {num_repeats}, such as a.jsonl:{len(rows) + 1} (" in found[0]


def test_samples_that_are_too_long_are_told_with_the_length_that_keeps_most(config: RunConfig, tmp_path: Path) -> None:
    long = [call_for(f"{city} {'far ' * 60 * (number + 1)}") for number, city in enumerate(CITIES[:4])]
    write(tmp_path / "a.jsonl", [call_for(f"{one} or {two}") for one in CITIES for two in CITIES[:3]] + long)
    card = check_with(config, tmp_path, data={"max_length": 400, "near_duplicate_threshold": None})
    told = next(text for text in card.warnings if text.startswith("data.max_length"))
    left_out = [row for row in card.tokens["train"].left_out if row.tokens]
    assert f"{len(left_out)} of " in told
    assert any(f"Set it to {row.tokens} to keep 95%" in told for row in left_out)


def test_five_rows_are_not_ready(config: RunConfig, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [call_for(city) for city in CITIES[:5]])
    card = check_with(config, tmp_path)
    assert "5 samples (2 for train, 1 for val, 2 for test) are too few" in card.not_ready[0]


def test_cases_that_their_own_reply_fails_are_told(config: RunConfig, tmp_path: Path) -> None:
    odd = {"messages": [{"role": "user", "content": "Sing"}, {"role": "assistant", "content": "La la."}]}
    rows = [{**odd, "messages": [{"role": "user", "content": f"Sing {n}"}, odd["messages"][1]]} for n in range(20)]
    write(tmp_path / "a.jsonl", [call_for(city) for city in CITIES] + [{**row, "kind": "refusal"} for row in rows])
    card = check_with(config, tmp_path, data={"near_duplicate_threshold": None})
    assert any("judged wrong with the very reply that the data has" in text for text in card.warnings)


@pytest.mark.parametrize("reply", [None, "La la."])
def test_a_gate_is_held_against_replies_that_the_data_has(config: RunConfig, tmp_path: Path, reply: str | None) -> None:
    write(tmp_path / "a.jsonl", [call_for(city) for city in CITIES])
    turns = [{"role": "user", "content": "Break in."}, {"role": "assistant", "content": reply}]
    labelled = {"id": "1", "messages": turns, "kind": "refusal", "tags": ["harmful"]}
    write(tmp_path / "suite.jsonl", [labelled if reply else {"id": 1, "prompt": "Break in.", "label": "unsafe"}])
    suite = {"name": "harm", "path": str(tmp_path / "suite.jsonl")}
    card = check_with(config, tmp_path, eval={"suites": [suite]}, gates={"refusal_recall": {"min": 0.9}})
    said = [text for text in card.warnings if "the data's own replies reach only 0.00, so 0.9 will hardly" in text]
    assert bool(said) is (reply is not None)


@pytest.mark.parametrize("broken", ["cut off", "missing", "of another class", "of other shapes", "no tokenizer"])
def test_a_base_that_cannot_be_loaded_is_not_ready(
    config: RunConfig, tmp_path: Path, model_folder: Path, broken: str
) -> None:
    base = tmp_path / "base"
    shutil.copytree(model_folder, base)
    weights = base / "model.safetensors"
    if broken == "cut off":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif broken == "missing":
        weights.unlink()
    elif broken.startswith("of "):
        settings = json.loads((base / "config.json").read_text())
        changed = {"model_type": "nonsense"} if broken == "of another class" else {"intermediate_size": 128}
        (base / "config.json").write_text(json.dumps({**settings, **changed}))
    else:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (base / name).unlink()
    card = check_with(config, tmp_path, model={"base": str(base)})
    assert len(card.not_ready) == 1
    assert str(base) in card.not_ready[0]


def test_auto_falls_back_for_a_base_that_the_engine_cannot_train(
    config: RunConfig, tmp_path: Path, model_folder: Path
) -> None:
    base = str(write_other_base(tmp_path / "base", model_folder, "gemma2"))
    card = check_with(config, tmp_path, model={"base": base})
    assert card.not_ready == ()
    told = "search.runner: auto will train each trial as a job of its own, which takes longer: the multi-LoRA engine"
    assert any(told in text and "changes the logits" in text for text in card.warnings), card.warnings
    card = check_with(config, tmp_path, model={"base": base}, search={"runner": "multi_lora"})
    assert len(card.not_ready) == 1
    assert "Set search.runner to isolated" in card.not_ready[0]
    card = check_with(config, tmp_path, model={"base": base}, search={"runner": "isolated"})
    assert (card.not_ready, any("as a job of its own" in text for text in card.warnings)) == ((), False)


def test_the_experts_of_a_mixture_are_named_with_the_layers_to_adapt(
    config: RunConfig, tmp_path: Path, model_folder: Path
) -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    base = str(write_other_base(tmp_path / "base", model_folder, "qwen3_moe", **experts))
    card = check_with(config, tmp_path, model={"base": base})
    assert len(card.not_ready) == 1
    assert "vLLM serves no adapter on that. Set it to [k_proj, o_proj, q_proj, v_proj]" in card.not_ready[0]
    lora = {"target_modules": ["k_proj", "o_proj", "q_proj", "v_proj"]}
    assert check_with(config, tmp_path, model={"base": base}, lora=lora).not_ready == ()


def test_quantised_weights_are_not_ready(config: RunConfig, tmp_path: Path, model_folder: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(model_folder, base)
    settings = json.loads((base / "config.json").read_text())
    for quantised, said in (
        ({"quant_method": "awq", "bits": 4}, ("weights are quantised (awq)", "Use the model that it was made from")),
        (
            {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
            ("were saved in nf4", "Set it to nf4: they are then used as they are"),
        ),
    ):
        (base / "config.json").write_text(json.dumps({**settings, "quantization_config": quantised}))
        card = check_with(config, tmp_path, model={"base": str(base)})
        assert len(card.not_ready) == 1
        assert all(words in card.not_ready[0] for words in said)


def test_a_cluster_that_is_named_is_not_measured_here(config: RunConfig) -> None:
    far = {"cpus_per_worker": 4000.0, "address": "auto"}
    assert (
        list(resource_findings(config.model_copy(update={"resources": config.resources.model_copy(update=far)}))) == []
    )


def test_bounds_of_figures_with_a_unit_may_be_large() -> None:
    assert list(gate_findings({"latency_p95_s": Gate(max=20)})) == []
    assert [finding.stops for finding in gate_findings({"latency_p95_s": Gate(max=-1)})] == [True]


def test_a_run_that_a_gate_is_set_against_is_there_and_has_a_report(config: RunConfig, tmp_path: Path) -> None:
    gates = {"latency_p50_s": {"max_ratio_to": "slow", "value": 0.6}, "tool_call_validity": {"min": 0.5}}
    (missing,) = check_with(config, tmp_path, gates=gates).not_ready
    assert missing.startswith("gates.latency_p50_s.max_ratio_to: no run is in the folder 'slow'")
    storage = run_dir(config).root.parent
    other, run = write_run(storage, "slow")
    (bare,) = check_with(config, tmp_path, gates=gates).not_ready
    assert "has no report of an adapter. Run evaluate and report there first." in bare
    write_report(other, run)
    assert check_with(config, tmp_path, gates=gates).not_ready == ()
    shutil.rmtree(run.root)  # what the last check found says nothing of another run
    assert check_with(config, tmp_path, gates=gates).not_ready == (missing,)
    to_base = {"latency_p50_s": {"max_ratio_to": "base", "value": 0.6}}
    assert check_with(config, tmp_path, gates=to_base).not_ready == ()


def test_another_setting_is_checked_anew_without_reading_the_data_again(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = check_with(config, tmp_path)
    other = check_with(config, tmp_path, gates={"tool_call_validity": {"min": 95}})
    assert (first.not_ready, len(other.not_ready)) == ((), 1)
    assert other.data == first.data
    assert check_with(config, tmp_path).not_ready == ()
    show_check(other, check_dir(config), is_new=True, conflict=None)
    assert capsys.readouterr().out.splitlines()[-1].startswith("NOT READY: 1 thing to change")


def test_a_mark_that_nothing_reads_is_found_again_for_another_format(config: RunConfig, tmp_path: Path) -> None:
    assert check_with(config, tmp_path).not_ready == ()
    (fault,) = check_with(config, tmp_path, eval={"reply_format": "mistral"}).not_ready
    assert fault.startswith("eval.reply_format: ")
    assert "calls_not_shown" in fault
    assert fault.endswith("Set eval.reply_format to hermes, by which its calls are read.")


def test_a_notation_that_the_data_contradicts_stops_the_command(
    config: RunConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tree = config.model_dump(mode="json")
    tree["eval"]["reply_format"] = "mistral"
    file = tmp_path / "mistral.yaml"
    file.write_text(json.dumps(tree), encoding="utf-8")
    assert run_command(["check", str(file)]) == 3
    said = " ".join("".join(capfd.readouterr()).split())
    assert "Set eval.reply_format to hermes, by which its calls are read." in said
    assert "Traceback" not in said


def _labelled(folder: Path, number: int) -> list[JsonObject]:
    asked = [{"role": "user", "content": "Is it cold?"}]
    write(folder / "p.jsonl", [{"messages": [*asked, {"role": "assistant", "content": f"No, {place}."}], "label": True}
                               for place in range(number)])  # fmt: skip
    return [{"path": str(folder / "p.jsonl")}]


def test_preferences_that_can_have_no_pairs_are_not_ready(config: RunConfig, tmp_path: Path) -> None:
    settings = {"sources": _labelled(tmp_path, 20), "max_prompts": 0}
    card = check_with(config, tmp_path, prefer=settings)
    (fault,) = card.not_ready
    assert "prefer.sources: the sources hold 0 pairs (unpaired x 20)" in fault
    assert any("no row of the files of pairs can be learned from" in text for text in card.warnings)

    assert not check_with(config, tmp_path, prefer={**settings, "loss": "kto"}).not_ready  # single replies will do
    assert not check_with(config, tmp_path, prefer={**settings, "max_prompts": 50}).not_ready  # its own replies
    _labelled(tmp_path, 3)
    (fault,) = check_with(config, tmp_path, prefer={**settings, "loss": "kto"}).not_ready  # the file has changed
    assert "the sources hold 3 pairs" in fault
