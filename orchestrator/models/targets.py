"""Which layers of a base an adapter can sit on, and by which a base is split."""

import difflib
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from orchestrator.core.errors import ConfigError
from orchestrator.models.adapters import names_to_adapt

WHERE = "lora.target_modules"
LINEAR = (torch.nn.Linear, Conv1D)
"""What PEFT's `all-linear` takes; GPT-2 writes its linear layers as Conv1D."""
SIMILAR = 0.5
"""How alike two names must be for one to be suggested for the other."""


def require_targets(model: PreTrainedModel, target_modules: str | Sequence[str]) -> None:
    """Check that every name of `lora.target_modules` is that of linear layers of the base; an empty one will do.

    PEFT drops a name that matches nothing in silence as long as another matches.

    Raises:
        ConfigError: If one is not, with the names that are most like it.
    """
    head = model.get_output_embeddings()
    modules = dict(model.named_modules())
    linear = {name for name, module in modules.items() if isinstance(module, LINEAR) and module is not head}
    if not linear:
        raise ConfigError("the base has no linear layer that could be adapted", where=WHERE, fix="Use another base")
    known = sorted({name.rpartition(".")[2] for name in linear})
    if isinstance(target_modules, str):  # all-linear
        odd = next((name for name in names_to_adapt(model, target_modules) if name not in linear), None)
        if odd is not None:
            what = f"all-linear takes in {odd}, a {type(modules[odd]).__name__}, and vLLM serves no adapter on that"
            raise ConfigError(what, where=WHERE, fix=f"Set it to [{', '.join(known)}]")
        return
    for target in target_modules:
        matched = [name for name in modules if name == target or name.endswith(f".{target}")]
        others = [name for name in matched if name not in linear]
        allowed = f"{', '.join(known)}, a full name such as {min(linear)}, or all-linear"
        if not matched:
            near = difflib.get_close_matches(target, known, n=1, cutoff=SIMILAR)
            fix = f"Perhaps {near[0]} is meant" if near else None
            raise ConfigError(f"the base has no layer called {target!r}", where=WHERE, allowed=allowed, fix=fix)
        if not others:
            continue
        if modules[others[0]] is not head:
            what = f"{target!r} is no linear layer but one of the class {type(modules[others[0]]).__name__}"
            raise ConfigError(what, where=WHERE, allowed=allowed)
        if model.config.get_text_config().tie_word_embeddings:
            what = f"{target!r} is the output head, whose weights are those of the embedding, so it cannot be adapted"
            raise ConfigError(what, where=WHERE, allowed=allowed, fix="Leave it out")


def linear_names(model: PreTrainedModel, target_modules: str | Sequence[str]) -> list[str]:
    """Last parts of the names of the layers that `lora.target_modules` means, sorted; full names stay as they are."""
    if not isinstance(target_modules, str):
        return sorted(target_modules)
    return sorted({name.rpartition(".")[2] for name in names_to_adapt(model, target_modules)})


def require_shardable(model: PreTrainedModel) -> None:
    """Refuse a base that does not say which of its modules are layers to split.

    Raises:
        ConfigError: Naming the class.
    """
    if not getattr(model, "_no_split_modules", None):
        what = f"{type(model).__name__} does not name its decoder layers, by which its weights would be split"
        raise ConfigError(what, where="train.sharding", fix="Set it to none, or use another base")
