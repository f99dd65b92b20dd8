import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from multi_lora_builders import TRAIN, VAL, counted_rows, make_engine, make_spec, relative_differences, small_base

from orchestrator.multi_lora import engine as engine_module
from orchestrator.multi_lora.batch import samples_of_step
from orchestrator.multi_lora.engine import token_losses

SIZE, VOCABULARY = 16, 50


def problem(tokens: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.nn.Linear, torch.Tensor]:
    generator = torch.Generator().manual_seed(tokens)
    head = torch.nn.Linear(SIZE, VOCABULARY, bias=False).to(dtype).requires_grad_(requires_grad=False)
    head.weight.copy_(torch.randn(VOCABULARY, SIZE, generator=generator))
    hidden = (3 * torch.randn(tokens, SIZE, generator=generator)).to(dtype)
    return hidden, head, torch.randint(VOCABULARY, (tokens,), generator=generator)


@given(st.integers(0, 40), st.integers(1, 45))
def test_losses_and_gradient_are_those_of_cross_entropy_however_they_are_chunked(tokens: int, at_once: int) -> None:
    hidden, head, targets = problem(tokens)
    weights = torch.rand(tokens, dtype=torch.float64) + 0.1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "LOGITS_AT_ONCE", at_once * VOCABULARY)
        losses, _, gradient = token_losses(hidden, head, targets, weights)
    tracked = hidden.clone().requires_grad_()
    wanted = torch.nn.functional.cross_entropy(head(tracked), targets, reduction="none")
    (wanted * weights).sum().backward()
    assert torch.allclose(losses, wanted.detach(), rtol=1e-12, atol=1e-14)
    assert gradient is not None
    assert torch.allclose(gradient, tracked.grad, rtol=1e-12, atol=1e-14)


def test_no_weights_ask_for_no_gradient() -> None:
    hidden, head, targets = problem(9)
    losses, _, gradient = token_losses(hidden, head, targets, None)
    assert gradient is None
    assert torch.equal(losses, token_losses(hidden, head, targets, torch.ones(9))[0])


def test_losses_of_a_bfloat16_base_are_computed_in_float32() -> None:
    hidden, head, targets = problem(30, torch.bfloat16)
    losses, _, gradient = token_losses(hidden, head, targets, torch.ones(30))
    assert losses.dtype == torch.float32
    assert gradient is not None
    assert gradient.dtype == torch.bfloat16
    wanted = torch.nn.functional.cross_entropy(head(hidden).float(), targets, reduction="none")
    assert torch.allclose(losses, wanted, rtol=1e-6)


def test_large_logits_overflow_nothing() -> None:
    hidden, head, targets = problem(5, torch.float32)
    losses, _, gradient = token_losses(hidden * 1e4, head, targets, torch.ones(5))
    assert losses.isfinite().all()
    assert gradient is not None
    assert gradient.isfinite().all()


@given(st.integers(1, 300), st.integers(1, 60))
def test_chunks_are_even_so_that_none_is_very_small(tokens: int, at_once: int) -> None:
    hidden, head, targets = problem(tokens)
    with pytest.MonkeyPatch.context() as patch, counted_rows(head) as sizes:
        patch.setattr(engine_module, "LOGITS_AT_ONCE", at_once * VOCABULARY)
        token_losses(hidden, head, targets, None)
    assert sum(sizes) == tokens
    assert max(sizes) <= at_once
    assert len(sizes) == -(-tokens // at_once) or max(sizes) < at_once
    assert max(sizes) - min(sizes) < len(sizes)


def test_only_learned_tokens_reach_the_head() -> None:
    specs = {"a": make_spec(4), "b": make_spec(32, seed=8)}
    engine = make_engine(small_base(), specs, micro_batch_size=3)
    with counted_rows(engine._head) as trained:
        results = engine.train_step()
    assert sum(trained) == sum(result.learned for result in results.values())
    for name, spec in specs.items():
        batch = samples_of_step(len(TRAIN), 4, seed=spec.seed, step=0)
        assert results[name].learned == sum(len(TRAIN.learned(index)) for index in batch) < results[name].tokens
    with counted_rows(engine._head) as measured:
        engine.eval_loss(["a", "b"])
    assert sum(measured) == 2 * sum(len(VAL.learned(index)) for index in range(len(VAL)))


def test_an_engine_gives_the_same_losses_with_many_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = {"a": make_spec(4), "b": make_spec(32, seed=8)}
    engines = [make_engine(small_base(dtype=torch.float64), specs) for _ in range(2)]
    whole = [engines[0].train_step() for _ in range(3)]
    monkeypatch.setattr(engine_module, "LOGITS_AT_ONCE", 7 * 208)
    chunked = [engines[1].train_step() for _ in range(3)]
    for name in specs:
        one, other = ([step[name].loss for step in steps] for steps in (whole, chunked))
        assert relative_differences(one, other) < 1e-13
