"""What one training job is: everything its workers need to know, resolved, picklable, without heavy imports."""

from pathlib import Path

from pydantic import Field

from orchestrator.config.preferences import PreferenceLoss
from orchestrator.config.schema import LoraConfig, ModelConfig, RunConfig, TrainConfig
from orchestrator.core.records import JsonObject, Record
from orchestrator.run.cluster import WorkerShape
from orchestrator.run.paths import RunDir


class PairLearning(Record):
    """How a plan's tokens, which are pairs of replies, are learned; as in `prefer` of the configuration."""

    beta: float
    loss: PreferenceLoss
    sft_weight: float


class TrainPlan(Record):
    """One adapter to train. Produced by `plan_training`, consumed by the workers.

    `train_tokens` and `val_tokens` are folders of tokenised samples that every worker can read; `thinking` says how
    they were rendered. `start` is the folder of the adapter that training goes on from, which every worker can read;
    `started_from` is its name in the configuration, which differs by machine and so is in no digest. With `pairs` the
    tokens are those of pairs, and the adapter that training goes on from is what preferences are measured against.
    A search that varies more than r, alpha and learning rate names the settings in `varied`; where the steps of a trial
    depend on them, `num_samples` is the number of training samples, else None.
    """

    model: ModelConfig
    lora: LoraConfig
    train: TrainConfig
    train_tokens: str
    val_tokens: str
    num_workers: int
    cpus_per_worker: float
    gpus_per_worker: int
    max_steps: int
    eval_steps: int
    warmup_steps: int
    thinking: bool = False
    start: str | None = None
    started_from: str | None = Field(default=None, exclude=True)
    pairs: PairLearning | None = Field(default=None, exclude_if=lambda pairs: pairs is None)
    varied: tuple[str, ...] = Field(default=(), exclude_if=lambda varied: not varied)
    num_samples: int | None = Field(default=None, exclude_if=lambda samples: samples is None)

    @property
    def accumulation_steps(self) -> int:
        """Forward passes of one worker per optimizer step."""
        return self.train.batch_size // (self.train.micro_batch_size * self.num_workers)

    def with_hyperparameters(self, hyperparameters: JsonObject) -> "TrainPlan":
        """This plan with another r, alpha and learning_rate, and whatever else of its `varied` settings is given."""
        lora = {key: value for key, value in hyperparameters.items() if key in LoraConfig.model_fields}
        train = {key: value for key, value in hyperparameters.items() if key in TrainConfig.model_fields}
        plan = self.model_copy(
            update={"lora": self.lora.model_copy(update=lora), "train": self.train.model_copy(update=train)}
        )
        if not self.varied:
            return plan
        steps = self.max_steps if self.num_samples is None else plan.train.steps_for(self.num_samples)
        return plan.model_copy(update={"max_steps": steps, "warmup_steps": plan.train.warmup_steps(steps)})

    @property
    def shape(self) -> WorkerShape:
        """The workers of one training job."""
        return WorkerShape(self.num_workers, self.cpus_per_worker, self.gpus_per_worker)

    @property
    def hyperparameters(self) -> dict[str, float | int]:
        """What a search varies, of preferences also beta."""
        varied = {"r": self.lora.r, "alpha": self.lora.alpha, "learning_rate": self.train.learning_rate}
        for name in self.varied:
            varied[name] = getattr(self.lora if name in LoraConfig.model_fields else self.train, name)
        return varied if self.pairs is None else {**varied, "beta": self.pairs.beta}


def plan_training(
    config: RunConfig,
    run: RunDir,
    shape: WorkerShape,
    *,
    num_samples: int,
    start: Path | None = None,
    varied: tuple[str, ...] = (),
) -> TrainPlan:
    """Resolve steps and places for `num_samples` training samples; `start` is what `copy_start` made."""
    steps = config.train.steps_for(num_samples)
    return TrainPlan(
        model=config.model,
        lora=config.lora,
        train=config.train.model_copy(update={"init_from": None}),
        train_tokens=str(run.root / "data" / "tokens" / "train"),
        val_tokens=str(run.root / "data" / "tokens" / "val"),
        num_workers=shape.num_workers,
        cpus_per_worker=shape.cpus,
        gpus_per_worker=shape.gpus,
        max_steps=steps,
        eval_steps=config.train.eval_steps_for(steps),
        warmup_steps=config.train.warmup_steps(steps),
        thinking=config.data.thinking,
        start=None if start is None else str(start),
        started_from=config.train.init_from,
        varied=varied,
        num_samples=num_samples if {"epochs", "batch_size"} & set(varied) else None,
    )
