"""What a base is made of, read from its layers without its weights."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from orchestrator.config.schema import LoraConfig
from orchestrator.models.adapters import shapes_of_new
from orchestrator.models.targets import LINEAR


@dataclass(frozen=True)
class BaseShape:
    """Sizes of a base and of the adapters on it, in numbers; features are those of one token.

    Attributes:
        parameters: All weights, tied ones once.
        products: Weights of the layers that multiply every token.
        linear: Weights of the linear layers but the output head: those that a quantised base keeps in few bits.
        largest: Weights of the largest of these layers.
        layers: Decoder layers.
        hidden: Features between layers.
        inner: Features inside the feed-forward part, of all experts that a token visits.
        gated: Whether the feed-forward part multiplies two products.
        heads: Heads of the queries.
        queries: Features of all queries of a layer.
        keys: Features of all keys of a layer, and of all values.
        head_norms: Features that a layer's norms of queries and keys take, 0 without such norms.
        adapted: Inputs and outputs of all adapted layers together: an adapter of rank r has r times as many weights.
        adapted_inputs: Inputs of the adapted layers of one decoder layer.
        adapted_layers: Adapted layers of one decoder layer.
        vocabulary: Rows of the output head.
        positions: Positions that the base knows, None where it does not say.
    """

    parameters: int
    products: int
    linear: int
    largest: int
    layers: int
    hidden: int
    inner: int
    gated: bool
    heads: int
    queries: int
    keys: int
    head_norms: int
    adapted: int
    adapted_inputs: float
    adapted_layers: float
    vocabulary: int
    positions: int | None = None

    def adapter_parameters(self, rank: int) -> int:
        """Weights of an adapter of this rank."""
        return rank * self.adapted


def base_shape(model: PreTrainedModel, lora: LoraConfig) -> BaseShape:
    """The sizes of a base, which may lie on the meta device, and of adapters on the layers that `lora` names."""
    text = model.config.get_text_config()
    heads, layers = getattr(text, "num_attention_heads", None) or 1, text.num_hidden_layers
    size = getattr(text, "head_dim", None) or text.hidden_size // heads
    keys = (getattr(text, "num_key_value_heads", None) or heads) * size
    parameters = sum(parameter.numel() for parameter in model.parameters())
    matrices = [module.weight.numel() for module in model.modules() if _is_quantisable(module, model)]
    embeddings = {id(table.weight): table.weight.numel() for table in _tables(model)}
    experts = getattr(text, "num_experts_per_tok", None) or 0
    wide = getattr(text, "intermediate_size", None) or getattr(text, "n_inner", None) or 4 * text.hidden_size
    inner = experts * (getattr(text, "moe_intermediate_size", None) or wide) if experts else wide
    products = parameters - sum(embeddings.values())
    if experts:  # a token visits few of them
        all_experts = getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None) or experts
        products -= 3 * layers * text.hidden_size * (all_experts - experts) * (inner // experts)
    adapters = shapes_of_new(model, lora.model_copy(update={"r": 1, "use_dora": False}))
    inputs = sum(columns for name, (_, columns) in adapters.items() if ".lora_A." in name)
    outputs = sum(rows for name, (rows, _) in adapters.items() if ".lora_B." in name)
    names = [name for name, _ in model.named_modules()]
    return BaseShape(
        parameters=parameters,
        products=products,
        linear=sum(matrices),
        largest=max(matrices, default=0),
        layers=layers,
        hidden=text.hidden_size,
        inner=inner,
        gated=any("gate" in name.rpartition(".")[2] for name in names),
        heads=heads,
        queries=heads * size,
        keys=keys,
        head_norms=heads * size + keys if any(name.endswith(".q_norm") for name in names) else 0,
        adapted=inputs + outputs,
        adapted_inputs=inputs / layers,
        adapted_layers=len(adapters) / 2 / layers,
        vocabulary=text.vocab_size,
        positions=getattr(text, "max_position_embeddings", None),
    )


def _is_quantisable(module: torch.nn.Module, model: PreTrainedModel) -> bool:
    return isinstance(module, LINEAR) and module is not model.get_output_embeddings()


def _tables(model: PreTrainedModel) -> list:  # type: ignore[type-arg]
    """The embedding and the output head, which may share their weights."""
    return [table for table in (model.get_input_embeddings(), model.get_output_embeddings()) if table is not None]
