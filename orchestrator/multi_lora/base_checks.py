"""Checks that a base meets the engine's assumptions."""

import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from orchestrator.core.errors import InputError

ROUNDING = {torch.bfloat16: 0.05, torch.float16: 0.01, torch.float32: 1e-4, torch.float64: 1e-9}
"""Differences due to rounding, as a share of the largest logit."""


def decoder_and_head(model: PreTrainedModel) -> tuple[torch.nn.Module, torch.nn.Linear]:
    """The part of a causal language model that makes hidden states, and the head that turns them into logits.

    Raises:
        InputError: If the head is not a plain linear layer, or not apart from the rest.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, torch.nn.Linear) or head.bias is not None:
        raise _unsuited("its output head is not a plain linear layer")
    decoder = model.get_decoder()
    if decoder is model:
        raise _unsuited("its decoder cannot be told apart from its output head")
    return decoder, head


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is not followed
def require_causal_rows(model: PreTrainedModel, decoder: torch.nn.Module, head: torch.nn.Linear) -> None:
    """Check on a few tokens that rows are independent of each other and of padding, and that logits are the head's.

    Raises:
        InputError: If they are not.
    """
    device = head.weight.device
    ids = torch.arange(24, device=device).remainder(head.out_features).reshape(2, 12)
    together = decoder(input_ids=ids, use_cache=False).last_hidden_state
    alone = decoder(input_ids=ids[:1, :7], use_cache=False).last_hidden_state
    made: list[torch.Tensor] = []
    hook = head.register_forward_hook(lambda _head, _inputs, output: made.append(output.clone()))
    wanted = model(input_ids=ids[:1, :7], use_cache=False).logits
    hook.remove()
    if _differ(head(together[:1, :7]), head(alone), wanted):
        raise _unsuited("what follows a token, or another row, changes what it computes for that token")
    # Bit for bit: a soft cap changes small logits by less than rounding does in bfloat16, and large ones by far more.
    if not made or not torch.equal(made[0].to(wanted.dtype), wanted):
        raise _unsuited("it changes the logits behind its output head")
    if _differ(head(alone), wanted, wanted):
        raise _unsuited("it changes the hidden states in front of its output head")


def require_steady_positions(model: PreTrainedModel, *, longest: int) -> None:
    """Refuse a base whose position codes depend on the longest row of a pass, if a row of `longest` tokens is enough.

    Raises:
        InputError: If a row's results would depend on the others of its pass.
    """
    config = model.config.get_text_config()
    scaling = getattr(config, "rope_parameters", None) or {}
    limit = scaling.get("original_max_position_embeddings") or config.max_position_embeddings
    if scaling.get("rope_type") in ("dynamic", "longrope") and longest > limit:
        raise _unsuited(f"its positions are scaled by the longest row of a pass beyond {limit} tokens")


def _differ(one: torch.Tensor, other: torch.Tensor, scale: torch.Tensor) -> bool:
    return bool((one - other).abs().max() > ROUNDING[one.dtype] * scale.abs().max())


def _unsuited(why: str) -> InputError:
    return InputError(
        f"the multi-LoRA engine cannot train on this base: {why}",
        where="model.base",
        fix="Set search.runner to isolated",
    )


def checkpoint_layers(model: PreTrainedModel) -> None:
    """Recompute each layer in the backward pass.

    The base's own dropout stays off: a layer counts as training while it decides whether to recompute, but not while
    it computes.
    """
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.training = True
            module.register_forward_pre_hook(lambda layer, _inputs: setattr(layer, "training", False))
            module.register_forward_hook(
                lambda layer, _inputs, _output: setattr(layer, "training", True), always_call=True
            )
