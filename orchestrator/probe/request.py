"""What a probe is asked to measure."""

from orchestrator.config.schema import LoraConfig, ModelConfig, TrainConfig
from orchestrator.core.records import JsonObject, Record
from orchestrator.plan.passes import Runner


class ProbeRequest(Record):
    """A training process to measure. Produced by `measure`, consumed by the process that trains.

    `lora.r` is the largest rank that trains, and `train` has its `gradient_checkpointing` decided. `train_tokens` and
    `val_tokens` are folders of tokens. Without GPUs the process has so many `threads`.
    """

    runner: Runner
    model: ModelConfig
    lora: LoraConfig
    train: TrainConfig
    train_tokens: str
    val_tokens: str
    slots: int
    threads: int
    gpus: int

    def settings(self) -> JsonObject:
        """What of it decides the measurement, besides base, device and data."""
        of_train = {"batch_size", "micro_batch_size", "gradient_checkpointing", "optimizer"}
        return {
            "train": self.train.model_dump(include=of_train),
            "lora": self.lora.model_dump(mode="json", include={"r", "dropout", "target_modules"}),
            "dtype": self.model.dtype,
            **self.model.model_dump(include={"quantization"}),
            **self.model_dump(include={"runner", "slots", "threads", "gpus"}),
        }
