"""A trial on disk: its progress, its steps, and its slot after an evaluation, all readable without unpickling.

    <trial>/progress.json  steps.jsonl
    <trial>/step-000040/adapter_model.safetensors  adapter_config.json  optimizer.safetensors  slot.json

A checkpoint is PEFT's two files, the optimizer's moments, and the step. Its folder is written under another name and
renamed, so it appears whole. It counts once `progress.json` names its step.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from orchestrator.core.errors import TrainingError
from orchestrator.core.files import parse_line, write_text_atomic
from orchestrator.core.steps import StepRow, read_steps
from orchestrator.models.adapters import PREFIX, WEIGHTS
from orchestrator.models.memory import memory_peak
from orchestrator.multi_lora.engine import StepResult
from orchestrator.multi_lora.messages import TrialProgress
from orchestrator.multi_lora.slots import LossScale, Pair, SlotSpec, SlotState
from orchestrator.run.happened import note

TICK_S = 1e-6
"""No step is shorter; a clock may not have moved."""
OPTIMIZER, SLOT, PROGRESS = "optimizer.safetensors", "slot.json", "progress.json"


class DamagedCheckpointError(TrainingError):
    """A checkpoint that is gone, half written or damaged."""


def step_folder(trial: Path, step: int) -> Path:
    """The folder of a trial's checkpoint."""
    return trial / f"step-{step:06d}"


def read_progress(trial: Path) -> TrialProgress:
    """How far the trial in this folder is; step 0 if there is none."""
    path = trial / PROGRESS
    if not path.is_file():
        return TrialProgress()
    return parse_line(path.read_text(encoding="utf-8"), TrialProgress, where=str(path))


def write_progress(trial: Path, progress: TrialProgress) -> None:
    """Record how far the trial is, and with that which of its checkpoints count."""
    write_text_atomic(trial / PROGRESS, progress.model_dump_json() + "\n")


def remove_surplus(trial: Path, progress: TrialProgress, *, limit: int, kept_steps: Sequence[int] = ()) -> None:
    """Remove all checkpoints but the latest, the `limit` best and those of `kept_steps`, and any half-written ones."""
    best = sorted(progress.curve, key=lambda point: point.eval_loss)[:limit]
    steps = {*kept_steps, *(point.step for point in (*best, *progress.curve[-1:]))}
    keep = {step_folder(trial, step) for step in steps}
    for folder in {*trial.glob("step-*"), *trial.glob(".step-*")} - keep:
        shutil.rmtree(folder)


def step_row(result: StepResult, *, tokens: int, seconds: float) -> StepRow:
    """A step as it is noted in the trial's folder, after `tokens` in all; `seconds` are those of all slots together."""
    return StepRow(
        step=result.step,
        at=time.time(),
        loss=result.loss,
        learning_rate=result.learning_rate,
        grad_norm=result.grad_norm,
        token_accuracy=result.accuracy,
        tokens=tokens,
        tokens_per_s=result.tokens / max(seconds, TICK_S),
        memory_bytes=memory_peak(),
        epoch=result.epoch,
    )


def save_slot(folder: Path, spec: SlotSpec, state: SlotState) -> None:
    """Write a checkpoint, replacing one of the same step."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    partial.chmod(0o755)
    save_file(_tensors(state.adapter), partial / WEIGHTS, metadata={"format": "pt"})
    save_file(_tensors(state.exp_avg, "exp_avg.") | _tensors(state.exp_avg_sq, "exp_avg_sq."), partial / OPTIMIZER)
    slot = {"step": state.step, "spec": asdict(spec), "loss_scale": state.loss_scale and asdict(state.loss_scale)}
    _peft_settings(spec, state).save_pretrained(str(partial))
    (partial / SLOT).write_text(json.dumps(slot) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def load_slot(folder: Path, spec: SlotSpec) -> SlotState:
    """Read a checkpoint of a slot that trains `spec`.

    Raises:
        DamagedCheckpointError: If it cannot be read.
        TrainingError: If it is of another specification.
    """
    try:
        slot = json.loads((folder / SLOT).read_text(encoding="utf-8"))
        its_spec, step = slot["spec"], int(slot["step"])
        loss_scale = LossScale(**slot["loss_scale"]) if slot.get("loss_scale") else None
        adapter = _pairs(load_file(folder / WEIGHTS))
        moments = load_file(folder / OPTIMIZER)
        first, second = (_pairs(moments, f"{kind}.{PREFIX}") for kind in ("exp_avg", "exp_avg_sq"))
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        what = f"the checkpoint of {folder.name} cannot be read ({type(error).__name__})"
        raise DamagedCheckpointError(what, where=str(folder)) from None
    if its_spec != asdict(spec):
        raise TrainingError("the checkpoint is of a trial with other settings", where=str(folder))
    return SlotState(step, adapter, first, second, loss_scale)


def resume(trial: Path, spec: SlotSpec) -> tuple[TrialProgress, SlotState | None]:
    """How far the trial in this folder is, and the slot of its last checkpoint that can be read, None without one.

    Where the latest is damaged or gone the trial goes on from the one before, and everything since is forgotten.

    Raises:
        TrainingError: If a checkpoint is of a trial with other settings.
        DataError: If its progress cannot be read.
    """
    progress = read_progress(trial)
    if progress.stop_reason is not None:
        return progress, None
    for last in range(len(progress.curve), 0, -1):
        try:
            state = load_slot(step_folder(trial, progress.curve[last - 1].step), spec)
        except DamagedCheckpointError as error:
            note(trial, f"{trial.name}: {error.what}; it went on from the checkpoint before.")
            continue
        return _up_to(progress, last, trial), state
    return (TrialProgress() if progress.curve else progress), None


def _up_to(progress: TrialProgress, last: int, trial: Path) -> TrialProgress:
    """The progress when this many evaluations were done."""
    if last == len(progress.curve):
        return progress
    curve = progress.curve[:last]
    tokens = {row.step: int(row.tokens or 0) for row in read_steps(trial)}
    its = {"step": curve[-1].step, "tokens": tokens.get(curve[-1].step, progress.tokens), "curve": curve}
    return progress.model_copy(update={**its, "best_step": min(curve, key=lambda point: point.eval_loss).step})


def load_start(folder: Path) -> dict[str, Pair]:
    """By layer, the adapter that slots start from, as `copy_start` left it."""
    return _pairs(load_file(folder / WEIGHTS))


def _tensors(pairs: dict[str, Pair], kind: str = "") -> dict[str, torch.Tensor]:
    """Tensors under PEFT's names, with `kind` in front."""
    return {
        f"{kind}{PREFIX}{layer}.lora_{matrix}.weight": tensor.contiguous()
        for layer, pair in pairs.items()
        for matrix, tensor in zip("AB", pair, strict=True)
    }


def _pairs(tensors: dict[str, torch.Tensor], prefix: str = PREFIX) -> dict[str, Pair]:
    suffix = ".lora_A.weight"
    of_kind = [name.removesuffix(suffix) for name in tensors if name.startswith(prefix) and name.endswith(suffix)]
    return {
        layer.removeprefix(prefix): (tensors[layer + suffix], tensors[f"{layer}.lora_B.weight"]) for layer in of_kind
    }


def _peft_settings(spec: SlotSpec, state: SlotState) -> LoraConfig:
    return LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        use_rslora=spec.use_rslora,
        target_modules=sorted({layer.rpartition(".")[2] for layer in state.adapter}),
        bias="none",
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
