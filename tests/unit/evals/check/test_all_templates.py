"""Every chat template that TRL ships, on tokenizers of several families: learned whole, or known for what it lacks."""

import copy
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from evals.check.dropped_parts import PARTS, dropped_parts
from orchestrator.chat.named_templates import HERMES, OWN, named_template, template_names
from orchestrator.chat.rendering import ChatFormat, chat_format
from orchestrator.chat.template import training_template
from orchestrator.core.files import user_cache
from orchestrator.core.records import Sample
from orchestrator.data.card import LeftOut
from orchestrator.data.tokens.tokenize import tokenize_samples
from orchestrator.models.base import load_tokenizer
from orchestrator.toy.synthetic import generate_samples
from orchestrator.toy.tiny import tiny_base_folder

NAMES = [name for name in template_names() if name not in (OWN, HERMES)]
NO_TOOLS = {
    *("cohere", "cohere2", "deepseek_r1_distill", "deepseekv3", "gemma", "gemma3", "lfm2", "llama3", "phi3", "phi3_5"),
    *("idefics3", "llava_next", "qwen2_5_vl", "smolvlm"),
}
"""Templates of families without tool calls, and of models that see: hermes stands in for them."""
ONE_CALL = {"gptoss": "calls_not_shown", "llama3_1": "template_refuses", "llama3_2": "template_refuses"}
"""Templates that show one call a turn, and why a sample of several is left out."""
REAL_BASE = user_cache() / "smollm2-135m-instruct"


@cache
def samples() -> list[Sample]:
    """Conversations of every kind, some of them with several calls in a turn."""
    found = generate_samples(40, seed=3, catalogue="full")
    several = [sample for sample in found if has_several(sample)]
    return [several[0], *(sample for sample in found if not has_several(sample))][:6]


def has_several(sample: Sample) -> bool:
    return any(len(message.tool_calls) > 1 for message in sample.messages)


@pytest.fixture(scope="module", params=["tests'", "toy's", "SmolLM2's"])
def family(request: pytest.FixtureRequest, model_folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer, read once: that takes longer than all that is asked of it."""
    if request.param == "SmolLM2's" and not REAL_BASE.is_dir():
        pytest.skip("the real base is not built: make real-base")
    folders = {"tests'": model_folder, "toy's": tiny_base_folder(), "SmolLM2's": REAL_BASE}
    return load_tokenizer(folders[request.param], trust_remote_code=False, template=named_template(HERMES))


def form_of(family: PreTrainedTokenizerBase, name: str) -> ChatFormat:
    tokenizer = copy.copy(family)
    tokenizer.chat_template = named_template(name)
    tokenizer.chat_template = training_template(tokenizer)
    return chat_format(tokenizer, thinking=False)


def learned_and_lost(form: ChatFormat) -> tuple[list[str], Counter[str]]:
    """Ids of the samples of which every turn is learned, and how many are left out for which reason."""
    whole, lost = [], Counter[str]()
    for sample, tokens, _ in tokenize_samples(form, samples(), max_length=None):
        if isinstance(tokens, LeftOut):
            lost[tokens.reason] += 1
            continue
        places = [span.place for row in tokens.rows for span in row.spans]
        said = [place for place, message in enumerate(sample.messages) if message.role == "assistant"]
        assert (tokens.unlearned, places) == (0, said)
        whole.append(sample.id)
    return whole, lost


@pytest.mark.parametrize("name", [HERMES, *NAMES])
def test_what_a_template_teaches(name: str, family: PreTrainedTokenizerBase) -> None:
    form = form_of(family, name)
    whole, lost = learned_and_lost(form)
    dropped = [what for part in PARTS for what in dropped_parts(form, part)]
    if name in NO_TOOLS:
        assert lost or dropped
    elif name in ONE_CALL:
        assert (dropped, lost) == ([], {ONE_CALL[name]: sum(map(has_several, samples()))})
    else:
        assert (dropped, lost, whole) == ([], {}, [sample.id for sample in samples()])


def test_most_templates_teach_calls_by_themselves() -> None:
    assert len(NAMES) == 41
    assert len(set(NAMES) - NO_TOOLS) == 27
    assert {*NO_TOOLS, *ONE_CALL} <= set(NAMES)
