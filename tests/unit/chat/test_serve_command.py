import shlex
from pathlib import Path

import pytest

from orchestrator.chat.serve_command import Scored, serve_command
from orchestrator.core.errors import AdapterError

ON_CPU = Scored("/models/my base", "hermes", on_cpu=True, dtype="bfloat16", temperature=0.0)
ON_GPU = Scored("Qwen/Qwen3-0.6B", "llama_json", on_cpu=False, dtype="bfloat16", temperature=0.7)
FOLDER = Path("/runs/my run/adapters/trial-3")


def options(scored: Scored, rank: int = 8) -> tuple[list[str], dict[str, str]]:
    """The words of the command, and what follows each option."""
    words = shlex.split(serve_command("trial-3", FOLDER, rank, scored).command)
    return words, {word: after for word, after in zip(words, [*words[1:], ""], strict=True) if word.startswith("--")}


def test_the_line_is_whole_and_survives_spaces() -> None:
    words, given = options(ON_CPU)
    assert words[:5] == ["python", "-m", "vllm.entrypoints.openai.api_server", "--model", "/models/my base"]
    assert given["--lora-modules"] == f"trial-3={FOLDER}"
    assert given["--chat-template"] == f"{FOLDER}/chat_template.jinja"
    assert given["--tool-call-parser"] == "hermes"
    assert "--enable-auto-tool-choice" in given
    assert given["--dtype"] == "bfloat16"
    assert given["--kv-cache-memory-bytes"] == "1073741824"


def test_on_a_gpu_vllm_takes_its_own_sizes() -> None:
    words, given = options(ON_GPU)
    assert words[:3] == ["vllm", "serve", "Qwen/Qwen3-0.6B"]
    assert given["--tool-call-parser"] == "llama3_json"
    assert given["--override-generation-config.temperature"] == "0.7"
    assert not {"--kv-cache-memory-bytes", "--enforce-eager"} & set(given)
    assert "--dtype" not in options(ON_GPU._replace(dtype="float32"))[1]


@pytest.mark.parametrize(
    ("format", "parser"),
    [
        *(("hermes", "qwen3"), ("qwen_xml", "qwen3"), ("gpt_oss", "openai_gptoss"), ("gemma4", "gemma4")),
        *(("glm4", "glm45"), ("deepseek_v3", "deepseek_r1"), ("mistral", "mistral"), ("llama_json", "deepseek_r1")),
    ],
)
def test_thoughts_have_a_parser_of_their_own(format: str, parser: str) -> None:
    thinking = ON_GPU._replace(reply_format=format, thinking=True)
    assert options(thinking)[1]["--reasoning-parser"] == parser
    assert "--reasoning-parser" not in options(thinking._replace(thinking=False))[1]


@pytest.mark.parametrize(("rank", "served"), [(1, "1"), (4, "8"), (24, "32"), (300, "320")])
def test_the_rank_is_one_that_vllm_allows(rank: int, served: str) -> None:
    assert options(ON_CPU, rank)[1]["--max-lora-rank"] == served


def test_a_rank_beyond_all_is_told() -> None:
    with pytest.raises(AdapterError, match="rank 1024"):
        serve_command("trial-3", FOLDER, 1024, ON_CPU)


def test_a_format_without_a_parser_says_so() -> None:
    made = serve_command("trial-3", FOLDER, 8, ON_CPU._replace(reply_format="mcp"))
    assert "--tool-call-parser" not in made.command
    assert made.note is not None
    assert "no parser for calls written as mcp" in made.note
    assert serve_command("trial-3", FOLDER, 8, ON_CPU).note is None


def test_a_template_that_takes_texts_and_parts_is_served_as_it_was_trained() -> None:
    command = serve_command("trial-3", FOLDER, 8, ON_GPU, content_format="string").command
    assert "--chat-template-content-format string" in command
    assert "content-format" not in serve_command("trial-3", FOLDER, 8, ON_GPU).command


def test_an_end_of_turn_that_the_base_does_not_know_is_served_from_the_adapters_folder(tmp_path: Path) -> None:
    assert options(ON_CPU)[1]["--generation-config"] == "vllm"
    (tmp_path / "generation_config.json").write_text("{}", encoding="utf-8")
    words = shlex.split(serve_command("trial-3", tmp_path, 8, ON_CPU).command)
    assert words[words.index("--generation-config") + 1] == str(tmp_path)


def test_a_base_in_four_bits_is_served_so_where_it_was_scored_so() -> None:
    in_few_bits = serve_command("trial-3", FOLDER, 8, ON_GPU._replace(base_weights="nf4"))
    assert "--quantization bitsandbytes" in in_few_bits.command
    assert in_few_bits.note is None
    merged = serve_command("trial-3", FOLDER, None, ON_GPU._replace(base_weights="nf4"))
    assert "--quantization" not in merged.command


def test_a_server_of_the_full_base_says_that_it_is_not_what_was_scored() -> None:
    scored = ON_CPU._replace(base_weights="dequantised_nf4")
    made = serve_command("trial-3", FOLDER, 8, scored)
    assert "--quantization" not in made.command
    assert "this serves it on the full base" in (made.note or "")
    assert serve_command("trial-3", FOLDER, None, scored).note is None


def test_an_engine_over_two_gpus_is_served_over_two() -> None:
    assert options(ON_GPU._replace(tensor_parallel=2))[1]["--tensor-parallel-size"] == "2"
    assert "--tensor-parallel-size" not in options(ON_GPU)[1]
