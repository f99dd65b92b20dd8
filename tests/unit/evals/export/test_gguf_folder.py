"""What a GGUF export holds with and without llama.cpp, whose converter a script stands in for."""

import json
import os
import shutil
from pathlib import Path

import converter_stand_in
import pytest
import torch
from adapters_elsewhere import made
from builders import make_config, names_in
from safetensors.torch import load_file

from evals.export.gguf_folder import COMMANDS_FILE, write_gguf_folder
from evals.export.gguf_model_back import write_model_back
from evals.export.llama_cpp import CONVERTER, find_converter
from evals.export.merged import write_merged
from evals.export.verify import kinds_of
from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import AdapterError, ConversionError, InputError
from orchestrator.models.adapters import save_tokenizer
from orchestrator.models.base import load_tokenizer


@pytest.fixture
def llama_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of llama.cpp that nothing else on this machine takes the place of."""
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", "")
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    shutil.copyfile(converter_stand_in.__file__, folder / CONVERTER)
    return folder


@pytest.fixture
def adapter(tmp_path: Path, model_folder: Path) -> Path:
    folder = made(tmp_path / "trial-1", model_folder, use_rslora=True)
    save_tokenizer(load_tokenizer(model_folder, trust_remote_code=False), folder)
    return folder


def exported(base: Path, adapter: Path, out: Path, converter: Path | None, *, is_asked: bool = True) -> list[str]:
    out.mkdir()
    config = make_config(out, base=str(base))
    write_gguf_folder(config, base, adapter, out, converter, is_asked=is_asked)
    return names_in(out)


def test_llama_cpp_is_found_by_its_usual_names(llama_cpp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_converter(None) is None
    assert find_converter(llama_cpp) == llama_cpp / CONVERTER
    monkeypatch.setenv("LLAMA_CPP", str(llama_cpp))
    assert find_converter(None) == llama_cpp / CONVERTER
    monkeypatch.delenv("LLAMA_CPP")
    monkeypatch.setenv("PATH", os.pathsep.join(["/nowhere", str(llama_cpp)]))
    assert find_converter(None) == llama_cpp / CONVERTER
    program = llama_cpp / "build" / "bin" / "llama-cli"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    assert find_converter(None) == llama_cpp / CONVERTER


def test_a_folder_without_the_converter_is_told(
    llama_cpp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=rf"--llama-cpp: there is no {CONVERTER} in .*/nowhere"):
        find_converter(tmp_path / "nowhere")
    monkeypatch.setenv("LLAMA_CPP", str(tmp_path))
    with pytest.raises(InputError, match=f"LLAMA_CPP: there is no {CONVERTER}"):
        find_converter(None)
    assert find_converter(llama_cpp) is not None


def test_the_whole_model_is_what_merged_has(llama_cpp: Path, tmp_path: Path, model_folder: Path, adapter: Path) -> None:
    out, merged, back = tmp_path / "out", tmp_path / "merged", tmp_path / "back"
    names = exported(model_folder, adapter, out, llama_cpp / CONVERTER)
    assert names == ["COMMANDS.txt", "Modelfile", "adapter.gguf", "asked.json", "chat_template.jinja", "model.gguf"]
    asked = json.loads((out / "asked.json").read_text(encoding="utf-8"))
    assert Path(asked[0]).name == "trial-1"
    assert not Path(asked[0]).exists()
    assert asked[1:] == ["--outfile", str(out / "model.gguf"), "--outtype", "f32"]
    assert kinds_of(out) == ("gguf", "whole_gguf")

    merged.mkdir()
    write_merged(ModelConfig(base=str(model_folder)), adapter, merged)
    back.mkdir()
    write_model_back(out, ModelConfig(base=str(model_folder)), back)
    expected, found = load_file(merged / "model.safetensors"), load_file(back / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)
    template = (back / "chat_template.jinja").read_text(encoding="utf-8")
    assert template == (adapter / "chat_template.jinja").read_text(encoding="utf-8")


def test_how_positions_are_scaled_is_taken_from_the_base(
    llama_cpp: Path, tmp_path: Path, model_folder: Path, adapter: Path
) -> None:
    base, back = Path(shutil.copytree(model_folder, tmp_path / "base")), tmp_path / "back"
    settings = json.loads((base / "config.json").read_text(encoding="utf-8"))
    scaled = settings["rope_parameters"] | {"rope_type": "linear", "factor": 4.0}
    (base / "config.json").write_text(json.dumps(settings | {"rope_parameters": scaled}), encoding="utf-8")
    exported(base, adapter, tmp_path / "out", llama_cpp / CONVERTER)
    assert b"qwen3.rope.scaling.factor" in (tmp_path / "out" / "model.gguf").read_bytes()
    back.mkdir()
    write_model_back(tmp_path / "out", ModelConfig(base=str(base)), back)
    assert json.loads((back / "config.json").read_text(encoding="utf-8"))["rope_parameters"] == scaled


def test_another_scale_in_the_file_is_another_model(
    llama_cpp: Path, tmp_path: Path, model_folder: Path, adapter: Path
) -> None:
    merged, back = tmp_path / "merged", tmp_path / "back"
    merged.mkdir()
    write_merged(ModelConfig(base=str(model_folder)), adapter, merged)
    settings = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    (adapter / "adapter_config.json").write_text(json.dumps({**settings, "use_rslora": False}), encoding="utf-8")
    exported(model_folder, adapter, tmp_path / "out", llama_cpp / CONVERTER)
    back.mkdir()
    write_model_back(tmp_path / "out", ModelConfig(base=str(model_folder)), back)
    own, base, found = (load_file(folder / "model.safetensors") for folder in (merged, model_folder, back))
    name = "model.layers.1.self_attn.q_proj.weight"
    torch.testing.assert_close(found[name] - base[name], (own[name] - base[name]) / 2)  # rank 4: its root is 2


def test_a_converter_that_fails_is_told_with_its_last_line(
    llama_cpp: Path,
    tmp_path: Path,
    model_folder: Path,
    adapter: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STAND_IN_FAILS", "1")
    said = f"{CONVERTER}: llama.cpp's converter made no model.gguf: ValueError: BPE pre-tokenizer was not"
    with pytest.raises(ConversionError, match=said):
        exported(model_folder, adapter, tmp_path / "asked", llama_cpp / CONVERTER)
    names = exported(model_folder, adapter, tmp_path / "found", llama_cpp / CONVERTER, is_asked=False)
    assert names == ["COMMANDS.txt", "Modelfile", "adapter.gguf", "chat_template.jinja"]
    told = capsys.readouterr().out
    assert said in told
    assert "The folder has the adapter alone." in told
    assert kinds_of(tmp_path / "found") == ("gguf",)


def test_the_commands_name_the_files_that_are_there(
    llama_cpp: Path, tmp_path: Path, model_folder: Path, adapter: Path
) -> None:
    exported(model_folder, adapter, tmp_path / "alone", None)
    exported(model_folder, adapter, tmp_path / "both", llama_cpp / CONVERTER)
    alone, both = ((tmp_path / name / COMMANDS_FILE).read_text(encoding="utf-8") for name in ("alone", "both"))
    template = "--jinja --chat-template-file chat_template.jinja"
    for commands in (alone, both):
        assert f"llama-server -m base.gguf --lora adapter.gguf {template}" in commands
        assert f"llama-server -m model.gguf {template}" in commands
        assert f"{CONVERTER} {model_folder} --outfile base.gguf" in commands
    assert f"{CONVERTER} merged --outfile model.gguf" in alone
    assert f"{CONVERTER} merged" not in both


def test_a_file_that_is_no_whole_model_is_refused(
    llama_cpp: Path, tmp_path: Path, model_folder: Path, adapter: Path
) -> None:
    exported(model_folder, adapter, tmp_path / "out", llama_cpp / CONVERTER)
    own = ModelConfig(base=str(model_folder))
    file = tmp_path / "out" / "model.gguf"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"blk.1.attn_q.weight", b"blk.1.attn_x.weight"))
    with pytest.raises(AdapterError, match=r"model.gguf: model.layers.1.self_attn.q_proj.weight is not in it"):
        write_model_back(tmp_path / "out", own, tmp_path / "back")
    file.write_bytes(whole.replace(b"tokenizer.chat_template", b"tokenizer.chat_tamplate"))
    with pytest.raises(AdapterError, match=r"model.gguf: there is no chat template in it"):
        write_model_back(tmp_path / "out", own, tmp_path / "back")
    file.write_bytes(b"no GGUF")
    with pytest.raises(AdapterError, match=r"model.gguf: transformers cannot read the file"):
        write_model_back(tmp_path / "out", own, tmp_path / "back")
