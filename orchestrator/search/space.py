"""What a search may choose: the space, its first points, and the grid.

What the configuration leaves open is chosen for the base and the batch (docs/decisions/0016-search-defaults.md).
"""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from orchestrator.config.schema import RangeConfig, SearchConfig, SpaceConfig
from orchestrator.core.errors import ModelNotFoundError
from orchestrator.core.records import JsonObject
from orchestrator.search.samplers import Dimensions, holds

KNOWN_RANK = KNOWN_ALPHA = 32
"""The rank and alpha at which the known learning rates were measured."""
KNOWN_BATCH = 128
"""Samples per step at which they were measured."""
KNOWN_RATE, KNOWN_HIDDEN_SIZE = 5e-4, 2000
"""The known learning rate at that batch, and the hidden size at which it is the same for every family of models."""
EXPONENTS = {"qwen": 0.0775, "llama": 0.781}
"""How fast the known rate falls with the hidden size, by family; others take the middle of the two."""
TOY_HIDDEN_SIZE, TOY_RATE = 512, 1.4e-2
"""Below this hidden size there are only toys; the rate at that batch is the one that the built-in toy needs."""
REACH = 5.0
"""The default range reaches this factor below and above the known rate."""

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class BaseShape:
    """What the known learning rate depends on. `model_type` is transformers' name of the architecture."""

    hidden_size: int
    model_type: str


@dataclass(frozen=True)
class ResolvedSpace:
    """What a search draws from, nothing left open.

    `default` is the first point tried, `recipe` the second: what `train` would train, None if it is not in the space.
    """

    r: tuple[int, ...]
    alpha: tuple[int, ...]
    learning_rate: RangeConfig | tuple[float, ...]
    default: JsonObject
    recipe: JsonObject | None = None
    further: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def dimensions(self) -> Dimensions:
        """What may be chosen, by setting."""
        return {"r": self.r, "alpha": self.alpha, "learning_rate": self.learning_rate, **self.further}

    @property
    def first_points(self) -> list[JsonObject]:
        """What is tried before anything is drawn."""
        return [self.default] if self.recipe is None else [self.default, self.recipe]


def read_base_shape(folder: Path) -> BaseShape:
    """The shape of the model in `folder`, from its config.json; of its text part if it is multimodal.

    A config without a hidden size gives the one at which the known rate is the same for every family.

    Raises:
        ModelNotFoundError: If there is no readable config.json.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        text = config.get("text_config") or config
        model_type = text.get("model_type") or config.get("model_type") or ""
        return BaseShape(int(text.get("hidden_size") or KNOWN_HIDDEN_SIZE), str(model_type))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelNotFoundError(
            f"the base's configuration cannot be read ({error})",
            where=str(path),
            fix="Point model.base at a folder in Hugging Face format",
        ) from None


def known_learning_rate(hidden_size: int, model_type: str, batch_size: int) -> float:
    """The learning rate at which LoRA of rank 32 and alpha 32 is known to train well, to two digits.

    Tinker's rule for its sweeps (35 models, batches of 128), times the square root of batch_size / 128. A batch above
    128 gives the rate of 128: rates far above it diverged.
    """
    middle = sum(EXPONENTS.values()) / 2
    exponent = next((value for family, value in EXPONENTS.items() if family in model_type), middle)
    known = TOY_RATE if hidden_size < TOY_HIDDEN_SIZE else KNOWN_RATE * (KNOWN_HIDDEN_SIZE / hidden_size) ** exponent
    return float(f"{known * math.sqrt(min(batch_size, KNOWN_BATCH) / KNOWN_BATCH):.2g}")


def resolve_space(
    space: SpaceConfig,
    base: BaseShape,
    batch_size: int,
    recipe: JsonObject | None = None,
    cohort: JsonObject | None = None,
) -> ResolvedSpace:
    """The space with the learning rates that the configuration leaves open, and the first points to try in it.

    The first is r 32, alpha 32 and the known learning rate; where the space lies to one side of one of these, the
    middle of the space on a log scale. The second is `recipe`, the values of the configuration itself, if it is another
    point of the space; both have the recipe's values of all further settings, or the nearest to them in the space. A
    `cohort` fixes some of these.
    """
    further = {name: values for name, values in space.further.items() if name not in (cohort or {})}
    further |= {name: (value,) for name, value in (cohort or {}).items()}
    known = known_learning_rate(base.hidden_size, base.model_type, batch_size)
    rates = RangeConfig(min=known / REACH, max=known * REACH) if space.learning_rate is None else space.learning_rate
    first = _target(rates.min, rates.max, known) if isinstance(rates, RangeConfig) else _nearest(rates, known)
    r, alpha = _nearest(space.r, KNOWN_RANK), _nearest(space.alpha, KNOWN_ALPHA)
    usual = {name: _closest(values, (recipe or {}).get(name, values[0])) for name, values in further.items()}
    resolved = ResolvedSpace(
        space.r, space.alpha, rates, {"r": r, "alpha": alpha, "learning_rate": first, **usual}, further=further
    )
    is_other = recipe is not None and recipe != resolved.default and holds(resolved.dimensions, recipe)
    return replace(resolved, recipe=recipe) if is_other else resolved


def _closest(values: Sequence[float], wanted: float) -> float:
    return min(values, key=lambda value: (abs(value - wanted), value))


def _target(low: float, high: float, known: float) -> float:
    return known if low <= known <= high else math.sqrt(low * high)


def _nearest(values: Sequence[Number], known: float) -> Number:
    """The value nearest the target on a log scale; ties go to the one nearer the known, then to the smaller."""
    target = _target(min(values), max(values), known)

    def distance(value: Number) -> tuple[float, float, Number]:
        return round(abs(math.log(value / target)), 9), round(abs(math.log(value / known)), 9), value

    return min(values, key=distance)


def grid_points(search: SearchConfig) -> list[JsonObject]:
    """Every combination, up to `num_trials`, in the order of the config; learning rate varies fastest.

    What is varied beside rank, alpha and learning rate varies more slowly, and what engines share most slowly.
    """
    space = search.space
    assert isinstance(space.learning_rate, tuple)  # SearchConfig refuses anything else for a grid
    always = {"r": space.r, "alpha": space.alpha, "learning_rate": space.learning_rate}
    options = {**space.shared, **{name: space.further[name] for name in space.further if name not in space.shared}}
    options |= always
    usual = (*always, *space.further)
    combinations = (dict(zip(options, values, strict=True)) for values in itertools.product(*options.values()))
    points = [{name: combination[name] for name in usual} for combination in combinations]
    return points[: search.num_trials]


def num_trials(search: SearchConfig) -> int:
    """Trials that the search will run, the default point included."""
    return len(grid_points(search)) if search.searcher == "grid" else search.num_trials
