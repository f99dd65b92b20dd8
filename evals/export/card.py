"""The README of an export: what it is, how it scored, how to serve it; its head is read by the hub."""

from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from evals.records import AdapterSummary, Report
from evals.report.text import markdown_cell, metric_text
from evals.stats.metrics import METRICS
from orchestrator.chat.serve_command import ServeCommand
from orchestrator.config.schema import RunConfig
from orchestrator.core.records import AdapterRecord
from orchestrator.models.base import loadable_name

README = "README.md"


def write_card(
    config: RunConfig, record: AdapterRecord, report: Report | None, serve: ServeCommand | None, *, is_merged: bool
) -> str:
    """The text of the card; without a report it says that nothing was scored."""
    own = next((entry for entry in report.adapters if entry.id == record.id), None) if report else None
    base = next((entry for entry in report.adapters if entry.is_base), None) if report else None
    name, rank = loadable_name(config.model), f"rank {record.r}, alpha {record.alpha}"
    head = ModelCardData(
        base_model=None if Path(name).is_absolute() else name,
        library_name="transformers" if is_merged else "peft",
        pipeline_tag="text-generation",
        tags=["lora", "tool-calling"],
        model_name=f"{config.name}-{record.id}",
        eval_results=_results(config, own) or None,
    )
    what = (
        f"{config.model.base} with a LoRA adapter ({rank}) merged into it,"
        if is_merged
        else (f"A LoRA adapter ({rank}) for {config.model.base},")
    )
    parts = [f"# {config.name}: {record.id}", f"{what} trained to call tools.", *_scores(report, own, base)]
    text = "\n\n".join([*parts, *_serving(serve)])
    return f"---\n{head.to_yaml()}\n---\n\n{text}\n"


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


def _serving(serve: ServeCommand | None) -> list[str]:
    if serve is None:
        return []
    note = [serve.note] if serve.note else []
    return ["## Serving", "As it was scored, in this folder:", f"```sh\n{serve.command}\n```", *note]
