"""Two runs side by side: how their configurations differ, the best adapter of each, and the bases.

Case by case only where both runs put the very same case to the model: same id, same prompt and tools, same expected
reply. What each run decided by itself stays as it is; the comparisons here are corrected for one another (Holm).
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from evals.generate.other_run import best_adapter
from evals.records import AdapterSummary, Case, Comparison, Report, Scores, WinnerVerdict
from evals.report.examples import Flips, flips_of
from evals.report.inputs import ReportInputs, Scored
from evals.stats.comparison import compare, pair_verdicts
from orchestrator.config.schema import RunConfig
from orchestrator.core.records import JsonObject, MetricName, Record
from orchestrator.core.text import counted

COMPARED: tuple[MetricName, ...] = ("case_accuracy", "tool_call_accuracy", "refusal_accuracy")
"""What two runs are compared on, as far as both are scored on it."""


class ConfigDifference(Record):
    """One setting that two runs do not share, as JSON; None where the run has no such setting."""

    key: str
    here: str | None
    there: str | None


class OtherRun(Record):
    """Another run beside this one: `other_run` of `report.json`. Produced by `compare_runs`.

    `run` and `verdict` are the other report's own. `adapters` are its best adapter and its base, as far
    as it has them. `comparisons` have this run on the left; adapters are named `run/id`. `num_shared`
    of `num_cases` cases here and `num_cases_there` are the same; `note` says in words what follows.
    """

    folder: str
    run: JsonObject
    verdict: WinnerVerdict
    adapters: tuple[AdapterSummary, ...]
    config_differences: tuple[ConfigDifference, ...]
    num_cases: int
    num_cases_there: int
    num_shared: int
    note: str
    comparisons: tuple[Comparison, ...]


class Side(NamedTuple):
    """One of two runs: what it is called here, what was read of it, and what its own report says."""

    label: str
    config: RunConfig
    inputs: ReportInputs
    report: Report

    def scored(self, adapter_id: str) -> Scored:
        """One of its adapters."""
        return next(scored for scored in self.inputs.scored if scored.scores.adapter_id == adapter_id)


def compare_runs(here: Side, there: Side) -> tuple[OtherRun, list[Flips]]:
    """Set two runs side by side.

    Returns:
        The record for `report.json`, and the flips of the pairs in words: best against best, base against base.
    """
    shared = shared_cases(here.inputs.cases, there.inputs.cases)
    best_there = best_adapter(there.report)
    bases = ({adapter.id for adapter in side.report.adapters if adapter.is_base} for side in (here, there))
    pairs = [(best_adapter(here.report), best_there), *((base, base) for base in sorted(set.intersection(*bases)))]
    asked = []
    for ours, theirs in pairs:
        if ours is None or theirs is None or not shared:
            continue
        left, right = _renamed(here, ours, shared), _renamed(there, theirs, shared)
        asked += [pair_verdicts(left, right, metric) for metric in COMPARED]
    comparisons = compare([pairs for pairs in asked if pairs.case_ids])
    note = _note(len(here.inputs.cases), len(there.inputs.cases), len(shared))
    if there.report.failed_adapters:
        note += f" Not scored in the other run: {', '.join(one.adapter_id for one in there.report.failed_adapters)}."
    return OtherRun(
        folder=str(there.inputs.run.root),
        run=there.report.run,
        verdict=there.report.verdict,
        adapters=tuple(a for a in there.report.adapters if a.is_base or a.id == best_there),
        config_differences=tuple(config_differences(here.config, there.config)),
        num_cases=len(here.inputs.cases),
        num_cases_there=len(there.inputs.cases),
        num_shared=len(shared),
        note=note,
        comparisons=comparisons,
    ), _flips(here, there, comparisons)


def shared_cases(here: Mapping[str, Case], there: Mapping[str, Case]) -> frozenset[str]:
    """Ids of the cases that are the same on both sides: prompt, tools and expected reply."""
    return frozenset(case_id for case_id, case in here.items() if there.get(case_id) == case)


def _renamed(side: Side, adapter_id: str, shared: frozenset[str]) -> Scores:
    scores = side.scored(adapter_id).scores
    verdicts = tuple(verdict for verdict in scores.verdicts if verdict.case_id in shared)
    return scores.model_copy(update={"adapter_id": f"{side.label}/{adapter_id}", "verdicts": verdicts})


def _note(num_here: int, num_there: int, num_shared: int) -> str:
    if not num_shared:
        return (
            "The two runs have no case in common (same id, prompt, tools and expected reply), so only unpaired figures "
            "can be shown: that two intervals overlap says little, and a difference of means may come from the cases."
        )
    if num_shared == num_here == num_there:
        return f"Both runs have the same {counted(num_shared, 'case')}, so they are compared case by case."
    return (
        f"The runs share {counted(num_shared, 'case')}, of {num_here:,} here and {num_there:,} there: only these are "
        "compared case by case. The figures of each run are over all of its own cases."
    )


def _flips(here: Side, there: Side, comparisons: tuple[Comparison, ...]) -> list[Flips]:
    by_pair: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in comparisons:
        by_pair.setdefault((comparison.left, comparison.right), []).append(comparison)
    return [
        flips_of(asked, here.scored(_own_id(left)), there.scored(_own_id(right)), here.inputs.cases)
        for (left, right), asked in by_pair.items()
    ]


def _own_id(name: str) -> str:
    return name.rpartition("/")[2]


def config_differences(here: RunConfig, there: RunConfig) -> Iterator[ConfigDifference]:
    """Every setting that differs, by its dotted name, in the order of the configuration."""
    ours, theirs = dict(_flat(here.model_dump(mode="json"))), dict(_flat(there.model_dump(mode="json")))
    for key in dict.fromkeys((*ours, *theirs)):
        if ours.get(key) != theirs.get(key):
            yield ConfigDifference(key=key, here=ours.get(key), there=theirs.get(key))


def _flat(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _flat(value, f"{path}.{key}" if path else key)
    else:
        yield path, json.dumps(tree, ensure_ascii=False)
