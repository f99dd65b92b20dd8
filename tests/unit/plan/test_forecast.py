"""Forecasts for a base of SmolLM2-135M's shape, on devices and machines of several sizes."""

from dataclasses import replace

import pytest

from orchestrator.config.schema import ResourcesConfig, RunConfig, SearchConfig, TrainConfig
from orchestrator.core.errors import ConfigError
from orchestrator.data.card import TokenCard
from orchestrator.plan.devices import Device, named_device
from orchestrator.plan.forecast import (
    DeviceForecast,
    Job,
    amounts_of,
    forecast_on,
    with_measured,
    with_replies,
    with_times,
)
from orchestrator.plan.measured import Measured, MeasuredReplies
from orchestrator.plan.memory import GIB, GPU_CONTEXT_BYTES
from orchestrator.plan.settle import Wanted, change_that_fits, settle
from orchestrator.plan.shapes import BaseShape
from orchestrator.plan.show import plan_lines

SMOL = BaseShape(
    parameters=134_515_008, products=106_203_456, linear=106_168_320, largest=884_736, layers=30,
    hidden=576, inner=1536, gated=True, heads=9, queries=576,
    keys=192, head_norms=0, adapted=305_280, adapted_inputs=4992.0, adapted_layers=7.0, vocabulary=49_152,
)  # fmt: skip
CARD = TokenCard(
    samples=800, rows=800, tokens=400_000, learned_tokens=100_000, longest=1024, shortened=0, unlearned_turns=0,
    by_kind={}, histogram=(), left_out=(),
)  # fmt: skip


def machine(gib: float) -> Device:
    return Device("a CPU", int(gib * GIB), 0.0, is_gpu=False)


def job(**train: object) -> Job:
    settings = TrainConfig.model_validate({"batch_size": 8, "micro_batch_size": 4, **train})
    config = RunConfig(train=settings, search=SearchConfig(num_trials=4))
    return Job(config, SMOL, CARD, CARD)


def on(gib: float, cpus: float = 2, **train: object) -> DeviceForecast:
    return forecast_on(job(**train), machine(gib), cpus=cpus)


def test_two_engines_share_24_gib_and_fit() -> None:
    found = on(24)
    assert (found.processes, found.slots, found.verdict, found.gradient_checkpointing) == (2, 2, "fits", False)
    assert found.high <= found.room < 12 * GIB


def test_less_memory_means_fewer_slots_then_recomputed_layers() -> None:
    found = [on(gib) for gib in (24, 12, 5.5)]
    assert [its.slots for its in found] == sorted((its.slots for its in found), reverse=True)
    assert found[1].slots == 1
    assert [its.gradient_checkpointing for its in found] == [False, False, True]


def test_what_is_set_is_not_decided() -> None:
    assert on(24, gradient_checkpointing=True).gradient_checkpointing
    assert not on(5.5, gradient_checkpointing=False).gradient_checkpointing


def test_what_certainly_does_not_fit_is_told_apart_from_what_is_tight() -> None:
    assert on(2.0).certain
    assert on(2.0).verdict == "does not fit"
    room = on(24, gradient_checkpointing=True).expected * 2 / 0.92 / GIB
    assert not on(room + 1.6, gradient_checkpointing=True).certain


WANTED = Wanted("isolated", "float32", on_gpu=False, rank=16, micro_batch=8, longest=1024, learned_share=0.3)


@pytest.mark.parametrize("share", [0.9, 0.7, 0.6])
def test_the_one_change_makes_it_fit_and_costs_least(share: float) -> None:
    wanted = Wanted(**{**vars(WANTED), "checkpointing": False})
    needed = settle(SMOL, wanted, 1).memory(SMOL).high
    assert change_that_fits(SMOL, wanted, needed, batch_size=8) is not None
    change = change_that_fits(SMOL, wanted, int(share * needed), batch_size=8)
    assert change == "train.gradient_checkpointing: auto"
    on = Wanted(**{**vars(WANTED), "checkpointing": True})
    needed = settle(SMOL, on, 1).memory(SMOL).high
    assert (change_that_fits(SMOL, on, int(share * needed), batch_size=8) or "").startswith("train.micro_batch_size: ")


def test_a_batch_is_cut_into_equal_passes_only() -> None:
    wanted = Wanted(**{**vars(WANTED), "checkpointing": True, "micro_batch": 6})
    needed = settle(SMOL, wanted, 1).memory(SMOL).high
    assert change_that_fits(SMOL, wanted, int(0.8 * needed), batch_size=9) != "train.micro_batch_size: 2"


def test_nothing_makes_a_base_fit_whose_weights_do_not() -> None:
    assert change_that_fits(SMOL, WANTED, SMOL.parameters, batch_size=8) is None


def test_amounts_are_those_of_the_training() -> None:
    amounts = amounts_of(job())
    assert (amounts.steps_per_epoch, amounts.steps, amounts.evaluations) == (100, 100, 10)
    assert amounts.trained_tokens == 400_000
    assert amounts.all_steps == 400
    assert 100 < amounts.expected_steps < 400
    assert amounts.trainable[16] == 16 * 305_280


def test_an_engine_of_the_evaluation_takes_weights_cache_and_a_process() -> None:
    cpu, gpu = on(24).serving, forecast_on(job(), named_device("L4"), cpus=2).serving
    assert 2.6 * GIB < cpu < 3.2 * GIB  # 2.9 GiB were seen
    assert gpu < cpu - GIB


def test_a_faster_device_takes_less_time_and_the_price_is_by_the_hour() -> None:
    priced = job()._replace(config=job().config.model_copy(update={"resources": ResourcesConfig(price_per_hour=4.0)}))
    found = []
    for name in ("T4", "H100"):
        device = named_device(name)
        found.append(with_times(priced, forecast_on(priced, device, cpus=8), device, cases=100))
    slow, fast = found
    assert slow.dtype == "float16"
    assert fast.dtype == "bfloat16"
    assert (slow.search_s or 0) > 5 * (fast.search_s or 0) > 0
    assert fast.cost == pytest.approx(4.0 * ((fast.search_s or 0) + (fast.evaluation_s or 0)) / 3600)


def measured(**changes: float) -> Measured:
    settings = {"tokens_per_s": 500.0, "read_tokens_per_s": 2000.0, "peak_bytes": 1, "steps": 3, "processes": 2}
    return Measured.model_validate({**settings, "probe_s": 40.0, **changes})


def test_times_are_those_of_measured_steps() -> None:
    cpu, its = machine(24), job()
    found = with_times(its, with_measured(on(24), measured()), cpu, cases=10)
    evaluations = amounts_of(its).evaluations * 400_000 / 2000
    assert found.trial_s == pytest.approx(400_000 / 500 + evaluations)
    assert found.measured == measured()
    twice = with_times(its, with_measured(on(24), measured(tokens_per_s=1000.0)), cpu, cases=10)
    assert (found.trial_s or 0) - (twice.trial_s or 0) == pytest.approx(400)


def test_a_measured_peak_above_the_plan_decides() -> None:
    planned = on(24)
    assert with_measured(planned, measured(peak_bytes=planned.expected - 1)).expected == planned.expected
    above = with_measured(planned, measured(peak_bytes=planned.high + 1))
    assert (above.low, above.expected, above.high) == (planned.high + 1,) * 3
    assert above.verdict == "fits"
    beyond = with_measured(planned, measured(peak_bytes=planned.room + 1))
    assert (beyond.verdict, beyond.certain) == ("does not fit", True)


REPLIES = MeasuredReplies(
    start_s=10.0, case_s=1.0, token_s=0.01, alone_s=4.0, alone_token_s=0.04, reply_tokens=80.0, expected_tokens=30.0,
    all_cases=100, all_alone=20, cases=32, peak_bytes=1, probe_s=40.0,
)  # fmt: skip


def evaluation_s(its: Job, replies: MeasuredReplies) -> float:
    return with_times(its, with_replies(on(24), replies), machine(24), cases=10).evaluation_s or 0


def test_the_evaluation_takes_as_long_as_its_replies_adapters_shorter_than_the_base() -> None:
    its = job()
    base, adapter = 100 * 1.0 + 20 * 4.0, 100 * 0.5 + 20 * 2.0
    kept = its.config.search.keep
    assert evaluation_s(its, REPLIES) == pytest.approx(10 + base + kept * adapter)
    at_most = REPLIES.model_copy(update={"reply_tokens": 30.0})
    assert evaluation_s(its, at_most) == pytest.approx(10 + (1 + kept) * base)


def test_an_engine_that_took_more_than_planned_is_told() -> None:
    planned = on(24)
    assert with_replies(planned, REPLIES).serving == planned.serving
    assert (
        with_replies(planned, REPLIES.model_copy(update={"peak_bytes": planned.serving + 1})).serving > planned.serving
    )


@pytest.mark.parametrize("name", ["h100", "A100-80GB", "NVIDIA RTX 4090", "cpu:64"])
def test_devices_are_known_by_the_names_that_people_write(name: str) -> None:
    assert named_device(name).memory > 20 * GIB


def test_an_unknown_device_is_bad_input() -> None:
    with pytest.raises(ConfigError, match=r"--device: no device is called 'H9000'.*T4, A10G"):
        named_device("H9000")


def test_weights_in_four_bits_take_a_quarter_and_are_shown() -> None:
    plain = forecast_on(job(), machine(24), cpus=2)
    config = job().config
    quantised = RunConfig(**{**dict(config), "model": config.model.model_copy(update={"quantization": "nf4"})})
    found = forecast_on(job()._replace(config=quantised), machine(24), cpus=2)
    assert found.parts["weights"] == pytest.approx(113e6, rel=0.01)
    assert plain.parts["weights"] == 2 * SMOL.parameters
    assert {key: size for key, size in found.parts.items() if key != "weights"} == {
        key: size for key, size in plain.parts.items() if key != "weights"
    }
    assert (plain.quantization, found.quantization) == ("none", "nf4")
    assert "bfloat16, base in nf4, " in next(plan_lines(found, amounts_of(job())))


def test_four_bits_are_proposed_where_they_alone_make_it_fit() -> None:
    wide = replace(SMOL, parameters=70 * SMOL.parameters, linear=70 * SMOL.linear)
    wanted = Wanted("isolated", "bfloat16", on_gpu=True, rank=8, micro_batch=1, longest=256, learned_share=0.2)
    room = 12 * GIB
    assert settle(wide, wanted, room).memory(wide).low > room
    assert change_that_fits(wide, wanted, room, batch_size=1) == "model.quantization: nf4"


def test_workers_that_split_the_weights_hold_their_share_and_what_they_gather() -> None:
    h100, config = named_device("H100"), job().config
    workers = config.resources.model_copy(update={"num_workers": 2})
    whole = RunConfig(**{**dict(config), "resources": workers})
    split = RunConfig(**{**dict(whole), "train": config.train.model_copy(update={"sharding": "fsdp"})})
    before, after = (forecast_on(job()._replace(config=its), h100, cpus=8) for its in (whole, split))
    assert (before.shards, after.shards) == (1, 2)
    assert after.parts["weights"] == before.parts["weights"] // 2 == SMOL.parameters
    for part in ("adapters", "gradients", "optimizer"):
        assert after.parts[part] == before.parts[part] // 2
    head = SMOL.vocabulary * SMOL.hidden
    assert after.parts["gathered layers and head"] == int(2 * (head + 2 * (SMOL.parameters - head) / SMOL.layers))
    assert "weights split among 2 workers" in next(plan_lines(after, amounts_of(job())))


def test_a_processor_holds_the_whole_base_before_it_is_split() -> None:
    wide = replace(SMOL, parameters=70 * SMOL.parameters)
    wanted = Wanted("isolated", "bfloat16", on_gpu=False, rank=8, micro_batch=1, longest=256, learned_share=0.2)
    split = replace(wanted, workers=8, is_sharded=True)
    room = 64 * GIB
    loading = 2 * wide.parameters
    assert settle(wide, split, room).memory(wide).low > loading
    assert settle(wide, replace(split, on_gpu=True), room).memory(wide).high < loading


def test_splitting_is_proposed_where_several_workers_make_it_fit() -> None:
    wide = replace(SMOL, parameters=70 * SMOL.parameters, linear=70 * SMOL.linear)
    wanted = Wanted("isolated", "bfloat16", on_gpu=True, rank=8, micro_batch=1, longest=256, learned_share=0.2)
    assert change_that_fits(wide, replace(wanted, workers=4), 12 * GIB, batch_size=1) == "train.sharding: fsdp"


def test_an_engine_over_two_gpus_holds_half_of_all_but_its_process() -> None:
    device, config = named_device("L4"), job().config
    halves = RunConfig(**{**dict(config), "eval": config.eval.model_copy(update={"tensor_parallel": 2})})
    whole, half = (forecast_on(job()._replace(config=its), device, cpus=2).serving for its in (config, halves))
    assert half - GPU_CONTEXT_BYTES == pytest.approx((whole - GPU_CONTEXT_BYTES) / 2, abs=3)
