"""The vLLM engine on the tiny base: what it says is what the model says, with and without an adapter."""

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from evals.generate import Adapter, Engine, EngineSettings, Prompt
from orchestrator.adapters import peft_config
from orchestrator.config import LoraConfig
from orchestrator.data.synthetic import generate_samples
from orchestrator.data.tokenize import render_prompt
from orchestrator.models.base import load_tokenizer
from orchestrator.models.tiny import tiny_base_folder

pytestmark = pytest.mark.vllm

MAX_NEW_TOKENS = 24


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    samples = generate_samples(12, seed=5, catalogue="easy")
    return [Prompt(sample.id, render_prompt(tokenizer, sample.messages[:-1], sample.tools)) for sample in samples]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Adapter]:
    """Two adapters with random weights, large enough to change what is said, of different ranks."""
    made = []
    for number, rank in enumerate((8, 16), start=1):
        torch.manual_seed(number)
        base = AutoModelForCausalLM.from_pretrained(tiny_base_folder(), dtype=torch.float32)
        model = get_peft_model(base, peft_config(LoraConfig(r=rank, alpha=16)))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.3)
        folder = tmp_path_factory.mktemp(f"adapter-{rank}")
        model.save_pretrained(str(folder))
        made.append(Adapter(f"rank{rank}", number, str(folder)))
    return made


@pytest.fixture(scope="module")
def engine(prompts: list[Prompt]) -> Engine:
    return Engine(
        EngineSettings(
            model_folder=str(tiny_base_folder()),
            dtype="float32",
            trust_remote_code=False,
            on_gpu=False,
            max_model_len=max(len(prompt.token_ids) for prompt in prompts) + MAX_NEW_TOKENS,
            max_lora_rank=16,
            kv_cache_bytes=2**27,
            seed=0,
        )
    )


def said_by_transformers(prompts: list[Prompt], adapter: Adapter | None) -> dict[str, list[int]]:
    """Greedy token ids by transformers and PEFT, one prompt at a time."""
    model = AutoModelForCausalLM.from_pretrained(tiny_base_folder(), dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter.folder)
    replies = {}
    for prompt in prompts:
        ids = torch.tensor([prompt.token_ids])
        output = model.generate(input_ids=ids, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        replies[prompt.case_id] = output[0, ids.shape[1] :].tolist()
    return replies


def test_the_engine_says_what_transformers_says(engine: Engine, prompts: list[Prompt], adapters: list[Adapter]) -> None:
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    texts: dict[str | None, list[str]] = {}
    for adapter in (None, *adapters, None):
        generations = engine.generate(prompts, adapter=adapter, max_new_tokens=MAX_NEW_TOKENS, temperature=0.0, seed=0)
        expected = said_by_transformers(prompts, adapter)
        for prompt, generation in zip(prompts, generations, strict=True):
            assert generation.case_id == prompt.case_id
            assert generation.prompt_tokens == len(prompt.token_ids)
            assert generation.lora_name == (adapter.id if adapter else None)
            assert generation.finish_reason in ("stop", "length")
            assert generation.latency_s > 0
            text = tokenizer.decode(expected[prompt.case_id]).removesuffix("<|im_end|>")
            assert generation.text == text
        name = adapter.id if adapter else None
        said = [generation.text for generation in generations]
        assert texts.setdefault(name, said) == said  # the base says the same again after the adapters
    assert texts["rank8"] != texts[None]
    assert texts["rank16"] != texts[None]
    assert texts["rank16"] != texts["rank8"]


def test_a_prompt_without_room_for_a_reply_is_told_and_the_others_are_answered(
    engine: Engine, prompts: list[Prompt]
) -> None:
    endless = Prompt("endless", [5] * 5000)
    generations = engine.generate(
        [prompts[0], endless, prompts[1]], adapter=None, max_new_tokens=4, temperature=0.0, seed=0
    )
    assert [generation.case_id for generation in generations] == [prompts[0].case_id, "endless", prompts[1].case_id]
    assert [generation.finish_reason == "error" for generation in generations] == [False, True, False]
    assert generations[1].error is not None
    assert "5000 tokens" in generations[1].error


def test_a_reply_that_reaches_the_limit_says_so(engine: Engine, prompts: list[Prompt]) -> None:
    (generation,) = engine.generate(prompts[:1], adapter=None, max_new_tokens=1, temperature=0.0, seed=0)
    assert (generation.finish_reason, generation.output_tokens) == ("length", 1)
