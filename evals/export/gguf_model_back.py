"""A whole model's GGUF file as transformers reads it, in Hugging Face format, so that vLLM can answer with it."""

import io
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedTokenizerBase

from evals.export.llama_cpp import MODEL_FILE
from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import AdapterError
from orchestrator.models.adapters import save_tokenizer
from orchestrator.models.base import base_folder, load_settings


def write_model_back(folder: Path, model: ModelConfig, out: Path) -> None:
    """Write what is in `model.gguf`: the weights in the base's dtype, and the tokenizer and chat template in the file.

    Where positions are scaled that is as in the base, for the reader leaves it out.

    Raises:
        AdapterError: If transformers cannot read the file, or it lacks a weight or a chat template.
    """
    of_base = load_settings(base_folder(model), trust_remote_code=model.trust_remote_code)
    read, tokenizer = _read(folder, of_base.dtype)
    if (getattr(of_base, "rope_parameters", None) or {}).get("rope_type", "default") != "default":
        read.config.rope_parameters = of_base.rope_parameters
    with redirect_stderr(io.StringIO()):
        read.save_pretrained(out)
    save_tokenizer(tokenizer, out)


def _read(folder: Path, dtype: Any) -> tuple[Any, PreTrainedTokenizerBase]:
    where = str(folder / MODEL_FILE)
    as_stored = GgufConfig(dequantize=True)
    try:
        with redirect_stderr(io.StringIO()):  # a bar of all tensors, which no setting turns off
            read, report = AutoModelForCausalLM.from_pretrained(
                folder,
                gguf_file=MODEL_FILE,
                dtype=dtype,
                quantization_config=as_stored,
                output_loading_info=True,
                trust_remote_code=False,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=MODEL_FILE, trust_remote_code=False)
    except Exception as error:  # the reader raises whatever a broken file brings about
        lines = str(error).strip().splitlines()
        what = f"transformers cannot read the file: {lines[0] if lines else type(error).__name__}"
        raise AdapterError(what, where=where, fix="Export it again") from error
    if missing := sorted(report["missing_keys"]):
        raise AdapterError(f"{missing[0]} is not in it", where=where, fix="Export it again")
    if not tokenizer.chat_template:
        raise AdapterError("there is no chat template in it", where=where, fix="Export it again")
    return read, tokenizer
