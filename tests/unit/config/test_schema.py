import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.config.evaluation import EvalConfig, JudgeConfig, Section, SuiteConfig
from orchestrator.config.schema import (
    PROFILES,
    DataConfig,
    Gate,
    LoraConfig,
    RangeConfig,
    ResourcesConfig,
    RunConfig,
    SearchConfig,
    ServableRank,
    SourceConfig,
    SpaceConfig,
    SplitConfig,
    TrainConfig,
)

RANKS = get_args(ServableRank)


def refused(match: str, **content: Any) -> None:
    with pytest.raises(ValidationError, match=match):
        RunConfig.model_validate(content)


def test_the_defaults_are_a_valid_run() -> None:
    config = RunConfig()
    assert (config.name, config.profile, config.model.base) == ("run", "balanced", "Qwen/Qwen3-0.6B")
    assert config.data.sources == (SourceConfig(path="synthetic"),)
    assert (config.data.split.val, config.data.split.test, config.data.max_length) == (0.1, 0.1, 2048)
    assert (config.search.searcher, config.search.scheduler, config.search.num_trials) == ("optuna", "halving", 8)
    assert (config.search.runner, config.search.max_concurrent, config.trains_multi_lora) == ("auto", None, True)
    assert config.search.space.learning_rate is None
    assert (config.eval.temperature, config.eval.max_cases, config.resources.storage_path) == (0.0, None, "runs")
    assert config.gates == {}


def test_every_field_says_what_it_is() -> None:
    def sections(section: type[Section]) -> set[type[Section]]:
        nested = [type(field.default) for field in section.model_fields.values() if isinstance(field.default, Section)]
        return {section}.union(*(sections(each) for each in nested))

    not_by_default: set[type[Section]] = {SourceConfig, RangeConfig, Gate, SuiteConfig, JudgeConfig}
    everything = sections(RunConfig) | not_by_default
    assert len(everything) == 16
    for section in everything:
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name} has no docstring"


def test_a_config_is_frozen_and_closed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().name = "x"  # type: ignore[misc]
    refused("lerning_rate", train={"lerning_rate": 1})


def test_a_config_comes_back_from_its_json() -> None:
    config = RunConfig(
        lora=LoraConfig(target_modules=("q_proj", "v_proj")),
        search=SearchConfig(searcher="grid", space=SpaceConfig(learning_rate=(1e-4, 2e-4))),
        gates={"refusal_recall": Gate(min=0.9)},
    )
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


def test_the_profiles() -> None:
    def row(name: str) -> tuple[float | int | None, ...]:
        lora, train = PROFILES[name]["lora"], PROFILES[name]["train"]
        micro, length = train["micro_batch_size"], train.get("max_steps") or train.get("epochs")
        batch = (micro, train["batch_size"] / micro, length, train["learning_rate"], train["warmup_ratio"])
        return (lora["r"], lora["alpha"], lora["dropout"], *batch)

    assert set(PROFILES) == {"fast_dev", "balanced", "max_quality"}
    assert row("fast_dev") == (8, 16, 0.0, 2, 4, 60, 2e-4, 5 / 60)
    assert row("balanced") == (16, 16, 0.0, 2, 4, 1.0, 2e-4, 0.03)
    assert row("max_quality") == (128, 256, 0.05, 1, 8, 3.0, 1e-4, 0.05)


def test_the_searches_of_the_profiles_hold_their_own_ranks() -> None:
    for name, profile in PROFILES.items():
        config = RunConfig.model_validate({"profile": name, **profile})
        assert config.lora.r in config.search.space.r
        assert config.lora.alpha in config.search.space.alpha
        assert config.search.keep < config.search.num_trials
    assert {name: profile["train"].get("weight_decay") for name, profile in PROFILES.items()} == {
        "fast_dev": 0.01,
        "balanced": None,
        "max_quality": 0.01,
    }


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_a_valid_config(name: str) -> None:
    config = RunConfig.model_validate({"profile": name, **PROFILES[name]})
    assert config.lora.r == PROFILES[name]["lora"]["r"]


def test_the_defaults_are_those_of_the_balanced_profile() -> None:
    assert RunConfig.model_validate({"profile": "balanced", **PROFILES["balanced"]}) == RunConfig()


def test_the_warm_up_of_the_quick_profile_is_5_steps() -> None:
    train = PROFILES["fast_dev"]["train"]
    assert math.isclose(train["warmup_ratio"] * train["max_steps"], 5)


@given(st.integers(-5, 600))
def test_only_ranks_that_can_be_served_are_taken(rank: int) -> None:
    if rank in RANKS:
        assert LoraConfig.model_validate({"r": rank}).r == rank
    else:
        with pytest.raises(ValidationError):
            LoraConfig.model_validate({"r": rank})


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 8))
def test_a_batch_is_shared_out_without_a_rest(batch: int, micro: int, workers: int) -> None:
    def build() -> RunConfig:
        return RunConfig(
            train=TrainConfig(batch_size=batch, micro_batch_size=micro), resources=ResourcesConfig(num_workers=workers)
        )

    if batch % (micro * workers) == 0:
        assert build().train.batch_size == batch
    else:
        with pytest.raises(ValidationError, match="must be a multiple of"):
            build()


def test_what_a_batch_must_divide_by_is_said() -> None:
    refused("batch_size 8 must be a multiple of micro_batch_size 3", train={"batch_size": 8, "micro_batch_size": 3})
    refused(
        r"train.batch_size 8 must be a multiple of train.micro_batch_size x resources.num_workers = 6",
        resources={"num_workers": 3},
    )


@given(st.floats(0, 0.99, exclude_min=True), st.floats(0, 0.99, exclude_min=True))
def test_some_share_is_left_for_training(val: float, test: float) -> None:
    if val + test < 1:
        assert SplitConfig(val=val, test=test).val == val
    else:
        with pytest.raises(ValidationError, match="must stay below 1 so that train is not empty"):
            SplitConfig(val=val, test=test)


def test_the_synthetic_format_reads_no_file() -> None:
    assert SourceConfig(path="synthetic", format="synthetic").limit is None
    refused("format 'synthetic' reads no file", data={"sources": [{"path": "a.jsonl", "format": "synthetic"}]})


def test_there_is_at_least_one_source() -> None:
    refused("data.sources", data={"sources": []})


def test_a_range_is_ordered() -> None:
    assert RangeConfig(min=1e-5, max=1e-3).max == 1e-3
    refused("min 0.001 must be below max 0.0001", search={"space": {"learning_rate": {"min": 1e-3, "max": 1e-4}}})
    refused("must be below", search={"space": {"learning_rate": {"min": 1e-3, "max": 1e-3}}})


def test_a_grid_needs_a_list_of_learning_rates() -> None:
    assert SearchConfig(searcher="grid", space=SpaceConfig(learning_rate=(1e-4,))).searcher == "grid"
    refused("searcher 'grid' needs space.learning_rate as a list", search={"searcher": "grid"})
    bounds = {"learning_rate": {"min": 1e-4, "max": 1e-3}}
    refused("needs space.learning_rate as a list of values, such as", search={"searcher": "grid", "space": bounds})


@pytest.mark.parametrize(
    ("num_workers", "gpus", "multi_lora"),
    [(1, None, True), (1, 0, True), (1, 1, True), (1, 2, False), (2, None, False), (2, 1, False)],
)
def test_trials_share_an_engine_by_default_where_each_fits_one_device(
    num_workers: int, gpus: int | None, multi_lora: bool
) -> None:
    def config(runner: str) -> RunConfig:
        resources = {"num_workers": num_workers, "gpus_per_worker": gpus}
        return RunConfig.model_validate({"search": {"runner": runner}, "resources": resources})

    assert config("auto").trains_multi_lora is multi_lora
    assert config("isolated").trains_multi_lora is False
    if multi_lora:
        assert config("multi_lora").trains_multi_lora
    else:
        with pytest.raises(ValidationError, match=r"trains a trial on one device.*set them to at most 1, or"):
            config("multi_lora")


@pytest.mark.parametrize(("quantization", "multi_lora"), [("none", True), ("nf4", True), ("int8", False)])
def test_a_base_in_eight_bits_trains_each_trial_by_itself(quantization: str, multi_lora: bool) -> None:
    config = RunConfig.model_validate({"model": {"quantization": quantization}})
    assert config.trains_multi_lora is multi_lora
    assert ("quantization" in config.model_dump()["model"]) is (quantization != "none")


def test_what_keeps_a_trial_from_sharing_an_engine_is_said() -> None:
    refused(
        "search.runner 'multi_lora' trains a trial on one device, but resources.num_workers is 4 and "
        "resources.gpus_per_worker is 0: set them to at most 1, or search.runner to 'isolated'",
        search={"runner": "multi_lora"},
        resources={"num_workers": 4},
    )
    refused(
        "search.runner 'multi_lora' cannot train with model.quantization: int8: set search.runner to 'isolated'",
        search={"runner": "multi_lora"},
        model={"quantization": "int8"},
    )
    refused(
        "cannot train with train.optimizer: adamw_8bit",
        search={"runner": "multi_lora"},
        train={"optimizer": "adamw_8bit"},
    )
    refused(
        "cannot train with train.sharding: fsdp: set search.runner to 'isolated'",
        search={"runner": "multi_lora"},
        train={"sharding": "fsdp"},
        resources={"num_workers": 2},
    )
    refused("eval.base_precision 'both' scores a quantised base and the full one", eval={"base_precision": "both"})
    refused("'auto', 'multi_lora' or 'isolated'", search={"runner": "parallel"})
    refused("no runner is called 'packed'; its name is 'multi_lora'", search={"runner": "packed"})
    refused("'halving', 'asha' or 'none'", search={"scheduler": "median"})


def test_a_gate_bounds_a_known_metric() -> None:
    assert RunConfig(gates={"over_refusal_rate": Gate(max=0.1)}).gates["over_refusal_rate"].max == 0.1
    refused("a gate needs min, max or both", gates={"tool_call_validity": {}})
    refused(
        "no metric is called 'accuracy'; the metrics are case_accuracy, tool_call_validity, ",
        gates={"accuracy": {"min": 0.5}},
    )


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "a b", "..", "-x", "x" * 101, "ä"])
def test_a_name_that_is_no_plain_folder_name_is_refused(name: str) -> None:
    refused("name", name=name)


@pytest.mark.parametrize("name", ["a", "0", "Run-1.2_b", "x" * 100])
def test_a_plain_folder_name_is_taken(name: str) -> None:
    assert RunConfig(name=name).name == name


OUT_OF_BOUNDS: dict[type[Section], list[dict[str, Any]]] = {
    LoraConfig: [{"alpha": 0}, {"dropout": 1.0}, {"target_modules": ()}, {"target_modules": "q_proj"}],
    TrainConfig: [
        {"learning_rate": 0},
        {"learning_rate": math.inf},
        {"learning_rate": math.nan},
        {"epochs": 0},
        {"max_steps": 0},
        {"warmup_ratio": 1.0},
        {"weight_decay": -0.1},
        {"early_stopping_patience": 0},
        {"max_failures": -1},
    ],
    DataConfig: [{"max_length": 31}, {"max_quarantine_rate": 1.1}],
    SourceConfig: [{"path": ""}, {"path": "a", "limit": 0}],
    SplitConfig: [{"val": -0.1}],
    SpaceConfig: [
        {"r": ()},
        {"r": (12,)},
        {"alpha": (0,)},
        {"learning_rate": ()},
        {"learning_rate": (0.0,)},
        {"learning_rate": "auto"},
    ],
    SearchConfig: [{"num_trials": 0}, {"reduction_factor": 1}, {"keep": 0}],
    EvalConfig: [
        {"temperature": -1},
        {"max_new_tokens": 0},
        {"kv_cache_gib": 0},
        {"max_unscored_rate": 1.0},
        {"num_engines": 0},
        {"turns": "first"},
        {"reply_format": "xml"},
    ],
    SuiteConfig: [
        {"name": "s", "path": ""},
        {"path": "a", "name": "no/slash"},
        {"path": "a", "name": ""},
        {"name": "s", "path": "a", "limit": 0},
        {"name": "s", "path": "a", "format": "synthetic"},
    ],
    JudgeConfig: [{"base": ""}, {"base": "judge", "max_new_tokens": 0}],
    ResourcesConfig: [{"num_workers": 0}, {"cpus_per_worker": 0}, {"gpus_per_worker": -1}],
}


@pytest.mark.parametrize(
    ("section", "content"), [(section, content) for section, contents in OUT_OF_BOUNDS.items() for content in contents]
)
def test_a_value_out_of_bounds_is_refused(section: type[Section], content: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        section.model_validate(content)
    assert {error["loc"][0] for error in caught.value.errors()} == {list(content)[-1]}


def test_a_gate_on_latency_needs_cases_that_are_timed() -> None:
    gates = {"latency_vs_base": {"max": 0.6}}
    assert RunConfig.model_validate({"gates": gates}).eval.latency_cases == 16
    with pytest.raises(ValidationError, match=r"gates.latency_vs_base can never be met: eval.latency_cases is 0"):
        RunConfig.model_validate({"gates": gates, "eval": {"latency_cases": 0}})


TWO_WORKERS = {"resources": {"num_workers": 2}}


def test_a_base_is_split_among_several_workers_that_train_by_themselves() -> None:
    assert RunConfig().model_dump() == RunConfig.model_validate({"train": {"sharding": "none"}}).model_dump()
    assert "sharding" not in RunConfig().model_dump()["train"]
    config = RunConfig.model_validate({"train": {"sharding": "fsdp"}, **TWO_WORKERS})
    assert config.trains_multi_lora is False


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({}, "splits a base among workers, and resources.num_workers is 1: raise it"),
        ({**TWO_WORKERS, "model": {"quantization": "nf4"}}, "quantization 'nf4': packed weights would stay whole"),
        ({**TWO_WORKERS, "model": {"quantization": "int8"}}, "quantization 'int8': packed weights would stay whole"),
        ({**TWO_WORKERS, "train": {"optimizer": "adamw_8bit"}}, "moments of train.optimizer 'adamw_8bit'"),
        ({**TWO_WORKERS, "stages": ["sft", "prefer"]}, "trains no preferences, but stages has prefer"),
    ],
)
def test_what_cannot_be_split_is_refused_with_the_reason(content: dict[str, Any], why: str) -> None:
    train = {"sharding": "fsdp", **content.get("train", {})}
    refused(f"train.sharding 'fsdp' .*{why}", **{**content, "train": train})


def test_an_engine_that_is_split_takes_lora_requests_on_a_plain_base() -> None:
    assert "tensor_parallel" not in RunConfig().model_dump()["eval"]
    split = {"tensor_parallel": 2}
    in_full = {"eval": {**split, "base_precision": "full"}, "model": {"quantization": "nf4"}}
    assert RunConfig.model_validate(in_full).eval.tensor_parallel == 2
    refused("eval.tensor_parallel 2 cannot split a base with model.quantization 'nf4'", **{**in_full, "eval": split})
    refused("eval.tensor_parallel 2 needs half precision", eval=split, model={"dtype": "float32"})


@pytest.mark.parametrize(
    ("section", "key", "value", "shown"),
    [
        ("lora", "use_dora", True, "lora.use_dora: true"),
        ("lora", "init", "gaussian", "lora.init: gaussian"),
        ("train", "loraplus_lr_ratio", 16, "train.loraplus_lr_ratio: 16.0"),
        ("train", "neftune_noise_alpha", 5, "train.neftune_noise_alpha: 5.0"),
    ],
)
def test_what_the_engine_of_many_adapters_lacks_trains_by_itself(
    section: str, key: str, value: object, shown: str
) -> None:
    asked = {section: {key: value}}
    assert key not in RunConfig().model_dump()[section]
    assert RunConfig.model_validate(asked).trains_multi_lora is False
    refused(f"'multi_lora' cannot train with {shown}: set search.runner", **asked, search={"runner": "multi_lora"})


@pytest.mark.parametrize(
    ("init", "why"),
    [
        ("pissa", "'pissa' takes the adapter's start out of the base's own weights"),
        (
            "PiSSA_niter_16",
            "out of the base's own weights, so that the adapter would be wrong on the base that is served",
        ),
        ("olora", "own weights"),
        ("loftq", "own weights"),
        ("eva", "'eva' starts from activations or gradients of the data"),
        ("xavier", "'kaiming', 'gaussian' or 'orthogonal'"),
    ],
)
def test_a_start_that_is_not_to_be_had_is_refused_with_the_reason(init: str, why: str) -> None:
    refused(why, lora={"init": init})


def test_dora_and_orthogonal_starts_go_with_what_they_can() -> None:
    refused("'orthogonal' needs even ranks", lora={"init": "orthogonal"}, search={"space": {"r": [1, 8]}})
    refused("preferences go on from plain LoRA", lora={"use_dora": True}, stages=["sft", "prefer"])
    refused("cannot split lora.use_dora", lora={"use_dora": True}, train={"sharding": "fsdp"}, **TWO_WORKERS)
    refused("cannot take lora.use_dora", lora={"use_dora": True}, eval={"tensor_parallel": 2})


def test_packing_and_kernels_train_by_themselves() -> None:
    assert RunConfig.model_validate({"train": {"sample_packing": False}}) == RunConfig()  # YAML's off
    packed = RunConfig.model_validate({"train": {"sample_packing": "auto"}})
    assert packed.trains_multi_lora is False
    assert RunConfig.model_validate({"train": {"kernels": "auto"}}).trains_multi_lora
    alone = {"search": {"runner": "multi_lora"}}
    refused("cannot train with train.sample_packing: auto", train={"sample_packing": "auto"}, **alone)
    refused("cannot train with train.kernels: liger", train={"kernels": "liger"}, **alone)
    refused("cannot train with train.backend: unsloth", train={"backend": "unsloth"}, **alone)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"lora": {"use_dora": True}}, "lora.use_dora"),
        ({"lora": {"init": "gaussian"}}, "lora.init: gaussian"),
        ({"model": {"quantization": "int8"}}, "model.quantization: int8"),
        ({"train": {"sample_packing": "auto"}}, "train.sample_packing: auto"),
        ({"train": {"kernels": "liger"}}, "train.kernels: liger"),
        ({"train": {"neftune_noise_alpha": 5}}, "train.neftune_noise_alpha"),
        ({"stages": ["sft", "prefer"]}, "stages with prefer"),
        (TWO_WORKERS, "resources.num_workers above 1"),
    ],
)
def test_what_unsloth_is_not_made_to_work_with_is_named(content: dict[str, Any], what: str) -> None:
    train = {"backend": "unsloth", **content.get("train", {})}
    refused(f"train.backend 'unsloth' is not made to work with {what} here", **{**content, "train": train})
