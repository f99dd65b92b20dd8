"""What training would meet: too little data, too few steps, samples that are too long, rates and resources."""

import math
from collections.abc import Iterator, Mapping

from evals.check.card import Finding, fatal, warning
from evals.stats.data_card import MANY_REPEATS, repeated_share
from orchestrator.config.schema import RangeConfig, RunConfig
from orchestrator.core.errors import ResourceError
from orchestrator.core.text import counted
from orchestrator.data.card import DataCard, TokenCard
from orchestrator.run.cluster import cluster_address, require_local_room
from orchestrator.run.paths import SplitName

FEWEST_SAMPLES, FEW_SAMPLES = 10, 50
"""Fewer samples than the first, over all parts, are refused; fewer in train than the second teach little."""
FEW_STEPS = 20
"""Fewer optimizer steps than this teach next to nothing."""
LONG_WARMUP = 0.5
"""Share of the steps beyond which warm-up leaves too few at the full learning rate."""
MANY_EPOCHS = 20
"""More passes than this over the same samples learn them by heart."""
KEPT = 0.95
"""Share of the samples that should fit `data.max_length`."""
SANE_RATES = (1e-7, 0.1)
"""Learning rates outside of this teach nothing or diverge, whatever the base."""


def repeat_findings(data: DataCard) -> Iterator[Finding]:
    """Whether so many rows repeat others that there is less data than it seems, or that they are no repeats at all."""
    share = repeated_share(data)
    if share <= MANY_REPEATS:
        return
    reason, most = max(data.repeats.items(), key=lambda item: item[1].count)
    what = (
        f"{share:.0%} of the {data.rows:,} rows were set aside because they repeat others ({reason} x {most.count:,}, "
        f"such as {most.row}, beside {most.kept})"
    )
    where = "data.near_duplicate_threshold" if reason == "near_duplicate" else "data.sources"
    fix = "Compare the two; if they are not alike enough, raise it, or set it to null to keep all such rows"
    yield warning(what, where=where, fix=fix if reason == "near_duplicate" else "Look for a source given twice")


def training_findings(config: RunConfig, data: DataCard, tokens: Mapping[SplitName, TokenCard]) -> Iterator[Finding]:
    """Everything that concerns training."""
    yield from _samples(config, data, tokens["train"])
    yield from _lengths(tokens)
    yield from _steps(config, tokens["train"].rows)
    yield from _rates(config)


def _samples(config: RunConfig, data: DataCard, train: TokenCard) -> Iterator[Finding]:
    parts = ", ".join(f"{count} for {part}" for part, count in data.parts.items())
    if data.samples < FEWEST_SAMPLES:
        what = f"{counted(data.samples, 'sample')} ({parts}) are too few to learn from and to score on"
        yield fatal(what, where="data.sources", allowed=f"at least {FEWEST_SAMPLES} samples", fix="Add conversations")
    elif train.samples < FEW_SAMPLES:
        what = f"{counted(train.samples, 'sample')} to train on will teach little; {FEW_SAMPLES} are a start"
        yield warning(what, where="data.sources", fix="Add conversations")
    if train.samples < config.train.batch_size:
        what = f"a batch of {config.train.batch_size} is more than the {counted(train.samples, 'sample')} of train"
        yield warning(what, where="train.batch_size", fix="Lower it, so that a pass over the data has several steps")
    if not data.part_kinds["train"].get("tool_call"):
        yield warning("no sample of train ends with a tool call", where="data.sources", fix="Add some that do")


def _lengths(tokens: Mapping[SplitName, TokenCard]) -> Iterator[Finding]:
    for part, card in tokens.items():
        long = [row for row in card.left_out if row.reason == "too_long"]
        total = card.samples + len(long)
        if len(long) <= (1 - KEPT) * total:
            continue
        lengths = sorted(row.tokens or 0 for row in long)
        needed = lengths[max(0, math.ceil(KEPT * total) - card.samples - 1)]
        what = (
            f"{len(long)} of {total} samples of {part} ({len(long) / total:.0%}) are left out for their length, "
            f"such as {long[0].source} with {long[0].tokens:,} tokens"
        )
        fix = f"Set it to {needed} to keep {KEPT:.0%} of them, set data.overlong to shorten, or accept the loss"
        yield warning(what, where="data.max_length", fix=fix)


def _steps(config: RunConfig, num_samples: int) -> Iterator[Finding]:
    train = config.train
    steps = train.steps_for(num_samples)
    key = "train.epochs" if train.max_steps is None else "train.max_steps"
    if steps < FEW_STEPS:
        what = f"training ends after {counted(steps, 'optimizer step')}, in which next to nothing is learned"
        yield warning(what, where=key, allowed=f"at least {FEW_STEPS} for a real run", fix="Raise it")
    if train.warmup_steps(steps) > LONG_WARMUP * steps:
        what = f"the learning rate rises for {train.warmup_steps(steps)} of {steps} steps"
        yield warning(what, where="train.warmup_ratio", fix="Lower it to 0.1 or less")
    passes = steps * train.batch_size / num_samples
    if passes > MANY_EPOCHS:
        what = f"{steps} steps are {passes:.0f} passes over {counted(num_samples, 'sample')}, which learn them by heart"
        yield warning(what, where=key, fix="Lower it, or add conversations")


def _rates(config: RunConfig) -> Iterator[Finding]:
    space = config.search.space.learning_rate
    rates: dict[str, tuple[float, ...]] = {"train.learning_rate": (config.train.learning_rate,)}
    if space is not None:
        ends = (space.min, space.max) if isinstance(space, RangeConfig) else space
        rates["search.space.learning_rate"] = tuple(ends)
    low, high = SANE_RATES
    for key, values in rates.items():
        odd = [value for value in values if not low <= value <= high]
        if odd:
            what = f"a learning rate of {odd[0]:g} teaches nothing or diverges"
            yield warning(what, where=key, allowed=f"{low:g} to {high:g}; LoRA usually takes 1e-5 to 1e-3")


def resource_findings(config: RunConfig) -> Iterator[Finding]:
    """Whether the machine can hold a training job, if the cluster is this machine."""
    if cluster_address(config.resources):
        return
    try:
        require_local_room(config.resources)
    except ResourceError as error:
        yield Finding(stops=True, text=str(error))
