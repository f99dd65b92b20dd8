"""A real base of 135 million parameters learns to call tools, by notations that its own chat template lacks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from orchestrator.core.errors import BAD_INPUT, DONE
from orchestrator.core.records import JsonObject
from orchestrator.toy.smollm2 import MADE, is_whole, smollm2_folder
from orchestrator.toy.synthetic import generate_samples

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (smollm2_folder() / MADE).is_file(), reason="run `make real-base` to have SmolLM2"),
    pytest.mark.timeout(1800),  # six minutes in all on two quiet cores
]


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short conversations in which one of two tools is called."""
    path = tmp_path_factory.mktemp("conversations") / "calls.jsonl"
    samples = generate_samples(400, seed=0, catalogue="easy")
    called = [each for each in samples if "single_call" in each.tags and len(each.tools) == 2]
    rows = ({"messages": each.model_dump()["messages"], "tools": each.model_dump()["tools"]} for each in called)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def written(path: Path, conversations: Path, **sections: Any) -> Path:
    """A configuration on these conversations; its runs lie beside it."""
    content = {
        "name": "real",
        "data": {"sources": [{"path": str(conversations)}], "max_length": 768, "split": {"val": 0.1, "test": 0.2}},
        "resources": {"storage_path": str(path.parent / "runs")},
        **sections,
    }
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def orchestrator(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    command = [sys.executable, "-m", "orchestrator", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def read(path: Path) -> JsonObject:
    return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]  # an object by our own writers


def losses(curve: list[JsonObject]) -> list[float]:
    return [point["eval_loss"] for point in curve if point.get("eval_loss") is not None]


def test_the_base_is_whole_and_answers() -> None:
    assert is_whole(smollm2_folder())
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder())
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder(), dtype=torch.float32)
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    replied = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(replied[0, prompt["input_ids"].shape[1] :])


def test_its_own_template_shows_no_tools_and_the_check_names_the_way_out(tmp_path: Path, conversations: Path) -> None:
    done = orchestrator("check", written(tmp_path / "own.yaml", conversations, model={"base": "smollm2-135m"}))
    assert done.returncode == BAD_INPUT
    assert "Set model.chat_template to hermes" in " ".join((done.stdout + done.stderr).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, conversations: Path) -> Path:
    """The folder of a run of two trials by `hermes`, from conversations to the report."""
    folder = tmp_path_factory.mktemp("hermes")
    config = written(
        folder / "hermes.yaml",
        conversations,
        model={"base": "smollm2-135m", "chat_template": "hermes"},
        train={"max_steps": 16, "eval_steps": 8, "batch_size": 4, "micro_batch_size": 4},
        search={
            "num_trials": 2,
            "runner": "multi_lora",
            "searcher": "grid",
            "scheduler": "none",
            "keep": 2,
            "space": {"r": [8], "alpha": [16], "learning_rate": [2e-3, 3e-3]},
        },
        eval={"max_new_tokens": 64, "max_cases": 12, "latency_cases": 0},
    )
    done = orchestrator("run", config)
    assert done.returncode == DONE, done.stdout + done.stderr
    return folder / "runs" / "real"


def test_both_trials_learn(run: Path) -> None:
    trials = [json.loads(line) for line in (run / "trials.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(trials) == 2
    for trial in trials:
        first, last = losses(trial["curve"])
        assert last < first < 1.0


def test_the_best_adapter_writes_valid_calls_where_the_base_writes_none(run: Path) -> None:
    report = read(run / "report" / "report.json")
    scored = {each["id"]: each for each in report["adapters"]}
    base = scored.pop("base")
    assert base["is_base"]
    assert len(scored) == 2
    for adapter in scored:
        canary = read(run / "evals" / adapter / "engine.json")["canary"]
        assert canary["num_texts_moved"] > 0
        assert canary["largest_shift"] > canary["noise"]
    of_base = base["metrics"]["tool_call_validity"]
    assert of_base["n"] >= 8
    assert max(each["metrics"]["tool_call_validity"]["value"] for each in scored.values()) > of_base["value"] + 0.3
    assert (run / "report" / "report.html").is_file()


def test_the_adapter_carries_the_template_that_it_learned_and_is_served_with_it(run: Path) -> None:
    report = read(run / "report" / "report.json")
    serve = report["serve_command"]
    folder = run / "adapters" / serve["adapter_id"]
    assert "<tool_call>" in (folder / "chat_template.jinja").read_text(encoding="utf-8")
    assert f"--chat-template {folder / 'chat_template.jinja'}" in serve["command"]
    assert "--tool-call-parser hermes" in serve["command"]
    assert not (folder / "generation_config.json").exists(), "the base ends replies where the template does"


@pytest.fixture(scope="module")
def plain_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base as a plain pretrained model comes: without a template, ending texts at a token that ends no turn."""
    folder = tmp_path_factory.mktemp("plain")
    for path in smollm2_folder().iterdir():
        if path.name not in {"chat_template.jinja", MADE}:
            (folder / path.name).symlink_to(path)
    for name, key, value in (
        ("config.json", "eos_token_id", 0),
        ("generation_config.json", "eos_token_id", 0),
        ("tokenizer_config.json", "eos_token", "<|endoftext|>"),
    ):
        content = {**read(folder / name), key: value}
        (folder / name).unlink()
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_a_base_without_a_template_learns_a_familys_notation_and_where_to_stop(
    tmp_path: Path, conversations: Path, plain_base: Path
) -> None:
    config = written(
        tmp_path / "xml.yaml",
        conversations,
        model={"base": str(plain_base), "chat_template": "qwen3_5_nothink"},
        lora={"r": 8, "alpha": 16},
        train={"learning_rate": 2e-3, "max_steps": 6, "eval_steps": 3, "batch_size": 4, "micro_batch_size": 2},
        eval={"max_new_tokens": 64},
    )
    checked = orchestrator("check", config)
    assert checked.returncode == DONE, checked.stdout + checked.stderr
    said = " ".join(checked.stdout.split())
    assert "READY" in said
    assert "No problem." in said[said.index("Parity: ") :]
    done = orchestrator("train", config)
    assert done.returncode == DONE, done.stdout + done.stderr
    run = tmp_path / "runs" / "real"
    adapter = run / "adapters" / "adapter-1"
    assert "<function=" in (adapter / "chat_template.jinja").read_text(encoding="utf-8")
    end = AutoTokenizer.from_pretrained(plain_base).convert_tokens_to_ids("<|im_end|>")
    assert end in read(adapter / "generation_config.json")["eos_token_id"]
    trials = [json.loads(line) for line in (run / "trials.jsonl").read_text(encoding="utf-8").splitlines()]
    first, last = losses(trials[0]["curve"])
    assert last < first
