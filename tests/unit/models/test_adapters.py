import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path

import pytest
import torch
from builders import keep_tiny, make_trial, names_in, write_peft_checkpoint, write_tiny_adapter
from peft import PeftModel, get_peft_model
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors
from safetensors.torch import save_file as save_tensors
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from orchestrator.chat.rendering import render_prompt
from orchestrator.chat.template import dated_template, served_template
from orchestrator.config.schema import LoraConfig, ModelConfig
from orchestrator.core.errors import AdapterError, DataError
from orchestrator.core.files import digest_of
from orchestrator.core.records import AdapterRecord, JsonObject, TrialRecord
from orchestrator.models.adapters import (
    keep_adapter,
    list_adapters,
    load_adapter,
    merged_tensor,
    peft_config,
    read_adapter,
    save_tokenizer,
)
from orchestrator.models.base import BaseWeights, load_tokenizer
from orchestrator.run.paths import RunDir
from orchestrator.toy.synthetic import generate_samples
from orchestrator.toy.tiny import tiny_base_folder

Changes = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]

OWN = {"adapter_model.safetensors", "adapter_config.json", "adapter.json"}
FILES = OWN | {"chat_template.jinja", "tokenizer.json", "tokenizer_config.json"}
LINEAR = {"down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"}


@pytest.fixture(scope="module")
def checkpoint(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_peft_checkpoint(tmp_path_factory.mktemp("checkpoint"), model_folder)


@pytest.fixture(scope="module")
def other_checkpoint(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_peft_checkpoint(tmp_path_factory.mktemp("other"), model_folder, seed=1)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "run")


def keep(checkpoint: Path, run: RunDir, trial: TrialRecord | None = None) -> AdapterRecord:
    return keep_adapter(
        checkpoint, run, trial or make_trial(), model=ModelConfig(base="Qwen/Qwen3-0.6B"), tokenizer=toy_tokenizer()
    )


@cache
def toy_tokenizer() -> PreTrainedTokenizerBase:
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    tokenizer.chat_template = served_template(str(tokenizer.chat_template), thinking=False)
    return tokenizer


@pytest.fixture
def folder(checkpoint: Path, run: RunDir) -> Path:
    """The folder of an adapter that a run kept."""
    return run.adapter(keep(checkpoint, run).id)


def settings_of(folder: Path) -> JsonObject:
    settings: JsonObject = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return settings


def test_an_adapter_is_kept_with_its_record(checkpoint: Path, run: RunDir) -> None:
    record = keep(checkpoint, run)
    assert record == AdapterRecord(
        id="t0",
        base="Qwen/Qwen3-0.6B",
        r=4,
        alpha=8,
        target_modules=tuple(sorted(settings_of(checkpoint)["target_modules"])),
        sha256=record.sha256,
        learning_rate=1e-3,
        eval_loss=0.5,
        step=10,
        trial_id="t0",
        chat_template="own",
        trained_parameters=sum(tensor.size for tensor in load_file(checkpoint / "adapter_model.safetensors").values()),
    )
    folder = run.adapter(record.id)
    assert read_adapter(folder) == record


def test_an_adapter_is_called_like_its_trial_and_is_the_hash_of_what_lies_in_its_folder(
    checkpoint: Path, run: RunDir
) -> None:
    record = keep(checkpoint, run, make_trial("trial-3"))
    folder = run.adapter(record.id)
    assert record.sha256 == digest_of(folder / "adapter_model.safetensors", folder / "adapter_config.json")
    assert folder.name == record.id == record.trial_id == "trial-3"


def test_a_trial_that_was_trained_again_replaces_its_adapter(
    checkpoint: Path, other_checkpoint: Path, run: RunDir
) -> None:
    first, second = keep(checkpoint, run), keep(other_checkpoint, run)
    assert first.id == second.id
    assert first.sha256 != second.sha256
    assert read_adapter(run.adapter(first.id)) == second
    assert names_in(run.root / "adapters") == [first.id]


def test_the_folder_is_a_tokenizer_that_renders_and_encodes_as_in_training(folder: Path) -> None:
    loaded, own = AutoTokenizer.from_pretrained(folder), load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    assert loaded.chat_template == toy_tokenizer().chat_template
    for sample in generate_samples(20, seed=3, catalogue="full"):
        offered = [tool.model_dump(mode="json") for tool in sample.tools]
        plain = [message.model_dump(mode="json", exclude_none=True) for message in sample.messages[:-1]]
        said = loaded.apply_chat_template(plain, tools=offered, add_generation_prompt=True)["input_ids"]
        assert said == render_prompt(own, sample.messages[:-1], sample.tools)


def test_only_safetensors_json_and_the_tokenizer_are_kept(checkpoint: Path, run: RunDir, tmp_path: Path) -> None:
    source = tmp_path / "full"
    shutil.copytree(checkpoint, source)
    for extra in ("optimizer.pt", "training_args.bin", "tokenizer.json"):
        (source / extra).write_bytes(b"x")
    folder = run.adapter(keep(source, run).id)
    assert set(names_in(folder)) == FILES
    assert names_in(run.root / "adapters") == [folder.name]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_the_weights_are_those_of_the_checkpoint(checkpoint: Path, run: RunDir) -> None:
    kept = load_file(run.adapter(keep(checkpoint, run).id) / "adapter_model.safetensors")
    assert len(kept) == 2 * 7 * 2  # two layers, seven linear layers each, A and B
    assert all("lora_A" in name or "lora_B" in name for name in kept)
    trained = load_file(checkpoint / "adapter_model.safetensors")
    assert all((kept[name] == trained[name]).all() for name in trained)


def test_the_base_is_named_as_in_the_config_and_not_as_a_path_of_a_machine(
    checkpoint: Path, run: RunDir, model_folder: Path
) -> None:
    trained, kept = settings_of(checkpoint), settings_of(run.adapter(keep(checkpoint, run).id))
    assert trained["base_model_name_or_path"] == str(model_folder)
    assert kept["base_model_name_or_path"] == "Qwen/Qwen3-0.6B"
    differing = {key for key in trained if trained[key] != kept[key]} - {"target_modules"}
    assert differing == {"base_model_name_or_path"}
    assert kept["target_modules"] == sorted(trained["target_modules"])
    assert {name.split(".")[-1] for name in kept["target_modules"]} == LINEAR
    assert kept["inference_mode"] is True


def test_peft_loads_a_kept_adapter(folder: Path, model_folder: Path) -> None:
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder), str(folder))
    assert adapted.peft_config["default"].r == 4
    assert any(float(p.abs().sum()) > 0 for name, p in adapted.named_parameters() if "lora_B" in name)


def test_the_same_content_twice_is_one_folder(checkpoint: Path, run: RunDir) -> None:
    first, second = keep(checkpoint, run), keep(checkpoint, run)
    assert first == second
    assert names_in(run.root / "adapters") == [first.id]


def test_the_order_of_the_target_modules_is_not_in_the_hash(checkpoint: Path, run: RunDir, tmp_path: Path) -> None:
    source = tmp_path / "reversed"
    shutil.copytree(checkpoint, source)
    settings = settings_of(source)
    settings["target_modules"].reverse()
    (source / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert keep(source, run).sha256 == keep(checkpoint, run).sha256


def test_other_weights_or_another_base_are_another_adapter(
    checkpoint: Path, other_checkpoint: Path, run: RunDir
) -> None:
    hashes = {keep(checkpoint, run).sha256, keep(other_checkpoint, run).sha256}
    hashes.add(
        keep_adapter(checkpoint, run, make_trial(), model=ModelConfig(base="tiny"), tokenizer=toy_tokenizer()).sha256
    )
    assert len(hashes) == 3


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_checkpoint_without_a_file_keeps_nothing(name: str, checkpoint: Path, run: RunDir, tmp_path: Path) -> None:
    source = tmp_path / "partial"
    shutil.copytree(checkpoint, source)
    (source / name).unlink()
    with pytest.raises(AdapterError, match=f"the checkpoint has no {name}"):
        keep(source, run)
    assert not (run.root / "adapters").exists()


def test_a_trial_without_a_best_step_has_no_adapter(checkpoint: Path, run: RunDir) -> None:
    with pytest.raises(AdapterError, match="t9: a trial that is completed has no adapter to keep"):
        keep(checkpoint, run, make_trial("t9", eval_loss=None, step=None))


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_tampering_is_noticed(name: str, folder: Path) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(AdapterError, match="not those that were recorded"):
        read_adapter(folder)


@pytest.mark.parametrize("name", sorted(OWN))
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(AdapterError, match=f"the adapter has no {name}"):
        read_adapter(folder)


def test_a_broken_record_is_named(folder: Path) -> None:
    (folder / "adapter.json").write_text('{"id": "x"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"adapter\.json: base: Field required"):
        read_adapter(folder)


def test_adapters_are_listed_best_first_and_unfinished_ones_are_not(
    checkpoint: Path, other_checkpoint: Path, run: RunDir
) -> None:
    assert list_adapters(run) == []
    worse = keep(checkpoint, run, make_trial("t1", eval_loss=0.9))
    better = keep(other_checkpoint, run, make_trial("t2", eval_loss=0.1))
    (run.root / "adapters" / ".partial").mkdir()
    assert list_adapters(run) == [better, worse]


def test_peft_gets_the_configs_settings() -> None:
    lora = LoraConfig(r=8, alpha=32, dropout=0.05, target_modules=("q_proj", "v_proj"), use_rslora=True)
    peft = peft_config(lora)
    assert (peft.r, peft.lora_alpha, peft.lora_dropout, peft.use_rslora) == (8, 32, 0.05, True)
    assert peft.target_modules == {"q_proj", "v_proj"}
    assert (peft.bias, peft.task_type, peft.modules_to_save, peft.use_dora) == ("none", "CAUSAL_LM", None, False)
    assert peft_config(LoraConfig()).target_modules == "all-linear"


def rewrite(folder: Path, source: Path, *, tensors: Changes | None = None, **settings: object) -> Path:
    """A copy of an adapter with changed settings, and its tensors as a function makes them."""
    shutil.copytree(source, folder)
    if tensors is not None:
        changed = tensors(load_tensors(folder / "adapter_model.safetensors"))
        contiguous = {key: tensor.contiguous() for key, tensor in changed.items()}
        save_tensors(contiguous, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({**settings_of(folder), **settings}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("use_rslora", [False, True])
def test_a_merged_matrix_is_the_one_that_peft_merges(
    use_rslora: bool, checkpoint: Path, model_folder: Path, tmp_path: Path
) -> None:
    folder = rewrite(tmp_path / "adapter", checkpoint, use_rslora=use_rslora)
    weights = load_adapter(folder, BaseWeights(model_folder))
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder), folder)
    merged = model.merge_and_unload().state_dict()
    assert weights.sha256 == digest_of(folder / "adapter_model.safetensors", folder / "adapter_config.json")
    assert {name.split(".")[-2] for name in weights.pairs} == LINEAR
    for name in weights.pairs:
        ours = merged_tensor(weights, BaseWeights(model_folder), name)
        torch.testing.assert_close(ours, merged[name], rtol=1e-5, atol=1e-6)
        assert not torch.equal(ours, BaseWeights(model_folder).tensor(name))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ts: {key: t for key, t in ts.items() if "layers.1.mlp.up_proj.lora_B" not in key}, "only one half"),
        (lambda ts: {**ts, "base_model.model.model.norm.weight": torch.ones(2)}, "no half of a LoRA pair"),
        (lambda ts: {key.replace("layers.1.", "layers.7."): t for key, t in ts.items()}, "no such matrix"),
        (lambda ts: {key: t.repeat(2, 1) if "lora_A" in key else t for key, t in ts.items()}, "not of rank 4"),
        (lambda ts: {key: t.repeat(1, 2) if "lora_A" in key else t for key, t in ts.items()}, "the base's matrix"),
        (lambda ts: {key: t * torch.nan if "lora_B" in key else t for key, t in ts.items()}, "not all finite"),
        (lambda _: {}, "no tensor"),
    ],
    ids=["half", "stranger", "deeper base", "rank", "wider base", "nan", "empty"],
)
def test_an_adapter_that_does_not_fit_the_base_is_refused(
    change: Changes, words: str, checkpoint: Path, model_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(AdapterError, match=words):
        load_adapter(rewrite(tmp_path / "adapter", checkpoint, tensors=change), BaseWeights(model_folder))


UNSUPPORTED: dict[str, tuple[object, str]] = {
    "use_dora": (True, "DoRA has one finite length"),
    "bias": ("all", "it trains biases"),
    "peft_type": ("LOHA", "it is no LoRA"),
    "modules_to_save": (["lm_head"], "modules_to_save"),
    "rank_pattern": ({"q_proj": 2}, "not of rank 2"),
    "r": ("4", "no r or lora_alpha"),
}


@pytest.mark.parametrize("setting", UNSUPPORTED)
def test_more_than_plain_lora_is_refused(setting: str, checkpoint: Path, model_folder: Path, tmp_path: Path) -> None:
    value, words = UNSUPPORTED[setting]
    folder = rewrite(tmp_path / "adapter", checkpoint, tensors=None, **{setting: value})
    with pytest.raises(AdapterError, match=words):
        load_adapter(folder, BaseWeights(model_folder))


def test_cut_files_are_refused(checkpoint: Path, model_folder: Path, tmp_path: Path) -> None:
    folder = rewrite(tmp_path / "adapter", checkpoint)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(AdapterError, match="cannot be read"):
        load_adapter(folder, BaseWeights(model_folder))
    weights.unlink()
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors cannot be read"):
        load_adapter(folder, BaseWeights(model_folder))


def test_the_record_says_what_its_template_shows_and_how_it_is_served(checkpoint: Path, run: RunDir) -> None:
    assert (keep(checkpoint, run).content_format, keep(checkpoint, run).template_date) == (None, None)
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    own = "{{ strftime_now('%Y') }}{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
    own += "{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}"
    tokenizer.chat_template = served_template(dated_template(own, date(2025, 1, 2)), thinking=False)
    record = keep_adapter(checkpoint, run, make_trial(), model=ModelConfig(base="Qwen/Qwen3-0.6B"), tokenizer=tokenizer)
    assert (record.content_format, record.template_date) == ("string", date(2025, 1, 2))
    assert read_adapter(run.adapter(record.id)) == record


@pytest.mark.parametrize(
    ("setting", "name"), [("own", "own"), ("hermes", "hermes"), ("qwen2_5", "qwen2_5"), ("{{ messages }}", "file")]
)
def test_the_record_names_the_chat_template(checkpoint: Path, run: RunDir, setting: str, name: str) -> None:
    model = ModelConfig(base="Qwen/Qwen3-0.6B", chat_template=setting)
    record = keep_adapter(checkpoint, run, make_trial(), model=model, tokenizer=toy_tokenizer())
    assert read_adapter(run.adapter(record.id)).chat_template == name
    path = run.adapter(record.id) / "adapter.json"
    earlier = json.loads(path.read_text(encoding="utf-8"))
    del earlier["chat_template"]
    path.write_text(json.dumps(earlier), encoding="utf-8")
    assert read_adapter(run.adapter(record.id)).chat_template is None


def test_the_end_of_turn_that_only_the_template_knows_is_kept_beside_the_adapter(
    model_folder: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(model_folder, trust_remote_code=False)
    save_tokenizer(tokenizer, tmp_path / "usual")
    assert not (tmp_path / "usual" / "generation_config.json").exists()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|over|>"]})
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|over|>\n{% endfor %}"
    save_tokenizer(tokenizer, tmp_path / "other")
    stops = GenerationConfig.from_pretrained(tmp_path / "other").eos_token_id
    assert stops == sorted([tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|over|>")])


def test_a_dora_matrix_is_the_one_that_peft_merges(tmp_path: Path) -> None:
    folder = write_tiny_adapter(tmp_path / "dora", rank=4, use_dora=True)
    base = BaseWeights(tiny_base_folder())
    weights = load_adapter(folder, base)
    whole = AutoModelForCausalLM.from_pretrained(tiny_base_folder(), dtype=torch.float32)
    merged = PeftModel.from_pretrained(whole, folder).merge_and_unload().state_dict()
    assert weights.lengths.keys() == weights.pairs.keys()
    for name in weights.pairs:
        ours = merged_tensor(weights, base, name)
        torch.testing.assert_close(ours, merged[name], rtol=1e-5, atol=1e-6)
        plain = merged_tensor(replace(weights, lengths={}), base, name)
        assert not torch.allclose(ours, plain)


@pytest.mark.parametrize(
    "change",
    [
        lambda ts: {key: t for key, t in ts.items() if "layers.1.mlp.up_proj.lora_magnitude" not in key},
        lambda ts: {key: t[:-1] if "magnitude" in key else t for key, t in ts.items()},
        lambda ts: {key: t * torch.nan if "magnitude" in key else t for key, t in ts.items()},
    ],
)
def test_dora_without_a_length_for_each_row_is_refused(change: Changes, tmp_path: Path) -> None:
    source = write_tiny_adapter(tmp_path / "source", use_dora=True)
    broken = rewrite(tmp_path / "broken", source, tensors=change)
    with pytest.raises(AdapterError, match="DoRA has one finite length for each row"):
        load_adapter(broken, BaseWeights(tiny_base_folder()))
    plain = rewrite(tmp_path / "plain", source, use_dora=False)
    with pytest.raises(AdapterError, match="no half of a LoRA pair"):
        load_adapter(plain, BaseWeights(tiny_base_folder()))


def test_the_record_says_that_an_adapter_is_dora(run: RunDir, checkpoint: Path, tmp_path: Path) -> None:
    kept = keep_tiny(run, write_tiny_adapter(tmp_path / "dora", use_dora=True))
    assert kept.use_dora
    assert "use_dora" not in keep(checkpoint, run).model_dump()


@pytest.mark.parametrize("init", ["gaussian", "orthogonal"])
def test_an_adapter_starts_as_the_base_itself(init: str) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_base_folder(), dtype=torch.float32)
    ids = torch.arange(20).reshape(1, 20)
    with torch.no_grad():
        before = base(input_ids=ids).logits
        frozen = {name: weight.clone() for name, weight in base.named_parameters()}
        adapted = get_peft_model(base, peft_config(LoraConfig.model_validate({"r": 8, "init": init})))
        after = adapted(input_ids=ids).logits
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    now = {name.replace(".base_layer", ""): weight for name, weight in adapted.base_model.model.named_parameters()}
    assert all(torch.equal(now[name], weight) for name, weight in frozen.items())
    assert adapted.peft_config["default"].init_lora_weights == init
