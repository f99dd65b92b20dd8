"""The search: Ray Tune over rank, alpha and learning rate; records every trial and keeps the best adapters."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune
from ray.tune import PlacementGroupFactory

from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import InputError, SearchError
from orchestrator.core.files import digest_of, dump_jsonl, write_text_atomic
from orchestrator.core.progress import doing, say
from orchestrator.core.records import TrialRecord
from orchestrator.core.text import counted, without_secrets
from orchestrator.models.adapters import SavedTrial, remove_adapter
from orchestrator.models.base import base_folder
from orchestrator.plan.steps import COHORT
from orchestrator.run.cluster import cluster_capacity, concurrent_trials
from orchestrator.run.deaths import SAVES_TRAINING_MEMORY, why_it_died
from orchestrator.run.paths import RunDir
from orchestrator.search.choice import Chooser, RungJudge, finalists_of
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
    storage_name,
)
from orchestrator.search.parts import Part, is_done, parts_of
from orchestrator.search.proposals import NumberedSearch, Pace
from orchestrator.search.signed import SignsStates, require_signed, sign_tuner
from orchestrator.search.space import num_trials, read_base_shape, resolve_space
from orchestrator.search.tell import TellTrackers
from orchestrator.tracking.tracker import RunInfo
from orchestrator.training.launch import prepare_plan
from orchestrator.training.listen import Listener
from orchestrator.training.outcome import TrainedTrial, describe_trial, keep_best, read_trial
from orchestrator.training.plan import TrainPlan
from orchestrator.training.trackers import tracked

NAMES, TRIALS = "names.json", "trials"
"""In a search's storage: the trials that were given a name, and the folder of what they trained."""
TRIAL_RETRIES = 1
"""How often a trial whose driver died is restarted; it resumes from its last checkpoint."""
MOST_PENDING = "TUNE_MAX_PENDING_TRIALS_PG"
"""Ray Tune's variable for how many trials may start at the same time; by itself it starts one after the other."""
DRIVER_RESOURCES = {"memory": 1024 * 1024}
"""What a trial's driver reserves beside its workers: no share of a CPU, or trials whose workers fill the CPUs would
wait for each other; but not nothing, which Ray Tune refuses."""


class _Runner(NamedTuple):
    """How trials are trained: Tune's trainable, how many run at once, and what a trial left in a storage, by name."""

    trainable: Any
    concurrent: int
    read: Callable[[Path, str], TrainedTrial]
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
    plan = prepare_plan(config, run)
    settings = config.search.model_dump(mode="json", exclude={"num_trials"})
    storage = run.ray / f"search-{digest_of(plan, settings, run.split('train'), run.split('val'))[:8]}"
    total = num_trials(config.search)
    parts = parts_of(storage, total)
    for part in parts:
        if part.can_resume(storage):
            require_signed(run, part.folder(storage))
    num_ended = sum(len(part.ended(storage)) for part in parts)
    found: list[_Found] = []
    with (
        _runner(config, run, plan, storage / TRIALS, num_left=total - num_ended) as runner,
        tracked(RunInfo(run.root, total, plan.max_steps, num_ended), config.tracking) as trackers,
        Listener(trackers) as listener,
    ):
        judge = RungJudge(chooser if runner.keeps_rungs else None, storage / TRIALS)
        tell = TellTrackers(listener, plan, storage / TRIALS, run.root)
        search = _Search(config, plan, run, storage, runner, tell, judge)
        for part in parts:
            found += search.results(part, [its.record for its in found], is_last=part is parts[-1])
    records = _keep_best(found, run, keep=config.search.keep, chooser=chooser)
    write_text_atomic(run.trials, dump_jsonl(records))
    if not any(record.adapter_id for record in records):
        reasons = sorted({record.error or record.status for record in records})
        fix = SAVES_TRAINING_MEMORY if any(its.died for its in found) else None
        what = f"none of {len(records)} trials saved an adapter ({'; '.join(reasons)})"
        raise SearchError(what, where=str(run.trials), fix=fix)
    return records


@contextmanager
def _runner(config: RunConfig, run: RunDir, plan: TrainPlan, trials: Path, *, num_left: int) -> Iterator[_Runner]:
    with ExitStack() as started:
        if config.trains_multi_lora:
            try:
                wanted = start_engines(config, plan, trials, num_trials=max(num_left, 1), told=run.root)
                engines = started.enter_context(wanted)
            except InputError as error:
                if config.search.runner != "auto":
                    raise
                say(f"search.runner auto trains each trial as a job of its own here: {error.what}.")
            else:
                trainable = slot_trainable(engines, plan, trials, held_at(config.search, plan))
                concurrent = engines.concurrent_trials
                yield _Runner(trainable, concurrent, read_slot_trial, reuse_actors=True, keeps_rungs=True, group=COHORT)
                return
        concurrent = concurrent_trials(config.search.max_concurrent, plan.shape, cluster_capacity()[0])
        trainable = isolated_trainable(plan, trials, concurrent=concurrent, rungs=held_at(config.search, plan))
        yield _Runner(trainable, concurrent, read_trial, reuse_actors=False, keeps_rungs=False, group=1)


class _Search(NamedTuple):
    """A search whose runner is ready."""

    config: RunConfig
    plan: TrainPlan
    run: RunDir
    storage: Path
    runner: _Runner
    tell: TellTrackers
    judge: RungJudge

    def results(self, part: Part, earlier: Sequence[TrialRecord], *, is_last: bool) -> list[_Found]:
        """The trials of one part, trained as far as they are not; `earlier` are those of the parts before it."""
        if not is_last and is_done(part, part.ended(self.storage)):
            grid = tune.ResultGrid(part.analysis(self.storage))
        else:
            tuner = self._tuner(part, earlier, is_last=is_last)
            with doing("waiting for the next evaluation of a trial"):
                grid = tuner.fit()
        return [self._read(result) for result in grid]

    def _tuner(self, part: Part, earlier: Sequence[TrialRecord], *, is_last: bool) -> tune.Tuner:
        folder, names = part.folder(self.storage), self.storage / NAMES
        trainable = tune.with_resources(self.runner.trainable, PlacementGroupFactory([DRIVER_RESOURCES]))
        settings = self._tune_config(part, earlier, names)
        callbacks = [self.tell, SignsStates(self.run, folder)]
        in_use = [record.trial_id for record in earlier]
        if part.can_resume(self.storage) and any(folder.glob(NumberedSearch.CKPT_FILE_TMPL.format("*"))):
            say("Resuming the unfinished search from its trials' last checkpoints.")
            forget_names(names, [*in_use, *map(str, part.analysis(self.storage).trials)])
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
        sign_tuner(self.run, folder)
        return tuner

    def _tune_config(self, part: Part, earlier: Sequence[TrialRecord], names: Path) -> tune.TuneConfig:
        """How trials are proposed and stopped: by their numbers and results, whichever process does it."""
        search, runner = self.config.search, self.runner
        base = read_base_shape(base_folder(self.config.model))
        space = resolve_space(search.space, base, self.config.train.batch_size, self.plan.hyperparameters)
        heard = Heard(earlier)
        scheduler = make_scheduler(
            search,
            self.plan,
            heard,
            num_trials=part.last,
            group=runner.group,
            answer=AtGates(self.plan, self.storage / TRIALS),
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

    def _read(self, result: Any) -> _Found:
        """A `ray.tune.Result` with what its training left."""
        chosen = self.plan.with_hyperparameters(result.config[HYPERPARAMETERS])
        death = why_it_died(result.error) if result.error else None
        error = (death or without_secrets(str(result.error).strip().splitlines()[-1])) if result.error else None
        duration_s = (result.metrics or {}).get("time_total_s")
        name = name_of_folder(Path(result.path).name)
        trained = self.runner.read(self.storage / TRIALS, storage_name(name, chosen.hyperparameters))
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
