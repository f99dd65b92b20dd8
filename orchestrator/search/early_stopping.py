"""Stopping trials that lag at equal steps: successive halving by trial numbers, Ray's ASHA, or nothing."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from orchestrator.config.schema import SearchConfig
from orchestrator.core import gate
from orchestrator.core.records import JsonObject
from orchestrator.plan.steps import first_rung, rungs_of
from orchestrator.search.choice import RungJudge
from orchestrator.search.heard import Heard
from orchestrator.search.names import HYPERPARAMETERS, PREFIX, number_of, storage_name
from orchestrator.search.rungs import Rungs
from orchestrator.training.plan import TrainPlan


def rung_steps(plan: TrainPlan, reduction_factor: int) -> tuple[int, ...]:
    """The rungs of a plan's trials."""
    return rungs_of(plan.max_steps, plan.eval_steps, plan.warmup_steps, reduction_factor)


def held_at(search: SearchConfig, plan: TrainPlan) -> tuple[int, ...]:
    """The steps at which trials are held until the search has decided on them."""
    return rung_steps(plan, search.reduction_factor) if search.scheduler == "halving" else ()


def make_scheduler(  # noqa: PLR0913  # what a search knows of itself, each by its name
    search: SearchConfig,
    plan: TrainPlan,
    heard: Heard,
    *,
    num_trials: int,
    group: int,
    answer: "Answer",
    judge: RungJudge | None = None,
) -> TrialScheduler:
    """What stops trials by eval loss over optimizer steps: successive halving, Ray's ASHA, or nothing.

    `heard` has the trials of the search that ended earlier, which count at the rungs that they reached; what Tune hears
    is added to it. `num_trials` are those of the search with these, `group` how many are judged together by halving,
    which hands each of its verdicts to `answer`. `judge` has a say in halving.

    By default Ray takes its count of reports as time, which restarts at 1 with a restarted trial; steps do not.
    """
    match search.scheduler:
        case "halving":
            factor = search.reduction_factor
            rungs = Rungs(
                rung_steps(plan, factor),
                reduction_factor=factor,
                group=group,
                num_trials=num_trials,
                keep=search.keep,
            )
            return SuccessiveHalving(heard, rungs, answer, judge)
        case "asha":  # arXiv 1810.05934
            return _Asha(
                heard,
                time_attr="step",
                max_t=plan.max_steps + 1,  # at its last step a trial ends by itself
                grace_period=first_rung(plan.max_steps, plan.eval_steps, plan.warmup_steps),
                reduction_factor=search.reduction_factor,
            )
        case "none":
            return _Everyone(heard)


Answer = Callable[[Trial, int, bool], None]
"""Hears of a trial, a rung, and whether the trial goes on past it."""


class AtGates:
    """Tells trials what becomes of them at the gates in their folders, below `trials`."""

    def __init__(self, plan: TrainPlan, trials: Path) -> None:
        self._plan, self._trials = plan, trials

    def __call__(self, trial: Trial, rung: int, goes_on: bool) -> None:  # noqa: FBT001  # the interface of `Answer`
        """Answer the trial."""
        chosen = self._plan.with_hyperparameters(trial.config[HYPERPARAMETERS]).hyperparameters
        gate.answer(self._trials / storage_name(str(trial), chosen), rung, goes_on=goes_on)


class _Hearing:
    """What each scheduler does beside scheduling: note what Tune hears of trials."""

    _heard: Heard

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self._heard.add(trial)
        super().on_trial_add(tune_controller, trial)  # type: ignore[misc]  # of Ray's class beside this one

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: JsonObject) -> str:
        self._heard.hear(trial, result)
        decision: str = super().on_trial_result(tune_controller, trial, result)  # type: ignore[misc]
        return str(TrialScheduler.STOP) if self._heard.clock.stops(str(trial)) else decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: JsonObject) -> None:
        self._heard.hear(trial, result)
        self._heard.end(trial)
        super().on_trial_complete(tune_controller, trial, result)  # type: ignore[misc]

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """A trial failed for good, unless Tune has marked it already, which it does with those that it tries again."""
        if trial.status != Trial.ERROR:
            self._heard.end(trial)
        super().on_trial_error(tune_controller, trial)  # type: ignore[misc]

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        self._heard.end(trial)
        super().on_trial_remove(tune_controller, trial)  # type: ignore[misc]

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The lowest number first; Tune puts one that is tried again last."""
        waiting = [trial for trial in tune_controller.get_trials() if trial.status == Trial.PENDING]
        return min(waiting, key=lambda trial: number_of(str(trial)), default=None)


class _Everyone(_Hearing, FIFOScheduler):  # type: ignore[misc]  # ray ships no types for it
    """Runs all to their end."""

    def __init__(self, heard: Heard) -> None:
        super().__init__()
        self._heard = heard


class _Asha(_Hearing, ASHAScheduler):  # type: ignore[misc]  # ray ships no types for it
    """Ray's ASHA that has heard of the trials that ended earlier."""

    def __init__(self, heard: Heard, **settings: Any) -> None:
        super().__init__(**settings)
        self._heard, self._earlier = heard, dict(heard.losses)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Take metric and mode from Tune's configuration, and hear of the earlier trials."""
        is_set: bool = super().set_search_properties(metric, mode, **spec)
        for number, losses in self._earlier.items() if is_set else ():
            trial = Trial("earlier", stub=True, trial_id=f"earlier-{number}")
            ASHAScheduler.on_trial_add(self, None, trial)
            for step, loss in losses.items():
                ASHAScheduler.on_trial_result(self, None, trial, {self._time_attr: step, metric: loss})
        return is_set


class SuccessiveHalving(_Hearing, FIFOScheduler):  # type: ignore[misc]  # ray ships no types for it
    """Has each trial wait at its rungs until `Rungs` decides on it, and passes on what that decides.

    Tune itself is told to go on with every trial: one that waits does so at its gate, and one that is stopped there
    ends by itself. Tune stores a scheduler only when the experiment begins; after the driver's death all is read back
    from the trials' last reports, which hold their whole curves, and the same verdicts follow from them.
    """

    def __init__(self, heard: Heard, rungs: Rungs, answer: Answer, judge: RungJudge | None = None) -> None:
        super().__init__()
        self._heard, self.rungs, self._answer, self._judge = heard, rungs, answer, judge or RungJudge()
        self._trials: dict[int, Trial] = {}
        for number in heard.losses:
            self._take_up(number, is_over=True)

    def is_held(self, number: int) -> bool:
        """Whether a trial waits at a rung for others."""
        return self.rungs.is_held(number)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Record what a restored trial reported."""
        super().on_trial_add(tune_controller, trial)
        number = number_of(str(trial))
        self._trials[number] = trial
        self._take_up(number, is_over=trial.is_finished())

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: JsonObject) -> str:
        """Record the report; whoever can be decided on by now is told at its gate."""
        decision = super().on_trial_result(tune_controller, trial, result)
        number = number_of(str(trial))
        self.rungs.hear(number, self._heard.losses[number].items())
        self._decide()
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: JsonObject) -> None:
        """Others may have waited for this one."""
        super().on_trial_complete(tune_controller, trial, result)
        self._end(trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Nobody waits for a trial that failed for good."""
        super().on_trial_error(tune_controller, trial)
        if number_of(str(trial)) in self._heard.ended:
            self._end(trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Nobody waits for a trial that is not there."""
        super().on_trial_remove(tune_controller, trial)
        self._end(trial)

    def debug_string(self) -> str:
        """How many trials went on past each rung."""
        counts = [f"{on} of {of} trials went on past step {rung}" for rung, on, of in self.rungs.counts()]
        return f"Successive halving: {', '.join(counts) or 'there is no rung, so every trial runs to its end'}."

    def _take_up(self, number: int, *, is_over: bool) -> None:
        """Go on with what is known of a trial of an earlier process or of an earlier part of the search."""
        last = self._heard.last_step(number)
        self.rungs.hear(number, self._heard.losses.get(number, {}).items())
        self.rungs.has_passed(number, last)
        if is_over:
            self.rungs.ended(number, last)
        else:
            self.rungs.begins_again(number)
        self._decide()

    def _end(self, trial: Trial) -> None:
        self._take_up(number_of(str(trial)), is_over=True)

    def _values(self, rung: int, losses: Mapping[int, float]) -> dict[int, float]:
        """What is judged at a rung, by number."""
        values = self._judge.values(rung, {f"{PREFIX}{number}": loss for number, loss in losses.items()})
        return {number_of(name): value for name, value in values.items()}

    def _decide(self) -> None:
        told = self.rungs.decide(self._values)
        if stopped := [f"{PREFIX}{verdict.number}" for verdict in told if not verdict.goes_on]:
            self._judge.dropped(stopped)
        for verdict in told:
            if verdict.number in self._trials:
                self._answer(self._trials[verdict.number], verdict.rung, verdict.goes_on)
