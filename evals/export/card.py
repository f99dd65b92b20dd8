"""The README of an export: what it is, how it scored, how to serve it; its head is read by the hub."""

from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCardData
from pydantic import ValidationError

from evals.records import AdapterSummary, Report
from evals.report.text import markdown_cell, metric_text
from evals.stats.data_card import kinds_table, leak_warning
from evals.stats.metrics import METRICS
from orchestrator.chat.serve_command import ServeCommand
from orchestrator.config.schema import RunConfig
from orchestrator.core.records import AdapterRecord
from orchestrator.core.text import counted
from orchestrator.data.card import DataCard
from orchestrator.models.base import loadable_name

README = "README.md"


def write_card(
    config: RunConfig, record: AdapterRecord, report: Report | None, serve: ServeCommand | None, *, is_merged: bool
) -> str:
    """The text of the card; without a report it says that nothing was scored."""
    own = next((entry for entry in report.adapters if entry.id == record.id), None) if report else None
    base = next((entry for entry in report.adapters if entry.is_base), None) if report else None
    name, rank = loadable_name(config.model), f"rank {record.r}, alpha {record.alpha}{', DoRA' * record.use_dora}"
    base_name = shown_name(config.model.base)
    head = ModelCardData(
        base_model=None if Path(name).is_absolute() else name,
        library_name="transformers" if is_merged else "peft",
        pipeline_tag="text-generation",
        tags=["lora", "tool-calling"],
        model_name=f"{config.name}-{record.id}",
        eval_results=_results(config, own) or None,
    )
    what = (
        f"{base_name} with a LoRA adapter ({rank}) merged into {merged_into(config) or 'it'},"
        if is_merged
        else (f"A LoRA adapter ({rank}) for {base_name}{_trained_on(record)},")
    )
    parts = [f"# {config.name}: {record.id}", f"{what} trained to call tools.", *_scores(report, own, base)]
    text = "\n\n".join([*parts, *_data(report), *_training(config, record, own), *_serving(serve, record)])
    return f"---\n{head.to_yaml()}\n---\n\n{text}\n"


def merged_into(config: RunConfig) -> str | None:
    """What an adapter that was trained on a quantised base is merged into (`eval.base_precision`); None for others."""
    trained, served = config.model.quantization, config.served_model.quantization
    if trained == "none":
        return None
    return f"the base in full, not in {trained}" if served == "none" else f"the base as dequantised from {served}"


def _trained_on(record: AdapterRecord) -> str:
    return "" if record.quantization is None else f" in {record.quantization}"


def shown_name(base: str) -> str:
    """A base without the folder on this machine that it may be in."""
    return Path(base).name if Path(base).is_absolute() else base


def _results(config: RunConfig, own: AdapterSummary | None) -> list[EvalResult]:
    metrics = own.metrics.items() if own else ()
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=config.name,
            dataset_name="held-out conversations",
            metric_type=name,
            metric_name=METRICS[name].label,
            metric_value=metric.value,
        )
        for name, metric in metrics
        if metric.value is not None
    ]


def _scores(report: Report | None, own: AdapterSummary | None, base: AdapterSummary | None) -> list[str]:
    if report is None or own is None:
        return ["It has not been scored."]
    rows = ["| Metric | Adapter | Base |", "| --- | --- | --- |"]
    for name, metric in own.metrics.items():
        beside = metric_text(name, base.metrics[name]) if base and name in base.metrics else ""
        rows.append(f"| {markdown_cell(METRICS[name].label)} | {metric_text(name, metric)} | {beside} |")
    return ["## Scores", markdown_cell(report.verdict.reason), "\n".join(rows)]


def _data(report: Report | None) -> list[str]:
    """Counts alone: names and examples of the data are not for everyone who may read a card."""
    try:
        card = DataCard.model_validate(report.data) if report else None
    except ValidationError:  # of a run that had no card, or one of an earlier version
        card = None
    if card is None:
        return []
    table, leak = kinds_table(card), leak_warning(card)
    cells = [list(map(str, row)) for row in (table.head, *table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in (cells[0], ["---"] * len(cells[0]), *cells[1:])]
    tools = f"The conversations offer {counted(card.num_tools, 'tool')}; test is what the scores are over."
    return ["## Data", "\n".join(lines), tools, *([leak] if leak else [])]


def _training(config: RunConfig, record: AdapterRecord, own: AdapterSummary | None) -> list[str]:
    if record.source is not None:
        return ["## Training", "The adapter was made elsewhere, and how is not known."]
    settings = config.train.model_dump(mode="json", exclude={"init_from"}) | {"learning_rate": record.learning_rate}
    lora = {"r": record.r, "alpha": record.alpha, "dropout": config.lora.dropout, "use_rslora": config.lora.use_rslora}
    for name in config.search.space.further:  # of the trial, where that is known
        section = lora if name in lora else settings
        section.pop(name)
        section |= {name: own.hyperparameters[name]} if own and name in own.hyperparameters else {}
    lora |= {"use_dora": True} if record.use_dora else {}
    base: dict[str, str] = {"base": shown_name(config.model.base)}
    if record.quantization is not None:
        base["quantization"] = record.quantization
    shown = yaml.safe_dump({**base, "lora": lora, "train": settings}, sort_keys=False)
    note = f"Taken after step {record.step}, at an eval loss of {record.eval_loss}."
    if record.pairs is not None:
        further = f"{record.init_from}, trained further on {record.pairs} preference pairs"
        note = f"{further}. Taken after step {record.step}."
    return ["## Training", f"```yaml\n{shown}```", note]


def _serving(serve: ServeCommand | None, record: AdapterRecord) -> list[str]:
    if serve is None and record.use_dora:
        what = (
            "vLLM serves no DoRA. `orchestrator export --to merged` on its run writes a model that is served as scored"
        )
        return ["## Serving", f"{what}; PEFT's `merge_and_unload` makes the same of this folder and the base."]
    if serve is None:
        what = "The run does not say how the adapter's replies were made, so no command that serves it as it was scored"
        return ["## Serving", f"{what} is given here: run `orchestrator evaluate` on the run, and export it again."]
    note = [serve.note] if serve.note else []
    return ["## Serving", "As it was scored, in this folder:", f"```sh\n{serve.command}\n```", *note]
