"""Stopping trials that lag at equal steps: successive halving that cuts a whole rung, Ray's ASHA, or nothing."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from orchestrator.config.schema import SearchConfig
from orchestrator.core.errors import ConfigError
from orchestrator.core.records import JsonObject, TrialRecord
from orchestrator.plan.steps import first_rung, rungs_of
from orchestrator.search.choice import RungJudge
from orchestrator.search.names import in_order
from orchestrator.search.parts import losses_of
from orchestrator.search.space import num_trials
from orchestrator.training.plan import TrainPlan


def rung_steps(plan: TrainPlan, reduction_factor: int) -> tuple[int, ...]:
    """The rungs of a plan's trials."""
    return rungs_of(plan.max_steps, plan.eval_steps, plan.warmup_steps, reduction_factor)


def make_scheduler(
    search: SearchConfig,
    plan: TrainPlan,
    earlier: Sequence[TrialRecord] = (),
    judge: RungJudge | None = None,
) -> TrialScheduler:
    """What stops trials by eval loss over optimizer steps: successive halving, Ray's ASHA, or nothing.

    Trials of the search that ended `earlier` count at the rungs that they reached. `judge` has a say in halving.

    By default Ray takes its count of reports as time, which restarts at 1 with a restarted trial; steps do not.
    """
    match search.scheduler:
        case "halving":
            factor = search.reduction_factor
            rungs = rung_steps(plan, factor)
            total = num_trials(search)
            halving = SuccessiveHalving(rungs, reduction_factor=factor, keep=search.keep, num_trials=total, judge=judge)
            halving.remember(earlier)
            return halving
        case "asha":  # arXiv 1810.05934
            return _Asha(
                earlier,
                time_attr="step",
                max_t=plan.max_steps + 1,  # at its last step a trial ends by itself
                grace_period=first_rung(plan.max_steps, plan.eval_steps, plan.warmup_steps),
                reduction_factor=search.reduction_factor,
            )
        case "none":
            return FIFOScheduler()


class _Asha(ASHAScheduler):  # type: ignore[misc]  # ray ships no types for it
    """Ray's ASHA that has heard of the trials that ended `earlier`."""

    def __init__(self, earlier: Sequence[TrialRecord], **settings: Any) -> None:
        super().__init__(**settings)
        self._earlier = earlier

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric and mode from Tune's configuration, and hear of the earlier trials."""
        is_set: bool = super().set_search_properties(metric, mode, **spec)
        for record in self._earlier if is_set else ():
            trial = Trial("earlier", stub=True, trial_id=record.trial_id)
            self.on_trial_add(None, trial)
            for step, loss in losses_of(record):
                self.on_trial_result(None, trial, {self._time_attr: step, metric: loss})
        return is_set


def survivors(recorded: Mapping[str, float], reduction_factor: int) -> frozenset[str]:
    """The best ceil(n / reduction_factor) of the n trials recorded at a rung; ties go to the earlier trial.

    `recorded` maps names of trials to losses, lower is better. One that is not finite counts in n and never survives.
    """
    return frozenset(_best_first(recorded)[: math.ceil(len(recorded) / reduction_factor)])


def _best_first(losses: Mapping[str, float]) -> list[str]:
    finite = [name for name, loss in losses.items() if math.isfinite(loss)]
    return sorted(finite, key=lambda name: (losses[name], in_order(name)))


class SuccessiveHalving(FIFOScheduler):  # type: ignore[misc]  # ray ships no types for it
    """Stops a trial at a rung unless it is among the best 1 / reduction_factor of all recorded there.

    A report holds more than its own trial's loss: `curve` (the trial's earlier evaluations) and `peers` (trials
    evaluated in the same step of a multi-LoRA engine, as [name, step, metric]). All of it is recorded before every
    newly recorded trial is decided on, at once and for good. So the trials of one engine step get the same decisions
    whichever of them Tune hears first. A trial counts at its rungs after its end, too.

    Tune stores a scheduler only when the experiment begins. After the driver's death the records are read back from
    the trials' last results, which Tune hands to `on_trial_add`.

    `judge` says what a rung judges (`RungJudge.values`), eval loss by default. `rungs` are optimizer steps at which
    every trial is evaluated. At least `keep` go on at any rung: where too few
    others are still to come of the search's `num_trials`, the best of those there.
    """

    def __init__(
        self,
        rungs: Iterable[int],
        *,
        reduction_factor: int,
        keep: int = 1,
        num_trials: int = 0,
        judge: RungJudge | None = None,
    ) -> None:
        super().__init__()
        self.judge = judge or RungJudge()
        self._reduction_factor, self._keep, self._num_trials = reduction_factor, keep, num_trials
        self._recorded: dict[int, dict[str, float]] = {rung: {} for rung in sorted(rungs)}
        self._goes_on: dict[int, dict[str, bool]] = {rung: {} for rung in self._recorded}
        self._mode: str | None = None

    def remember(self, earlier: Iterable[TrialRecord]) -> None:
        """Record trials of the same search that ended: each went on past every rung before its last evaluation."""
        for record in earlier:
            losses = dict(losses_of(record))
            for rung, recorded in self._recorded.items():
                if rung in losses:
                    recorded[record.trial_id] = losses[rung]
                    self._goes_on[rung][record.trial_id] = rung < max(losses)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric and mode from Tune's configuration; False if they were set before."""
        if self._mode is not None or not super().set_search_properties(metric, mode, **spec):
            return False
        if mode not in ("min", "max"):
            raise ConfigError(
                f"mode {mode!r} does not say which loss is better", where="tune.TuneConfig", allowed="min, max"
            )
        self._mode = mode
        return True

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:  # noqa: ARG002  # Tune's interface
        """Record what a restored trial reported; an unfinished one has passed the rungs it reported at."""
        last = trial.run_metadata.last_result  # `trial.last_result` would ask the trial's actor where there is none
        self._record(_evaluations(str(trial), last, self._metric))
        if trial.status == Trial.PENDING:
            for rung in self._reached(str(trial), last.get("step", 0)):
                self._goes_on[rung].setdefault(str(trial), True)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: JsonObject) -> str:  # noqa: ARG002
        """Record the report, cut, and say whether this trial passed the last rung that it reached."""
        self._record(_evaluations(str(trial), result, self._metric))
        self._record(result.get("peers", ()))
        self._cut()
        reached = self._reached(str(trial), result.get("step", 0))
        passed = not reached or self._goes_on[reached[-1]][str(trial)]
        return str(TrialScheduler.CONTINUE if passed else TrialScheduler.STOP)

    def debug_string(self) -> str:
        """How many trials went on past each rung."""
        rungs = self._goes_on.items()
        counts = [f"{sum(on.values())} of {len(on)} trials went on past step {rung}" for rung, on in rungs]
        return f"Successive halving: {', '.join(counts) or 'there is no rung, so every trial runs to its end'}."

    def _record(self, evaluations: Iterable[tuple[str, int, float]]) -> None:
        for name, step, metric in evaluations:
            if step in self._recorded:
                loss = metric if self._mode == "min" else -metric
                self._recorded[step].setdefault(name, loss)

    def _cut(self) -> None:
        to_come = self._num_trials
        for rung, recorded in self._recorded.items():
            went_on = self._goes_on[rung]
            new = {name: loss for name, loss in recorded.items() if name not in went_on}
            if new:
                values = self._values(rung, recorded)
                on = survivors(values, self._reduction_factor) & new.keys()
                others = sum(went_on.values()) + len(on) + max(0, to_come - len(recorded))
                runners_up = [name for name in _best_first({name: values[name] for name in new}) if name not in on]
                on |= set(runners_up[: max(0, self._keep - others)])
                went_on.update((name, name in on) for name in new)
                self.judge.dropped(new.keys() - on)
            to_come = sum(went_on.values())  # to the next rung

    def _values(self, rung: int, recorded: Mapping[str, float]) -> dict[str, float]:
        """What is judged at a rung: as recorded, but for what the judge says of losses that are finite."""
        finite = {name: loss for name, loss in recorded.items() if math.isfinite(loss)}
        return {**recorded, **(self.judge.values(rung, finite) if finite else {})}

    def _reached(self, name: str, step: int) -> list[int]:
        """The rungs up to `step` at which the trial is recorded, lowest first."""
        return [rung for rung, recorded in self._recorded.items() if rung <= step and name in recorded]


def _evaluations(name: str, result: JsonObject, metric: str) -> Iterator[tuple[str, int, float]]:
    """A trial's evaluations in its report, as (name, step, metric); none if it has no step or metric."""
    for point in (*result.get("curve", ()), result):
        if "step" in point and metric in point:
            yield name, point["step"], point[metric]
