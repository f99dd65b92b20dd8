"""The adapter that training starts from: what it decides, what contradicts it, and that its numbers arrive."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from adapters_elsewhere import made
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from orchestrator.config.load import load_config, write_resolved
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import ConfigError
from orchestrator.models.adapters import fill_new, peft_config
from orchestrator.models.base import empty_base
from orchestrator.models.start import adopt, copy_start, require_start, start_digest
from orchestrator.run.paths import RunDir
from orchestrator.toy.tiny import tiny_base_folder

SMALL = {"r": 8, "lora_alpha": 12, "use_rslora": True}


@pytest.fixture(scope="module")
def adapter(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rank 8, alpha 12, rsLoRA, on two kinds of layers."""
    return made(tmp_path_factory.mktemp("elsewhere") / "adapter", model_folder, **SMALL)


@pytest.fixture
def load(adapter: Path, model_folder: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    def loaded(start: Path | str = adapter, *, overrides: tuple[str, ...] = (), **sections: Any) -> RunConfig:
        content = {
            "model": {"base": str(model_folder)},
            "data": {"sources": [{"path": "synthetic"}]},
            "train": {"init_from": str(start)},
            **sections,
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return load_config(path, overrides)

    return loaded


def test_what_the_user_leaves_open_is_the_adapters(load: Callable[..., RunConfig]) -> None:
    config = adopt(load(profile="max_quality"))
    assert (config.lora.r, config.lora.alpha, config.lora.use_rslora) == (8, 12, True)
    assert config.lora.target_modules == ("q_proj", "v_proj")
    assert (config.search.space.r, config.search.space.alpha) == ((8,), (12,))
    assert config.lora.dropout == load(profile="max_quality").lora.dropout
    assert adopt(config) == config


def test_a_written_space_that_holds_the_adapters_values_is_narrowed_to_them(load: Callable[..., RunConfig]) -> None:
    space = {"r": [8, 16], "alpha": [12, 24], "learning_rate": {"min": 1e-5, "max": 1e-3}}
    searched = adopt(load(search={"space": space})).search.space
    assert (searched.r, searched.alpha) == ((8,), (12,))
    assert searched.learning_rate == load(search={"space": space}).search.space.learning_rate
    everything = {"r": 8, "alpha": 12, "use_rslora": True, "target_modules": ["q_proj", "v_proj"]}
    assert adopt(load(search={"space": space}, lora=everything)).search.space == searched


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"lora": {"r": 16}}, "lora.r is 16, and that of the adapter is 8"),
        ({"lora": {"alpha": 16}}, "lora.alpha is 16, and that of the adapter is 12"),
        ({"lora": {"use_rslora": False}}, "lora.use_rslora is False"),
        ({"search": {"space": {"r": [16, 32]}}}, r"search.space.r is \[16, 32\], and that of the adapter is 8"),
        ({"search": {"space": {"alpha": [16]}}}, r"search.space.alpha is \[16\]"),
        ({"overrides": ("lora.r=32",)}, "lora.r is 32"),
    ],
)
def test_what_contradicts_the_adapter_is_refused_with_what_to_leave_out(
    sections: dict[str, Any], key: str, load: Callable[..., RunConfig]
) -> None:
    with pytest.raises(ConfigError, match=rf"^train.init_from: .*{key}.*Leave {key.split()[0]} out"):
        adopt(load(**sections))


def test_the_resolved_configuration_leaves_open_what_was_open(load: Callable[..., RunConfig], tmp_path: Path) -> None:
    for config in (load(), adopt(load()), load(lora={"r": 8}, search={"space": {"r": [8, 16]}})):
        write_resolved(config, tmp_path / "sent.json")
        again = load_config(tmp_path / "sent.json")
        assert again == config
        assert adopt(again) == adopt(config)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"r": 5}, "rank 5"),
        ({"lora_alpha": 0.5}, r"alpha 0\.5"),
        ({"use_dora": True}, "DoRA"),
    ],
)
def test_what_training_cannot_express_is_refused(
    settings: dict[str, Any], words: str, load: Callable[..., RunConfig], model_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        adopt(load(made(tmp_path / "odd", model_folder, **settings)))


def test_one_that_is_nowhere_is_refused(load: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"nowhere"):
        adopt(config)
    with pytest.raises(ConfigError, match=r"nowhere"):
        start_digest(config)


def test_one_that_does_not_fit_the_base_is_refused_with_the_first_difference(
    load: Callable[..., RunConfig],
) -> None:
    other = empty_base(tiny_base_folder(), trust_remote_code=False)
    with pytest.raises(ConfigError, match=r"q_proj\.lora_A\.weight is 8 x 32 and has to be 8 x \d+.*model\.base"):
        require_start(load(), other)


def test_layers_that_the_configuration_leaves_out_or_asks_for_are_told(
    load: Callable[..., RunConfig], model_folder: Path
) -> None:
    base = empty_base(model_folder, trust_remote_code=False)
    with pytest.raises(ConfigError, match=r"holds .*v_proj.*leave lora\.target_modules out"):
        require_start(load(lora={"target_modules": ["q_proj"]}), base)
    with pytest.raises(ConfigError, match=r"lacks .*k_proj.*lora\.target_modules"):
        require_start(load(lora={"target_modules": ["q_proj", "v_proj", "k_proj"]}), base)


def test_weights_that_are_no_numbers_are_refused(
    load: Callable[..., RunConfig], model_folder: Path, tmp_path: Path
) -> None:
    broken = made(tmp_path / "broken", model_folder, **SMALL)
    tensors = load_file(broken / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, broken / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match="not all finite"):
        require_start(load(broken), empty_base(model_folder, trust_remote_code=False))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"target_modules": "all-linear"},
        {"target_modules": r".*(self_attn|mlp).*(q_proj|down_proj)"},
        {"layers_to_transform": [1]},
    ],
)
def test_a_new_adapter_gets_exactly_the_numbers_of_the_one_to_start_from(
    settings: dict[str, Any], load: Callable[..., RunConfig], model_folder: Path, tmp_path: Path
) -> None:
    source = made(tmp_path / "source", model_folder, **settings)
    config = adopt(load(source, overrides=("lora.dropout=0",)))
    place = copy_start(config, empty_base(model_folder, trust_remote_code=False), RunDir(tmp_path / "run"))
    assert place is not None

    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    model = get_peft_model(base, peft_config(config.lora))
    fill_new(model, place)
    ids = torch.arange(20).reshape(1, 20)
    with torch.no_grad():
        ours = model(input_ids=ids).logits
        base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
        theirs = PeftModel.from_pretrained(base, source)(input_ids=ids).logits
    assert torch.equal(ours, theirs)


def test_the_digest_and_the_copy_follow_the_content(
    load: Callable[..., RunConfig], model_folder: Path, tmp_path: Path
) -> None:
    run, base = RunDir(tmp_path / "run"), empty_base(model_folder, trust_remote_code=False)
    source = made(tmp_path / "source", model_folder, **SMALL)
    config = load(source)
    before, place = start_digest(config), copy_start(config, base, run)
    assert copy_start(config, base, run) == place
    assert (start_digest(load(source.rename(tmp_path / "moved"))), source.exists()) == (before, False)

    settings = json.loads((tmp_path / "moved" / "adapter_config.json").read_text(encoding="utf-8"))
    changed = {**settings, "lora_alpha": 20}
    (tmp_path / "moved" / "adapter_config.json").write_text(json.dumps(changed), encoding="utf-8")
    config = load(tmp_path / "moved")
    assert start_digest(config) != before
    assert copy_start(config, base, run) != place
