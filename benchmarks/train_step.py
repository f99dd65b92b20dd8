"""Tokens a second in training: the multi-LoRA engine, with TRL (or a plain PEFT loop) beside it in the same run.

    python benchmarks/train_step.py                              # toy base, all cores: slot, curve and ranks
    python benchmarks/train_step.py --quick                      # does everything run? the figures mean nothing
    python benchmarks/train_step.py --k-processes 2 4 --out benchmarks/baselines/cpu.json

On a machine that has torch, transformers, peft, safetensors and numpy alone, such as a bare one with a GPU:

    PYTHONPATH=. python3 benchmarks/train_step.py --engine-only --device cuda --base qwen3-0.6b-shape

Four questions, a table each:

- slot: one adapter of rank 16. TRL as shipped, the base in float32 with gradient checkpointing: without autocast, and
  with autocast to bfloat16, its default, where the device has it. TRL tuned: the base in bfloat16, no checkpointing,
  rows grouped by length, no filter for NaN, no logging. And the engine. A plain PEFT loop is run in the same ways.
- curve: K adapters at once, of ranks 16 and 8 in turn, by the tokens of a slot's step, against K = 1 and TRL tuned.
- ranks: one adapted linear layer, forward and backward, 8 slots of ranks 4 to 64, against its base's product alone: all
  padded to the largest rank, in stacks by width as the engine has them, and one slot after another.
- processes (with --k-processes): so many processes of TRL tuned at once on the device, each with its share of the
  threads (at least one), against the engine with as many slots. The processes' rates are added up, which favours them.

All train on the same rows: random tokens, with lengths and numbers of learned tokens as in the demo. Every contender is
a process of its own that waits while another is measured. Their rounds, of several steps, take turns; the first of each
is not counted, nor is any set-up. Tokens are those of the rows, without padding. A figure is the median over the
rounds, with the lowest and highest; a ratio is taken round by round.
"""

import argparse
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import cycle, groupby, islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import numpy as np

SHAPES = {
    "qwen3-0.6b-shape": {"hidden_size": 1024, "intermediate_size": 3072},
    "qwen3-1.7b-shape": {"hidden_size": 2048, "intermediate_size": 6144},
}
"""What Qwen3-0.6B and 1.7B do not share; what they do is in `base_config`."""
PADDING = {"input_ids": 0, "attention_mask": 0, "labels": -100}
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
SLOT_BATCHES = ((16, 150), (8, 287))
"""Rows of a step and their mean length: short samples, and the demo's."""
CURVE_BATCHES = ((1, 64), (2, 128), (8, 128))
"""The same for 64, 256 and 1,024 tokens."""
SLOT_RANKS = (16, 8)
"""Ranks of the curve's slots, in turn."""
LAYER_RANKS = (4, 4, 8, 8, 16, 16, 64, 64)
SLOT_COUNTS = (1, 2, 4, 8, 16)
TITLES = {"float32": "as shipped, float32", "autocast": "as shipped, autocast", "tuned": "tuned"}
TARGETS = {"float32": 2.3, "tuned": 1.3}
"""What one slot should reach over TRL, on two CPU cores with the toy base."""
FLAT = 0.95
"""A curve is flat from where it has this share of its peak."""
ROUND_TOKENS, LEAST_STEPS, MOST_STEPS = 12_000, 8, {"cpu": 40, "cuda": 12}
"""Steps of a round are as many as have these tokens of one slot, within bounds."""
LAYER_ROUND_S = 0.3
EPOCH_STEPS = 200
"""From so many batches on, transformers groups by length as well as it ever does."""
ENDLESS = 10**6

Kind = Literal["float32", "autocast", "tuned", "multi_lora", "layer"]
Rates = dict[str, list[float]]


@dataclass(frozen=True)
class Settings:
    """Where and on what everything is measured."""

    device: str
    threads: int
    base: str
    dtype: str
    engine_only: bool
    quick: bool

    @property
    def peer(self) -> str:
        """What the engine is measured against."""
        return "PEFT" if self.engine_only else "TRL"


@dataclass(frozen=True)
class Load:
    """What a slot trains on: batches of `batch_size` rows, about `mean_length` tokens each; `steps` are a round."""

    batch_size: int
    mean_length: int
    steps: int

    @staticmethod
    def of(batch_size: int, mean_length: int, settings: Settings) -> "Load":
        """With as many steps as make a round long enough to be timed."""
        steps = min(ROUND_TOKENS // (batch_size * mean_length), MOST_STEPS[settings.device])
        return Load(batch_size, mean_length, 2 if settings.quick else max(LEAST_STEPS, steps))

    def rows(self) -> list[tuple[list[int], list[int]]]:
        """Token ids and labels: lengths within a quarter of the mean, 12 to 29 learned tokens at the end."""
        drawn = np.random.default_rng(0)
        low, high = self.mean_length * 3 // 4, self.mean_length * 5 // 4
        rows = []
        for length in drawn.integers(low, high + 1, self.batch_size * EPOCH_STEPS):
            ids = drawn.integers(0, 1000, length)
            labels = np.where(np.arange(length) < length - drawn.integers(12, 30), -100, ids)
            rows.append((ids.tolist(), labels.tolist()))
        return rows


class Clock:
    """The other end of a `Contender`: takes orders, times rounds and answers."""

    def __init__(self, connection: Connection, device: str) -> None:
        self._connection, self._device, self._started = connection, device, 0.0

    def order(self) -> Any:
        """What the next round is of; None ends the process."""
        return self._connection.recv()

    def start(self) -> None:
        """Begin a round."""
        self._started = self.now()

    def stop(self, amount: float) -> None:
        """End a round in which so much was done."""
        self._connection.send(amount / (self.now() - self._started))

    def now(self) -> float:
        """Seconds, when the device has done all that it was given."""
        if self._device == "cuda":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()


class Contender:
    """A process that does rounds when asked, and nothing between them."""

    def __init__(self, kind: Kind, settings: Settings, load: Load) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._kind, self._log = kind, tempfile.NamedTemporaryFile(prefix=f"train-step-{kind}-")  # noqa: SIM115
        self._connection, other = spawning.Pipe()
        self._process = spawning.Process(target=serve, args=(kind, settings, load, other, self._log.name))
        self._process.start()
        other.close()

    def order(self, what: Any) -> None:
        """Ask for a round; None ends the process."""
        with suppress(OSError):  # a process that broke is noticed by its answer
            self._connection.send(what)

    def rate(self) -> float:
        """Tokens (or products) a second of the round that was ordered; 0 if memory ran out."""
        try:
            return float(self._connection.recv())
        except (EOFError, OSError):
            sys.exit(f"The process of {self._kind} broke:\n{Path(self._log.name).read_text()[-4000:]}")

    def turn(self, what: Any = True) -> Callable[[], float]:  # noqa: FBT002
        """A round, to be called."""

        def run() -> float:
            self.order(what)
            return self.rate()

        return run

    def close(self) -> None:
        """End the process."""
        self.order(None)
        self._process.join(timeout=60)
        if self._process.is_alive():
            self._process.kill()
        self._log.close()


@contextmanager
def contenders(settings: Settings, load: Load, *kinds: Kind) -> Iterator[list[Contender]]:
    """A process for each of `kinds`."""
    started: list[Contender] = []
    try:
        started.extend(Contender(kind, settings, load) for kind in kinds)
        yield started
    finally:
        for contender in started:
            contender.close()


def serve(kind: Kind, settings: Settings, load: Load, connection: Connection, log: str) -> None:
    """All that a contender's process does. What it prints goes to `log`."""
    with Path(log).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    torch.set_num_threads(settings.threads)
    clock = Clock(connection, settings.device)
    if kind == "multi_lora":
        engine_rounds(clock, settings, load)
    elif kind == "layer":
        layer_rounds(clock, settings, load)
    else:
        (peft_rounds if settings.engine_only else trl_rounds)(clock, settings, load, kind)


def base_folder(base: str) -> Path:
    """Where base and tokenizer are; the toy base's tokenizer stands in for that of a shape."""
    import orchestrator

    return Path(orchestrator.__path__[0], "toy", "tiny_base") if base in (*SHAPES, "tiny") else Path(base)


def base_config(base: str) -> Any:
    """The transformers configuration of the base."""
    from transformers import AutoConfig, Qwen3Config

    if base not in SHAPES:
        return AutoConfig.from_pretrained(base_folder(base))
    shared = {"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128}
    return Qwen3Config(**SHAPES[base], **shared, vocab_size=151_936, tie_word_embeddings=True)


def load_base(settings: Settings, dtype: str) -> Any:
    """The frozen base on its device; a shape gets random weights."""
    import torch
    from transformers import AutoModelForCausalLM

    if settings.base in SHAPES:
        torch.manual_seed(0)
        with torch.device(settings.device):
            model = AutoModelForCausalLM.from_config(base_config(settings.base), dtype=getattr(torch, dtype))
    else:
        model = AutoModelForCausalLM.from_pretrained(base_folder(settings.base), dtype=getattr(torch, dtype))
    return model.to(settings.device).requires_grad_(requires_grad=False)


def engine_rounds(clock: Clock, settings: Settings, load: Load) -> None:
    """Rounds of the multi-LoRA engine; an order is how many slots to have."""
    import torch

    from orchestrator.multi_lora.batch import TokenRows
    from orchestrator.multi_lora.engine import MultiLoraEngine

    rows = TokenRows.of(load.rows())
    model = load_base(settings, settings.dtype)
    engine = MultiLoraEngine(model, rows, rows, batch_size=load.batch_size, micro_batch_size=load.batch_size)
    while num_slots := clock.order():
        try:
            if set_slots(engine, num_slots):
                engine.train_step()
            clock.start()
            clock.stop(sum(slot.tokens for _ in range(load.steps) for slot in engine.train_step().values()))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            clock.stop(0)


def set_slots(engine: Any, num_slots: int) -> bool:
    """Admit or evict until the engine has so many. Returns whether anything changed."""
    from orchestrator.multi_lora.spec import SlotSpec

    before = len(engine.slots)
    for number in range(num_slots, before):
        engine.evict(str(number))
    for number in range(before, num_slots):
        rank = SLOT_RANKS[number % len(SLOT_RANKS)]
        spec = SlotSpec(rank=rank, alpha=32, learning_rate=1e-4, max_steps=ENDLESS, seed=number)
        engine.admit(str(number), spec)
    return num_slots != before


def trl_rounds(clock: Clock, settings: Settings, load: Load, kind: Kind) -> None:
    """Rounds of TRL's own training loop, from the end of a step to the end of the round's last."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    waiting: deque[int] = deque()  # tokens of batches that are made and not yet trained on

    class Rounds(TrainerCallback):  # type: ignore[misc]
        tokens = 0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            self.go_on(control)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            self.tokens += waiting.popleft()
            if state.global_step % load.steps == 0:
                clock.stop(self.tokens)
                self.go_on(control)

        def go_on(self, control: Any) -> None:
            self.tokens = 0
            control.should_training_stop = not clock.order()
            clock.start()

    tuning = {
        "gradient_checkpointing": False, "train_sampling_strategy": "group_by_length",
        "logging_nan_inf_filter": False, "logging_strategy": "no", "disable_tqdm": True,
    }  # fmt: skip
    ids, labels = zip(*load.rows(), strict=True)
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder, max_steps=ENDLESS, per_device_train_batch_size=load.batch_size, save_strategy="no",
            dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, report_to="none",
            use_cpu=settings.device == "cpu", bf16=autocasts(kind, settings), **(tuning if kind == "tuned" else {}),
        )  # fmt: skip
        trainer = SFTTrainer(
            model=load_base(settings, settings.dtype if kind == "tuned" else "float32"),
            args=config,
            train_dataset=Dataset.from_dict({"input_ids": ids, "labels": labels}),
            processing_class=AutoTokenizer.from_pretrained(base_folder(settings.base)),
            peft_config=LoraConfig(**LORA),
            callbacks=[Rounds()],
        )
        collate = trainer.data_collator

        def counted(rows: list[dict[str, Any]]) -> Any:
            waiting.append(sum(len(row["input_ids"]) for row in rows))
            return collate(rows)

        trainer.data_collator = counted
        trainer.train()


def autocasts(kind: Kind, settings: Settings) -> bool:
    """Whether products are taken in bfloat16 whatever their operands are in."""
    return kind == "autocast" or (kind == "tuned" and settings.dtype == "bfloat16")


def peft_rounds(clock: Clock, settings: Settings, load: Load, kind: Kind) -> None:
    """Rounds of a plain PEFT loop. Tuned as TRL is, it also takes the learned tokens alone through the head."""
    import torch
    from peft import LoraConfig, get_peft_model

    tuned = kind == "tuned"
    model = get_peft_model(load_base(settings, settings.dtype if tuned else "float32"), LoraConfig(**LORA))
    if not tuned:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    batches = cycle(padded_batches(load, settings.device, by_length=tuned))
    while clock.order():
        tokens = 0
        clock.start()
        for num_tokens, batch in islice(batches, load.steps):
            with torch.autocast(settings.device, dtype=torch.bfloat16, enabled=autocasts(kind, settings)):
                loss = learned_loss(model.get_base_model(), batch) if tuned else model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            tokens += num_tokens
        clock.stop(tokens)


def padded_batches(load: Load, device: str, *, by_length: bool) -> list[tuple[int, dict[str, Any]]]:
    """An epoch as transformers takes it, on the device, in random order; each batch with its tokens."""
    import torch

    rows = sorted(load.rows(), key=lambda row: len(row[0])) if by_length else load.rows()
    batches = []
    for start in range(0, len(rows), load.batch_size):
        part = rows[start : start + load.batch_size]
        shape = (len(part), max(len(ids) for ids, _ in part))
        filled = {name: np.full(shape, fill) for name, fill in PADDING.items()}
        for place, (ids, labels) in enumerate(part):
            for name, values in zip(PADDING, (ids, 1, labels), strict=True):
                filled[name][place, : len(ids)] = values
        batch = {name: torch.from_numpy(values).to(device) for name, values in filled.items()}
        batches.append((sum(len(ids) for ids, _ in part), batch))
    random.Random(0).shuffle(batches)
    return batches


def learned_loss(model: Any, batch: dict[str, Any]) -> Any:
    """Cross-entropy of the learned tokens; no others reach the head."""
    import torch

    hidden = model.get_decoder()(batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
    learned = batch["labels"][:, 1:] != -100
    logits = model.get_output_embeddings()(hidden.last_hidden_state[:, :-1][learned])
    return torch.nn.functional.cross_entropy(logits.float(), batch["labels"][:, 1:][learned])


def layer_rounds(clock: Clock, settings: Settings, load: Load) -> None:
    """Rounds of one adapted layer, forward and backward; an order is a way to hold the ranks, or `base` for none."""
    import torch

    from orchestrator.multi_lora.layers import PassLayout, StackedLinear

    config, dtype, device = base_config(settings.base), getattr(torch, settings.dtype), settings.device
    base = torch.nn.Linear(config.hidden_size, config.intermediate_size, bias=False, device=device, dtype=dtype)
    layout = PassLayout(anchor=torch.zeros((), device=device, requires_grad=True))
    layer = StackedLinear(base.requires_grad_(requires_grad=False), 0, layout)
    shape = (len(LAYER_RANKS) * load.batch_size, load.mean_length)
    x = torch.randn(*shape, config.hidden_size, device=device, dtype=dtype, requires_grad=True)
    gradient = torch.randn(*shape, config.intermediate_size, device=device, dtype=dtype)
    ways = {way: layer_segments(way, base, load.batch_size) for way in ("base", "padded", "widths", "loop")}

    def step() -> None:
        layer(x).backward(gradient)
        x.grad = None

    while way := clock.order():
        layout.segments = ways[way]
        step()
        started = clock.now()
        step()
        count = 3 if settings.quick else max(3, round(LAYER_ROUND_S / (clock.now() - started)))
        clock.start()
        for _ in range(count):
            step()
        clock.stop(count)


def layer_segments(way: str, base: Any, rows: int) -> list[Any]:
    """`LAYER_RANKS` with so many rows each: `padded` to the largest, in stacks by `widths`, or in a `loop`."""
    import torch

    from orchestrator.multi_lora.layers import Segment
    from orchestrator.multi_lora.slots import SlotStack, Target, initial_state, stack_width
    from orchestrator.multi_lora.spec import SlotSpec

    if way == "base":
        return []
    target = Target("layer", base.in_features, base.out_features)
    by_width = {"padded": lambda _: max(LAYER_RANKS), "widths": stack_width}
    if way == "loop":
        groups = [(rank, [rank]) for rank in LAYER_RANKS]
    else:
        groups = [(width, list(ranks)) for width, ranks in groupby(LAYER_RANKS, key=by_width[way])]
    segments, first = [], 0
    for width, ranks in groups:
        stack = SlotStack(width, [target], device=base.weight.device, dtype=base.weight.dtype)
        for number, rank in enumerate(ranks):
            spec = SlotSpec(rank=rank, alpha=32, learning_rate=1e-4, max_steps=1)
            stack.add(str(number), spec, initial_state(spec, [target], stack.params.dtype))
        torch.nn.init.normal_(stack.work, std=0.02)  # processors may be faster with zeros
        last = first + len(ranks) * rows
        segments.append(Segment(first, last, len(ranks), stack.weights, stack.gradients))
        first = last
    return segments


def take_turns(turns: dict[str, Callable[[], float]], repeats: int) -> Rates:
    """The rates of `repeats` rounds of each, one of each after the other, after one that is not counted."""
    for turn in turns.values():
        turn()
    rates: Rates = {name: [] for name in turns}
    for _ in range(repeats):
        for name, turn in turns.items():
            rates[name].append(turn())
    return rates


def ratio(rates: Rates, ours: str, baseline: str) -> list[float]:
    """Round by round."""
    return [one / other for one, other in zip(rates[ours], rates[baseline], strict=True)]


def shown(values: Sequence[float], form: str = ",.0f") -> str:
    """The median with the lowest and highest."""
    if not all(values):
        return "out of memory"
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as what is in them."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    print(f"\n{title}\n")
    for row in (header, ["-" * width for width in widths], *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def measure_slot(settings: Settings, repeats: int) -> dict[str, Rates]:
    """One slot of rank 16."""
    kinds: list[Kind] = ["tuned", "multi_lora"]
    if settings.dtype == "bfloat16":
        kinds.insert(0, "autocast")
    if settings.device == "cpu":
        kinds.insert(0, "float32")
    results, table = {}, []
    for batch_size, length in SLOT_BATCHES[: 1 if settings.quick else None]:
        with contenders(settings, Load.of(batch_size, length, settings), *kinds) as processes:
            turns = {str(kind): process.turn(1) for kind, process in zip(kinds, processes, strict=True)}
            rates = take_turns(turns, repeats)
        step = f"{batch_size} rows of {length}"
        results[step] = rates
        for kind in kinds[:-1]:
            target = str(TARGETS.get(kind, "")) if settings.peer == "TRL" else ""
            figures = [shown(rates[kind]), shown(ratio(rates, "multi_lora", kind), ".2f"), target]
            table.append([step, f"{settings.peer} {TITLES[kind]}", *figures])
        table.append([step, "multi-LoRA, K = 1", shown(rates["multi_lora"]), "1", ""])
    header = ["a step", "", "tokens a second", "multi-LoRA / this", "target"]
    print_table("One slot of rank 16", header, table)
    return results


def measure_curve(settings: Settings, repeats: int) -> dict[str, Rates]:
    """K slots by tokens of a slot's step."""
    counts = SLOT_COUNTS[:2] if settings.quick else SLOT_COUNTS
    results: dict[str, Rates] = {}
    for batch_size, length in CURVE_BATCHES[: 1 if settings.quick else None]:
        load = Load.of(batch_size, length, settings)
        with contenders(settings, load, "tuned", "multi_lora") as (tuned, multi_lora):
            turns = {"tuned": tuned.turn(), **{str(count): multi_lora.turn(count) for count in counts}}
            results[str(batch_size * length)] = take_turns(turns, repeats)
    print_curve(results, settings.peer)
    return results


def print_curve(results: dict[str, Rates], peer: str) -> None:
    """The curve, where it is flat, and the most that was reached."""
    medians = {
        (size, name): statistics.median(values)
        for size, rates in results.items()
        for name, values in rates.items()
        if name != "tuned" and all(values)
    }
    most = max(medians, key=lambda place: medians[place])
    table = []
    for size, rates in results.items():
        table.append([size, f"{peer} tuned", shown(rates["tuned"]), shown(ratio(rates, "tuned", "1"), ".2f"), "1", ""])
        for name in rates:
            if name != "tuned":
                ratios = (shown(ratio(rates, name, baseline), ".2f") for baseline in ("1", "tuned"))
                share = f"{medians[size, name] / medians[most]:.0%}" if (size, name) in medians else ""
                table.append([size, f"multi-LoRA, K = {name}", shown(rates[name]), *ratios, share])
    header = ["tokens a slot", "", "all tokens a second", "/ K = 1", f"/ {peer} tuned", "of the most"]
    print_table("K slots of ranks 16 and 8", header, table)
    print()
    for size in results:
        print(f"{size} tokens a slot: {flatness({name: rate for (of, name), rate in medians.items() if of == size})}")
    print(f"The most over all: {medians[most]:,.0f} tokens a second, with K = {most[1]} at {most[0]} tokens a slot.")


def flatness(medians: dict[str, float]) -> str:
    """Where one curve stops rising."""
    peak = max(medians.values())
    start = next(name for name, rate in medians.items() if rate >= FLAT * peak)
    gain = f"the peak is {peak / next(iter(medians.values())):.2f} times the first"
    if start == next(iter(medians)):
        return f"flat from the first on ({gain}): more slots do not pay."
    if start == list(medians)[-1]:
        return f"still rising at K = {start} ({gain})."
    return f"flat from K = {start} on ({gain})."


def measure_ranks(settings: Settings, repeats: int) -> dict[str, Rates]:
    """Ways to hold mixed ranks, in one layer."""
    load = Load.of(2, 128, settings)
    ways = {
        "base": "base product alone", "padded": f"all padded to {max(LAYER_RANKS)}",
        "widths": "stacks by width (the engine)", "loop": "one slot after another",
    }  # fmt: skip
    with contenders(settings, load, "layer") as (layer,):
        rates = take_turns({way: layer.turn(way) for way in ways}, repeats)
    table = [
        [title, shown([1e6 / rate for rate in rates[way]]), shown(ratio(rates, "base", way), ".2f")]
        for way, title in ways.items()
    ]
    title = f"One adapted layer, 8 slots of ranks {sorted(set(LAYER_RANKS))} with 256 tokens each, forward and backward"
    print_table(title, ["", "microseconds", "/ base"], table)
    return {"256": rates}


def measure_processes(settings: Settings, repeats: int, counts: Sequence[int]) -> dict[str, Rates]:
    """Processes that share the device, against as many slots."""
    results, table = {}, []
    for batch_size, length in CURVE_BATCHES[1 : 2 if settings.quick else None]:
        for count in counts:
            load = Load.of(batch_size, length, settings)
            share = replace(settings, threads=max(1, settings.threads // count))
            kinds: list[Kind] = ["tuned"] * count
            with contenders(settings, load, "multi_lora") as (multi_lora,), contenders(share, load, *kinds) as sharing:

                def together(sharing: Sequence[Contender] = sharing) -> float:
                    for contender in sharing:
                        contender.order(what=True)
                    return sum(contender.rate() for contender in sharing)

                rates = take_turns({"processes": together, "multi_lora": multi_lora.turn(count)}, repeats)
            results[f"{batch_size * length} x {count}"] = rates
            figures = [shown(values) for values in rates.values()]
            gain = shown(ratio(rates, "multi_lora", "processes"), ".2f")
            table.append([str(batch_size * length), str(count), *figures, gain])
    header = [
        "tokens a slot",
        "K",
        f"K processes of {settings.peer} tuned",
        "multi-LoRA, K slots",
        "multi-LoRA / processes",
    ]
    print_table("K processes that share the device, all tokens a second", header, table)
    return results


def usable_dtype(device: str, *, engine_only: bool) -> str:
    """What the project itself would load the base in; with the engine alone, float32 on a processor."""
    if not engine_only:
        from orchestrator.models.base import compute_dtype

        return compute_dtype("auto")
    import torch

    return "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def describe(settings: Settings) -> dict[str, Any]:
    """The machine and the settings."""
    import torch

    if settings.device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return {"machine": name, "cpus": os.cpu_count(), "torch": torch.__version__, **asdict(settings)}


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each process (default: all processors)")
    shapes = " or ".join(SHAPES)
    parser.add_argument("--base", default="tiny", help=f"a folder, tiny (default), or random weights: {shapes}")
    dtypes = ("bfloat16", "float32")
    parser.add_argument("--dtype", choices=dtypes, help="of the base unless as shipped (default: what the device has)")
    only = "a plain PEFT loop in place of TRL; needs neither trl, ray nor pydantic"
    parser.add_argument("--engine-only", action="store_true", help=only)
    questions = ("slot", "curve", "ranks")
    parser.add_argument("--questions", nargs="*", choices=questions, default=list(questions), help="default: all three")
    parser.add_argument("--k-processes", nargs="*", type=int, default=[], metavar="K", help="the fourth, for each K")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each contender (default: 5)")
    parser.add_argument("--quick", action="store_true", help="a smoke run: two short rounds of little")
    parser.add_argument("--out", type=Path, help="write every round's rate as JSON here too")
    return parser.parse_args()


def main() -> None:
    """Answer the questions in turn."""
    given = parse()
    dtype = given.dtype or usable_dtype(given.device, engine_only=given.engine_only)
    settings = Settings(given.device, given.threads, given.base, dtype, given.engine_only, given.quick)
    repeats = 2 if given.quick else given.repeats
    about = {**describe(settings), "repeats": repeats}
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    answers = {"slot": measure_slot, "curve": measure_curve, "ranks": measure_ranks}
    rates: dict[str, dict[str, Rates]] = {}
    for question in given.questions:
        rates[question] = answers[question](settings, repeats)
        write(given.out, about, rates)
    if given.k_processes:
        rates["processes"] = measure_processes(settings, repeats, given.k_processes)
        write(given.out, about, rates)


def write(path: Path | None, about: dict[str, Any], rates: dict[str, dict[str, Rates]]) -> None:
    """What is answered so far, if a file was asked for: tokens (of ranks: products) a second of every round."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**about, "rates": rates}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
