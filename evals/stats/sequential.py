"""Which of two live arms is better? Bounds on their difference that hold at every look, however often one looks.

Each live case is answered by one arm, so cases are not paired. The interval is that of a normal-mixture sequential
test: the bound of Robbins (1970), "Statistical methods related to the law of the iterated logarithm", Annals of
Mathematical Statistics 41, used for live comparisons by Johari, Koomen, Pekelis and Walsh (2022), "Always valid
inference: continuous monitoring of A/B tests", Operations Research 70, and shown to hold for any asymptotically linear
estimate by Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), "Time-uniform central limit theory and asymptotic
confidence sequences", Annals of Statistics 52. It is asymptotic, so nothing is said of fewer than `MIN_UNITS` users or
conversations an arm; the simulations of its tests hold it to its level from there on.

Cases of one user or conversation depend on each other: the variance is summed over these, whether each of them saw one
arm or both. A success and a failure are added to each arm in the variance of a share, as Agresti and Caffo (2000) do:
without them the variance is zero where every case succeeded.

Only totals enter, so the order in which outcomes arrive does not matter.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betaln, lambertw
from scipy.stats import norm

from evals.stats.comparison import LEVEL, POWER, Numbers

MIN_UNITS = 30
"""Fewest users or conversations in each arm of which anything is said."""
FIRST_SAID = MIN_UNITS * 5 // 2
"""Cases that nearly always give both arms so many."""
SPLIT_LEVEL = 0.001
"""Chance at which a fair split is called off."""

SHARE_ON_AVERAGE = 0.56
"""Of the planned cases, how many are there on average when it is shown, or the plan has ended.

Of a Brownian motion with drift that crosses the bound, which has no closed form; a test simulates it again.
"""


class Arms(NamedTuple):
    """One metric of two arms; `units` are codes from 0 of the users or conversations; all of shape (cases,)."""

    values: Numbers
    is_new: NDArray[np.bool_]
    units: NDArray[np.intp]


class Bounds(NamedTuple):
    """The mean of each arm, new minus old, and how far off that may be at any look; None where too little is known.

    `variance` is that of the difference.
    """

    n_old: int
    n_new: int
    old: float | None = None
    new: float | None = None
    low: float | None = None
    high: float | None = None
    variance: float | None = None


def difference_bounds(arms: Arms, *, target: float, is_share: bool, level: float = LEVEL) -> Bounds:
    """Bounds on the difference of the arms' means.

    Args:
        arms: The values; 0 and 1 for a share.
        target: The difference about which they are narrowest at the planned end. They hold whatever it is, if it was
            chosen before any outcome was seen.
        is_share: Whether the values are yes and no.
        level: Chance that they miss the true difference at any look.
    """
    n_new = int(arms.is_new.sum())
    n_old = len(arms.values) - n_new
    if not n_old or not n_new:
        return Bounds(n_old, n_new)
    old, new = float(arms.values[~arms.is_new].mean()), float(arms.values[arms.is_new].mean())
    if min(len(np.unique(arms.units[side])) for side in (arms.is_new, ~arms.is_new)) < MIN_UNITS:
        return Bounds(n_old, n_new, old, new)
    variance = _variance(_with_one_of_each(arms) if is_share else arms, n_old, n_new)
    if variance == 0:  # values that are all alike tell nothing of how they vary
        return Bounds(n_old, n_new, old, new)
    half = float(np.sqrt(variance) * bound(_mixed(target) / variance, level))
    return Bounds(n_old, n_new, old, new, new - old - half, new - old + half, variance)


def _with_one_of_each(arms: Arms) -> Arms:
    """The arms with a yes and a no added to each, all of them units of their own."""
    return Arms(
        np.append(arms.values, [1.0, 0.0, 1.0, 0.0]),
        np.append(arms.is_new, [True, True, False, False]),
        np.append(arms.units, arms.units.max() + np.arange(1, 5)),
    )


def _variance(arms: Arms, n_old: int, n_new: int) -> float:
    """Of the difference of means, from what each unit adds to it."""
    centre = np.where(arms.is_new, arms.values[arms.is_new].mean(), arms.values[~arms.is_new].mean())
    added = np.bincount(arms.units, (arms.values - centre) / np.where(arms.is_new, n_new, -n_old))
    num_units = len(np.unique(arms.units))
    return float((added**2).sum() * num_units / (num_units - 1))


def bound(information: float, level: float = LEVEL) -> float:
    """How many standard errors the difference may be off at any look; `information` is in units of the mixture's."""
    return float(np.sqrt((1 + 1 / information) * np.log((1 + information) / level**2)))


def _tightest() -> float:
    """The information at which the bound is narrowest (Howard, Ramdas, McAuliffe and Sekhon, 2021)."""
    return float(-lambertw(-(LEVEL**2) / np.e, -1).real - 1)


def _mixed(target: float) -> float:
    """The mixture's variance, with which the bound is narrowest when `target` has been planned for."""
    return _tightest() * (target / reach_to_show()) ** 2


def reach_to_show() -> float:
    """The planned difference in standard errors after the last planned case.

    The look there alone shows it with chance `POWER`; who looks before as well sees it more often.
    """
    return bound(_tightest()) + float(norm.ppf(POWER))


class Needs(NamedTuple):
    """Cases of both arms together: at one look at the end, and when looking at any time."""

    one_look: int
    at_most: int
    on_average: int


def cases_to_show(old: float, new: float) -> Needs:
    """How many cases of a 50/50 split show that two shares differ, with a chance of at least `POWER`.

    Raises:
        ValueError: If they do not differ.
    """
    if old == new:
        raise ValueError("equal shares never differ")
    spread = 2 * (old * (1 - old) + new * (1 - new)) / (new - old) ** 2
    at_most = _cases(reach_to_show() ** 2 * spread)
    silent = min(1.0, FIRST_SAID / at_most)  # what would be shown before, about evenly spread, is shown then
    return Needs(
        one_look=_cases((norm.ppf(1 - LEVEL / 2) + norm.ppf(POWER)) ** 2 * spread),
        at_most=at_most,
        on_average=_cases(at_most * (1 - (1 - SHARE_ON_AVERAGE) * (1 - silent**2))),
    )


def cases_to_rule_out(share: float, margin: float) -> int:
    """How many cases show that two arms with the same share differ by less than `margin`, with a chance of `POWER`."""
    return _cases(4 * share * (1 - share) * (_reach_to_rule_out() / margin) ** 2)


def _reach_to_rule_out() -> float:
    """The margin in standard errors at which the bounds of arms without a difference lie within it."""
    spare = norm.ppf((1 + POWER) / 2)
    return _root(lambda reach: reach - spare - bound(_tightest() * (reach / reach_to_show()) ** 2))


def harm_shown(share: float, num_cases: int, *, level: float) -> float:
    """How much higher or lower a share has to be for so many cases to show it, with a chance of `POWER`."""
    reach = bound(_tightest(), level) + norm.ppf(POWER)
    return float(reach * np.sqrt(4 * share * (1 - share) / num_cases))


def cases_wanted(found: Bounds, margin: float, target: float) -> int | None:
    """How many more cases like these are likely to settle it; 0 where as many as that are there, None if unknown."""
    if found.variance is None:
        return None
    information = max((reach_to_show() / target) ** 2, (_reach_to_rule_out() / margin) ** 2)
    num_cases = found.n_old + found.n_new
    return max(0, round(num_cases * (found.variance * information - 1)))


def split_is_off(n_old: int, n_new: int) -> bool:
    """Whether a 50/50 split would hardly give these counts, at any look.

    The Bayes factor against 1/2 of a uniform prior, a martingale under a fair split (Lindon and Malek, 2022, "Anytime-
    valid inference for multinomial count data", NeurIPS 35), so that it ever exceeds 1 / level with chance `level`.
    """
    evidence = betaln(n_old + 1, n_new + 1) + (n_old + n_new) * np.log(2)
    return bool(evidence > -np.log(SPLIT_LEVEL))


def _cases(count: float) -> int:
    """At least as many as give both arms the fewest of which anything is said."""
    return max(FIRST_SAID, int(np.ceil(count)))


def _root(function: Callable[[float], float]) -> float:
    return float(brentq(function, 1.0, 100.0))
