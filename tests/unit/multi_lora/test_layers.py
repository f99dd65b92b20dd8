import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from multi_lora_builders import make_engine, make_spec, small_base
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from orchestrator.core.errors import InputError
from orchestrator.multi_lora.layers import DropoutKeys, PassLayout, Segment, StackedLinear, adapted_layers, attach
from orchestrator.multi_lora.slots import SlotStack, Target, initial_state

TARGETS = [Target("layer", 12, 20)]
CPU = torch.device("cpu")


def peft_targets(model: PreTrainedModel, target_modules: str | list[str]) -> list[Target]:
    config = LoraConfig(r=4, target_modules=target_modules, task_type="CAUSAL_LM")
    adapted = get_peft_model(copy.deepcopy(model), config).get_base_model()
    return [
        Target(name, layer.in_features, layer.out_features)
        for name, layer in adapted.named_modules()
        if isinstance(layer, LoraLayer)
    ]


@pytest.mark.parametrize(
    "kind", ["qwen3", "llama", "gemma3_text", "mistral", "gpt_neox", "bloom", "qwen3_next", "opt", "xglm"]
)
def test_adapted_layers_are_those_that_peft_picks(kind: str) -> None:
    model = small_base(kind)
    targets = adapted_layers(model, "all-linear")
    assert targets == peft_targets(model, "all-linear")
    assert len(targets) > 6


@pytest.mark.parametrize(
    "target_modules", [["q_proj", "v_proj"], r".*\.1\.mlp\..*_proj", ["layers.0.self_attn.o_proj"]]
)
def test_layers_can_be_named_as_in_peft(target_modules: str | list[str]) -> None:
    model = small_base("llama")
    targets = adapted_layers(model, target_modules)
    assert targets == peft_targets(model, target_modules)
    assert 0 < len(targets) < 14


def test_looking_for_layers_leaves_the_base_as_it_was(tiny_base: PreTrainedModel) -> None:
    modules = dict(tiny_base.named_modules())
    before = {name: tensor.clone() for name, tensor in tiny_base.state_dict().items()}
    assert adapted_layers(tiny_base, "all-linear") == peft_targets(tiny_base, "all-linear")
    assert dict(tiny_base.named_modules()) == modules
    after = tiny_base.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize(
    ("kind", "target_modules", "message"),
    [
        ("gpt2", "all-linear", r"transformer\.h\.0\.attn\.c_attn is a Conv1D"),
        ("qwen3_moe", "all-linear", "Qwen3MoeExperts"),
        ("qwen3", ["embed_tokens"], "embed_tokens is a Embedding"),
        ("qwen3", ["q_proj", "lm_head"], "lm_head is the output head"),
        ("qwen3", ["qq_proj"], "the base has no such layers"),
    ],
)
def test_layers_that_cannot_be_stacked_are_refused(kind: str, target_modules: str | list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        adapted_layers(small_base(kind), target_modules)
    assert "lora.target_modules" in str(caught.value)


def test_a_base_that_flattens_its_rows_is_refused_at_the_start() -> None:
    with pytest.raises(InputError, match="instead of 2 rows x length x features"):
        make_engine(small_base("opt"), {})


def test_without_slots_on_board_the_model_computes_as_before() -> None:
    model = small_base("llama")
    ids = torch.arange(24).reshape(2, 12)
    wanted = model(input_ids=ids).logits
    attach(model, adapted_layers(model, "all-linear"))
    assert torch.equal(model(input_ids=ids).logits, wanted)


def test_models_that_look_at_a_layers_weights_see_those_of_the_base() -> None:
    base = torch.nn.Linear(12, 20)
    layer = StackedLinear(base, 0, PassLayout())
    assert layer.weight is base.weight
    assert layer.bias is base.bias


def stack_of(ranks: list[int], width: int, dtype: torch.dtype, *, seed: int) -> SlotStack:
    """Slots of one stack, whose B is not zero."""
    stack = SlotStack(width, TARGETS, device=CPU, dtype=dtype)
    for place, rank in enumerate(ranks):
        spec = make_spec(rank, alpha=3 + place, seed=seed + place)
        stack.add(f"s{place}", spec, initial_state(spec, TARGETS, stack.params.dtype))
    for index, rank in enumerate(ranks):
        _, b = stack.views(stack.params)[0]
        b[index, :, :rank].normal_(generator=torch.Generator().manual_seed(seed + index))
    stack.refresh(torch.empty_like(stack.params))
    return stack


def board_of(stacks: list[SlotStack], rows: int, dropout: DropoutKeys | None) -> PassLayout:
    segments, first = [], 0
    for stack in stacks:
        last = first + rows * len(stack.names)
        segments.append(Segment(first, last, len(stack.names), stack.weights, stack.gradients))
        first = last
    layout = PassLayout(segments=segments)
    layout.dropout = dropout
    return layout


@given(
    st.lists(st.integers(1, 16), min_size=1, max_size=3),
    st.lists(st.integers(17, 32), max_size=2),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
)
def test_layer_and_gradients_are_those_of_each_slots_own_lora(
    narrow: list[int], wide: list[int], rows: int, with_bias: bool, with_dropout: bool
) -> None:
    stacks = [stack_of(narrow, 16, torch.float64, seed=1)] + (
        [stack_of(wide, 32, torch.float64, seed=50)] if wide else []
    )
    slots = [(stack, index) for stack in stacks for index in range(len(stack.names))]
    total, length = rows * len(slots), 5
    torch.manual_seed(0)
    base = torch.nn.Linear(12, 20, bias=with_bias).double().requires_grad_(requires_grad=False)
    x = torch.randn(total, length, 12, dtype=torch.float64, requires_grad=True)
    g = torch.randn(total, length, 20, dtype=torch.float64)
    keys = DropoutKeys([0.3] * total, list(range(total)), length, CPU) if with_dropout else None
    layer = StackedLinear(base, 0, board_of(stacks, rows, keys))
    y = layer(x)
    y.backward(g)
    mask = keys.multiplier(0, 12, slice(0, total), torch.float64) if keys else torch.ones_like(x)
    for place, (stack, index) in enumerate(slots):
        part, rank = slice(place * rows, (place + 1) * rows), stack.specs[index].rank
        kept_a, kept_b = stack.state(stack.names[index]).adapter["layer"]
        own, a, b = (tensor.detach().clone().requires_grad_() for tensor in (x[part], kept_a, kept_b))
        wanted = base(own) + stack.specs[index].scale * (own * mask[part]) @ a.mT @ b.mT
        wanted.backward(g[part])
        close = {"rtol": 1e-12, "atol": 1e-12}
        assert torch.allclose(y[part], wanted, **close)
        assert torch.allclose(x.grad[part], own.grad, **close)
        to_a, to_b = stack.gradients[0]
        assert torch.allclose(to_a[index, :rank], a.grad, **close)
        assert torch.allclose(to_b[index, :, :rank] * stack.specs[index].scale, b.grad, **close)


def test_gradients_add_up_over_passes_in_float32_under_a_bfloat16_base() -> None:
    stack = stack_of([4], 16, torch.bfloat16, seed=1)
    base = torch.nn.Linear(12, 20).bfloat16().requires_grad_(requires_grad=False)
    layer = StackedLinear(base, 0, board_of([stack], 2, None))
    x = torch.randn(2, 5, 12, dtype=torch.bfloat16)
    once = torch.zeros_like(stack.grads)
    for times in (1, 2, 3):
        layer(x).sum().backward()
        if times == 1:
            once.copy_(stack.grads)
    assert stack.grads.dtype == torch.float32
    assert once.any()
    assert torch.allclose(stack.grads, 3 * once)


def test_an_input_that_needs_no_gradient_gets_none_and_the_adapter_still_learns() -> None:
    stack = stack_of([4], 16, torch.float64, seed=1)
    layer = StackedLinear(torch.nn.Linear(12, 20).double(), 0, board_of([stack], 1, None))
    x = torch.randn(1, 5, 12, dtype=torch.float64)
    layer(x).sum().backward()
    assert x.grad is None
    assert stack.grads.any()
