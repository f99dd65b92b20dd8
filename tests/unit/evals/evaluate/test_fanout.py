"""Which cases are asked: all that the base's chat template can show."""

import copy

import pytest
from builders import assistant, user, weather_samples
from transformers import PreTrainedTokenizerBase

from evals.cases.samples import cases_from_samples
from evals.evaluate.fanout import rendered_cases
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DataError

CITIES = tuple(f"City{number}" for number in range(20))


@pytest.fixture
def strict(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A tokenizer whose template wants the user to speak first."""
    changed = copy.copy(tokenizer)
    refusing = "{% if messages[0].role == 'assistant' %}{{ raise_exception('roles must alternate') }}{% endif %}"
    changed.chat_template = refusing + str(tokenizer.chat_template)
    return changed


def test_cases_that_the_template_refuses_are_left_out_and_told(
    strict: PreTrainedTokenizerBase, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = weather_samples(*CITIES)
    greeted = samples[0].model_copy(update={"messages": (assistant("Hello."), *samples[0].messages), "id": "greeted"})
    shown, prompts = rendered_cases(RunConfig(), strict, cases_from_samples([greeted, *samples]))
    assert [case.id for case in shown] == [prompt.case_id for prompt in prompts] == [sample.id for sample in samples]
    said = capsys.readouterr().out
    assert "1 of 21 held-out cases cannot be asked, such as greeted: " in said
    assert "roles must alternate. They are left out, for the base and for every adapter." in said


def test_too_many_of_them_are_refused(strict: PreTrainedTokenizerBase) -> None:
    samples = [
        sample.model_copy(update={"messages": (assistant("Hello."), user("Hi"), *sample.messages[1:])})
        for sample in weather_samples(*CITIES)
    ]
    with pytest.raises(
        DataError, match=r"model\.chat_template: 20 of 20 held-out cases cannot be asked, .*a share of 0\.5"
    ):
        rendered_cases(RunConfig(), strict, cases_from_samples(samples))
