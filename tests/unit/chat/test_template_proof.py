"""Real chat templates: each is either learned exactly or refused by name."""

import json
from itertools import chain
from pathlib import Path

import pytest
import trl
from builders import assistant, make_call, make_sample, user
from token_rows import learned_texts, tokens_of
from transformers import PreTrainedTokenizerBase

from orchestrator.chat.proof import prove_template
from orchestrator.chat.rendering import chat_format, render_prompt
from orchestrator.core.errors import InputError
from orchestrator.core.records import Message
from orchestrator.data.card import LeftOut
from orchestrator.data.tokens.tokenize import tokenize_samples
from orchestrator.models.base import load_tokenizer

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
LLAMA = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
END = "<\uff5cend▁of▁sentence\uff5c>"
SPECIAL: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "llama3": (LLAMA, ("<|eot_id|>",)),
    "llama3_1": (LLAMA, ("<|eot_id|>",)),
    "gemma3": (("<start_of_turn>", "<end_of_turn>"), ("<end_of_turn>",)),
    "phi3": (("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), ("<|end|>",)),
    "deepseekv3": (("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", END), (END,)),
    "glm4moe": (
        ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        ("<|user|>", "<|observation|>"),
    ),
    "cohere2": (("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|END_OF_TURN_TOKEN|>"), ("<|END_OF_TURN_TOKEN|>",)),
    "gptoss": (
        ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>", "<|call|>"),
        ("<|return|>", "<|call|>"),
    ),
}
"""Special tokens of each family, and those at which its models stop."""
TALK = make_sample(user("Q1"), assistant("A1"), user("Q2"), assistant("A2 longer"), kind="answer", tools=())
TOOL_TALK = make_sample(
    Message(role="system", content="Help."),
    user("Q1"),
    assistant("", make_call(city="Rome")),
    Message(role="tool", content='{"sky": 1}', name="get_weather"),
    assistant("A1"),
    user("Q2"),
    assistant("A2"),
    kind="answer",
)
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call><|im_end|>'


def tokenizer_of(name: str, model_folder: Path, folder: Path, *, is_known: bool = True) -> PreTrainedTokenizerBase:
    """The tests' tokenizer with a real template and its tokens; one character more makes a template unknown."""
    tokenizer = load_tokenizer(model_folder, trust_remote_code=False)
    special, stops = SPECIAL.get(name, ((), ("<|im_end|>",)))
    tokenizer.add_special_tokens({"extra_special_tokens": list(special)})
    tokenizer.bos_token = "<|endoftext|>"
    template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    tokenizer.chat_template = template if is_known else template + "{# mine #}"
    tokenizer.save_pretrained(folder)
    eos = {"eos_token_id": tokenizer.convert_tokens_to_ids(list(stops))}
    (folder / "generation_config.json").write_text(json.dumps(eos), encoding="utf-8")
    return load_tokenizer(folder, trust_remote_code=False)


def turns(end: str, *calls: str, begin: str = "") -> tuple[list[str], list[str]]:
    """What is learned of `TALK` and `TOOL_TALK`, where a template shows all turns of the assistant."""
    first, last = f"{begin}A1{end}", f"{begin}A2{end}"
    return [first, f"{begin}A2 longer{end}"], [*calls, first, last]


LLAMA_CALL = '{"name": "get_weather", "parameters": {"city": "Rome"}}<|eot_id|>'
GLM_CALL = "\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n</tool_call><|observation|>"
GPT_CALL = ' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Rome"}<|call|>'
GPT = "<|channel|>final<|message|>"
NO_THOUGHT = "</think>\n\n"
DEEPSEEK_CALL = (
    f"{NO_THOUGHT}<\uff5ctool▁calls▁begin\uff5c><\uff5ctool▁call▁begin\uff5c>function<\uff5ctool▁sep\uff5c>get_weather\n"
    '```json\n{"city": "Rome"}\n```<\uff5ctool▁call▁end\uff5c><\uff5ctool▁calls▁end\uff5c>' + END
)


@pytest.mark.parametrize(
    ("name", "is_known", "expected"),
    [
        ("qwen3", True, turns("<|im_end|>", CALL)),
        ("qwen3", False, turns("<|im_end|>", CALL)),
        ("qwen2_5", True, turns("<|im_end|>", CALL)),
        ("qwen2_5", False, turns("<|im_end|>", CALL)),
        ("qwen3_instruct_2507", True, turns("<|im_end|>", CALL)),
        ("qwen3_instruct_2507", False, turns("<|im_end|>", CALL)),
        ("llama3", True, turns("<|eot_id|>")),
        ("llama3", False, turns("<|eot_id|>")),
        ("llama3_1", True, turns("<|eot_id|>", LLAMA_CALL)),
        ("gemma3", True, (turns("<end_of_turn>")[0], "template_refuses")),
        ("gemma3", False, (turns("<end_of_turn>")[0], "template_refuses")),
        ("phi3", True, turns("<|end|>")),
        ("phi3", False, turns("<|end|>")),
        ("glm4moe", True, turns("<|user|>", GLM_CALL, begin="\n")),
        ("gptoss", True, turns("<|return|>", GPT_CALL, begin=GPT)),
        ("glm4moe", False, turns("<|im_end|>", GLM_CALL.replace("<|observation|>", "<|im_end|>"), begin="\n")),
        ("cohere2", True, (turns("<|END_RESPONSE|><|END_OF_TURN_TOKEN|>")[0], "template_refuses")),
        ("deepseekv3", True, (turns(END, begin=NO_THOUGHT)[0], [DEEPSEEK_CALL, f"A1{END}", f"{NO_THOUGHT}A2{END}"])),
        ("deepseekv3", False, (turns(END, begin=NO_THOUGHT)[0], [DEEPSEEK_CALL, f"A1{END}", f"{NO_THOUGHT}A2{END}"])),
    ],
)
def test_what_is_learned_is_what_the_assistant_says_after_evaluations_prompt(
    name: str, is_known: bool, expected: tuple[list[str], list[str] | str], model_folder: Path, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(name, model_folder, tmp_path, is_known=is_known)
    form = chat_format(tokenizer, thinking=False)
    prove_template(form)
    for sample, learned in zip((TALK, TOOL_TALK), expected, strict=True):
        tokens = next(tokenize_samples(form, [sample], max_length=None)).tokens
        if isinstance(tokens, LeftOut):
            assert tokens.reason == learned
            continue
        assert list(chain(*learned_texts(form, sample))) == learned
        for row in tokens.rows:
            for span in row.spans:
                prompt = render_prompt(tokenizer, sample.messages[: span.place], sample.tools)
                assert row.input_ids[: span.start] == prompt


def test_the_end_of_turn_that_only_the_template_knows_ends_replies(model_folder: Path, tmp_path: Path) -> None:
    tokenizer_of("gemma3", model_folder, tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": null}', encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path, trust_remote_code=False)
    form = chat_format(tokenizer, thinking=False)
    assert tokenizer.convert_tokens_to_ids("<end_of_turn>") in form.stop_ids
    assert learned_texts(form, TALK) == [["A1<end_of_turn>", "A2 longer<end_of_turn>"]]


@pytest.mark.parametrize("name", ["qwen2_5", "llama3", "phi3"])
def test_thoughts_that_the_template_drops_cannot_be_kept(name: str, model_folder: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(name, model_folder, tmp_path)
    with pytest.raises(InputError, match=r"data\.reasoning is keep, and the chat template drops thoughts"):
        prove_template(chat_format(tokenizer, thinking=True))


@pytest.mark.parametrize("name", ["qwen3", "qwen3_5_think", "glm4moe"])
def test_thoughts_are_learned_where_the_template_shows_them(name: str, model_folder: Path, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(name, model_folder, tmp_path)
    form = chat_format(tokenizer, thinking=True)
    prove_template(form)
    thought = Message(role="assistant", content="Yes.", reasoning_content="Hm, well.")
    sample = make_sample(user("x"), thought, tools=(), kind="answer")
    ((text,),) = learned_texts(form, sample)
    assert text.index("Hm, well.") < text.index("</think>") < text.index("Yes.")
    prompt = render_prompt(tokenizer, sample.messages[:1], (), thinking=True)
    (row,) = tokens_of(form, sample).rows
    assert row.input_ids[: row.spans[0].start] == prompt


def test_thoughts_that_vanish_once_the_talk_goes_on_are_learned_in_a_row_of_their_own(
    model_folder: Path, tmp_path: Path
) -> None:
    form = chat_format(tokenizer_of("glm4moe", model_folder, tmp_path), thinking=True)
    thought = Message(role="assistant", content="Yes.", reasoning_content="Hm, well.")
    sample = make_sample(user("x"), thought, user("y"), thought, tools=(), kind="answer")
    rows = learned_texts(form, sample)
    assert [text.count("Hm, well.") for (text,) in rows] == [1, 1]
    second = tokens_of(form, sample).rows[1]
    assert "Hm, well." not in form.decode_batch([second.input_ids[: second.spans[0].start]])[0]
