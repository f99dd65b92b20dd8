"""Base, adapter and optimizer split among the workers of a training (FSDP2); checkpoints are like those of one."""

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from orchestrator.core.records import JsonObject
from orchestrator.models.adapters import fill_new

SETTINGS: JsonObject = {"fsdp": True}
"""Arguments of TRL's configurations for it. Each decoder layer is gathered when it is used, and let go again."""
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What accelerate calls the types that products are computed in, beside float32."""


class Sharded:
    """Makes a trainer of TRL split its model, and save and resume whole: a mixin before it.

    Ranks alike gather what rank 0 saves. What accelerate saves and loads by itself holds the tied output head beside
    the adapter, is no adapter of PEFT, and hangs on processors when it is loaded.
    """

    model: Any
    args: Any
    accelerator: Any
    optimizer: Any
    lr_scheduler: Any
    is_fsdp_enabled: bool

    def create_accelerator_and_postprocess(self) -> None:
        """As transformers', but also on processors, where accelerate makes DDP of it without a word.

        Gradients are summed in float32, and losses stay in it: accelerate would round both to half precision.
        """
        super().create_accelerator_and_postprocess()  # type: ignore[misc]  # the trainer behind this mixin
        state = self.accelerator.state
        if state.distributed_type == DistributedType.MULTI_CPU:
            state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
            state.distributed_type, self.is_fsdp_enabled = DistributedType.FSDP, True
        if half := HALF.get(state.mixed_precision):
            policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
            state.fsdp_plugin.mixed_precision_policy = policy

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:  # noqa: FBT001, FBT002
        """Have rank 0 save the whole adapter, and nothing of the base."""
        trained = ((name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad)
        whole = {name: _whole(weight.detach()) for name, weight in trained}
        if self.args.should_save:
            self._save(output_dir, state_dict=whole)  # type: ignore[attr-defined]  # transformers'

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        moments = _map_tensors(self.optimizer.state_dict(), _whole)
        if self.args.should_save:
            torch.save(moments, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        """As transformers', on the adapter of the checkpoint, which every rank reads before the model is split."""
        if resume_from_checkpoint is not None:
            fill_new(self.model, Path(resume_from_checkpoint))
        return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)  # type: ignore[misc]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing: it is done."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As transformers' of a model that is not split, whose files these are; each rank keeps its share."""
        take, self.is_fsdp_enabled = self.optimizer.load_state_dict, False
        self.optimizer.load_state_dict = lambda state: take(self._shares(state))
        try:
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]  # the trainer behind this mixin
        finally:
            self.is_fsdp_enabled = True
            del self.optimizer.load_state_dict

    def _shares(self, whole: JsonObject) -> JsonObject:
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        shares = {
            index: {name: _split_like(weights[index], value) for name, value in state.items()}
            for index, state in whole["state"].items()
        }
        return {**whole, "state": shares}


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU, gathered from all ranks where it is split."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def _split_like(weight: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """What a rank keeps of a tensor that all have read, split as a weight of its shape is; a scalar is not."""
    if not isinstance(weight, DTensor) or whole.shape != weight.shape:
        return whole
    placed = whole.to(weight.device, weight.dtype)
    return distribute_tensor(placed, weight.device_mesh, weight.placements, src_data_rank=None)


def _map_tensors(tree: Any, change: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {key: _map_tensors(value, change) for key, value in tree.items()}
    return [_map_tensors(value, change) for value in tree] if isinstance(tree, list) else tree
