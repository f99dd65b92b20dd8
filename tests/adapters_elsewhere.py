"""LoRA adapters as other tools leave them, made by PEFT itself."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from transformers import AutoModelForCausalLM

UNSLOTH = "unsloth/qwen3-0.6b-unsloth-bnb-4bit"
EXTRAS = ("README.md", "training_args.bin", "optimizer.pt", "trainer_state.json", "tokenizer.json", "added_tokens.json")


def made(folder: Path, base: Path, *, dtype: torch.dtype = torch.float32, **lora: Any) -> Path:
    """An adapter as PEFT saves it, with weights that change what the base says and what trainers leave beside it."""
    torch.manual_seed(0)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["v_proj", "q_proj"], "task_type": "CAUSAL_LM", **lora}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), PeftLoraConfig(**settings))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    model.to(dtype).save_pretrained(str(folder))
    for name in EXTRAS:
        (folder / name).write_bytes(b"{}")
    settings_path = folder / "adapter_config.json"
    written = {**json.loads(settings_path.read_text(encoding="utf-8")), "base_model_name_or_path": UNSLOTH}
    settings_path.write_text(json.dumps(written), encoding="utf-8")
    return folder
