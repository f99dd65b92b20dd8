import pytest
from transformers import PreTrainedTokenizerBase
from trl.chat_template_utils import is_chat_template_prefix_preserving

from orchestrator.errors import InputError
from orchestrator.models.pretrain import build_tokenizer
from orchestrator.models.templates import qwen3_template, training_template

MARKED = "{% for m in messages %}{{ m.role }}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"


@pytest.fixture
def fresh() -> PreTrainedTokenizerBase:
    return build_tokenizer(iter(["hello there", "what is the weather"]))


def test_qwen3s_template_has_calls_results_and_thoughts() -> None:
    template = qwen3_template()
    for word in ("<tool_call>", "<tool_response>", "enable_thinking", "<|im_start|>"):
        assert word in template
    assert "generation %}" not in template


def test_the_training_variant_marks_the_assistant_and_keeps_prefixes(fresh: PreTrainedTokenizerBase) -> None:
    assert fresh.chat_template == qwen3_template()
    fresh.chat_template = training_template(fresh)
    assert "{% generation %}" in fresh.chat_template.replace("{%-", "{%").replace("-%}", "%}")
    assert is_chat_template_prefix_preserving(fresh)


def test_a_training_variant_is_kept_as_it_is(fresh: PreTrainedTokenizerBase) -> None:
    fresh.chat_template = training_template(fresh)
    assert training_template(fresh) == fresh.chat_template


def test_a_template_with_marks_of_its_own_is_kept(fresh: PreTrainedTokenizerBase) -> None:
    fresh.chat_template = MARKED
    assert training_template(fresh) == MARKED


@pytest.mark.parametrize("template", [None, ""])
def test_no_template_is_an_error(fresh: PreTrainedTokenizerBase, template: str | None) -> None:
    fresh.chat_template = template
    with pytest.raises(InputError, match=r"no chat template.*instruction-tuned"):
        training_template(fresh)


def test_an_unknown_template_without_marks_is_an_error(fresh: PreTrainedTokenizerBase) -> None:
    fresh.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(InputError, match="does not mark the assistant's turns") as caught:
        training_template(fresh)
    assert "{% generation %}" in str(caught.value.fix)
