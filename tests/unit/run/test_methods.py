import sys
from pathlib import Path

import pytest
from builders import make_config

from orchestrator.config.schema import ModelConfig, ResourcesConfig, RunConfig
from orchestrator.core.errors import ConfigError
from orchestrator.run import cluster, methods
from orchestrator.run.methods import has_bitsandbytes, method_lines, require_engine_gpus, require_methods


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def quantised(kind: str) -> RunConfig:
    return RunConfig(model=ModelConfig.model_validate({"base": "tiny", "quantization": kind}))


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_quantised_base_without_its_package_is_refused_with_what_to_install(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_methods(quantised(kind))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert not has_bitsandbytes()
    require_methods(quantised("none"))
    with pytest.raises(ConfigError) as caught:
        require_methods(quantised(kind))
    assert str(caught.value) == (
        f"model.quantization: {kind} needs the package bitsandbytes, which is not installed. "
        "pip install bitsandbytes, or set it to none."
    )
    assert caught.value.exit_code == 3


def test_what_the_nodes_of_a_running_cluster_have_is_not_known_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    config = make_config(tmp_path, model=ModelConfig(base="tiny", quantization="nf4"))
    with pytest.raises(ConfigError):
        require_methods(config)
    joined = ResourcesConfig(storage_path=str(tmp_path), address="10.0.0.1:6379")
    require_methods(config.model_copy(update={"resources": joined}))


def test_a_paged_optimizer_without_a_gpu_is_refused_by_name() -> None:
    def asked(optimizer: str, **resources: object) -> RunConfig:
        train = {"optimizer": optimizer}
        return RunConfig.model_validate({"model": {"base": "tiny"}, "train": train, "resources": resources})

    require_methods(asked("adamw_8bit"))
    with pytest.raises(ConfigError) as caught:
        require_methods(asked("paged_adamw_8bit", gpus_per_worker=0))
    assert str(caught.value) == (
        "train.optimizer: paged_adamw_8bit moves memory between a GPU and the machine, and training has no GPU here. "
        "Set it to adamw_8bit or adamw."
    )


def test_an_optimizer_of_8_bits_needs_bitsandbytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    config = RunConfig.model_validate({"train": {"optimizer": "adamw_8bit"}})
    with pytest.raises(ConfigError, match=r"^train.optimizer: adamw_8bit needs the package bitsandbytes.*to adamw\."):
        require_methods(config)


def test_a_searcher_that_needs_a_package_is_refused_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cmaes", None)
    config = RunConfig.model_validate({"search": {"searcher": "cmaes"}})
    with pytest.raises(ConfigError, match=r"^search.searcher: cmaes needs the package cmaes.*or set it to optuna\."):
        require_methods(config)


def test_an_engine_over_more_gpus_than_there_are_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig.model_validate({"model": {"base": "tiny"}, "eval": {"tensor_parallel": 4}})

    def refusal(gpus: float, **resources: object) -> str:
        monkeypatch.setattr(cluster, "local_capacity", lambda: {"CPU": 8.0, "GPU": gpus})
        asked = ResourcesConfig.model_validate(resources)
        with pytest.raises(ConfigError) as caught:
            require_methods(config.model_copy(update={"resources": asked}))
        return str(caught.value)

    what = "eval.tensor_parallel: an engine over 4 GPUs needs a node with as many, and this machine has"
    assert refusal(0.0) == f"{what} none. Leave it out."
    assert refusal(2.0) == f"{what} 2. Set it to 2."
    assert refusal(4.0, gpus_per_worker=0) == f"{what} none. Leave it out."
    monkeypatch.setattr(cluster, "local_capacity", lambda: {"CPU": 8.0, "GPU": 4.0})
    require_methods(config)


def test_nodes_that_may_yet_be_added_are_not_counted() -> None:
    require_engine_gpus(8, None, "the largest node")
    require_engine_gpus(1, {}, "the largest node")
    with pytest.raises(ConfigError, match=r"the largest node has 4\. Set it to 4\."):
        require_engine_gpus(8, {"GPU": 4.0}, "the largest node")


def test_a_split_base_in_float16_is_refused_on_processors() -> None:
    def asked(dtype: str) -> RunConfig:
        workers = {"num_workers": 2, "gpus_per_worker": 0}
        model = {"base": "tiny", "dtype": dtype}
        return RunConfig.model_validate({"model": model, "train": {"sharding": "fsdp"}, "resources": workers})

    require_methods(asked("float32"))
    with pytest.raises(ConfigError, match=r"^train.sharding: fsdp scales no loss on processors, which float16 needs"):
        require_methods(asked("float16"))


@pytest.mark.parametrize(
    ("key", "value", "package", "why"),
    [("kernels", "liger", "liger_kernel", "runs Triton kernels"), ("backend", "unsloth", "unsloth", "trains on a GPU")],
)
def test_kernels_of_others_need_their_package_and_a_gpu(
    key: str, value: str, package: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig.model_validate({"model": {"base": "tiny"}, "train": {key: value}})
    monkeypatch.setattr(methods, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(
        ConfigError, match=f"^train.{key}: {value} needs the package .*, which is not installed"
    ) as told:
        require_methods(config)
    assert told.value.exit_code == 3
    monkeypatch.setattr(methods, "find_spec", lambda _name: object())
    monkeypatch.setattr(cluster, "local_capacity", lambda: {"CPU": 8.0, "GPU": 0.0})
    with pytest.raises(ConfigError, match=f"^train.{key}: {value} {why}.*, and training has no GPU here"):
        require_methods(config)
    assert method_lines(config)[0].endswith("and training has no GPU here.")
    monkeypatch.setattr(cluster, "local_capacity", lambda: {"CPU": 8.0, "GPU": 1.0})
    require_methods(config)
    assert method_lines(config)[0].endswith("and a GPU; here.")


def test_a_plan_lists_devices_that_methods_are_split_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "local_capacity", lambda: {"CPU": 8.0, "GPU": 4.0})
    split = {"train": {"sharding": "fsdp"}, "eval": {"tensor_parallel": 2}, "resources": {"num_workers": 2}}
    assert method_lines(RunConfig.model_validate(split)) == [
        "train.sharding: fsdp needs 2 workers; here 4 GPUs.",
        "eval.tensor_parallel: needs 2 GPUs on one node; here 4.",
    ]
    assert method_lines(RunConfig()) == []
