"""Which settings of PEFT make an adapter that is not served as it is."""

from typing import Any

from orchestrator.core.errors import AdapterError
from orchestrator.core.records import JsonObject

MERGE = "Merge it into its base with PEFT's merge_and_unload, and set the merged folder as model.base"
_RETRAIN = "Train it again without, as plain LoRA"
_BASE_CHANGING = "it changes the base's own weights when it is loaded (init_lora_weights)"
_UNSUPPORTED: tuple[tuple[str, Any, str, str], ...] = (
    ("peft_type", "LORA", "it is no LoRA", MERGE),
    ("modules_to_save", None, "it carries whole modules besides LoRA (modules_to_save)", MERGE),
    ("trainable_token_indices", None, "it trains tokens of the vocabulary (trainable_token_indices)", MERGE),
    ("bias", "none", "it trains biases", _RETRAIN),
    ("lora_bias", False, "it trains biases (lora_bias)", _RETRAIN),
    ("fan_in_fan_out", False, "its base stores matrices the other way round (fan_in_fan_out)", _RETRAIN),
    ("layer_replication", None, "it repeats layers of the base (layer_replication)", _RETRAIN),
    ("alora_invocation_tokens", None, "it is an activated LoRA (alora_invocation_tokens)", _RETRAIN),
    ("use_qalora", False, "it is QALoRA", _RETRAIN),
    ("use_bdlora", None, "it is a block-diagonal LoRA", _RETRAIN),
    ("target_parameters", None, "it adapts bare parameters (target_parameters)", _RETRAIN),
)
"""Settings of PEFT that are not served here: their only value that is, what another means, what to do.

DoRA (`use_dora`) is no LoRA request to vLLM either, but is merged into the engine's weights.
"""
_PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


def refuse_unsupported(settings: JsonObject, *, where: str) -> None:
    """Refuse an adapter of which vLLM serves only a part, or nothing.

    Raises:
        AdapterError: Naming the setting, and what to do.
    """
    for key, plain, what, fix in _UNSUPPORTED:
        if (settings.get(key) or plain) != plain:
            raise AdapterError(f"the adapter cannot be served: {what}", where=where, fix=fix)
    start = settings.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _PLAIN_INITS:
        fix = "Convert it with PEFT's save_pretrained(path_initial_model_for_weight_conversion=...)"
        raise AdapterError(f"the adapter cannot be served: {_BASE_CHANGING}", where=where, fix=fix)
    if not isinstance(settings.get("r"), int) or not isinstance(settings.get("lora_alpha"), int | float):
        raise AdapterError(
            "the settings have no r or lora_alpha as numbers", where=where, fix="Save it with PEFT again"
        )
