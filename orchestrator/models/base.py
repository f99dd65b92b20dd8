"""Loading the frozen base model and its tokenizer: from a folder, the hub, or the built-in toy base."""

from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from orchestrator.chat.template import training_template
from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import ModelNotFoundError
from orchestrator.toy.tiny import TINY, tiny_base_folder

Dtype = Literal["bfloat16", "float32"]

MODEL_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.py"]


def base_folder(model: ModelConfig) -> Path:
    """Local folder of the base model; a hub model is fetched once into the Hugging Face cache of this machine.

    Raises:
        ModelNotFoundError: If there is no such folder or hub model, or the hub cannot be reached.
    """
    if model.base == TINY:
        return tiny_base_folder()
    folder = Path(model.base).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFoundError(
                "the folder holds no model (config.json is missing)",
                where=str(folder),
                fix="Point model.base at a folder in Hugging Face format",
            )
        return folder.resolve()
    try:
        return Path(snapshot_download(model.base, revision=model.revision, allow_patterns=MODEL_FILES))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFoundError(
            f"the base model {model.base!r} is neither a folder here nor could it be fetched from the hub "
            f"({str(error).splitlines()[0]})",
            where="model.base",
            allowed="a local folder, a hub id such as Qwen/Qwen3-0.6B, or tiny",
            fix="Check the name; for a private model set HF_TOKEN, without network copy the model here first",
        ) from None


def load_tokenizer(folder: Path, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The base's tokenizer, with the chat template that renders both training and evaluation."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    tokenizer.chat_template = training_template(tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_frozen_base(folder: Path, model: ModelConfig) -> PreTrainedModel:
    """The base model on the CPU, in the dtype that `model.dtype` names, without gradients."""
    base = AutoModelForCausalLM.from_pretrained(
        folder, dtype=compute_dtype(model.dtype), trust_remote_code=model.trust_remote_code
    )
    return base.requires_grad_(requires_grad=False)


def compute_dtype(wanted: Literal["auto", "bfloat16", "float32"]) -> Dtype:
    """`auto` is bfloat16 where the GPU, or without one the processor, multiplies in it; else float32."""
    if wanted == "auto":
        return "bfloat16" if _computes_in_bfloat16() else "float32"
    return wanted


def _computes_in_bfloat16() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
