"""The run configuration: frozen, closed, one default per field.

`load` turns YAML, a profile and `--set` overrides into a `RunConfig`; jobs receive it as resolved JSON and nothing
else. A profile replaces defaults, never what the user wrote.
"""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from orchestrator.chat.named_templates import OWN
from orchestrator.config.data import SYNTHETIC as SYNTHETIC
from orchestrator.config.data import DataConfig as DataConfig
from orchestrator.config.data import SourceConfig as SourceConfig
from orchestrator.config.data import SplitConfig as SplitConfig
from orchestrator.config.evaluation import HUB as HUB
from orchestrator.config.evaluation import ROW_FORMATS as ROW_FORMATS
from orchestrator.config.evaluation import Dtype, EvalConfig, PositiveInt, Section
from orchestrator.config.evaluation import RowFormat as RowFormat
from orchestrator.config.preferences import PreferConfig, Trainings
from orchestrator.config.search import BudgetConfig as BudgetConfig
from orchestrator.config.search import RangeConfig as RangeConfig
from orchestrator.config.search import SearchConfig as SearchConfig
from orchestrator.config.search import SpaceConfig as SpaceConfig
from orchestrator.config.storage import check_storage
from orchestrator.config.training import LoraConfig as LoraConfig
from orchestrator.config.training import Optimizer as Optimizer
from orchestrator.config.training import ServableRank as ServableRank
from orchestrator.config.training import TrainConfig as TrainConfig
from orchestrator.core.records import METRIC_NAMES, JsonObject, MetricName

BEYOND_MULTI_LORA = (
    "backend",
    "sharding",
    "optimizer",
    "loraplus_lr_ratio",
    "neftune_noise_alpha",
    "sample_packing",
    "kernels",
)
"""Settings of `train` at whose defaults alone the multi-LoRA engine trains: it holds a whole base on one device, and
steps all its slots by one AdamW on shared passes."""

TINY, SMOLLM2 = BUILT_IN_BASES = ("tiny", "smollm2-135m")
"""Bases that are neither a folder nor on the hub; `orchestrator/toy` makes them."""

Quantization = Literal["none", "nf4", "int8"]
TrackerName = Literal["tensorboard", "mlflow", "wandb", "trackio"]


class ModelConfig(Section):
    """The base model that stays frozen."""

    base: str = Field(default="Qwen/Qwen3-0.6B", min_length=1)
    """A local folder, one in a bucket (`s3://bucket/base`), a hub id, `tiny` for the built-in toy base, or
    `smollm2-135m` for what `make real-base` made."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; None takes the hub's default. Pin it for runs that must repeat."""
    dtype: Dtype = "auto"
    """Weights of the frozen base. `auto` is bfloat16 where the GPU or processor computes in it, else float16 on a GPU
    (such as a T4) and float32 on a processor. Under float16 the loss is scaled, and adapters stay float32."""
    quantization: Quantization = Field(default="none", exclude_if=lambda value: value == "none")
    """How the frozen weights of linear layers are kept in training (QLoRA): `nf4` in 4 bits, with double quantisation,
    `int8` in 8 bits (LLM.int8()), `none` in `dtype`, in which products are computed in any case. `nf4` and `int8` need
    the package bitsandbytes; `int8` trains with `search.runner: isolated` alone, which `auto` then takes."""
    chat_template: Annotated[str, Field(min_length=1)] = Field(
        default=OWN, examples=["hermes"], exclude_if=lambda value: value == OWN
    )
    """What renders conversations, in training, evaluation and serving: `own` is the template that the base came with.
    A base that shows no tools or calls, or has no template, learns them by `hermes` (Hermes' tags in ChatML), by the
    name of a family whose template TRL ships (such as `qwen2_5`), or by a Jinja file, relative to the config file's
    folder. No tokens are added: marks that the vocabulary lacks are plain text."""
    trust_remote_code: bool = False
    """Run Python code that comes with a hub model. Leave off unless you have read that code."""
    template_date: Annotated[date, Field(examples=["2026-11-30"])] | None = Field(
        default=None, exclude_if=lambda day: day is None
    )
    """The date that training, evaluation and serving show the model, where its chat template shows today's (Llama 3,
    Mistral Small 3). None is the day on which the run was made, and stays so when the run resumes on another."""

    @field_validator("base")
    @classmethod
    def _is_a_place(cls, place: str) -> str:
        return check_storage(place)


class ResourcesConfig(Section):
    """Where it runs."""

    address: str | None = None
    """A running Ray cluster (`auto`, `host:6379`); None uses RAY_ADDRESS if set, else starts a local cluster."""
    num_workers: PositiveInt = 1
    """Data-parallel workers of one training job."""
    cpus_per_worker: Annotated[float, Field(gt=0.0)] = 1.0
    """CPUs reserved for each worker."""
    gpus_per_worker: Annotated[int, Field(ge=0)] | None = None
    """GPUs reserved for each worker; None takes one where the cluster has any, else none."""
    storage_path: str = "runs"
    """Folder of all runs, relative to where the command is started, which every node must reach. Or a place in a
    bucket, `s3://bucket/folder`, `gs://` or `az://`; then a run uses the machine alone on which it is started. The URL
    may set `?region=...` and `&endpoint_override=...`; credentials come from the environment, a profile or the machine.
    """
    price_per_hour: Annotated[float, Field(ge=0.0)] | None = Field(default=None, exclude_if=lambda value: value is None)
    """What all devices together cost an hour, in any currency; `orchestrator plan` then says what a run costs."""

    @field_validator("storage_path")
    @classmethod
    def _is_a_place(cls, place: str) -> str:
        return check_storage(place)

    @property
    def is_one_device(self) -> bool:
        """Whether one training job fits one device: one worker, with at most one GPU."""
        return self.num_workers == 1 and (self.gpus_per_worker or 0) <= 1


class Gate(Section):
    """Bounds that the best adapter must keep."""

    min: float | None = None
    """Lowest value that passes."""
    max: float | None = None
    """Highest value that passes."""
    max_ratio_to: Annotated[str, Field(min_length=1)] | None = Field(default=None, exclude_if=lambda name: name is None)
    """`base`, or an earlier run (its folder, or its name if it lies beside this one), whose best adapter is meant: the
    highest that passes is its figure times `value`."""
    value: Annotated[float, Field(gt=0.0)] | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of `max_ratio_to`: 0.6 asks for 40 % less."""

    @model_validator(mode="after")
    def _bounds_something(self) -> "Gate":
        if (self.max_ratio_to is None) != (self.value is None):
            raise ValueError("max_ratio_to and value belong together, such as {max_ratio_to: base, value: 0.6}")
        if self.min is None and self.max is None and self.max_ratio_to is None:
            raise ValueError("a gate needs min, max or both, or max_ratio_to and value")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: no value can pass")
        return self


class RunConfig(Section):
    """One run: everything that decides its result."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] = "run"
    """Names the run's folder: letters, digits, `.`, `_` and `-`."""
    profile: Literal["fast_dev", "balanced", "max_quality"] = "balanced"
    """A set of defaults: a quick look, an ordinary run, or the most careful one."""
    model: ModelConfig = ModelConfig()
    """The frozen base."""
    data: DataConfig = DataConfig()
    """The conversations."""
    lora: LoraConfig = LoraConfig()
    """The adapter of `train`, and what `search` does not vary."""
    train: TrainConfig = TrainConfig()
    """Optimisation."""
    search: SearchConfig = SearchConfig()
    """The hyperparameter search."""
    stages: Trainings = ("sft",)
    """What `run` trains: `[sft]` by a search, `[sft, prefer]` preferences too, on top of the lowest eval loss."""
    prefer: PreferConfig = PreferConfig()
    """Preferences on top of an adapter, for `prefer` (docs/preferences.md)."""
    eval: EvalConfig = EvalConfig()
    """Scoring."""
    resources: ResourcesConfig = ResourcesConfig()
    """The cluster."""
    tracking: tuple[TrackerName, ...] = ("tensorboard",)
    """Where curves and scores go beside the run's folder: `tensorboard` writes files there, the others need their
    package (`pip install mlflow`). Servers, projects and keys come from the environment alone (docs/tracking.md)."""
    gates: dict[MetricName, Gate] = Field(default={})
    """Metric name -> bounds. A run whose winner misses one ends with exit code 2."""

    @field_validator("gates", mode="before")
    @classmethod
    def _known_metrics(cls, gates: Any) -> Any:
        if isinstance(gates, dict):
            unknown = sorted(set(gates) - set(METRIC_NAMES))
            if unknown:
                raise ValueError(f"no metric is called {unknown[0]!r}; the metrics are {', '.join(METRIC_NAMES)}")
        return gates

    @model_validator(mode="after")
    def _workers_share_the_batch(self) -> "RunConfig":
        per_step = self.train.micro_batch_size * self.resources.num_workers
        tried = [("search.space.batch_size", size) for size in self.search.space.batch_size or ()]
        for key, size in (("train.batch_size", self.train.batch_size), *tried):
            if size % per_step:
                raise ValueError(
                    f"{key} {size} must be a multiple of train.micro_batch_size x resources.num_workers = {per_step}"
                )
        return self

    @model_validator(mode="after")
    def _cost_has_a_price(self) -> "RunConfig":
        budget = self.search.budget
        if budget is not None and budget.cost is not None and not self.resources.price_per_hour:
            raise ValueError(
                "search.budget.cost needs resources.price_per_hour, what all devices together cost an hour: set it, or "
                "give device_hours or wall"
            )
        return self

    @model_validator(mode="after")
    def _epochs_are_counted(self) -> "RunConfig":
        if self.search.space.epochs and self.train.max_steps is not None:
            raise ValueError(
                f"search.space.epochs decides nothing while train.max_steps is {self.train.max_steps}: "
                "set train.max_steps to null, or leave the epochs out of the space"
            )
        return self

    @model_validator(mode="after")
    def _gated_latency_is_measured(self) -> "RunConfig":
        gated = next((name for name in self.gates if name.startswith(("latency_", "peak_memory_"))), None)
        if gated and not self.eval.latency_cases:
            raise ValueError(f"gates.{gated} can never be met: eval.latency_cases is 0, so it is not measured")
        return self

    @model_validator(mode="after")
    def _two_precisions_differ(self) -> "RunConfig":
        if self.eval.base_precision == "both" and self.model.quantization == "none":
            raise ValueError(
                "eval.base_precision 'both' scores a quantised base and the full one, but model.quantization is "
                "'none': set that to 'nf4' or 'int8', or leave eval.base_precision out"
            )
        return self

    @model_validator(mode="after")
    def _multi_lora_engine_has_the_method(self) -> "RunConfig":
        lacking = self.beyond_multi_lora
        if self.search.runner == "multi_lora" and lacking:
            raise ValueError(f"search.runner 'multi_lora' cannot train with {lacking}: set search.runner to 'isolated'")
        return self

    @model_validator(mode="after")
    def _multi_lora_trials_fit_one_device(self) -> "RunConfig":
        if self.search.runner == "multi_lora" and not self.resources.is_one_device:
            raise ValueError(
                "search.runner 'multi_lora' trains a trial on one device, but resources.num_workers is "
                f"{self.resources.num_workers} and resources.gpus_per_worker is {self.resources.gpus_per_worker or 0}: "
                "set them to at most 1, or search.runner to 'isolated'"
            )
        return self

    @model_validator(mode="after")
    def _sharding_goes_with_the_rest(self) -> "RunConfig":
        if self.train.sharding == "none":
            return self
        setting, so = f"train.sharding '{self.train.sharding}'", "leave one of the two out"
        if self.resources.num_workers == 1:
            raise ValueError(f"{setting} splits a base among workers, and resources.num_workers is 1: raise it")
        if (kind := self.model.quantization) != "none":
            what = f"{setting} cannot split a base with model.quantization '{kind}'"
            raise ValueError(f"{what}: packed weights would stay whole in every worker; {so}")
        if self.train.optimizer != "adamw":
            what = f"{setting} cannot split the moments of train.optimizer '{self.train.optimizer}'"
            raise ValueError(f"{what}: they are blocks of whole matrices; {so}")
        if self.lora.use_dora:
            raise ValueError(f"{setting} cannot split lora.use_dora, whose lengths are of whole matrices; {so}")
        if "prefer" in self.stages:
            raise ValueError(f"{setting} trains no preferences, but stages has prefer; {so}")
        return self

    @model_validator(mode="after")
    def _unsloth_trains_plain_lora_on_one_gpu(self) -> "RunConfig":
        train, lora = self.train, self.lora
        others = {
            "model.quantization: int8": self.model.quantization == "int8",
            "resources.num_workers above 1": self.resources.num_workers > 1,
            "lora.use_dora": lora.use_dora,
            f"lora.init: {lora.init}": lora.init != "kaiming",
            f"train.sample_packing: {train.sample_packing}": train.sample_packing != "off",
            f"train.kernels: {train.kernels}": train.kernels != "none",
            "train.neftune_noise_alpha": train.neftune_noise_alpha is not None,
            "stages with prefer": "prefer" in self.stages,
        }
        found = next((setting for setting, is_asked in others.items() if is_asked), None)
        if train.backend == "unsloth" and found:
            raise ValueError(f"train.backend 'unsloth' is not made to work with {found} here: leave one of the two out")
        return self

    @model_validator(mode="after")
    def _preferences_go_on_from_plain_lora(self) -> "RunConfig":
        if self.lora.use_dora and "prefer" in self.stages:
            raise ValueError("preferences go on from plain LoRA: leave lora.use_dora out, or prefer out of stages")
        return self

    @model_validator(mode="after")
    def _orthogonal_ranks_are_even(self) -> "RunConfig":
        if self.lora.init == "orthogonal" and 1 in (self.lora.r, *self.search.space.r):
            raise ValueError("lora.init 'orthogonal' needs even ranks: take 1 out of lora.r and search.space.r")
        return self

    @model_validator(mode="after")
    def _split_engine_takes_lora_requests(self) -> "RunConfig":
        setting = f"eval.tensor_parallel {self.eval.tensor_parallel}"
        if self.eval.tensor_parallel == 1:
            return self
        if self.served_model.quantization != "none":
            what = f"{setting} cannot split a base with model.quantization '{self.model.quantization}'"
            raise ValueError(f"{what}: set eval.base_precision to 'full', or leave one of the two out")
        if self.lora.use_dora:
            what = f"{setting} cannot take lora.use_dora, whose adapters are merged into one process's weights"
            raise ValueError(f"{what}: leave one of the two out")
        if self.model.dtype == "float32":
            what = f"{setting} needs half precision, for vLLM takes adapters as requests in that alone"
            raise ValueError(f"{what}: leave it out, or set model.dtype to 'auto'")
        return self

    @property
    def beyond_multi_lora(self) -> str | None:
        """The setting, as `key: value`, that the multi-LoRA engine cannot train with; None if there is none."""
        if self.model.quantization == "int8":  # its products depend on all rows of a pass
            return "model.quantization: int8"
        plain: tuple[tuple[str, Section, Section, tuple[str, ...]], ...] = (
            ("lora", self.lora, LoraConfig(), ("use_dora", "init")),
            ("train", self.train, TrainConfig(), BEYOND_MULTI_LORA),
        )
        found = (
            (f"{section}.{key}", getattr(mine, key))
            for section, mine, usual, keys in plain
            for key in keys
            if getattr(mine, key) != getattr(usual, key) and (key, getattr(mine, key)) != ("kernels", "auto")
        )
        return next((f"{key}: {str(value).lower()}" for key, value in found), None)

    @property
    def longest(self) -> "RunConfig":
        """This configuration with the longest training that the search may choose: the most epochs, or samples."""
        space, train = self.search.space, self.train
        most: JsonObject = {"epochs": max(space.epochs or (train.epochs,))}
        if train.max_steps is not None:
            most["batch_size"] = max(space.batch_size or (train.batch_size,))
        return self.model_copy(update={"train": train.model_copy(update=most)})

    @property
    def served_model(self) -> ModelConfig:
        """The base as adapters are scored, exported and served on it; `eval.base_precision` says which."""
        if self.eval.base_precision == "full":
            return self.model.model_copy(update={"quantization": "none"})
        return self.model

    @property
    def trains_multi_lora(self) -> bool:
        """Whether one engine trains many trials of the search at once; `search.runner` says when."""
        is_possible = self.resources.is_one_device and self.beyond_multi_lora is None
        return self.search.runner != "isolated" and is_possible


PROFILES: dict[str, dict[str, JsonObject]] = {
    "fast_dev": {
        "lora": {"r": 8, "alpha": 16, "dropout": 0.0},
        "train": {
            "micro_batch_size": 2,
            "batch_size": 8,
            "max_steps": 60,
            "learning_rate": 2e-4,
            "warmup_ratio": 5 / 60,
            "weight_decay": 0.01,
        },
        "search": {"num_trials": 4, "keep": 1, "space": {"r": [8, 16, 32], "alpha": [16, 32]}},
    },
    "balanced": {
        "lora": {"r": 16, "alpha": 16, "dropout": 0.0},
        "train": {"micro_batch_size": 2, "batch_size": 8, "epochs": 1.0, "learning_rate": 2e-4, "warmup_ratio": 0.03},
    },
    "max_quality": {
        "lora": {"r": 128, "alpha": 256, "dropout": 0.05},
        "train": {
            "micro_batch_size": 1,
            "batch_size": 8,
            "epochs": 3.0,
            "learning_rate": 1e-4,
            "warmup_ratio": 0.05,
            "weight_decay": 0.01,
        },
        "search": {
            "num_trials": 16,
            "keep": 3,
            "space": {"r": [32, 64, 128], "alpha": [32, 64, 128, 256]},
        },
    },
}
"""What each profile puts beneath the user's own values."""
