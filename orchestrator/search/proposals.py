"""What proposes the points of a search, in Ray Tune's terms. A point follows from its number, the seed and results."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from ray.tune.search import Searcher, SearchGenerator

from orchestrator.config.schema import SearchConfig
from orchestrator.core.records import DIVERGED_LOSS, JsonObject
from orchestrator.models.adapters import Told
from orchestrator.search.choice import RungJudge
from orchestrator.search.heard import Heard
from orchestrator.search.names import HYPERPARAMETERS, PREFIX
from orchestrator.search.samplers import BATCH, Result, Results, by_chance, can_learn, sample
from orchestrator.search.space import ResolvedSpace, grid_points


def point(search: SearchConfig, space: ResolvedSpace, number: int, known: Results) -> JsonObject:
    """The hyperparameters of the trial with this number, counted from 1. Pure.

    `known` are trials before it; samplers that learn use them.
    """
    if search.searcher == "grid":
        return grid_points(search)[number - 1]
    if number <= len(space.first_points):
        return space.first_points[number - 1]
    seed = f"{search.seed}/{number}"
    if search.searcher == "random" or not can_learn(search.searcher, known):
        return by_chance(space.dimensions, seed)
    return sample(search.searcher, space.dimensions, seed, known)


def results_of(points: Mapping[int, JsonObject], losses: Mapping[int, float], told: Mapping[int, Told]) -> Results:
    """What samplers are told of trials that were heard of at their first rung: lower is better.

    Eval loss, where no trial has scores of replies. Else one objective goes by scores, and by eval loss among equals;
    several are told as they are. A trial without scores comes last if it diverged, and else counts for nothing.
    """
    if not told:
        return {number: Result(its, (losses[number],) if number in losses else ()) for number, its in points.items()}
    several = max(len(its.values) for its in told.values()) > 1
    diverged = [number for number, loss in losses.items() if loss >= DIVERGED_LOSS and number not in told]
    in_order = sorted(told, key=lambda number: (told[number].values, losses.get(number, DIVERGED_LOSS), number))
    places = {number: (float(place),) for place, number in enumerate([*in_order, *diverged])}
    values = {number: its.values for number, its in told.items()} if several else places
    return {
        number: Result(its, values.get(number, ()), told[number].missed if number in told else {})
        for number, its in points.items()
    }


def beside(earlier: Results, own: Results) -> Results:
    """A search's results with those of earlier runs, all as shares of the trials of their run that are better."""
    values = [its.values for its in own.values() if its.values]
    others = max(1, len(values) - 1)

    def share(its: Result) -> Result:
        return its._replace(values=(sum(other < its.values for other in values) / others,)) if its.values else its

    return {**earlier, **{number: share(its) for number, its in own.items()}} if earlier else own


class _Points(Searcher):  # type: ignore[misc]  # ray ships no types for it
    """Asks for the point of the next trial, and keeps nothing that would have to be stored."""

    def __init__(self, propose: Callable[[], JsonObject | None]) -> None:
        super().__init__(metric="eval_loss", mode="min")
        self._propose = propose

    def suggest(self, trial_id: str) -> JsonObject | None:  # noqa: ARG002  # Tune's interface
        proposed = self._propose()
        return None if proposed is None else {HYPERPARAMETERS: proposed}

    def on_trial_complete(self, trial_id: str, result: JsonObject | None = None, error: bool = False) -> None:  # noqa: FBT001, FBT002  # Tune's interface
        """Nothing; the scheduler hears of ends."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: what matters follows from the trials that Tune stores."""

    def restore_from_dir(self, checkpoint_dir: str) -> None:
        """Nothing, as nothing is stored."""


class Pace(NamedTuple):
    """When the next trial of a search is proposed.

    One waits until fewer than `max_concurrent` others train; those of which `is_held` says that they wait at a rung do
    not count. With `waits`, a point that follows from results waits for those of all batches before its own, at the
    first of the `rungs`, so that it is the same whoever comes first. Without it, it follows from what there is.
    """

    max_concurrent: int
    rungs: tuple[int, ...] = ()
    waits: bool = True
    is_held: Callable[[int], bool] | None = None


class NumberedSearch(SearchGenerator):  # type: ignore[misc]  # ray ships no types for it
    """Proposes trials in the order of their numbers, up to the `last`."""

    def __init__(  # what a search knows of itself, each by its name
        self,
        search: SearchConfig,
        space: ResolvedSpace,
        heard: Heard,
        *,
        last: int,
        pace: Pace,
        judge: RungJudge | None = None,
    ) -> None:
        super().__init__(_Points(self._next_point))
        self._search, self._space, self._heard, self._last, self._pace = search, space, heard, last, pace
        self._judge = judge or RungJudge()

    def is_finished(self) -> bool:
        """Whether every trial was made; after the driver's death those that Tune remembers count."""
        return len(self._heard.points) >= self._last

    def _next_point(self) -> JsonObject | None:
        if self._num_training() >= self._pace.max_concurrent:
            return None
        number = len(self._heard.points) + 1
        learns = self._search.searcher not in ("random", "grid")
        known = self._known_before(number) if learns else {}
        return None if known is None else point(self._search, self._space, number, known)

    def _num_training(self) -> int:
        alive = [number for number in self._heard.points if number not in self._heard.ended]
        is_held = self._pace.is_held
        return len(alive) if is_held is None else sum(not is_held(number) for number in alive)

    def _known_before(self, number: int) -> Results | None:
        """The results that the point of a trial follows from; None while one of them is to come."""
        heard, rungs = self._heard, self._pace.rungs
        in_batches = self._pace.waits or self._search.searcher != "optuna"
        before = range(1, (number - 1) // BATCH * BATCH + 1 if in_batches else number)
        values = {each: heard.value(each, rungs) for each in before}
        if self._pace.waits and any(value is None and each not in heard.ended for each, value in values.items()):
            return None
        losses = {each: value for each, value in values.items() if value is not None}
        told = {each: its for each in losses if (its := self._judge.told(f"{PREFIX}{each}", rungs)) is not None}
        return beside(heard.others, results_of({each: heard.points[each] for each in before}, losses, told))
