"""The sections on the run itself: search, proof that adapters were applied, cost, data, and how to repeat it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from evals.records import AdapterSummary
from evals.report import charts, search_charts
from evals.report.blocks import Block, Datum, Heading, Note, Pictures, Table, Tone, drawn, figure, number, numbers
from evals.report.precision import precision_blocks
from evals.report.text import count_text, ending_text, loss_text, shorten
from evals.report.view import NO_EFFECT, NO_PROOF, View, device_s, proof_text
from evals.stats.data_card import DataTable, data_sentences, data_tables
from evals.stats.loss_enough import importances
from evals.stats.metrics import METRICS
from orchestrator.core.records import MetricName, TrialRecord
from orchestrator.core.text import bytes_text, counted, duration_text, unit_text

OPEN_ROWS = 12
"""A table of the data with more rows is folded in the page."""
COSTS: tuple[MetricName, ...] = (
    "latency_vs_base",
    "latency_p50_s",
    "latency_p95_s",
    "latency_per_token_s",
    "peak_memory_gib",
    "output_tokens_mean",
)


def search_blocks(view: View) -> Iterator[Block]:
    """The trials: how many, their curves and settings, and what each cost."""
    trials = sorted(view.inputs.trials, key=lambda trial: (trial.best_eval_loss is None, trial.best_eval_loss or 0.0))
    if not trials:
        yield Note("This run has no trials.")
        return
    adapters, chosen_id, counts = view.report.adapters, view.chosen_id, view.report.search
    kept = frozenset(adapter.id for adapter in adapters if not adapter.is_base)
    spent = "" if view.training_s is None else f"; {duration_text(view.training_s)} of device time in all"
    stopped, failed = counts.num_stopped_early, counts.num_failed
    trials_text = counted(counts.num_trials, "trial")
    yield Note(f"{trials_text}: {stopped} stopped early, {failed} failed or diverged{spent}.", "")
    if view.inputs.budget is not None:
        yield Note(view.inputs.budget.text, "")
    for finding in view.inputs.ledger.findings:
        yield Note(f"{finding.trial or 'This run'}: {finding.evidence} {finding.advice}", "")
    pictures = [
        charts.curve_picture(trials, kept, chosen_id),
        charts.loss_settings_picture(charts.tried_trials(trials, kept, chosen_id)),
        charts.metric_settings_picture(
            "tool_call_validity", charts.tried_adapters(adapters, "tool_call_validity", chosen_id)
        ),
        search_charts.best_so_far_picture(sorted(trials, key=lambda trial: (len(trial.trial_id), trial.trial_id))),
    ]
    yield Pictures(drawn(pictures), legend=view.chosen_word if view.chosen else "winner")
    keys = list(dict.fromkeys(key for trial in trials for key in trial.hyperparameters))
    costs = ("Best eval loss", "At step", "Steps", "Tokens", "Device time", "Memory")
    rows = [_trial(trial, keys, view, kept) for trial in trials]
    yield Table(("Trial", "Ended", *keys, *costs, "Adapter", "Error"), rows, where="trials.jsonl")
    yield from _depends(trials)


def _depends(trials: Sequence[TrialRecord]) -> Iterator[Block]:
    """What eval loss depends on: how much each setting explains, and the two that explain most against each other."""
    found = importances(trials)
    if not found:
        return
    yield Heading("What eval loss depends on", "fANOVA over the settings that varied")
    rows = [
        numbers(one.setting.replace("_", " "), [unit_text(one.share), f"{one.low:.2f} to {one.high:.2f}"])
        for one in found
    ]
    yield Table(("Setting", "Share of the variance", "Over resamples of the trials"), rows)
    yield Pictures(drawn([search_charts.contour_picture(trials, found[0].setting, found[1].setting)]))


def plan_blocks(view: View) -> Iterator[Block]:
    """What was planned before the training, beside what it took."""
    plan, trials = view.inputs.ledger.plan, view.inputs.trials
    if plan is None or not trials:
        return
    steps = [trial.steps for trial in trials if trial.steps is not None]
    memory = [trial.memory_bytes for trial in trials if trial.memory_bytes]
    serving = [engine.memory_bytes for engine in view.engines.values() if engine.memory_bytes]
    how = "from a few real steps" if plan.is_measured else "from a stated rate, which may be off by half"
    yield Heading("Plan and run")
    yield Note(f"Planned for {plan.device} before training began; its time {how}.")
    rows = [
        _held("Steps of a full training", plan.steps, max(steps, default=None), count_text),
        _held(f"Steps of {counted(plan.trials, 'trial')}", plan.expected_steps, sum(steps) or None, count_text),
        _held("Device time of all trials", plan.device_s, view.training_s, duration_text),
        _held("Memory of a training process", plan.memory_expected, max(memory, default=None), bytes_text),
        _held("Memory of an evaluation engine", plan.serving_bytes, max(serving, default=None), bytes_text),
    ]
    if plan.evaluation_s is not None:
        stage = view.inputs.ledger.stages.get("evaluate")
        took = None if stage is None else stage.duration_s
        rows.append(_held("Time of the evaluation", plan.evaluation_s, took, duration_text))
    yield Table(("", "Planned", "Took", "Off by"), rows, where="run.json")


def _held(what: str, planned: float, real: float | None, text: Callable[[Any], str]) -> list[Datum]:
    if not real:
        return numbers(what, [text(planned), "not recorded", ""])
    return numbers(what, [text(planned), text(real), f"{planned / real - 1:+.0%}"])


def _trial(trial: TrialRecord, keys: Sequence[str], view: View, kept: frozenset[str]) -> list[Datum]:
    emphasis, seconds = charts.emphasis_of(trial, kept, view.chosen_id), device_s(trial)
    badges: dict[str, tuple[str, Tone]] = {"accent": (view.chosen_word, "good"), "kept": ("scored", "")}
    figures = [
        *(number(trial.hyperparameters.get(key)) for key in keys),
        "" if trial.best_eval_loss is None else loss_text(trial.best_eval_loss),
        *map(count_text, (trial.best_step, trial.steps, trial.tokens)),
        "" if seconds is None else duration_text(seconds),
        "" if trial.memory_bytes is None else bytes_text(trial.memory_bytes),
    ]
    return [
        Datum(trial.trial_id, "name"),
        *numbers(ending_text(trial), figures),
        Datum(trial.adapter_id or "", "id", "", *badges.get(emphasis, ("", ""))),
        Datum(shorten(trial.error or "", 300).text, "text"),
    ]


def engine_blocks(view: View) -> Iterator[Block]:
    """Whether the adapters took effect, and what training and replies cost."""
    adapters = view.report.adapters
    if view.engines:
        note = "greedy replies and first-token log probabilities against the base, on the same prompts"
        yield Heading("Were the adapters applied?", note)
        proofs = [_proof(adapter, view) for adapter in adapters if adapter.id in view.engines]
        yield Table(("Adapter", "Applied as", "Weights begin with", "Proof"), proofs)
    else:
        engine = "No evals/<adapter id>/engine.json tells how the replies were made"
        yield Note(f"{engine}, so there is no proof that the adapters were applied.", page_only=True)
    yield from precision_blocks(view)
    spent = []
    if view.training_s is not None:
        trials = counted(view.report.search.num_trials, "trial")
        spent.append(f"{duration_text(view.training_s)} of training over {trials}.")
    if view.engine_s is not None:
        sets = counted(len(view.engines), "set of replies", "sets of replies")
        spent.append(f"{duration_text(view.engine_s)} of engine time over {sets}.")
    if spent:
        yield Heading("Latency and cost")
        yield Note(" ".join(spent), "")
    yield from plan_blocks(view)
    latency = (
        "Latency is of the same few cases, asked one at a time so that none waits for another, in turns with the base"
    )
    yield Note(
        f"{latency}. An adapter that says less is faster: the time for each token tells the two apart.", page_only=True
    )
    figures = [
        [Datum(adapter.id, "id"), *(figure(name, adapter.metrics.get(name)) for name in COSTS)] for adapter in adapters
    ]
    yield Table(("Adapter", *(METRICS[name].label for name in COSTS)), figures, page_only=True)
    head = ("Adapter", "Loading", "Replying", "Engines", "Device", "Retried", "Resumed")
    yield Table(head, [_cost(adapter, view) for adapter in adapters], page_only=True)
    if view.report.timings_s:
        yield Heading("Time of each stage")
        stages = view.report.timings_s.items()
        yield Table(("Stage", "Duration"), [(stage, Datum(duration_text(s), "num")) for stage, s in stages])


def _proof(adapter: AdapterSummary, view: View) -> list[Datum]:
    engine = view.engines[adapter.id]
    proof = proof_text(engine, is_base=adapter.is_base)
    said = Datum(proof) if adapter.is_base else Datum(proof, badge="applied", tone="good")
    if proof in (NO_PROOF, NO_EFFECT):
        said = Datum("", badge=proof, tone="bad")
    weights = Datum((engine.weights_sha256 or "")[:12], "id")
    applied = engine.applied_as.replace("_", " ") + (" (DoRA)" if adapter.use_dora else "")
    return [Datum(adapter.id, "id"), Datum(applied), weights, said]


def _cost(adapter: AdapterSummary, view: View) -> list[Datum | str | int]:
    engine = view.engines.get(adapter.id)
    if engine is None:
        return [Datum(adapter.id, "id"), *["not recorded"] * 6]
    times = [Datum(duration_text(seconds), "num") for seconds in (engine.load_s, engine.generate_s)]
    device = Datum(engine.device, "text")
    return [Datum(adapter.id, "id"), *times, engine.num_engines, device, engine.num_retried, engine.num_resumed]


def data_blocks(view: View) -> Iterator[Block]:
    """What the data card says."""
    stored = view.inputs.data
    if stored.card is None:
        yield Note(stored.problem or "")
        return
    yield from (Note(sentence, "") for sentence in data_sentences(stored.card))
    for table in data_tables(stored.card):
        yield Heading(table.title)
        if table.note:
            yield Note(table.note)
        yield _data_table(table)


def _data_table(table: DataTable) -> Table:
    rows = [[value if isinstance(value, int) else Datum(value, "text") for value in row] for row in table.rows]
    return Table(table.head, rows, where="data/card.json", fold=f"{len(rows):,} rows" if len(rows) > OPEN_ROWS else "")


def run_blocks(view: View) -> Iterator[Block]:
    """What befell the run, what it was made with, and how to repeat it."""
    if view.inputs.happened:
        yield Heading("What happened", "each went on from what was on disk; times are UTC")
        rows = [
            (Datum(its.at[:19].replace("T", " "), "text"), Datum(shorten(its.text, 500).text, "text"))
            for its in view.inputs.happened
        ]
        yield Table(("When", "What"), rows, where="happened.jsonl")
    run = view.report.run
    facts = {
        "profile": run["profile"],
        "base revision": run["base_revision"] or "default",
        "chat template": run["chat_template"],
        "config digest": run["config_digest"],
        "commit": run["commit"] or "unknown",
        **run["versions"],
    }
    yield Table(("Fact", "Value"), [(name, Datum(value, "text")) for name, value in facts.items()], page_only=True)
    yield Heading("Reproduce", page_only=True)
    yield Note(
        "Repeats the run under another name. The stages after it work in place and skip what is done.", page_only=True
    )
    yield Note("\n".join(view.commands), "code", page_only=True)
