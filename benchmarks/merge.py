"""What merging an adapter into its base takes: peak memory (`VmHWM`) and seconds of `evals.export.merged.write_merged`.

    python benchmarks/merge.py [--folder DIR] [--shard-gb N] [--rank R]

The base has the shape of Qwen3-1.7B with random weights in bfloat16, the adapter random weights on all linear layers.
Both are written file by file, and merged in a process of its own. Two files are held against base and adapter.
Prints a row of a Markdown table. Needs twice 3.4 GB in DIR, which is emptied again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, Qwen3Config

from orchestrator.config.schema import LoraConfig
from orchestrator.models.adapters import SETTINGS, WEIGHTS, load_adapter, merged_tensor, peft_config
from orchestrator.models.base import BaseWeights
from orchestrator.models.weight_files import INDEX

SHAPE = {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
         "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True}  # fmt: skip
MERGE = """
import sys, time
from pathlib import Path
from evals.export.merged import write_merged
from orchestrator.config.schema import ModelConfig
peak = lambda: next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))
before, started = peak(), time.monotonic()
base, adapter, out = sys.argv[1:]
write_merged(ModelConfig(base=base), Path(adapter), Path(out))
print(before, peak(), time.monotonic() - started)
"""


def write_base(folder: Path, shard_bytes: int) -> dict[str, torch.Size]:
    """A base of files of about `shard_bytes`, of which one at a time is in memory; returns its shapes by name."""
    folder.mkdir()
    config = Qwen3Config(**SHAPE, dtype="bfloat16")
    config.save_pretrained(folder)
    with torch.device("meta"):
        state = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).state_dict()
    shapes = {name: tensor.shape for name, tensor in state.items() if name != "lm_head.weight"}
    files, size = [list[str]()], 0
    for name, shape in shapes.items():
        if files[-1] and size + 2 * shape.numel() > shard_bytes:
            files.append([])
            size = 0
        files[-1].append(name)
        size += 2 * shape.numel()
    places = dict[str, str]()
    for number, names in enumerate(files, start=1):
        file = f"model-{number:05}-of-{len(files):05}.safetensors"
        tensors = {name: random_tensor(shapes[name]) for name in names}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(names, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")
    return shapes


def random_tensor(shape: torch.Size) -> torch.Tensor:
    """Random numbers that repeat, so that billions of them take seconds."""
    block = torch.empty(2**20, dtype=torch.bfloat16).normal_(std=0.02)
    return block.repeat(shape.numel() // block.numel() + 1)[: shape.numel()].reshape(shape).clone()


def write_adapter(folder: Path, shapes: dict[str, torch.Size], rank: int) -> None:
    """An adapter on every linear layer."""
    peft_config(LoraConfig(r=rank, alpha=rank)).save_pretrained(folder)
    pairs = {}
    for name, shape in shapes.items():
        if name.endswith("_proj.weight"):
            module = f"base_model.model.{name.removesuffix('.weight')}"
            pairs[f"{module}.lora_A.weight"] = torch.empty(rank, shape[1]).normal_(std=0.02)
            pairs[f"{module}.lora_B.weight"] = torch.empty(shape[0], rank).normal_(std=0.02)
    save_file(pairs, folder / WEIGHTS)


def refuse_wrong(base: Path, adapter: Path, merged: Path) -> None:
    """Hold every tensor of the first and last file against base and adapter."""
    weights = BaseWeights(base)
    update = load_adapter(adapter, weights)
    files = weights.names_by_file()
    for file in (min(files), max(files)):
        with safe_open(merged / file, framework="pt") as found:
            for name in files[file]:
                stored = weights.tensor(name)
                wanted = merged_tensor(update, weights, name).to(stored.dtype) if name in update.pairs else stored
                if not torch.equal(found.get_tensor(name), wanted):
                    raise SystemExit(f"{name} is not merged as it should be")


def measured(folder: Path, shard_bytes: int, rank: int) -> Iterator[str]:
    """The head and the row of the table."""
    base, adapter, merged = folder / "base", folder / "adapter", folder / "merged"
    write_adapter(adapter, write_base(base, shard_bytes), rank)
    merged.mkdir()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", MERGE, *map(str, (base, adapter, merged))], stdout=subprocess.PIPE, text=True, check=True
    )
    before, peak, seconds = map(float, done.stdout.splitlines()[-1].split())
    refuse_wrong(base, adapter, merged)
    sizes = [path.stat().st_size for path in base.glob("*.safetensors")]
    settings = json.loads((adapter / SETTINGS).read_text(encoding="utf-8"))
    yield "| base | files | largest | rank | peak memory | before the merge | merge | with start |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    gib = f"{sum(sizes) / 2**30:.2f} GiB | {len(sizes)} | {max(sizes) / 2**30:.2f} GiB | {settings['r']}"
    held = f"{peak / 2**20:.2f} GiB | {before / 2**20:.2f} GiB"
    yield f"| {gib} | {held} | {seconds:.1f} s | {time.monotonic() - started:.1f} s |"


def main() -> None:
    """Write, merge, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--shard-gb", type=float, default=1.0)
    parser.add_argument("--rank", type=int, default=16)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="merge-") as folder:
        for line in measured(Path(folder), int(given.shard_gb * 1e9), given.rank):
            print(line, flush=True)


if __name__ == "__main__":
    main()
