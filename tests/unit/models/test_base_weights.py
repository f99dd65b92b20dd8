import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from orchestrator.core.errors import ModelNotFoundError
from orchestrator.models.base_weights import BaseWeights, base_sha256

TENSORS = {
    "model.layers.0.self_attn.q_proj.weight": torch.ones(4, 2),
    "model.layers.0.self_attn.k_proj.weight": torch.zeros(3, 2),
    "model.layers.0.mlp.up_proj.weight": torch.ones(1, 2),
    "model.layers.1.self_attn.q_proj.weight": torch.ones(5, 2),
    "model.norm.weight": torch.ones(2),
}


@pytest.fixture(params=["one file", "shards"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "one file":
        save_file(TENSORS, tmp_path / "model.safetensors")
        return tmp_path
    names = sorted(TENSORS)
    shards = {"model-1.safetensors": names[:2], "model-2.safetensors": names[2:]}
    for shard, held in shards.items():
        save_file({name: TENSORS[name] for name in held}, tmp_path / shard)
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return tmp_path


def test_tensors_are_read_by_name(folder: Path) -> None:
    base = BaseWeights(folder)
    for name, tensor in TENSORS.items():
        assert base.shape(name) == tuple(tensor.shape)
        assert torch.equal(base.tensor(name), tensor)
    assert base.shape("lm_head.weight") is None


def test_siblings_are_what_the_same_module_holds(folder: Path) -> None:
    base = BaseWeights(folder)
    assert base.with_siblings(["model.layers.0.self_attn.q_proj.weight"]) == [
        "model.layers.0.self_attn.k_proj.weight",
        "model.layers.0.self_attn.q_proj.weight",
    ]
    assert base.with_siblings([]) == []


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no weights as safetensors"):
        BaseWeights(tmp_path)


def test_the_digest_covers_weights_and_settings(folder: Path) -> None:
    (folder / "config.json").write_text("{}", encoding="utf-8")
    before = base_sha256(folder)
    assert base_sha256(folder) == before
    (folder / "config.json").write_text('{"eps": 1}', encoding="utf-8")
    assert (changed := base_sha256(folder)) != before
    shard = next(folder.glob("*.safetensors"))
    save_file({key: tensor + 1 for key, tensor in load_file(shard).items()}, shard)
    assert base_sha256(folder) not in (before, changed)
