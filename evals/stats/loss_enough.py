"""Was eval loss enough? How well it ranks checkpoints by the objective, and which settings the outcome depends on.

- **Rank correlation.** Spearman's, of a lower eval loss with a higher objective. Its interval is a percentile
  bootstrap over trials, all checkpoints of one together, for they depend on each other.
- **Importance.** fANOVA (Hutter, Hoos and Leyton-Brown, 2014) as Optuna has it, of the best eval loss, over the
  settings that varied. The range is that of resamples of the trials: with few of them it is wide.

Not covered: what a setting does that was not tried, and effects of two settings together.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

from evals.records import Metric
from evals.stats.selected import CheckpointScore, Selection
from orchestrator.core.records import TrialRecord

LEAST_CHECKPOINTS, LEAST_TRIALS = 4, 6
"""Fewer say nothing of a rank correlation, of an importance."""
_SEED, _RESAMPLES, _REFITS, _TREES = 0, 2000, 8, 16


class Importance(NamedTuple):
    """The share of the outcome's variance that a setting explains, and the 5th and 95th percentile of resamples."""

    setting: str
    share: float
    low: float
    high: float


def checkpoints_of(selection: Selection) -> list[CheckpointScore]:
    """Every scored checkpoint once, as it was asked most cases."""
    found = {(one.trial_id, one.step): one for one in (*selection.rungs, *selection.finalists)}
    return [one for one in found.values() if one.objective is not None]


def rank_correlation(checkpoints: Sequence[CheckpointScore]) -> Metric | None:
    """How well a lower eval loss ranks the objective, over `n` checkpoints; None for too few or equal ones."""
    if len(checkpoints) < LEAST_CHECKPOINTS:
        return None
    names = sorted({one.trial_id for one in checkpoints})
    of_trial = [[(-one.eval_loss, one.objective or 0.0) for one in checkpoints if one.trial_id == n] for n in names]
    value = _spearman([pair for pairs in of_trial for pair in pairs])
    if np.isnan(value):
        return None
    draws = np.random.default_rng(_SEED).integers(0, len(names), (_RESAMPLES, len(names)))
    drawn = np.array([_spearman([pair for trial in draw for pair in of_trial[trial]]) for draw in draws])
    known = drawn[~np.isnan(drawn)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (None, None)
    return Metric(value=value, n=len(checkpoints), low=_float(low), high=_float(high))


def importances(trials: Sequence[TrialRecord]) -> list[Importance]:
    """The settings that varied, the most important first; none for too few trials."""
    known = [trial for trial in trials if trial.best_eval_loss is not None]
    settings = [name for name in (known[0].hyperparameters if known else {}) if _varies(name, known)]
    if len(known) < LEAST_TRIALS or len(settings) < 2:
        return []
    whole = _fanova(known, settings)
    draws = np.random.default_rng(_SEED).integers(0, len(known), (_REFITS, len(known)))
    refits = [_fanova([known[number] for number in draw], settings) for draw in draws]
    found = []
    for name in settings:
        low, high = np.quantile([refit.get(name, 0.0) for refit in refits], [0.05, 0.95])
        found.append(Importance(name, whole.get(name, 0.0), float(low), float(high)))
    return sorted(found, key=lambda one: -one.share)


def _varies(name: str, trials: Sequence[TrialRecord]) -> bool:
    return len({trial.hyperparameters.get(name) for trial in trials}) > 1


def _fanova(trials: Sequence[TrialRecord], settings: Sequence[str]) -> dict[str, float]:
    import optuna  # takes a second
    from optuna.distributions import CategoricalDistribution, FloatDistribution
    from optuna.importance import FanovaImportanceEvaluator

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ranges = {name: sorted({float(trial.hyperparameters[name]) for trial in trials}) for name in settings}
    spread = {name: values for name, values in ranges.items() if len(values) > 1}
    study = optuna.create_study()
    for trial in trials:
        point = {name: float(trial.hyperparameters[name]) for name in spread}
        kinds = {
            name: FloatDistribution(values[0], values[-1], log=True)
            if len(values) > LEAST_TRIALS
            else CategoricalDistribution(values)
            for name, values in spread.items()
        }
        study.add_trial(optuna.trial.create_trial(params=point, distributions=kinds, value=trial.best_eval_loss))
    if len(spread) < 2 or len({trial.best_eval_loss for trial in trials}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
        evaluator = FanovaImportanceEvaluator(n_trees=_TREES, seed=_SEED)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}


def _spearman(pairs: Sequence[tuple[float, float]]) -> float:
    losses, values = zip(*pairs, strict=True)
    if len(set(losses)) < 2 or len(set(values)) < 2:
        return float("nan")
    return float(spearmanr(losses, values).statistic)


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)
