"""Cross-entropy of the tokens that are learned, with the gradient of the hidden states in one go.

The head is frozen, so nothing needs the logits again: each chunk is made, used for loss and gradient, and dropped.
Prompt and padding never reach the head.
"""

import math

import torch

LOGITS_AT_ONCE = 1 << 24
"""Logits of one chunk: 64 MB in float32."""


def token_losses(
    hidden: torch.Tensor, head: torch.nn.Linear, targets: torch.Tensor, weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Loss of each token, and the gradient of its weighted sum.

    Args:
        hidden: Final hidden states, tokens x size.
        head: The frozen output head.
        targets: The token that follows each.
        weights: What each token's loss is multiplied by; None asks for no gradient.

    Returns:
        Losses without their weights (float32, or float64 under a float64 base), and the gradient with respect to
        `hidden` in its type.
    """
    precise = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    losses = hidden.new_empty(hidden.shape[0], dtype=precise)
    gradient = None if weights is None else torch.empty_like(hidden)
    most = max(1, LOGITS_AT_ONCE // head.out_features)
    # Even chunks: a product of very few rows is computed by other code, whose last bits differ.
    chunk = max(1, math.ceil(len(hidden) / max(1, math.ceil(len(hidden) / most))))
    with torch.no_grad():
        for start in range(0, len(hidden), chunk):
            part = slice(start, start + chunk)
            logits = head(hidden[part]).to(precise)
            log_sum = torch.logsumexp(logits, dim=-1, keepdim=True)
            target = targets[part].unsqueeze(1)
            losses[part] = (log_sum - logits.gather(1, target)).squeeze(1)
            if weights is not None and gradient is not None:
                probabilities = logits.sub_(log_sum).exp_()
                probabilities.scatter_add_(1, target, torch.full_like(log_sum, -1.0))
                probabilities *= weights[part].unsqueeze(1)
                gradient[part] = probabilities.to(hidden.dtype) @ head.weight
    return losses, gradient
