"""Nothing that lies in the folder of a base, a judge or an adapter is run, whatever reads it."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from adapters_elsewhere import made
from builders import make_config
from hostile_folders import REFUSED, known_config_with_code, pickle_that_marks
from jinja2 import TemplateError

from evals.check.of_base import base_findings
from evals.export.verify import _tokenizer_of
from orchestrator.config.evaluation import EvalConfig, JudgeConfig
from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import BAD_INPUT, AdapterError, InputError, ModelNotFoundError
from orchestrator.models.base import base_folder, base_tokenizer, empty_base, load_frozen_base
from orchestrator.models.outside import bring_in, read_tensors
from orchestrator.run.paths import RunDir


def read_whole(model: ModelConfig) -> None:
    """All that a training and an evaluation read of a base."""
    folder = base_folder(model)
    empty_base(folder, trust_remote_code=model.trust_remote_code)
    load_frozen_base(folder, model)
    base_tokenizer(model)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_base_that_would_run_code_is_refused_in_one_line(kind: str, model_folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    folder = REFUSED[kind](model_folder, tmp_path / "base", mark)
    with pytest.raises(ModelNotFoundError) as refusal:
        read_whole(ModelConfig(base=str(folder)))
    assert str(folder) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == BAD_INPUT
    assert not mark.exists()


def test_code_beside_a_base_that_does_not_need_it_stays_unread(model_folder: Path, tmp_path: Path) -> None:
    folder = known_config_with_code(model_folder, tmp_path / "base", tmp_path / "mark")
    pickle_that_marks(folder / "pytorch_model.bin", tmp_path / "mark")
    read_whole(ModelConfig(base=str(folder)))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("kind", REFUSED)
def test_a_judge_that_would_run_code_is_refused_by_the_check(kind: str, model_folder: Path, tmp_path: Path) -> None:
    folder = REFUSED[kind](model_folder, tmp_path / "judge", tmp_path / "mark")
    judged = EvalConfig(judge=JudgeConfig(base=str(folder)))
    found = list(base_findings(make_config(tmp_path / "runs", base=str(model_folder), eval=judged), longest=64))
    assert [finding.stops for finding in found if "the judge cannot be used" in finding.text] == [True]
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("kind", ["config", "tokenizer"])
def test_vllm_runs_no_code_of_a_base(kind: str, model_folder: Path, tmp_path: Path) -> None:
    from vllm.config import ModelConfig as ServedModel

    folder = REFUSED[kind](model_folder, tmp_path / "base", tmp_path / "mark")
    with suppress(ValueError):  # it refuses the one and does not look at the other
        ServedModel(model=str(folder), trust_remote_code=ModelConfig().trust_remote_code)
    assert not (tmp_path / "mark").exists()


def test_an_exported_tokenizer_that_would_run_code_is_refused(model_folder: Path, tmp_path: Path) -> None:
    folder = REFUSED["tokenizer"](model_folder, tmp_path / "exported", tmp_path / "mark")
    with pytest.raises(InputError, match="its tokenizer cannot be read"):
        _tokenizer_of(folder)
    assert not (tmp_path / "mark").exists()


def test_a_pickled_adapter_is_refused_and_left_unread(model_folder: Path, tmp_path: Path) -> None:
    source, mark = made(tmp_path / "old", model_folder), tmp_path / "mark"
    pickle_that_marks(source / "adapter_model.bin", mark)
    evaluation = EvalConfig(adapters=(str(source),))
    config, run = make_config(tmp_path / "runs", base=str(model_folder), eval=evaluation), RunDir(tmp_path / "runs/run")
    assert bring_in(config, run) == {}
    (source / "adapter_model.safetensors").unlink()
    refusal = bring_in(config, run)["old"]
    assert "a pickle (adapter_model.bin), which can run code" in str(refusal)
    assert "\n" not in str(refusal)
    with pytest.raises(AdapterError, match="a pickle"):
        read_tensors(source)
    assert not mark.exists()


def test_an_adapter_that_names_a_module_to_import_imports_none(model_folder: Path, tmp_path: Path) -> None:
    source = made(tmp_path / "mapped", model_folder)
    settings = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    code = {"base_model_class": "Waits", "parent_library": "waits"}
    settings |= {"auto_mapping": code, "megatron_config": {"a": 1}, "megatron_core": "waits"}
    (source / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (source / "waits.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'mark')!r})\n", encoding="utf-8")
    evaluation = EvalConfig(adapters=(str(source),))
    config = make_config(tmp_path / "runs", base=str(model_folder), eval=evaluation)
    bring_in(config, RunDir(tmp_path / "runs" / "run"))
    assert not (tmp_path / "mark").exists()


def test_a_chat_template_reaches_nothing_beyond_the_conversation(model_folder: Path, tmp_path: Path) -> None:
    folder, mark = tmp_path / "base", tmp_path / "mark"
    shutil.copytree(model_folder, folder)
    reach = "{{ cycler.__init__.__globals__.os.mkdir('" + str(mark) + "') }}"
    template = folder / "chat_template.jinja"
    template.write_text(reach + template.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(TemplateError):
        base_tokenizer(ModelConfig(base=str(folder))).apply_chat_template([{"role": "user", "content": "x"}])
    assert not mark.exists()


def test_an_adapter_inside_a_base_loads_no_pickle_either(model_folder: Path, tmp_path: Path) -> None:
    other = REFUSED["weights"](model_folder, tmp_path / "other", tmp_path / "mark")
    folder = Path(shutil.copytree(model_folder, tmp_path / "base"))
    settings = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "base_model_name_or_path": str(other)}
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    pickle_that_marks(folder / "adapter_model.bin", tmp_path / "mark")
    with pytest.raises(ModelNotFoundError, match="cannot be loaded"):
        read_whole(ModelConfig(base=str(folder)))
    assert not (tmp_path / "mark").exists()
