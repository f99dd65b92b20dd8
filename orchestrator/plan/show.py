"""A forecast as a person reads it."""

from collections.abc import Iterator

from orchestrator.core.progress import say, show_table
from orchestrator.core.text import counted, duration_text
from orchestrator.plan.forecast import Amounts, DeviceForecast, Forecast
from orchestrator.plan.memory import gib


def show_forecast(forecast: Forecast) -> None:
    """Print all of it."""
    say(f"Plan of {forecast.name} on {forecast.base}")
    for sentence in amount_sentences(forecast.amounts):
        say(sentence)
    for device in forecast.devices:
        parts = [(part, gib(size)) for part, size in device.parts.items()]
        title = f"Memory of one training process on {device.device} ({_settings(device)})"
        show_table(title, ("part", "at the peak"), [*parts, ("all", gib(device.expected))])
    rows = [
        (
            device.device,
            f"{gib(device.expected)} ({gib(device.low)} to {gib(device.high)}) of {gib(device.room)}",
            device.verdict,
            device.change or "",
            gib(device.serving),
            *(_time(seconds) for seconds in (device.trial_s, device.search_s, device.evaluation_s)),
            "" if device.cost is None else f"{device.cost:,.2f}",
        )
        for device in forecast.devices
    ]
    head = (
        "device",
        "memory of a process",
        "verdict",
        "what makes it fit",
        "vLLM engine",
        "a trial",
        "search",
        "evaluation",
        "cost",
    )
    show_table("Devices", head, rows)
    for device in forecast.devices:
        say(f"{device.device}: {time_source(device)}")


def time_source(device: DeviceForecast) -> str:
    """Where a device's times come from."""
    its, replies = device.measured, device.replies
    if its is None and replies is None:
        return "times are from the rate that the device states, or from a CPU's products, and may be off by half."
    parts = []
    if its is not None:
        steps = f"{counted(its.steps, 'real step')} in {counted(its.processes, 'process', 'processes')} side by side"
        rate = f"{its.tokens_per_s:,.0f} tokens/s each, at most {gib(its.peak_bytes)} in a process"
        parts.append(f"times of training are measured: {steps}, {rate}.")
    if replies is not None:
        asked = f"{counted(replies.cases, 'case')} of {replies.all_cases:,} were answered by the base"
        parts.append(
            f"The evaluation's time is measured: {asked}, {replies.case_s:.2f} s each; adapters are expected to reply "
            f"as long as the data does ({replies.expected_tokens:.0f} tokens, the base {replies.reply_tokens:.0f})."
        )
    else:
        parts.append("The time of the evaluation is derived from them, and may be off by half.")
    return " ".join(parts)


def amount_sentences(amounts: Amounts) -> Iterator[str]:
    """Steps, tokens and parameters."""
    share = amounts.supervised_tokens / max(1, amounts.tokens)
    yield (
        f"Data: {counted(amounts.samples, 'row')} of {amounts.tokens:,} tokens, of which {amounts.supervised_tokens:,} "
        f"({share:.0%}) carry the loss; the longest has {amounts.longest:,}."
    )
    yield (
        f"Training: {counted(amounts.steps_per_epoch, 'step')} an epoch, {amounts.steps:,} in all on "
        f"{amounts.trained_tokens:,} tokens, with {counted(amounts.evaluations, 'evaluation')}."
    )
    trained = ", ".join(
        f"{count:,} at rank {rank} ({count / (count + amounts.parameters):.2%})"
        for rank, count in amounts.trainable.items()
    )
    yield f"Parameters: {amounts.parameters:,} frozen; trained: {trained}."
    yield (
        f"Search: {counted(amounts.trials, 'trial')} and about {amounts.expected_steps:,} of {amounts.all_steps:,} "
        "steps, if as many trials stop at each rung as the scheduler's factor says."
    )
    if amounts.cohorts > 1:
        yield (
            f"Cohorts: {amounts.cohorts:,} that share no engine, in {counted(amounts.turns, 'turn')}; each turn starts "
            "an engine on each device, unless it is the same cohort's, and passes hold only the trials of one turn."
        )


def plan_lines(forecast: DeviceForecast, amounts: Amounts) -> Iterator[str]:
    """The plan in two or three lines."""
    yield (
        f"Plan: {counted(amounts.steps, 'step')} a trial ({amounts.steps_per_epoch:,} an epoch), "
        f"{counted(amounts.trials, 'trial')}; {_settings(forecast)}."
    )
    need = f"{gib(forecast.expected)} ({gib(forecast.low)} to {gib(forecast.high)}) of {gib(forecast.room)}"
    side_by_side = f"{counted(forecast.processes, 'training process', 'training processes')} on {forecast.device}"
    yield f"Memory: {need} for each of {side_by_side}: {forecast.verdict}."
    if forecast.measured is not None and forecast.search_s is not None:
        yield f"Time: about {_time(forecast.search_s)} of training in all, as measured by an earlier plan."
    if forecast.verdict != "fits":
        yield f"What makes it fit: {forecast.change or 'no single setting; use a device with more memory'}."


def _settings(device: DeviceForecast) -> str:
    how = "layers recomputed" if device.gradient_checkpointing else "nothing recomputed"
    slots = f"{counted(device.slots, 'adapter')} at once, " if device.runner == "multi_lora" else ""
    dtype = device.dtype if device.quantization == "none" else f"{device.dtype}, base in {device.quantization}"
    split = f"weights split among {device.shards} workers, " if device.shards > 1 else ""
    return f"{dtype}, {split}{slots}{counted(device.micro_batch_size, 'row')} a pass at most, {how}"


def _time(seconds: float | None) -> str:
    return "" if seconds is None else duration_text(seconds)
