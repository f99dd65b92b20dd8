import itertools
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.experiment import Trial

from orchestrator.chat.serve_command import SERVED_RANKS
from orchestrator.config.schema import (
    PROFILES,
    LoraConfig,
    RangeConfig,
    RunConfig,
    SearchConfig,
    ServableRank,
    SpaceConfig,
)
from orchestrator.core.errors import ModelNotFoundError
from orchestrator.core.records import EvalPoint, JsonObject, TrialRecord
from orchestrator.models.adapters import peft_config
from orchestrator.search.heard import Heard
from orchestrator.search.names import HYPERPARAMETERS
from orchestrator.search.proposals import NumberedSearch, Pace
from orchestrator.search.space import (
    BaseShape,
    ResolvedSpace,
    grid_points,
    known_learning_rate,
    num_trials,
    read_base_shape,
    resolve_space,
)
from orchestrator.toy.tiny import tiny_base_folder

QWEN_06B = BaseShape(hidden_size=1024, model_type="qwen3")
BATCHES = st.integers(1, 4096)
SHAPES = st.builds(BaseShape, st.integers(16, 20_000), st.sampled_from(["qwen3", "llama", "mistral", ""]))
GRID = SpaceConfig(r=(8, 16), alpha=(16, 32, 64), learning_rate=(1e-4, 1e-3))


def grid(limit: int) -> SearchConfig:
    return SearchConfig(searcher="grid", num_trials=limit, space=GRID)


def resolved(search: SearchConfig) -> ResolvedSpace:
    return resolve_space(search.space, QWEN_06B, 8)


def proposals(
    search: SearchConfig, its_space: ResolvedSpace | None = None, earlier: Sequence[TrialRecord] = ()
) -> list[JsonObject]:
    """The points of a search's trials, from what Tune asks for them; each ends before the next is asked for."""
    heard = Heard(earlier)
    alg = NumberedSearch(search, its_space or resolved(search), heard, last=num_trials(search), pace=Pace(1))
    found = []
    while not alg.is_finished():
        config = alg.searcher.suggest("any")
        assert set(config) == {HYPERPARAMETERS}
        found.append(config[HYPERPARAMETERS])
        trial = Trial("stub", stub=True, trial_name_creator=lambda _: f"trial-{len(heard.points) + 1}")
        trial.set_config(config)
        heard.add(trial)
        assert alg.searcher.suggest("any") is None, "more trials than fit"
        heard.hear(trial, {"step": 9, "eval_loss": 1.0 / len(found)})
        heard.end(trial)
    return found


def test_a_grid_is_every_combination_with_the_learning_rate_fastest() -> None:
    points = grid_points(grid(100))
    assert [(point["r"], point["alpha"], point["learning_rate"]) for point in points[:4]] == [
        (8, 16, 1e-4),
        (8, 16, 1e-3),
        (8, 32, 1e-4),
        (8, 32, 1e-3),
    ]
    assert len(points) == 12
    assert points[-1] == {"r": 16, "alpha": 64, "learning_rate": 1e-3}


@given(st.integers(1, 20))
def test_a_grid_ends_at_the_number_of_trials(limit: int) -> None:
    assert grid_points(grid(limit)) == grid_points(grid(100))[:limit]
    assert num_trials(grid(limit)) == min(limit, 12)


def test_other_searchers_run_as_many_trials_as_asked_for() -> None:
    assert num_trials(SearchConfig(num_trials=5)) == 5
    assert num_trials(SearchConfig(num_trials=5, searcher="random")) == 5


def test_tune_tries_the_grid_in_its_order() -> None:
    assert proposals(grid(7)) == grid_points(grid(7))


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_the_same_seed_proposes_the_same_points_and_another_others(searcher: str) -> None:
    def points(seed: int) -> list[JsonObject]:
        search = SearchConfig.model_validate({"searcher": searcher, "num_trials": 12, "seed": seed})
        return proposals(search)

    once = points(1)
    assert len(once) == 12
    assert points(1) == once
    assert points(2) != once


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_every_point_lies_in_the_space(searcher: str) -> None:
    space = SpaceConfig(r=(4, 8), alpha=(8, 16), learning_rate=RangeConfig(min=1e-5, max=1e-2))
    search = SearchConfig.model_validate({"searcher": searcher, "num_trials": 40, "space": space})
    points = proposals(search)
    assert {point["r"] for point in points} == {4, 8}
    assert {point["alpha"] for point in points} == {8, 16}
    rates = [point["learning_rate"] for point in points]
    assert all(1e-5 <= rate <= 1e-2 for rate in rates)
    assert all(set(point) == {"r", "alpha", "learning_rate"} for point in points)


def test_learning_rates_are_drawn_on_a_log_scale() -> None:
    space = SpaceConfig(learning_rate=RangeConfig(min=1e-5, max=1e-1))
    points = proposals(SearchConfig(searcher="random", num_trials=200, space=space))
    logs = sorted(math.log10(point["learning_rate"]) for point in points)
    assert logs[100] == pytest.approx(-3, abs=0.5)


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_a_list_of_learning_rates_is_a_choice(searcher: str) -> None:
    search = SearchConfig.model_validate({"searcher": searcher, "num_trials": 40, "space": GRID})
    points = {tuple(point.values()) for point in proposals(search)}
    every = {(r, a, rate) for r, a, rate in itertools.product(GRID.r, GRID.alpha, (1e-4, 1e-3))}
    assert len(points) > 6
    assert points <= every


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_the_first_point_is_the_best_known_one_and_counts_as_a_trial(
    searcher: str, caplog: pytest.LogCaptureFixture
) -> None:
    search = SearchConfig.model_validate({"searcher": searcher, "num_trials": 6})
    with caplog.at_level(logging.WARNING):
        points = proposals(search)
    assert points[0] == {"r": 32, "alpha": 32, "learning_rate": 1.3e-4}
    assert len(points) == 6
    assert len({point["learning_rate"] for point in points}) == 6
    assert caplog.messages == [], "Ray and Optuna warn of a point that is not in the space"


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_the_first_point_lies_in_a_space_of_the_users_own(searcher: str) -> None:
    space = SpaceConfig(r=(8, 16), alpha=(8,), learning_rate=RangeConfig(min=1e-3, max=1e-2))
    search = SearchConfig.model_validate({"searcher": searcher, "num_trials": 3, "space": space})
    first = proposals(search)[0]
    assert first == {"r": 16, "alpha": 8, "learning_rate": pytest.approx(10**-2.5)}


@pytest.mark.parametrize("searcher", ["random", "optuna"])
@pytest.mark.parametrize("profile", PROFILES)
def test_the_second_point_is_the_recipe_of_the_profile(searcher: str, profile: str) -> None:
    config = RunConfig.model_validate({"profile": profile, **PROFILES[profile]})
    search = config.search.model_copy(update={"searcher": searcher})
    recipe = {"r": config.lora.r, "alpha": config.lora.alpha, "learning_rate": config.train.learning_rate}
    space = resolve_space(search.space, QWEN_06B, config.train.batch_size, recipe)
    points = proposals(search, space)
    assert points[:2] == [{"r": 32, "alpha": 32, "learning_rate": 1.3e-4}, recipe]
    assert len(points) == search.num_trials


@pytest.mark.parametrize(
    "change", [{"r": 4}, {"alpha": 17}, {"learning_rate": 1.0}, {"r": 32, "alpha": 32, "learning_rate": 1.3e-4}]
)
def test_a_recipe_outside_the_space_or_known_already_is_not_tried(change: JsonObject) -> None:
    recipe = {"r": 16, "alpha": 16, "learning_rate": 2e-4}
    assert resolve_space(SpaceConfig(), QWEN_06B, 8, recipe).recipe == recipe
    assert resolve_space(SpaceConfig(), QWEN_06B, 8, recipe | change).recipe is None


def test_a_search_of_one_trial_is_the_best_known_one() -> None:
    (only,) = proposals(SearchConfig(num_trials=1, searcher="random"))
    assert only == resolved(SearchConfig()).default


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        ((8, 16, 32, 64), 32),
        ((64, 32, 8), 32),
        ((8, 16), 16),
        ((4, 8, 16), 8),
        ((64, 128, 256), 128),
        ((64, 128), 64),
        ((1,), 1),
        ((16, 64), 16),
        ((2, 64, 256), 64),
    ],
)
def test_the_first_rank_is_32_or_the_middle_of_ranks_that_all_lie_to_one_side(
    values: tuple[ServableRank, ...], chosen: int
) -> None:
    for order in itertools.permutations(values):
        assert resolve_space(SpaceConfig(r=order), QWEN_06B, 8).default["r"] == chosen


@pytest.mark.parametrize(
    ("rates", "chosen"),
    [
        ((1e-4, 1e-3), 1e-4),
        ((5e-5, 2e-4, 8e-4), 2e-4),
        ((1e-3, 3e-3, 1e-2), 3e-3),
        (RangeConfig(min=1e-5, max=1e-3), 1.3e-4),
        (RangeConfig(min=1.3e-4, max=1e-3), 1.3e-4),
        (RangeConfig(min=1e-6, max=1e-5), 10**-5.5),
    ],
)
def test_the_first_learning_rate_is_the_known_one_or_the_middle_of_a_space_that_lies_elsewhere(
    rates: RangeConfig | tuple[float, ...], chosen: float
) -> None:
    default = resolve_space(SpaceConfig(learning_rate=rates), QWEN_06B, 8).default
    assert default["learning_rate"] == pytest.approx(chosen)


@given(
    st.sets(st.sampled_from(get_args(ServableRank)), min_size=1),
    st.sets(st.integers(1, 512), min_size=1),
    st.none()
    | st.sets(st.floats(1e-7, 1), min_size=1).map(tuple)
    | st.floats(1e-7, 1e-2).map(lambda low: RangeConfig(min=low, max=7 * low)),
    SHAPES,
    BATCHES,
)
def test_the_first_point_always_lies_in_the_space(
    ranks: set[ServableRank],
    alphas: set[int],
    rates: RangeConfig | tuple[float, ...] | None,
    shape: BaseShape,
    batch: int,
) -> None:
    space = resolve_space(SpaceConfig(r=tuple(ranks), alpha=tuple(alphas), learning_rate=rates), shape, batch)
    first = space.default
    assert first["r"] in ranks
    assert first["alpha"] in alphas
    if isinstance(space.learning_rate, RangeConfig):
        assert space.learning_rate.min <= first["learning_rate"] <= space.learning_rate.max
    else:
        assert first["learning_rate"] in space.learning_rate
    if rates is not None:
        assert space.learning_rate == rates


@given(SHAPES, BATCHES)
def test_the_default_range_reaches_as_far_below_the_known_rate_as_above(shape: BaseShape, batch: int) -> None:
    space = resolve_space(SpaceConfig(), shape, batch)
    known = known_learning_rate(shape.hidden_size, shape.model_type, batch)
    assert isinstance(space.learning_rate, RangeConfig)
    assert space.learning_rate.min * 5 == pytest.approx(known)
    assert space.learning_rate.max / 5 == pytest.approx(known)
    assert space.default == {"r": 32, "alpha": 32, "learning_rate": known}


@pytest.mark.parametrize(
    ("hidden_size", "model_type", "batch_size", "rate"),
    [
        (1024, "qwen3", 128, 5.3e-4),
        (1024, "qwen3", 8, 1.3e-4),
        (2048, "qwen3", 16, 1.8e-4),
        (4096, "qwen3_moe", 128, 4.7e-4),
        (2560, "qwen3_5_text", 128, 4.9e-4),
        (4096, "llama", 128, 2.9e-4),
        (8192, "llama", 32, 8.3e-5),
        (4096, "mistral", 128, 3.7e-4),
        (256, "qwen3", 16, 4.9e-3),
    ],
)
def test_known_learning_rates(hidden_size: int, model_type: str, batch_size: int, rate: float) -> None:
    assert known_learning_rate(hidden_size, model_type, batch_size) == pytest.approx(rate)


@given(st.integers(512, 20_000), st.integers(512, 20_000), st.sampled_from(["qwen3", "llama", "gemma3"]), BATCHES)
def test_a_wider_base_takes_no_higher_rate(one: int, other: int, model_type: str, batch: int) -> None:
    narrow, wide = sorted((one, other))
    assert known_learning_rate(narrow, model_type, batch) >= known_learning_rate(wide, model_type, batch)


@given(SHAPES, st.integers(1, 32))
def test_four_times_the_batch_takes_twice_the_rate_up_to_the_batch_it_was_measured_at(
    shape: BaseShape, batch: int
) -> None:
    def at(size: int) -> float:
        return known_learning_rate(shape.hidden_size, shape.model_type, size)

    assert at(4 * batch) == pytest.approx(2 * at(batch), rel=0.11)  # both are told to two digits
    assert at(128) == at(129) == at(100_000)


@given(st.integers(512, 20_000), BATCHES)
def test_other_families_lie_between_qwen_and_llama(hidden_size: int, batch: int) -> None:
    qwen, llama, other = (known_learning_rate(hidden_size, each, batch) for each in ("qwen2", "llama4_text", "phi3"))
    assert min(qwen, llama) <= other <= max(qwen, llama)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_rate_of_each_profile_lies_well_inside_the_default_range(profile: str) -> None:
    train = PROFILES[profile]["train"]
    known = known_learning_rate(1024, "qwen3", int(train["batch_size"]))
    assert 1 / 2 < train["learning_rate"] / known < 2


def test_ranks_are_even_on_a_log_scale_and_served_without_padding() -> None:
    ranks = SpaceConfig().r
    assert [upper / lower for lower, upper in itertools.pairwise(ranks)] == [2, 2, 2]
    assert set(ranks) <= set(SERVED_RANKS)


@pytest.mark.parametrize("rank", get_args(ServableRank))
@pytest.mark.parametrize("use_rslora", [False, True])
def test_every_adapter_that_a_search_can_make_is_one_that_the_evaluator_loads(
    rank: ServableRank, use_rslora: bool
) -> None:
    made = peft_config(LoraConfig(r=rank, use_rslora=use_rslora))
    assert max(get_args(ServableRank)) <= max(SERVED_RANKS)
    assert (made.use_dora, made.bias, made.lora_bias) == (False, "none", False)
    assert not made.modules_to_save
    assert not made.rank_pattern
    assert not made.alpha_pattern
    known = {"r", "alpha", "dropout", "target_modules", "use_rslora", "use_dora", "init"}
    assert set(LoraConfig.model_fields) == known


def test_the_shape_of_the_toy_base_asks_for_the_rates_that_it_learns_at() -> None:
    shape = read_base_shape(tiny_base_folder())
    assert shape == BaseShape(256, "qwen3")
    assert resolve_space(SpaceConfig(), shape, 8).default["learning_rate"] == 3.5e-3


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({"model_type": "llama", "hidden_size": 4096}, BaseShape(4096, "llama")),
        (
            {"model_type": "qwen3_5", "text_config": {"model_type": "qwen3_5_text", "hidden_size": 2560}},
            BaseShape(2560, "qwen3_5_text"),
        ),
        (
            {"model_type": "gemma3", "hidden_size": 1, "text_config": {"hidden_size": 640}},
            BaseShape(640, "gemma3"),
        ),
        ({"model_type": "gpt2", "n_embd": 768}, BaseShape(2000, "gpt2")),
        ({"text_config": None, "hidden_size": 896}, BaseShape(896, "")),
    ],
)
def test_a_shape_is_that_of_the_part_that_reads_text(config: JsonObject, shape: BaseShape, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert read_base_shape(tmp_path) == shape


@pytest.mark.parametrize("content", ["{", "[]", '{"hidden_size": "wide"}', '{"text_config": "here"}', b"\xff"])
def test_a_configuration_that_cannot_be_read_is_named(content: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelNotFoundError, match=f"{path}: the base's configuration cannot be read"):
        read_base_shape(tmp_path)
    path.unlink()
    with pytest.raises(ModelNotFoundError, match=r"cannot be read.*No such file"):
        read_base_shape(tmp_path)


def records_of(points: list[JsonObject]) -> list[TrialRecord]:
    """Trials with these hyperparameters whose losses are 1, 1/2, 1/3 and so on."""
    return [
        TrialRecord(
            trial_id=f"trial-{number}",
            status="completed",
            hyperparameters=point,
            curve=(EvalPoint(step=9, eval_loss=1.0 / number),),
        )
        for number, point in enumerate(points, 1)
    ]


@pytest.mark.parametrize("searcher", ["random", "optuna", "grid"])
def test_a_search_that_is_given_more_trials_proposes_other_points(searcher: str) -> None:
    settings = {"searcher": searcher, "num_trials": 4, **({"space": GRID} if searcher == "grid" else {})}
    search = SearchConfig.model_validate(settings)
    first = proposals(search)
    more = proposals(search.model_copy(update={"num_trials": 7}), earlier=records_of(first))
    assert len(more) == 3
    assert all(point not in first for point in more)


@pytest.mark.parametrize("searcher", ["random", "optuna", "grid"])
def test_a_search_that_is_given_more_trials_goes_on_as_one_that_had_them_from_the_start(searcher: str) -> None:
    settings = {"searcher": searcher, "num_trials": 12, **({"space": GRID} if searcher == "grid" else {})}
    search = SearchConfig.model_validate(settings)
    whole = proposals(search)
    assert proposals(search, earlier=records_of(whole[:8])) == whole[8:]


def test_optuna_learns_from_what_earlier_trials_reached() -> None:
    """From ten results on its points lie nearer to the best of them than points that are drawn by chance."""
    search = SearchConfig.model_validate({"searcher": "optuna", "num_trials": 48})
    rates = [math.log(point["learning_rate"]) for point in proposals(search)]
    by_chance = [
        math.log(point["learning_rate"]) for point in proposals(search.model_copy(update={"searcher": "random"}))
    ]
    assert rates[:16] == by_chance[:16]
    assert rates[16:] != by_chance[16:]

    wanted = math.log(1e-4)

    def result(number: int, points: list[JsonObject]) -> TrialRecord:
        loss = abs(math.log(points[number - 1]["learning_rate"]) - wanted)
        curve = (EvalPoint(step=9, eval_loss=loss),)
        return TrialRecord(
            trial_id=f"trial-{number}", status="completed", hyperparameters=points[number - 1], curve=curve
        )

    points = proposals(search)[:16]
    further = proposals(search, earlier=[result(number, points) for number in range(1, 17)])[:8]
    near = sum(abs(math.log(point["learning_rate"]) - wanted) for point in further) / 8
    assert near < sum(abs(rate - wanted) for rate in by_chance) / len(by_chance)


def test_results_that_say_nothing_are_left_out() -> None:
    search = SearchConfig.model_validate({"searcher": "optuna", "num_trials": 20})
    earlier = records_of(proposals(search)[:16])
    failed = [its.model_copy(update={"status": "failed", "curve": ()}) for its in earlier[:7]]
    assert len(proposals(search, earlier=[*failed, *earlier[7:]])) == 4
    diverged = earlier[-1].model_copy(update={"status": "diverged", "curve": (), "steps": 5})
    assert proposals(search, earlier=[*earlier[:-1], diverged]) != proposals(search, earlier=earlier)
