"""The search: Ray Tune over rank, alpha and learning rate; records every trial and keeps the best adapters."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune
from ray.tune import PlacementGroupFactory

from orchestrator.config.schema import RunConfig, SearchConfig
from orchestrator.core.errors import InputError, SearchError
from orchestrator.core.files import digest_of, dump_jsonl, write_text_atomic
from orchestrator.core.progress import doing, say
from orchestrator.core.records import JsonObject, TrialRecord
from orchestrator.core.text import counted, without_secrets
from orchestrator.models.adapters import SavedTrial, remove_adapter
from orchestrator.models.base import base_folder
from orchestrator.plan.steps import COHORT
from orchestrator.run.cluster import cluster_capacity, concurrent_trials
from orchestrator.run.deaths import SAVES_TRAINING_MEMORY, why_it_died
from orchestrator.run.paths import RunDir
from orchestrator.run.spent import Round
from orchestrator.search.budget import Account, Clock
from orchestrator.search.choice import Chooser, RungJudge, finalists_of
from orchestrator.search.cohorts import cohort_of, plan_of
from orchestrator.search.early_stopping import AtGates, SuccessiveHalving, held_at, make_scheduler, rung_steps
from orchestrator.search.heard import Heard
from orchestrator.search.isolated import isolated_trainable
from orchestrator.search.multi_lora import read_slot_trial, slot_trainable, start_engines
from orchestrator.search.names import (
    HYPERPARAMETERS,
    forget_names,
    give_name,
    in_order,
    name_of_folder,
    number_of,
    storage_name,
)
from orchestrator.search.parts import Part, is_done, parts_of
from orchestrator.search.proposals import NumberedSearch, Pace
from orchestrator.search.rounds import rounds_of
from orchestrator.search.samplers import BATCH
from orchestrator.search.signed import SignsStates, require_signed, sign_tuner
from orchestrator.search.space import num_trials, read_base_shape, resolve_space
from orchestrator.search.tell import TellTrackers
from orchestrator.search.warm_start import earlier_results
from orchestrator.tracking.tracker import RunInfo
from orchestrator.training.launch import prepare_plan
from orchestrator.training.listen import Listener
from orchestrator.training.outcome import TrainedTrial, describe_trial, keep_best, read_trial
from orchestrator.training.plan import TrainPlan
from orchestrator.training.trackers import tracked

NAMES, TRIALS = "names.json", "trials"
"""In a search's storage: the trials that were given a name, and the folder of what they trained."""
ENGINES = "engine-*.json"
"""In that folder, where engines trained: what is known of each."""
TRIAL_RETRIES = 1
"""How often a trial whose driver died is restarted; it resumes from its last checkpoint."""
MOST_PENDING = "TUNE_MAX_PENDING_TRIALS_PG"
"""Ray Tune's variable for how many trials may start at the same time; by itself it starts one after the other."""
DRIVER_RESOURCES = {"memory": 1024 * 1024}
"""What a trial's driver reserves beside its workers: no share of a CPU, or trials whose workers fill the CPUs would
wait for each other; but not nothing, which Ray Tune refuses."""


class _Runner(NamedTuple):
    """How trials are trained: Tune's trainable, and how many run at once."""

    trainable: Any
    concurrent: int
    devices: int
    reuse_actors: bool
    keeps_rungs: bool
    """Whether checkpoints of rungs stay, so that they can be scored."""
    group: int
    """Trials that halving judges together."""


class _Found(NamedTuple):
    """A trial: its plan, what its training left on disk, its record, and whether a process of it died."""

    trained: TrainedTrial
    plan: TrainPlan
    record: TrialRecord
    died: bool


def run_search(config: RunConfig, run: RunDir, chooser: Chooser | None = None) -> list[TrialRecord]:
    """Run or resume the search, write `trials.jsonl` and keep the `search.keep` best adapters.

    What is best, `chooser` says: at rungs beside the eval loss, and after the training. Without one, eval loss does.

    A search that is given more trials than it has goes on with the further ones: it knows how the earlier ones ended,
    and trains none of them again.

    Returns one record per trial, the best first; those that were kept have an adapter id.

    Raises:
        SearchError: If no trial saved an adapter.
        RunConflictError: If the search has more trials than the configuration asks for, or its state is not its own.
        InputError: If the data, base model or resources cannot work.
    """
    plan = prepare_plan(config, run, varied=tuple(config.search.space.further))
    settings = config.search.model_dump(mode="json", exclude={"num_trials", "budget"})
    storage = run.ray / f"search-{digest_of(plan, settings, run.split('train'), run.split('val'))[:8]}"
    account = None if config.search.budget is None else Account(config, run)
    parts = parts_of(storage, None if account else num_trials(config.search), turn=config.search.turn)
    for part in parts:
        if part.can_resume(storage):
            require_signed(run, part.folder(storage))
    total = max(BATCH, parts[-1].last if parts else 0) if account else parts[-1].last
    num_ended = sum(len(part.ended(storage)) for part in parts)
    longest = max(plan_of(cohort, plan, config.search.space).max_steps for cohort in config.search.space.cohorts)
    with (
        ExitStack() as running,
        tracked(RunInfo(run.root, total, longest, num_ended), config.tracking) as trackers,
        Listener(trackers) as listener,
    ):
        tell = TellTrackers(listener, plan, storage / TRIALS, run.root)
        found = _train(_Work(config, plan, run, storage, tell, chooser, account), parts, running)
    records = _keep_best(found, run, keep=config.search.keep, chooser=chooser)
    write_text_atomic(run.trials, dump_jsonl(records))
    if not any(record.adapter_id for record in records):
        reasons = sorted({record.error or record.status for record in records})
        fix = SAVES_TRAINING_MEMORY if any(its.died for its in found) else None
        what = f"none of {len(records)} trials saved an adapter ({'; '.join(reasons)})"
        raise SearchError(what, where=str(run.trials), fix=fix)
    return records


class _Work(NamedTuple):
    """What a search has in all of its turns."""

    config: RunConfig
    plan: TrainPlan
    run: RunDir
    storage: Path
    tell: TellTrackers
    chooser: Chooser | None
    account: Account | None


def _train(work: _Work, parts: Sequence[Part], running: ExitStack) -> list[_Found]:
    """Train the parts one after the other, as far as they are not, each on the engines of its cohort, kept `running`.

    With a budget they are those that were begun, and rounds follow until it ends.
    """
    config, plan, storage, account = work.config, work.plan, work.storage, work.account
    found: list[_Found] = []
    search: _Search | None = None
    num_ended = sum(len(part.ended(storage)) for part in parts)

    def trials() -> list[TrialRecord]:
        return [its.record for its in found]

    upcoming = parts if account is None else rounds_of(config, plan, account, parts, trials)
    for part in upcoming:
        is_last, earlier = account is None and part is parts[-1], trials()
        closing, clock = None, Clock()
        if not is_last and is_done(part, part.ended(storage)):
            results = tune.ResultGrid(part.analysis(storage))
        else:
            turn, cohort = _turn(config.search, part, earlier)
            is_alone = bool(cohort) or account is not None
            left = part.num_trials - len(part.ended(storage)) if is_alone else parts[-1].last - num_ended
            if search is None or search.cohort != cohort:
                running.close()
                search = running.enter_context(_ready(work, cohort, turn=turn, num_left=left))
            began = time.monotonic()
            clock = account.clock(earlier, search.runner.devices) if account else clock
            results = search.results(part, earlier, is_last=is_last, clock=clock)
            closing = Round(first=part.first, last=part.last, wall_s=round(time.monotonic() - began, 3))
        found += [_found_in(result, plan, storage / TRIALS) for result in results]
        if account and closing:
            account.close_round(closing, clock, trials())
    return found


def _turn(search: SearchConfig, part: Part, earlier: Sequence[TrialRecord]) -> tuple[int, JsonObject]:
    """The turn that a part is in, counted from 0, and whose it is."""
    size = search.turn
    turn = 0 if size is None else (part.first - 1) // size
    before = [record for record in earlier if size and number_of(record.trial_id) <= turn * size]
    return turn, cohort_of(turn, search.space.cohorts, before)


@contextmanager
def _ready(work: _Work, cohort: JsonObject, *, turn: int, num_left: int) -> Iterator["_Search"]:
    """The search with what trains a cohort."""
    config, trials = work.config, work.storage / TRIALS
    if cohort:
        shared = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in cohort.items())
        say(f"The next turn is that of {shared}.")
    plan = plan_of(cohort, work.plan, config.search.space)
    with _runner(config, work.run, plan, trials, num_left=num_left, turn=turn) as runner:
        judge = RungJudge(work.chooser if runner.keeps_rungs else None, trials)
        yield _Search(work, plan, runner, judge, cohort)


@contextmanager
def _runner(
    config: RunConfig, run: RunDir, plan: TrainPlan, trials: Path, *, num_left: int, turn: int
) -> Iterator[_Runner]:
    with ExitStack() as started:
        if config.trains_multi_lora:
            try:
                wanted = start_engines(config, plan, trials, num_trials=max(num_left, 1), told=run.root, turn=turn)
                engines = started.enter_context(wanted)
            except InputError as error:
                if config.search.runner != "auto":
                    raise
                say(f"search.runner auto trains each trial as a job of its own here: {error.what}.")
            else:
                trainable = slot_trainable(engines, plan, trials, held_at(config.search, plan))
                concurrent = engines.concurrent_trials
                devices = len(engines.handles)
                yield _Runner(trainable, concurrent, devices, reuse_actors=True, keeps_rungs=True, group=COHORT)
                return
        concurrent = concurrent_trials(config.search.max_concurrent, plan.shape, cluster_capacity()[0])
        trainable = isolated_trainable(plan, trials, concurrent=concurrent, rungs=held_at(config.search, plan))
        devices = concurrent * plan.num_workers
        yield _Runner(trainable, concurrent, devices, reuse_actors=False, keeps_rungs=False, group=1)


class _Search(NamedTuple):
    """A search whose runner is ready for a cohort, with the plan of that."""

    work: _Work
    plan: TrainPlan
    runner: _Runner
    judge: RungJudge
    cohort: JsonObject

    def results(self, part: Part, earlier: Sequence[TrialRecord], *, is_last: bool, clock: Clock) -> tune.ResultGrid:
        """Train the trials of one part as far as they are not; `earlier` are those of the parts before it."""
        tuner = self._tuner(part, earlier, is_last=is_last, clock=clock)
        with doing("waiting for the next evaluation of a trial"):
            return tuner.fit()

    def _tuner(self, part: Part, earlier: Sequence[TrialRecord], *, is_last: bool, clock: Clock) -> tune.Tuner:
        run, storage = self.work.run, self.work.storage
        folder, names = part.folder(storage), storage / NAMES
        trainable = tune.with_resources(self.runner.trainable, PlacementGroupFactory([DRIVER_RESOURCES]))
        settings = self._tune_config(part, earlier, names, clock)
        callbacks = [self.work.tell, SignsStates(run, folder)]
        in_use = [record.trial_id for record in earlier]
        if part.can_resume(storage) and any(folder.glob(NumberedSearch.CKPT_FILE_TMPL.format("*"))):
            say("Resuming the unfinished search from its trials' last checkpoints.")
            forget_names(names, [*in_use, *map(str, part.analysis(storage).trials)])
            tuner = tune.Tuner.restore(str(folder), trainable, resume_errored=is_last, param_space={})
            # A display and an engine cannot be stored with the experiment, and what proposes and stops trials goes by
            # what they told.
            tuner._local_tuner.get_run_config().callbacks = callbacks
            tuner._local_tuner._tune_config = settings
            return tuner
        if earlier:
            say(f"Going on after {counted(len(earlier), 'trial')} with {part.num_trials} more.")
        forget_names(names, in_use)
        tuner = tune.Tuner(
            trainable,
            param_space={},
            tune_config=settings,
            run_config=tune.RunConfig(
                name=folder.name,
                storage_path=str(folder.parent),
                failure_config=tune.FailureConfig(max_failures=TRIAL_RETRIES),
                # Trainings keep checkpoints themselves.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=callbacks,
                verbose=0,
            ),
        )
        sign_tuner(run, folder)
        return tuner

    def _tune_config(self, part: Part, earlier: Sequence[TrialRecord], names: Path, clock: Clock) -> tune.TuneConfig:
        """How trials are proposed and stopped: by their numbers and results, whichever process does it."""
        config, runner = self.work.config, self.runner
        search = config.search
        base = read_base_shape(base_folder(config.model))
        space = resolve_space(
            search.space, base, self.plan.train.batch_size, self.work.plan.hyperparameters, self.cohort
        )
        known = earlier_results(config, self.work.run, self.work.storage, space.dimensions)
        heard = Heard(earlier, self.cohort, clock, known)
        scheduler = make_scheduler(
            search,
            self.plan,
            heard,
            num_trials=part.last,
            group=runner.group,
            answer=AtGates(self.plan, self.work.storage / TRIALS),
            judge=self.judge,
        )
        pace = Pace(
            runner.concurrent,
            rungs=() if search.scheduler == "none" else rung_steps(self.plan, search.reduction_factor),
            waits=search.scheduler != "asha",
            is_held=scheduler.is_held if isinstance(scheduler, SuccessiveHalving) else None,
        )
        os.environ[MOST_PENDING] = str(runner.concurrent)
        return tune.TuneConfig(
            metric="eval_loss",
            mode="min",
            search_alg=NumberedSearch(search, space, heard, last=part.last, pace=pace, judge=self.judge),
            scheduler=scheduler,
            num_samples=part.num_trials,
            reuse_actors=runner.reuse_actors,
            trial_name_creator=partial(give_name, names),
            trial_dirname_creator=str,
        )


def _found_in(result: Any, plan: TrainPlan, trials: Path) -> _Found:
    """A `ray.tune.Result` with what its training left."""
    chosen = plan.with_hyperparameters(result.config[HYPERPARAMETERS])
    death = why_it_died(result.error) if result.error else None
    error = (death or without_secrets(str(result.error).strip().splitlines()[-1])) if result.error else None
    duration_s = (result.metrics or {}).get("time_total_s")
    name = name_of_folder(Path(result.path).name)
    read = read_slot_trial if any(trials.glob(ENGINES)) else read_trial
    trained = read(trials, storage_name(name, chosen.hyperparameters))
    record = describe_trial(trained, chosen, trial_id=name, duration_s=duration_s, error=error)
    return _Found(trained, chosen, record, died=death is not None)


def _keep_best(found: list[_Found], run: RunDir, *, keep: int, chooser: Chooser | None) -> list[TrialRecord]:
    """Records with the best first; the first `keep` keep the adapter they saved, if any, and no others.

    A `chooser` may keep one more, to be held against the others.
    """

    def rank(its: _Found) -> tuple[bool, float, tuple[int, str]]:
        return its.record.best_eval_loss is None, its.record.best_eval_loss or 0.0, in_order(its.record.trial_id)

    best_first = sorted(found, key=rank)
    if chooser is not None:
        chosen = _chosen(chooser, best_first, keep=keep)
        best_first.sort(key=lambda its: _place(its.record.trial_id, chosen))
        keep = len(chosen)
    kept = [keep_best(its.trained, run, its.plan, its.record) for its in best_first[:keep]]
    rest = [its.record for its in best_first[keep:]]
    for record in rest:
        if remove_adapter(run, record.trial_id):
            say(f"{record.trial_id} is not among the best {keep} any more; its adapter is not kept.")
    return kept + rest


def _chosen(chooser: Chooser, found: Sequence[_Found], *, keep: int) -> list[str]:
    """The trials whose adapters are kept, in the chooser's order."""
    saved = [
        SavedTrial(its.record, its.trained.best_checkpoint)
        for its in found
        if its.record.best_eval_loss is not None and its.trained.best_checkpoint is not None
    ]
    return chooser.kept(finalists_of(saved, keep=keep), keep=keep) if saved else []


def _place(name: str, chosen: Sequence[str]) -> int:
    return chosen.index(name) if name in chosen else len(chosen)
