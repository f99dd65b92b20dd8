"""Adapters as other tools leave them, made by PEFT itself: copied into a run as they are, or refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters_elsewhere import UNSLOTH, made
from builders import make_config, make_trial, names_in
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from orchestrator.config.evaluation import EvalConfig
from orchestrator.config.load import load_config
from orchestrator.config.schema import ModelConfig, RunConfig
from orchestrator.core.errors import BAD_INPUT, AdapterError, AdapterNotFoundError
from orchestrator.core.files import digest_of
from orchestrator.models.adapters import keep_adapter, load_adapter, merged_tensor, read_adapter
from orchestrator.models.base import BaseWeights
from orchestrator.models.outside import bring_in
from orchestrator.run.paths import RunDir

REGEX = r"(?:.*?(?:model).*?(?:self_attn|mlp).*?(?:q_proj|v_proj|down_proj))"


def run_with(tmp_path: Path, base: Path, *adapters: Path | str) -> tuple[RunConfig, RunDir]:
    evaluation = EvalConfig(adapters=tuple(map(str, adapters)))
    return make_config(tmp_path / "runs", base=str(base), eval=evaluation), RunDir(tmp_path / "runs" / "run")


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "all linear": {"target_modules": "all-linear"},
    "regex": {"target_modules": REGEX},
    "rslora": {"use_rslora": True, "target_modules": ["down_proj", "o_proj", "k_proj"]},
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.self_attn\.v_proj": 8},
        "alpha_pattern": {"v_proj": 32},
    },
    "rslora and patterns": {"use_rslora": True, "rank_pattern": {"v_proj": 16}, "alpha_pattern": {"q_proj": 3}},
    "half": {"dtype": torch.float16},
    "brain": {"dtype": torch.bfloat16, "init_lora_weights": "gaussian"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_another_tool_has_the_effect_that_peft_gives_it(
    kind: str, model_folder: Path, tmp_path: Path
) -> None:
    source = made(tmp_path / "my adapter", model_folder, **KINDS[kind])
    config, run = run_with(tmp_path, model_folder, source)
    assert bring_in(config, run) == {}
    folder = run.adapter("my-adapter")
    record, settings = read_adapter(folder), json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    files = [source / name for name in ("adapter_model.safetensors", "adapter_config.json")]
    assert (record.base, record.source, record.sha256) == (UNSLOTH, str(source), digest_of(*files))
    assert record.r == max([4, *settings["rank_pattern"].values()])
    assert (record.alpha, record.learning_rate, record.eval_loss, record.step) == (8, None, None, None)
    tokenizer = {"chat_template.jinja", "tokenizer.json", "tokenizer_config.json"}
    assert set(names_in(folder)) == {"adapter.json", "adapter_config.json", "adapter_model.safetensors", *tokenizer}
    assert AutoTokenizer.from_pretrained(folder).chat_template

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32), source)
    merged = model.merge_and_unload().state_dict()
    base = BaseWeights(model_folder)
    weights = load_adapter(folder, base)
    changed = {name for name in merged if base.shape(name) and not torch.equal(merged[name], base.tensor(name))}
    assert set(weights.pairs) == changed
    for name in weights.pairs:
        torch.testing.assert_close(merged_tensor(weights, base, name), merged[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save.*merge_and_unload"),
        ({"bias": "lora_only"}, "it trains biases"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights.*path_initial_model_for_weight_conversion"),
        ({"trainable_token_indices": [1, 2]}, "trainable_token_indices"),
    ],
)
def test_what_vllm_does_not_serve_is_refused_with_what_to_do(
    lora: dict[str, Any], words: str, model_folder: Path, tmp_path: Path
) -> None:
    config, run = run_with(tmp_path, model_folder, made(tmp_path / "odd", model_folder, **lora))
    with pytest.raises(AdapterError, match=words):
        raise bring_in(config, run)["odd"]
    assert not run.adapter("odd").exists()


def test_a_resized_vocabulary_is_told(model_folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    model.resize_token_embeddings(model.config.vocab_size + 8)
    folder = tmp_path / "resized"
    get_peft_model(model, PeftLoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(
        str(folder), save_embedding_layers=True
    )
    with pytest.raises(AdapterError, match=r"(embed_tokens|lm_head).*vocabulary was resized"):
        load_adapter(folder, BaseWeights(model_folder))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no adapter_config.json"),
        ({"config.json": "{}"}, "a whole model: set it as model.base"),
        ({"adapter_config.json": "{"}, "not JSON"),
        ({"adapter_config.json": '{"r": 4}'}, "no r or lora_alpha"),
        ({"adapter_config.json": '{"r": 4, "lora_alpha": 8}'}, "no adapter_model.safetensors"),
    ],
)
def test_a_folder_that_is_no_adapter_says_so(
    files: dict[str, str], words: str, model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "thing"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    config, run = run_with(tmp_path, model_folder, folder)
    with pytest.raises(AdapterError, match=words):
        raise bring_in(config, run)["thing"]


def test_what_is_not_there_or_not_reachable_is_one_line(model_folder: Path, tmp_path: Path) -> None:
    for name, words in (
        (tmp_path / "gone", "there is no such folder"),
        ("somebody/no-such-adapter", "nor could it be fetched from the hub"),
    ):
        config, run = run_with(tmp_path, model_folder, made(tmp_path / "tools", model_folder), name)
        with pytest.raises(AdapterNotFoundError, match=words) as caught:
            bring_in(config, run)
        assert caught.value.exit_code == BAD_INPUT
        assert "\n" not in str(caught.value)
        assert not run.adapter("tools").exists()


def test_names_are_short_and_unique_and_those_no_longer_named_go(
    model_folder: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    plain = made(tmp_path / "tools", model_folder)
    other = made(tmp_path / "b" / "tools", model_folder)
    late = made(tmp_path / "sweep" / "checkpoint-500", model_folder)
    config, run = run_with(tmp_path, model_folder, plain, other, late)
    own = keep_adapter(plain, run, make_trial("tools"), model=ModelConfig(base=str(model_folder)), tokenizer=tokenizer)
    assert bring_in(config, run) == {}
    assert names_in(run.root / "adapters") == ["sweep-checkpoint-500", "tools", "tools-2", "tools-3"]
    assert bring_in(config, run) == {}
    assert names_in(run.root / "adapters") == ["sweep-checkpoint-500", "tools", "tools-2", "tools-3"]
    assert bring_in(run_with(tmp_path, model_folder)[0], run) == {}
    assert names_in(run.root / "adapters") == [own.id]
    assert read_adapter(run.adapter(own.id)) == own


def test_paths_are_relative_to_the_configuration_and_hub_ids_stay(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    path = tmp_path / "config.yaml"
    path.write_text("eval: {adapters: [mine, ./later, owner/name]}\n", encoding="utf-8")
    assert load_config(path).eval.adapters == (str(tmp_path / "mine"), str(tmp_path / "later"), "owner/name")
