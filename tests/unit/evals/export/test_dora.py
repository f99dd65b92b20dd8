"""DoRA adapters leave a run merged, for vLLM takes no other."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from builders import keep_tiny, make_config, write_tiny_adapter
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from evals.export.export import export_adapter
from evals.generate.as_served import as_served
from evals.preferences.start import adapter_to_prefer
from evals.records import EngineRecord
from orchestrator.core.errors import AdapterError, ConfigError, InputError
from orchestrator.models.adapters import read_adapter
from orchestrator.run.paths import RunDir
from orchestrator.toy.tiny import tiny_base_folder

ENGINE = EngineRecord(
    adapter_id="trial-1",
    inputs_sha256="0" * 64,
    weights_sha256=None,
    applied_as="merged",
    base="tiny",
    reply_format="hermes",
    device="cpu",
    num_engines=1,
)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "runs" / "demo")
    keep_tiny(made, write_tiny_adapter(tmp_path / "trial-1", rank=4, use_dora=True))
    made.engine("trial-1").parent.mkdir(parents=True)
    made.engine("trial-1").write_text(ENGINE.model_dump_json(), encoding="utf-8")
    return made


def test_a_merged_model_computes_what_the_adapter_does(run: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_adapter(make_config(tmp_path / "runs"), run, "trial-1", "merged", out)
    base = AutoModelForCausalLM.from_pretrained(tiny_base_folder(), dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, run.adapter("trial-1")).merge_and_unload().state_dict()
    stored = load_file(out / "model.safetensors")
    for name, tensor in stored.items():
        torch.testing.assert_close(tensor, merged[name].to(tensor.dtype), rtol=2e-2, atol=1e-3)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "(rank 4, alpha 16, DoRA) merged into" in card
    assert "--enable-lora" not in card


def test_what_cannot_hold_it_is_refused_and_what_cannot_be_served_says_so(run: RunDir, tmp_path: Path) -> None:
    config = make_config(tmp_path / "runs")
    with pytest.raises(InputError, match=r"^--to: trial-1 is DoRA.*GGUF holds LoRA pairs alone.*--to merged"):
        export_adapter(config, run, "trial-1", "gguf", tmp_path / "gguf")
    export_adapter(config, run, "trial-1", "adapter", tmp_path / "peft")
    assert "vLLM serves no DoRA. `orchestrator export --to merged`" in (tmp_path / "peft" / "README.md").read_text()
    assert json.loads((tmp_path / "peft" / "adapter_config.json").read_text())["use_dora"]


def test_the_line_that_serves_it_merges_it_first(run: RunDir, tmp_path: Path) -> None:
    folder = run.adapter("trial-1")
    served = as_served(make_config(tmp_path / "runs"), read_adapter(folder), ENGINE, folder)
    assert served is not None
    export, _, serve = served.command.partition(" && ")
    assert shlex.split(export) == (
        ["orchestrator", "export", str(run.root), "--adapter", "trial-1", "--to", "merged", "--out", "trial-1-merged"]
    )
    words = shlex.split(serve)
    assert words[words.index("--model") + 1] == "trial-1-merged"
    assert "--enable-lora" not in words
    assert served.note is not None
    assert served.note.startswith("vLLM serves no DoRA")


def test_preferences_do_not_go_on_from_it_nor_on_a_base_that_is_split(run: RunDir, tmp_path: Path) -> None:
    config = make_config(tmp_path / "runs")
    with pytest.raises(AdapterError, match="preferences go on from plain LoRA"):
        adapter_to_prefer(config, run, "trial-1")
    keep_tiny(run, write_tiny_adapter(tmp_path / "trial-2"))
    assert adapter_to_prefer(config, run, "trial-2").id == "trial-2"
    split = config.model_copy(update={"train": config.train.model_copy(update={"sharding": "fsdp"})})
    with pytest.raises(ConfigError, match=r"^train.sharding: preferences are trained on a base that is not split"):
        adapter_to_prefer(split, run, "trial-2")
