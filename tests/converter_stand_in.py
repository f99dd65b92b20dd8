"""Stands in for llama.cpp's convert_hf_to_gguf.py: its command line, and a GGUF file of a small Qwen3 model.

It leaves its arguments in `asked.json` beside the file, and fails as the real one does where `STAND_IN_FAILS` is set.
"""

import json
import os
import sys
from argparse import ArgumentParser
from pathlib import Path

import gguf
from safetensors.torch import load_file

COUNTS = {
    "num_hidden_layers": "add_block_count",
    "hidden_size": "add_embedding_length",
    "intermediate_size": "add_feed_forward_length",
    "num_attention_heads": "add_head_count",
    "num_key_value_heads": "add_head_count_kv",
    "head_dim": "add_key_length",
    "max_position_embeddings": "add_context_length",
    "rms_norm_eps": "add_layer_norm_rms_eps",
    "vocab_size": "add_vocab_size",
}


def main() -> None:
    parser = ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--outfile", type=Path)
    parser.add_argument("--outtype")
    asked = parser.parse_args()
    if os.environ.get("STAND_IN_FAILS"):
        sys.exit("Traceback of some depth\nValueError: BPE pre-tokenizer was not recognized")
    (asked.outfile.parent / "asked.json").write_text(json.dumps(sys.argv[1:]), encoding="utf-8")
    settings = json.loads((asked.model / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(asked.outfile, "qwen3")
    writer.add_name(asked.model.name)
    for name, method in COUNTS.items():
        getattr(writer, method)(settings[name])
    writer.add_value_length(settings["head_dim"])
    positions = settings["rope_parameters"]
    writer.add_rope_freq_base(positions["rope_theta"])
    if positions.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(positions["factor"])
    _add_tokenizer(writer, asked.model, settings["vocab_size"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, settings["num_hidden_layers"])
    for name, tensor in load_file(asked.model / "model.safetensors").items():
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, size: int) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    words = {number: word for word, number in tokenizer["model"]["vocab"].items()} | added
    kind = gguf.TokenType
    tokens = [words.get(number, f"[PAD{number}]") for number in range(size)]
    types = [kind.CONTROL if n in added else kind.NORMAL if n in words else kind.UNUSED for n in range(size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    ends = json.loads((folder / "config.json").read_text(encoding="utf-8"))["eos_token_id"]
    if ends is not None:
        writer.add_eos_token_id(ends)
    writer.add_chat_template((folder / "chat_template.jinja").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
