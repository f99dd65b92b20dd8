"""What the scores would meet: suites that cannot be read, too few cases, gates that cannot be met."""

import math
from collections.abc import Iterator, Mapping, Sequence

from evals.cases.samples import cases_from_samples, draw_cases, refuse_repeated_ids
from evals.cases.suites import read_suite
from evals.cases.validation import GROWTH, validation_cases
from evals.check.card import Finding, ParityCard, fatal, warning
from evals.generate.other_run import reported_run
from evals.records import HELD_OUT, Case, Scores, Verdict
from evals.stats.ceiling import OWN_REPLIES, own_reply
from evals.stats.metrics import METRICS
from evals.stats.objective import ADD_CASES, Aim
from evals.stats.scores import score_cases
from orchestrator.config.schema import Gate, RunConfig
from orchestrator.core.errors import AdapterNotFoundError, InputError
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import BASE_ADAPTER_ID, MetricName, Sample
from orchestrator.core.text import counted, unit_text
from orchestrator.run.folder import run_dir
from orchestrator.run.paths import RunDir

FEW_CASES = 30
"""Fewer cases than this tell two adapters apart only where nearly every case differs."""
LEAST_PERCENT, PERCENT = 2.0, 100.0
"""A share within these is taken for one in percent; one between 1 and 2 may be anything."""


def suite_cases(config: RunConfig) -> tuple[list[Case], list[Finding]]:
    """The cases of all suites, and why some cannot be read."""
    cases: list[Case] = []
    findings: list[Finding] = []
    for suite in config.eval.suites:
        try:
            cases += read_suite(suite, turns=config.eval.turns)
        except InputError as error:
            findings.append(Finding(stops=True, text=str(error)))
    return cases, findings


def case_findings(
    config: RunConfig, folder: RunDir, suites: Sequence[Case], parity: ParityCard | None
) -> Iterator[Finding]:
    """Everything that concerns held-out cases and gates; `parity` is None where the base could not be looked at."""
    try:
        held_out = cases_from_samples(read_jsonl(folder.split("test"), Sample), turns=config.eval.turns)
        drawn = draw_cases(held_out, max_cases=config.eval.max_cases, seed=config.eval.seed)
        cases = [*drawn, *suites]
        refuse_repeated_ids(cases)
    except InputError as error:
        yield Finding(stops=True, text=str(error))
        return
    yield from _held_out(drawn)
    scores = score_cases("data", cases, [own_reply(case) for case in cases])
    yield from _gates(config.gates, scores, parity)
    yield from _aim(config, folder)
    yield from _judged_wrong([verdict for verdict in scores.verdicts if verdict.suite == HELD_OUT])


def _aim(config: RunConfig, folder: RunDir) -> Iterator[Finding]:
    """What a search is to look for and no validation case can show."""
    search = config.search
    if not search.wants_scores:
        return
    try:
        cases = validation_cases(folder, most=GROWTH * search.cases, seed=search.seed, turns=config.eval.turns)
    except InputError as error:
        yield Finding(stops=True, text=str(error))
        return
    own = score_cases("data", cases, [own_reply(case) for case in cases])
    for where, what in Aim.of(search).unseen(own).items():
        yield fatal(what, where=where, fix=ADD_CASES)


def adapter_findings(sources: tuple[str, ...]) -> Iterator[Finding]:
    """Adapters made elsewhere that are not there; whether they fit the base is seen when they are scored."""
    if not sources:
        return
    from orchestrator.models.outside import require_there  # loads torch and PEFT

    for source in sources:
        try:
            require_there((source,))
        except AdapterNotFoundError as error:
            yield Finding(stops=True, text=str(error))


def _held_out(cases: Sequence[Case]) -> Iterator[Finding]:
    if len(cases) < FEW_CASES:
        what = f"{counted(len(cases), 'held-out case')} will hardly tell two adapters apart; {FEW_CASES} are a start"
        yield warning(what, where="data.split.test", fix="Add conversations, or raise it")
    kinds = {case.kind for case in cases}
    if cases and "tool_call" not in kinds:
        what = "no held-out case asks for a tool call, so no call will be scored"
        yield warning(what, where="data.split.test", fix="Add conversations that end with a call, or raise it")
    if cases and "refusal" not in kinds:
        what = "no held-out case is to be refused, so refusals will not be scored"
        fix = 'Add conversations with "kind": "refusal", with the tag harmful where the request is'
        yield warning(what, where="data.split.test", fix=fix)


def _gates(gates: Mapping[MetricName, Gate], data: Scores, parity: ParityCard | None) -> Iterator[Finding]:
    for name, gate in gates.items():
        row, metric = METRICS[name], data.metrics[name]
        # Cases without a reply of their own say nothing of what can be reached.
        known = data.ceilings.get(name) if name in OWN_REPLIES else metric
        reached = known.value if known else None
        needs_parser = name == "serving_difference_rate"
        if row.of_timing is not None:
            continue  # the configuration itself refuses a gate on a latency that is not measured
        if metric.n == 0 and not (needs_parser and (parity is None or parity.serving_parser)):
            what = f"it can never be met: {metric.why} in the held-out part and the suites"
            yield fatal(
                what, where=f"gates.{name}", fix="Add such cases (docs/metrics.md says which), or drop the gate"
            )
        elif row.higher_is_better and not row.unit and _is_out_of_reach(gate.min, reached):
            what = f"the data's own replies reach only {unit_text(reached or 0.0)}, so {gate.min:g} will hardly be met"
            yield warning(what, where=f"gates.{name}", fix="Correct the labels of the held-out cases, or lower it")


def _is_out_of_reach(bound: float | None, reached: float | None) -> bool:
    return bound is not None and reached is not None and reached < bound <= 1


def gate_findings(gates: Mapping[MetricName, Gate]) -> Iterator[Finding]:
    """Bounds outside of what a metric can be."""
    for name, gate in gates.items():
        most = math.inf if METRICS[name].unit else 1.0
        runs = "it is never below 0" if METRICS[name].unit else "shares run from 0 to 1"
        where = f"gates.{name}"
        for bound, value in (("min", gate.min), ("max", gate.max)):
            if value is None or 0 <= value <= most:
                continue
            is_percent = LEAST_PERCENT <= value <= PERCENT and most == 1.0
            fix = f"Write {value / PERCENT:g}" if is_percent else f"Write a {bound} between 0 and 1"
            if METRICS[name].unit:
                fix = f"Write a {bound} of at least 0"
            is_never_met = (bound == "min") == (value > most)
            meaning = "no adapter can meet it" if is_never_met else "every adapter meets it"
            make = fatal if is_never_met else warning
            yield make(f"{bound} {value:g} bounds nothing, for {runs}: {meaning}", where=where, fix=fix)


def earlier_run_findings(config: RunConfig) -> Iterator[Finding]:
    """Runs that a gate is set against and that are not there, or have no report."""
    for name, gate in config.gates.items():
        if gate.max_ratio_to in (None, BASE_ADAPTER_ID):
            continue
        try:
            reported_run(gate.max_ratio_to, run_dir(config), where=f"gates.{name}.max_ratio_to")
        except InputError as error:
            yield Finding(stops=True, text=str(error))


def _judged_wrong(verdicts: Sequence[Verdict]) -> Iterator[Finding]:
    wrong = [verdict for verdict in verdicts if verdict.correct is False]
    if wrong:
        first = wrong[0]
        what = (
            f"{len(wrong)} of {counted(len(verdicts), 'held-out case')} would be judged wrong with the very reply that "
            f"the data has, such as {first.case_id} ({first.kind}): {first.reason}: {first.detail}"
        )
        yield warning(what, where="data.sources", fix="Correct their kind and tags, or their last turn")
