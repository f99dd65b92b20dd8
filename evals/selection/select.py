"""The choice of a search's adapters by what they reply to validation cases, while they train and in the end.

At a rung of the multi-LoRA engines its trials are asked by an engine that shares the machine's CPUs, while others
train on. The rung waits `RUNG_WAIT_S` for the scores and judges by eval loss whoever has none by then. An engine that
dies is started anew, and if that fails, rungs judge by eval loss alone.
"""

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager

from evals.cases.validation import GROWTH, first_cases, validation_cases
from evals.generate.engines import Engines, open_engines
from evals.records import Case, Scores
from evals.selection.scorer import Asking, ask, engine_seconds, key_of
from evals.stats.ceiling import ceiling_text, is_blind, own_reply
from evals.stats.decision import PRIMARY
from evals.stats.metrics import METRICS
from evals.stats.objective import ADD_CASES, Aim, Gap, bound_text, compare_sides, signed_values
from evals.stats.scores import score_cases
from evals.stats.selected import Selection, read_selection, score_of
from evals.stats.selection import PARETO_RULE, RULE, Asked, in_order, stand
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import ConfigError, EvaluationError
from orchestrator.core.files import parse_line, write_text_atomic
from orchestrator.core.progress import doing, say
from orchestrator.core.text import counted
from orchestrator.data.card import DataCard
from orchestrator.models.adapters import SavedTrial, Told
from orchestrator.run.cluster import worker_shape
from orchestrator.run.paths import RunDir

RUNG_WAIT_S = 120.0
"""How long a rung waits for scores; the first engine takes some seconds to start."""


@contextmanager
def open_selector(config: RunConfig, run: RunDir) -> Iterator["Selector | None"]:
    """What chooses this search's adapters; None where eval loss does.

    Raises:
        ConfigError: If the validation part has no case that the objective or a constraint is over.
        DataError: If it has none at all.
    """
    if not config.search.wants_scores:
        shutil.rmtree(run.selection.root, ignore_errors=True)
        yield None
        return
    with ExitStack() as opened:
        yield Selector(config, run, opened)


class Selector:
    """Asks the adapters of one search and chooses among them; a `Chooser` of the search."""

    def __init__(self, config: RunConfig, run: RunDir, opened: ExitStack) -> None:
        search = config.search
        self._config, self._run, self._opened = config, run, opened
        self._aim = Aim.of(search)
        most = GROWTH * search.cases
        cases = validation_cases(run, most=most, seed=search.seed, turns=config.eval.turns)
        _require_cases(self._aim, cases)
        on_gpu = worker_shape(config.resources).gpus > 0
        self._asking = Asking.of(config, cases, on_gpu=on_gpu)
        self._first = first_cases(self._asking.cases, most=search.cases, seed=search.seed)
        self._engines: Engines | None = None
        self._why_not = _why_not_beside(config, on_gpu=on_gpu)
        if not self._why_not:
            self._engines = opened.enter_context(open_engines(config, beside_training=True))
        self._pool = opened.enter_context(ThreadPoolExecutor(max_workers=1))
        self._scores: dict[str, Scores] = {}
        self._asked: dict[str, Future[dict[str, Scores]]] = {}
        self._record = self._stated()
        self._keep_record()

    def behind(self, there: Sequence[SavedTrial]) -> frozenset[str]:
        """The trials of a rung that are shown to be worse than the best there, asking those that were not yet."""
        if self._engines is None or self._why_not:
            return frozenset()
        self._ask_beside_training(there, self._engines)
        asked = [Asked(one.trial, one.eval_loss, self._scores.get(key_of(one))) for one in there]
        standing = stand(self._aim, asked)
        found = standing.behind - standing.front  # what is on a front may yet be taken from it
        marked = [
            score_of(self._aim, one, step=saved.step, is_behind=one.id in found)
            for saved, one in zip(there, asked, strict=True)
            if one.scores is not None
        ]
        new = {(one.trial_id, one.step) for one in marked}
        before = [one for one in self._record.rungs if (one.trial_id, one.step) not in new]
        self._record = self._record.model_copy(update={"rungs": (*before, *marked)})
        self._keep_record()
        return found

    def told(self, trial: str, step: int) -> Told | None:
        """What proposals follow from: how the trial stood at this rung, as it was recorded there."""
        found = next((one for one in self._record.rungs if (one.trial_id, one.step) == (trial, step)), None)
        if found is None:
            return None
        missed = {str(name): amount for name, amount in found.missed.items()}
        if not self._aim.is_pareto:
            return Told((found.eval_loss if found.objective is None else -found.objective,), missed)
        values = signed_values(self._aim.weights, found.figures)
        return None if values is None else Told(tuple(-value for value in values), missed)

    def dropped(self, trials: Iterable[str]) -> None:
        """Ask no more of trials that were stopped."""
        for trial in trials:
            for key, future in self._asked.items():
                if key.startswith(f"{trial}-"):
                    future.cancel()

    def kept(self, finalists: Sequence[SavedTrial], *, keep: int) -> list[str]:
        """Ask the finalists, first a few cases each, then the best of them more; the trials to keep, best first.

        Raises:
            EvaluationError: If engines break one after the other; the replies so far are kept.
        """
        engines = self._engines or self._opened.enter_context(open_engines(self._config))
        saved = {one.trial: one for one in finalists}
        with doing(f"asking {counted(len(saved), 'adapter')} validation cases"):
            first = in_order(self._aim, self._ask_all(finalists, self._first, engines), is_final=True)
            ahead = [saved[one.id] for one in first[: 2 * keep]]
            if len(self._asking.cases) > len(self._first):
                best = in_order(self._aim, self._ask_all(ahead, self._asking.cases, engines), is_final=True)
            else:
                best = first[: 2 * keep]
        shutil.rmtree(self._run.selection.root / "adapters", ignore_errors=True)
        self._conclude([*best, *first[2 * keep :]], best, saved, keep=keep)
        record = self._record
        return [*record.kept, *([record.held_against] if record.held_against else [])]

    def _ask_all(self, saved: Sequence[SavedTrial], cases: Sequence[Case], engines: Engines) -> list[Asked]:
        scores = self._submit(saved, cases, engines).result()
        return [Asked(one.trial, one.eval_loss, scores.get(one.trial)) for one in saved]

    def _submit(
        self, saved: Sequence[SavedTrial], cases: Sequence[Case], engines: Engines
    ) -> Future[dict[str, Scores]]:
        """Ask in the one thread that uses the engine, after whatever it asks."""
        return self._pool.submit(ask, self._config, self._run.selection, self._asking, saved, cases, engines)

    def _ask_beside_training(self, there: Sequence[SavedTrial], engines: Engines) -> None:
        for one in there:
            if key_of(one) not in self._asked:
                self._asked[key_of(one)] = self._submit([one], self._first, engines)
        futures = {key_of(one): self._asked[key_of(one)] for one in there}
        late = wait(futures.values(), timeout=RUNG_WAIT_S).not_done
        if late:
            step, count = there[0].step, counted(len(late), "trial")
            self._note(f"at step {step} {count} without a score after {RUNG_WAIT_S:g} s: judged by eval loss")
        for key, future in futures.items():
            if key in self._scores or not future.done() or future.cancelled():
                continue
            error = future.exception()
            if isinstance(error, EvaluationError):
                self._give_up(error)
            elif error is not None:
                raise error
            else:
                self._scores.update((key, scores) for scores in future.result().values())

    def _give_up(self, error: EvaluationError) -> None:
        if not self._why_not:
            self._why_not = f"further rungs are judged by eval loss alone, because {error.what}"
            self._note(self._why_not)

    def _note(self, text: str) -> None:
        """Say and record why scores are missing."""
        self._record = self._record.model_copy(update={"notes": (*self._record.notes, text)})
        say(f"{text[:1].upper()}{text[1:]}.")

    def _stated(self) -> Selection:
        """The rule and the cases, before anything is asked; and said."""
        search, aim = self._config.search, self._aim
        kinds = Counter(case.kind for case in self._asking.cases)
        bounds = tuple(bound_text(name, bound) for name, bound in aim.constraints.items())
        card = parse_line(self._run.card.read_text(encoding="utf-8"), DataCard, where=str(self._run.card))
        leak = card.leaks.get("val")
        told = f" under {', '.join(bounds)}" if bounds else ""
        cases = f"{len(self._first)} to {counted(len(self._asking.cases), 'case')} of the validation part"
        say(f"Adapters are chosen by {aim.text}{told}, on {cases}; ties go by eval loss.")
        if self._why_not:
            say(f"They are scored after the training alone: {self._why_not}. Proposals follow eval loss.")
        stated = Selection(
            objective=aim.text,
            weights=dict(aim.weights),
            constraints=bounds,
            rule=PARETO_RULE if aim.is_pareto else RULE,
            seed=search.seed,
            cases=dict(kinds.most_common()),
            num_first=len(self._first),
            shared_prompts=leak.prompts.count if leak else None,
            notes=(self._why_not,) if self._why_not else (),
        )
        before = read_selection(self._run)
        is_same = before is not None and (before.objective, before.constraints) == (aim.text, bounds)
        return stated.model_copy(update={"rungs": before.rungs}) if before and is_same else stated

    def _conclude(
        self, ordered: Sequence[Asked], best: Sequence[Asked], saved: Mapping[str, SavedTrial], *, keep: int
    ) -> None:
        aim, standing = self._aim, stand(self._aim, best)
        kept, by_loss = [one.id for one in ordered[:keep]], list(saved)[:keep]  # finalists come by eval loss
        scores = {one.id: one.scores for one in ordered}
        is_met = any(one.scores and not aim.missed(one.scores) for one in ordered) if aim.constraints else None
        scored = [score_of(aim, one, step=saved[one.id].step, is_behind=one.id in standing.behind) for one in ordered]
        changes = {
            "finalists": tuple(scored),
            "kept": tuple(kept),
            "by_loss": tuple(by_loss),
            "held_against": by_loss[0] if by_loss[0] not in kept else None,
            "front": tuple(one.id for one in ordered if one.id in standing.front),
            "gaps": standing.gaps,
            "against_loss": self._gap(scores[kept[0]], scores[by_loss[0]]),
            "is_met": is_met,
            "nearest": kept[0] if is_met is False else None,
            "scoring_s": engine_seconds(self._run.selection),
        }
        self._record = self._record.model_copy(update=changes)
        self._keep_record()

    def _gap(self, taken: Scores | None, by_loss: Scores | None) -> Gap | None:
        """What was taken against what eval loss would have taken; None where that is the same adapter."""
        if taken is None or by_loss is None or taken.adapter_id == by_loss.adapter_id:
            return None
        return compare_sides(self._aim.weights or {PRIMARY: 1.0}, taken, by_loss)

    def _keep_record(self) -> None:
        write_text_atomic(self._run.selected, self._record.model_dump_json(indent=2) + "\n")


def _why_not_beside(config: RunConfig, *, on_gpu: bool) -> str:
    """Why adapters cannot be scored while they train; empty where they can be."""
    if not config.trains_multi_lora:
        return "search.runner isolated hands over no checkpoints while it trains"
    if config.search.scheduler != "halving":
        return f"search.scheduler {config.search.scheduler} has no rung that asks for scores"
    return "the training has all GPUs" if on_gpu else ""


def _require_cases(aim: Aim, cases: Sequence[Case]) -> None:
    """Refuse an aim that these cases cannot show, and say where even the data's own replies are not recognised."""
    own = score_cases("data", cases, [own_reply(case) for case in cases])
    for where, what in aim.unseen(own).items():
        raise ConfigError(what, where=where, fix=ADD_CASES)
    for name in aim.metrics:
        if is_blind(own.ceilings.get(name)):
            say(f"{METRICS[name].label}: {ceiling_text(name, own.ceilings[name])}.")
