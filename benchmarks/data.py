"""How long `check` and `prepare` take, and how much memory, with TRL's own tokenisation beside them.

    python benchmarks/data.py              # 15,694 conversations of about 900 tokens: check, check again, TRL's step
    python benchmarks/data.py --short      # 1,000,000 short rows through prepare

The baseline does what TRL's SFTTrainer does to such a file before it trains: load it with `datasets` and tokenise each
row with the assistant mask, on the same processes. It checks nothing. Memory is the proportional set size (PSS) of the
command and all its children, sampled ten times a second.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from orchestrator.core.files import dump_line
from orchestrator.core.records import Sample
from orchestrator.toy.synthetic import generate_samples

LONG_ROWS, SHORT_ROWS = 15_694, 1_000_000
SAMPLES_A_CONVERSATION = (2, 2, 3)
"""How many generated samples make a conversation, in turn: about 900 tokens of the toy's tokenizer on average."""

BASELINE = """
import sys
from datasets import disable_progress_bars, load_dataset
from orchestrator.models.base import load_tokenizer
from orchestrator.models.tiny import tiny_base_folder
disable_progress_bars()
tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
def encode(row):
    made = tokenizer.apply_chat_template(
        row["messages"], tools=row["tools"], return_dict=True, return_assistant_tokens_mask=True)
    return {"input_ids": made["input_ids"], "assistant_masks": made["assistant_masks"]}
rows = load_dataset("json", data_files=sys.argv[1], split="train", cache_dir=sys.argv[2])
rows = rows.map(encode, num_proc=int(sys.argv[3]), remove_columns=rows.column_names)
print(sum(len(ids) for ids in rows["input_ids"]) / len(rows), "tokens a row")
"""


def conversations(count: int) -> Iterator[dict[str, Any]]:
    """Distinct conversations of several requests each, with every call answered and the offers joined."""
    made = generate_samples(5_000, seed=0, catalogue="full")
    drawn = random.Random(0)
    for number in range(count):
        yield _joined(number, drawn.sample(made, SAMPLES_A_CONVERSATION[number % len(SAMPLES_A_CONVERSATION)]))


def _joined(number: int, samples: list[Sample]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    tools: dict[str, Any] = {}
    for sample in samples:
        value = json.loads(dump_line(sample))
        tools |= {tool["function"]["name"]: tool for tool in value["tools"]}
        messages += [turn for turn in value["messages"] if turn["role"] != "system"]
        calls = messages[-1].get("tool_calls", [])
        messages += [{"role": "tool", "content": json.dumps({"ok": True, "request": number})} for _ in calls]
        if calls:
            messages.append({"role": "assistant", "content": f"Done, that was request {number}."})
    messages[0]["content"] += f" (request {number})"
    return {"messages": messages, "tools": list(tools.values())}


def short_rows(count: int) -> Iterator[dict[str, Any]]:
    """Distinct rows of one question and one answer, without tools."""
    for number in range(count):
        words = " ".join(f"w{(number * step) % 9_973}" for step in (1, 7, 31, 101, 307, 911))
        yield {
            "messages": [
                {"role": "user", "content": f"What do {words} have in common, number {number}?"},
                {"role": "assistant", "content": f"They are the words of row {number}: {words}."},
            ]
        }


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds and peak GiB (PSS of the process tree) of a command that must succeed."""
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while process.poll() is None:
        peak = max(peak, _memory(process.pid))
        time.sleep(0.1)
    seconds = time.monotonic() - started
    output = process.stdout.read() if process.stdout else ""
    print("   ", "\n    ".join(output.strip().splitlines()[-2:]))
    if process.returncode:
        sys.exit(f"{' '.join(command[:4])} ended with {process.returncode}")
    return seconds, peak / 2**30


def _memory(pid: int) -> int:
    total = 0
    try:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            total += process.memory_full_info().pss
    except psutil.NoSuchProcess:
        pass
    return total


def job(stage: str, data: Path, folder: Path) -> list[str]:
    """The command of one stage on a file with the toy base."""
    source = json.dumps([{"path": str(data)}])
    settings = [f"data.sources={source}", "model.base=tiny", f"resources.storage_path={folder}", "data.max_length=4096"]
    config = folder / "config.yaml"
    config.write_text("name: benchmark\n")
    sets = [part for setting in settings for part in ("--set", setting)]
    return [sys.executable, "-m", f"jobs.{stage}", "--config", str(config), *sets]


def write_rows(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    """Rows as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def main() -> None:
    """Print each figure with its command's last lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a million short rows instead")
    parser.add_argument("--rows", type=int, help="another number of rows")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-data-") as name:
        folder = Path(name)
        data = folder / "rows.jsonl"
        if given.short:
            write_rows(data, short_rows(given.rows or SHORT_ROWS))
            report("prepare, short rows", *measure(job("prepare", data, folder)))
            return
        write_rows(data, conversations(given.rows or LONG_ROWS))
        print(f"{data.stat().st_size / 2**20:.0f} MiB")
        baseline = measure([sys.executable, "-c", BASELINE, str(data), str(folder / "cache"), str(os.cpu_count())])
        report("TRL's tokenisation alone", *baseline)
        first = measure(job("check", data, folder))
        report("check", *first)
        report("check again", *measure(job("check", data, folder)))
        print(f"check / TRL's tokenisation alone: {first[0] / baseline[0]:.2f}")


def report(what: str, seconds: float, gib: float) -> None:
    """One line of figures."""
    print(f"{what}: {seconds:.1f} s, {gib:.2f} GiB")


if __name__ == "__main__":
    main()
