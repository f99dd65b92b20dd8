"""How long the replies of many adapters take: this evaluation, beside HF `generate` and an engine for each adapter.

    python benchmarks/evaluate.py                        # 8 adapters and the base, 200 cases, all three ways
    python benchmarks/evaluate.py --adapters 2 --cases 50

All three answer the same rendered prompts greedily with the same adapters and the same limit of new tokens, and each
runs in processes of its own, start-up included:

- `hf`: one process; transformers loads the base once, PEFT loads each adapter, `generate` in batches sorted by length.
- `engines`: one process for each adapter; a vLLM engine with `enable_lora` and otherwise its defaults, as users of an
  evaluation harness start it; a size for its cache, without which it takes the machine's memory.
- `this`: `python -m jobs.evaluate`, the local Ray cluster, both parsers, canaries and scores included.

The adapters are one adapter that is trained for it and copies of it with the update scaled a little. The first line of
the table is the base's share alone: what one more adapter costs in `this`, against the base's own replies.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.torch import load_file, save_file

from evals.records import Case, EngineRecord
from orchestrator.chat.rendering import render_prompt
from orchestrator.config.schema import RunConfig
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import TrialRecord
from orchestrator.models.adapters import keep_adapter, list_adapters
from orchestrator.models.base import base_tokenizer, load_tokenizer
from orchestrator.run.folder import run_dir
from orchestrator.run.paths import RunDir
from orchestrator.toy.tiny import tiny_base_folder

MAX_NEW_TOKENS = 160
STEPS = 60
"""Enough for replies of the usual kind and length: calls that end."""
BATCH = 32
"""Prompts that HF `generate` answers at once; 16 and 64 were slower."""

HF = f"""
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, prompts, folders = sys.argv[1], json.load(open(sys.argv[2])), sys.argv[3:]
tokenizer = AutoTokenizer.from_pretrained(base)
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
prompts.sort(key=len)
tokens = 0
def answer(model):
    global tokens
    for start in range(0, len(prompts), {BATCH}):
        batch = prompts[start : start + {BATCH}]
        width = max(map(len, batch))
        pad = tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(ids)) + ids for ids in batch])
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in batch])
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens={MAX_NEW_TOKENS}, do_sample=False)
        tokens += int((out[:, width:] != pad).sum())
with torch.inference_mode():
    answer(model)
    for number, folder in enumerate(folders):
        model = PeftModel.from_pretrained(model, folder)
        answer(model)
        model = model.unload()
print(json.dumps({{"tokens": tokens}}))
"""

ENGINE = f"""
import json, sys
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
if __name__ == "__main__":
    base, prompts, folder, rank = sys.argv[1], json.load(open(sys.argv[2])), sys.argv[3], int(sys.argv[4])
    lora = dict(enable_lora=True, max_lora_rank=rank) if folder else {{}}
    llm = LLM(base, dtype="float32", max_model_len=1024, kv_cache_memory_bytes=2**30, **lora)
    params = SamplingParams(temperature=0.0, max_tokens={MAX_NEW_TOKENS})
    request = LoRARequest("adapter", 1, folder) if folder else None
    out = llm.generate([{{"prompt_token_ids": ids}} for ids in prompts], params, lora_request=request, use_tqdm=False)
    print(json.dumps({{"tokens": sum(len(reply.outputs[0].token_ids) for reply in out)}}))
"""


def make_run(storage: Path, num_adapters: int, num_cases: int) -> RunDir:
    """A run with its data and the adapters: one that is trained, and scaled copies."""
    config = RunConfig.model_validate(
        {
            "name": "bench",
            "model": {"base": "tiny", "dtype": "float32"},
            "data": {
                "sources": [{"path": "synthetic", "catalogue": "easy", "limit": 1500}],
                "split": {"val": 0.02, "test": 0.2},
            },
            "train": {
                "max_steps": STEPS,
                "eval_steps": STEPS,
                "batch_size": 8,
                "micro_batch_size": 8,
                "learning_rate": 6e-3,
            },
            "lora": {"r": 8, "alpha": 16},
            "eval": {"max_new_tokens": MAX_NEW_TOKENS, "max_cases": num_cases},
            "resources": {"storage_path": str(storage)},
        }
    )
    path = storage / "config.json"
    path.write_text(config.model_dump_json(), encoding="utf-8")
    run_quietly([sys.executable, "-m", "jobs.train", "--config", str(path)])
    run = run_dir(config)
    (trained,) = list_adapters(run)
    source = run.adapter(trained.id)
    tensors = load_file(source / "adapter_model.safetensors")
    for number in range(1, num_adapters):
        copy = storage / f"copy{number}"
        copy.mkdir()
        scaled = {key: value * (1 + 0.02 * number) if "lora_B" in key else value for key, value in tensors.items()}
        save_file(scaled, copy / "adapter_model.safetensors")
        (copy / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
        trial = TrialRecord(
            trial_id=f"copy{number}",
            status="completed",
            hyperparameters={"r": 8, "alpha": 16, "learning_rate": 4e-3},
            curve=(),
            best_eval_loss=1.0,
            best_step=STEPS,
        )
        keep_adapter(copy, run, trial, model=config.model, tokenizer=base_tokenizer(config.model))
    return run


def run_quietly(command: list[str]) -> tuple[str, float]:
    """The last line that a command prints, and the seconds it took."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
    environment.pop("RAY_ADDRESS", None)
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{command[:3]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout.strip().splitlines()[-1], time.monotonic() - started


def written_prompts(run: RunDir, path: Path) -> Path:
    """The prompts of the run's cases as token ids, as the evaluation renders them."""
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    cases = read_jsonl(run.cases, Case)
    path.write_text(json.dumps([render_prompt(tokenizer, case.messages, case.tools) for case in cases]))
    return path


def main() -> None:
    """Time the three and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--ways", nargs="+", choices=("this", "hf", "engines"), default=["this", "hf", "engines"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        run = make_run(Path(folder), given.adapters, given.cases)
        adapters = [str(run.adapter(record.id)) for record in list_adapters(run)]
        _, this_s = run_quietly([sys.executable, "-m", "jobs.evaluate", "--config", str(Path(folder) / "config.json")])
        show_adapters(run)
        prompts = str(written_prompts(run, Path(folder) / "prompts.json"))
        base = str(tiny_base_folder())
        print(f"this: {this_s:.1f} s for {len(adapters)} adapters and the base, {given.cases} cases")
        if "hf" in given.ways:
            told, hf_s = run_quietly([sys.executable, "-c", HF, base, prompts, *adapters])
            print(f"hf: {hf_s:.1f} s, ratio {hf_s / this_s:.2f}; {told}")
        if "engines" in given.ways:
            script = Path(folder) / "engine.py"
            script.write_text(ENGINE, encoding="utf-8")
            times = [
                run_quietly([sys.executable, str(script), base, prompts, adapter, "8"])[1]
                for adapter in ("", *adapters)
            ]
            print(f"engines: {sum(times):.1f} s, ratio {sum(times) / this_s:.2f}; {min(times):.1f} s the fastest start")


def show_adapters(run: RunDir) -> None:
    """What one adapter costs against the base: weights put in place, proof and replies."""
    records = [EngineRecord.model_validate_json(path.read_bytes()) for path in run.root.glob("evals/*/engine.json")]
    base = next(record for record in records if record.adapter_id == "base")
    others = [record.load_s + record.generate_s for record in records if record is not base]
    mean = sum(others) / len(others)
    own = base.load_s + base.generate_s
    print(f"an adapter: {mean:.2f} s (load {sum(r.load_s for r in records) / len(others):.2f} s), the base {own:.2f} s")
    for record in records:
        spent = f"load {record.load_s:.2f} s, replies {record.generate_s:.2f} s"
        print(f"  {record.adapter_id}: {spent}, {tokens_of(run, record)}")


def tokens_of(run: RunDir, record: EngineRecord) -> str:
    """Tokens that an adapter's replies have."""
    rows = [json.loads(line) for line in run.generations(record.adapter_id).read_text(encoding="utf-8").splitlines()]
    return f"{sum(row['output_tokens'] for row in rows)} tokens"


if __name__ == "__main__":
    main()
