"""The vLLM engine on the tiny base: what it says is what the model says, with and without an adapter."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import psutil
import pytest
import torch
from builders import (
    make_config,
    make_plan,
    make_trial,
    weather_samples,
    write_learned_adapter,
    write_tiny_adapter,
)
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from evals.cases.samples import cases_from_samples
from evals.generate.as_served import as_served
from evals.generate.canary import NUM_CANARIES
from evals.generate.engine import FITTING, Adapter, Batch, Engine, EngineSettings, Loaded, Piece, Prompt
from evals.records import EngineRecord, Generation
from evals.serve.check import Scored, check_server
from evals.serve.client import Server
from evals.serve.server import serving
from orchestrator.chat.rendering import render_prompt
from orchestrator.chat.serve_command import SERVED_RANKS
from orchestrator.config.evaluation import EvalConfig
from orchestrator.config.schema import LoraConfig, ModelConfig, RunConfig
from orchestrator.core.errors import AdapterError, InertAdapterError
from orchestrator.core.records import EvalPoint, JsonObject, Sample
from orchestrator.models.adapters import SETTINGS, load_adapter, read_adapter
from orchestrator.models.base import BaseWeights, load_frozen_base, load_tokenizer
from orchestrator.run.paths import RunDir
from orchestrator.toy.synthetic import generate_samples
from orchestrator.toy.tiny import tiny_base_folder
from orchestrator.training.outcome import TrainedTrial, keep_best

pytestmark = pytest.mark.vllm

MAX_NEW_TOKENS = 24
WEATHER = ("Rome", "Oslo", "Lima")


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    samples = generate_samples(12, seed=5, catalogue="easy")
    return [as_asked(tokenizer, sample) for sample in samples]


def as_asked(tokenizer: PreTrainedTokenizerBase, sample: Sample) -> Prompt:
    return Prompt(sample.id, render_prompt(tokenizer, sample.messages[:-1], sample.tools), sample.tools)


def as_adapter(folder: Path, number: int = 1) -> Adapter:
    return Adapter(folder.name, number, str(folder), load_adapter(folder, BaseWeights(tiny_base_folder())).sha256)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Adapter]:
    """Adapters large enough to change what is said: all layers at two ranks, one part of a fused layer alone, DoRA."""
    folder = tmp_path_factory.mktemp("adapters")
    made = [
        write_tiny_adapter(folder / "rank8", rank=8, targets="all-linear", seed=1),
        write_tiny_adapter(folder / "rank16", rank=16, targets="all-linear", seed=2),
        write_tiny_adapter(folder / "queries", rank=4, targets=("q_proj", "up_proj"), seed=3),
        write_tiny_adapter(folder / "dora", rank=8, targets="all-linear", seed=4, use_dora=True),
    ]
    return [as_adapter(path, number) for number, path in enumerate(made, start=1)]


def settings(prompts: list[Prompt], **changes: object) -> EngineSettings:
    usual = EngineSettings(
        base=ModelConfig(base="tiny"),
        dtype="float32",
        on_gpu=False,
        max_model_len=max(len(prompt.token_ids) for prompt in prompts) + MAX_NEW_TOKENS,
        max_lora_rank=16,
        kv_cache_bytes=2**27,
        max_new_tokens=MAX_NEW_TOKENS,
        temperature=0.0,
        seed=0,
        reply_format="hermes",
    )
    return usual.model_copy(update=changes)


@pytest.fixture(scope="module")
def weather_prompts() -> list[Prompt]:
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    cases = cases_from_samples(weather_samples(*WEATHER))
    return [Prompt(case.id, render_prompt(tokenizer, case.messages, case.tools), case.tools) for case in cases]


@pytest.fixture(scope="module")
def engine(prompts: list[Prompt], weather_prompts: list[Prompt]) -> Engine:
    return Engine(settings(prompts), [*weather_prompts, *prompts][:NUM_CANARIES])


def ask(engine: Engine, prompts: list[Prompt], adapter: Adapter | None) -> tuple[Loaded, list[Generation]]:
    """The engine's first word, and its replies in the order of the prompts."""
    messages = list(engine.answer(prompts, adapter))
    assert isinstance(messages[0], Loaded)
    batches = messages[1:]
    found = {reply.case_id: reply for batch in batches if isinstance(batch, Batch) for reply in batch.generations}
    assert sum(len(batch.generations) for batch in batches if isinstance(batch, Batch)) == len(prompts)
    return messages[0], [found[prompt.case_id] for prompt in prompts]


def test_a_reply_ends_at_the_tokens_that_it_is_told(
    engine: Engine, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    whole = ask(engine, prompts[:1], None)[1][0]
    stop = tokenizer.encode(whole.text)[3]
    monkeypatch.setattr(engine, "_settings", settings(prompts, stop_token_ids=(stop,)))
    cut = ask(engine, prompts[:1], None)[1][0]
    assert (cut.finish_reason, cut.output_tokens) == ("stop", tokenizer.encode(whole.text).index(stop) + 1)
    assert whole.text == cut.text + tokenizer.decode(stop) + whole.text[len(cut.text + tokenizer.decode(stop)) :]
    assert not cut.text.endswith(tokenizer.decode(stop))


def said_by_transformers(
    prompts: list[Prompt], adapter: Adapter | None, base: PreTrainedModel | None = None
) -> dict[str, list[int]]:
    """Greedy token ids by transformers and PEFT, one prompt at a time; without a `base` on the toy base in full."""
    model = base or AutoModelForCausalLM.from_pretrained(tiny_base_folder(), dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter.folder)
    replies = {}
    for prompt in prompts:
        ids = torch.tensor([prompt.token_ids])
        output = model.generate(input_ids=ids, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        replies[prompt.case_id] = output[0, ids.shape[1] :].tolist()
    return replies


def first_log_probs(
    prompt: Prompt, tokens: list[int], adapter: Adapter | None, base: PreTrainedModel | None
) -> torch.Tensor:
    """What transformers makes of some tokens as the first of a reply; as for `said_by_transformers`."""
    model = base or AutoModelForCausalLM.from_pretrained(tiny_base_folder(), dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter.folder)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt.token_ids])).logits[0, -1]
    return torch.log_softmax(logits, dim=-1)[tokens]


def test_the_engine_says_what_transformers_says(engine: Engine, prompts: list[Prompt], adapters: list[Adapter]) -> None:
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    texts: dict[str | None, list[str]] = {}
    for adapter in (None, *adapters, None, adapters[2], None):
        loaded, generations = ask(engine, prompts, adapter)
        expected = said_by_transformers(prompts, adapter)
        for prompt, generation in zip(prompts, generations, strict=True):
            assert generation.case_id == prompt.case_id
            assert generation.prompt_tokens == len(prompt.token_ids)
            assert generation.applied_as == ("merged" if adapter else "base")
            assert generation.weights_sha256 == (adapter.sha256 if adapter else None)
            assert generation.finish_reason in ("stop", "length")
            assert generation.latency_s is not None
            assert generation.latency_s > 0
            assert generation.text == tokenizer.decode(expected[prompt.case_id]).removesuffix("<|im_end|>")
        assert (loaded.canary is None) == (adapter is None)
        if loaded.canary is not None:
            assert loaded.canary.num_texts_moved > 0
            assert loaded.canary.largest_shift > loaded.canary.noise
        name = adapter.id if adapter else None
        said = [generation.text for generation in generations]
        assert texts.setdefault(name, said) == said  # the base says the same again after the adapters
    assert len({tuple(said) for said in texts.values()}) == 5


def test_a_streamed_reply_is_the_reply_in_pieces(
    engine: Engine, prompts: list[Prompt], adapters: list[Adapter]
) -> None:
    for adapter in (None, adapters[0]):
        whole = ask(engine, prompts[:2], adapter)[1]
        messages = list(engine.answer(prompts[:2], adapter, streams=True))
        replies = {
            reply.case_id: reply for batch in messages if isinstance(batch, Batch) for reply in batch.generations
        }
        pieces = [message for message in messages if isinstance(message, Piece)]
        for generation in whole:
            own = [piece.text for piece in pieces if piece.case_id == generation.case_id]
            assert len(own) > 3
            assert "".join(own).removesuffix("<|im_end|>") == generation.text == replies[generation.case_id].text


def test_replies_are_sampled_as_they_are_told(
    engine: Engine, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(**changes: object) -> list[str]:
        monkeypatch.setattr(engine, "_settings", settings(prompts, **changes))
        return [generation.text for generation in ask(engine, prompts[:4], None)[1]]

    greedy, hot = said(), said(temperature=2.0)
    assert hot != greedy
    assert said(temperature=2.0) == hot
    assert said(temperature=2.0, seed=1) != hot
    assert said(temperature=2.0, top_p=1e-6) == greedy  # the likeliest token alone is left


def test_replies_are_timed_one_at_a_time(engine: Engine, prompts: list[Prompt], adapters: list[Adapter]) -> None:
    _, generations = ask(engine, prompts[:3], adapters[0])
    for adapter in (adapters[0], None):
        timed = engine.time(prompts[:3], adapter)
        assert [one.case_id for one in timed] == [prompt.case_id for prompt in prompts[:3]]  # not the one before them
        assert all(0 < one.first_token_s <= one.total_s for one in timed)
        held = psutil.Process().memory_info().rss
        assert all(one.peak_memory_bytes and 0.5 * held < one.peak_memory_bytes < 2 * held for one in timed)
        if adapter is not None:
            assert [one.output_tokens for one in timed] == [generation.output_tokens for generation in generations]


def test_an_adapter_that_changes_nothing_is_told(engine: Engine, prompts: list[Prompt], tmp_path: Path) -> None:
    inert = as_adapter(write_tiny_adapter(tmp_path / "inert", rank=8, targets="all-linear", seed=4, std=0.0))
    with pytest.raises(InertAdapterError, match="changes nothing"):
        list(engine.answer(prompts, inert))
    _, generations = ask(engine, prompts[:1], None)  # the engine goes on
    assert generations[0].applied_as == "base"


def test_a_changed_or_broken_adapter_is_told_and_leaves_the_weights_alone(
    engine: Engine, prompts: list[Prompt], adapters: list[Adapter], tmp_path: Path
) -> None:
    _, before = ask(engine, prompts, None)
    folder = tmp_path / "changed"
    shutil.copytree(adapters[0].folder, folder)
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, weights)
    with pytest.raises(AdapterError, match="changed since"):
        list(engine.answer(prompts, adapters[0]._replace(folder=str(folder))))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(AdapterError, match="cannot be read"):
        list(engine.answer(prompts, adapters[0]._replace(folder=str(folder))))
    _, after = ask(engine, prompts, None)
    assert [reply.text for reply in after] == [reply.text for reply in before]


def test_a_prompt_without_room_for_a_reply_is_told_and_the_others_are_answered(
    engine: Engine, prompts: list[Prompt]
) -> None:
    endless = Prompt("endless", [5] * 5000)
    _, generations = ask(engine, [prompts[0], endless, prompts[1]], None)
    assert [generation.finish_reason == "error" for generation in generations] == [False, True, False]
    assert generations[1].error is not None
    assert "5000 tokens" in generations[1].error


def test_each_reply_is_also_read_by_the_serving_parser(engine: Engine, prompts: list[Prompt]) -> None:
    _, generations = ask(engine, prompts[:2], None)
    assert [reply.served.parser for reply in generations if reply.served] == ["hermes", "hermes"]


class Weather(NamedTuple):
    """Cases that call a tool, and what was scored of an adapter that learned them, in the folder of a run."""

    config: RunConfig
    scored: Scored
    folder: Path

    def serve_line(self) -> str:
        """The line of the report."""
        line = as_served(self.config, self.scored.record, self.scored.engine, self.folder)
        assert line is not None
        return line.command


@pytest.fixture(scope="module")
def weather(engine: Engine, weather_prompts: list[Prompt], tmp_path_factory: pytest.TempPathFactory) -> Weather:
    samples, place = weather_samples(*WEATHER), tmp_path_factory.mktemp("weather")
    best = EvalPoint(step=10, eval_loss=0.5)
    checkpoint = write_learned_adapter(place / "checkpoint", samples, LoraConfig(r=16, alpha=8, use_rslora=True))
    left, run = TrainedTrial((best,), diverged=False, best=best, best_checkpoint=checkpoint), RunDir(place / "run")
    keep_best(left, run, make_plan(), make_trial("trial-1"))
    folder, cases = run.adapter("trial-1"), cases_from_samples(samples)
    (loaded, own), (_, of_base) = (ask(engine, weather_prompts, adapter) for adapter in (as_adapter(folder), None))
    record = read_adapter(folder)
    made = EngineRecord(
        adapter_id=record.id,
        inputs_sha256="0" * 64,
        weights_sha256=record.sha256,
        applied_as="merged",
        canary=loaded.canary,
        base=str(tiny_base_folder()),
        reply_format="hermes",
        device="cpu",
        dtype="float32",
        num_engines=1,
    )
    config = make_config(place, eval=EvalConfig(max_new_tokens=MAX_NEW_TOKENS))
    replies, of_base_by_case = ({reply.case_id: reply for reply in found} for found in (own, of_base))
    scale = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    return Weather(config, Scored(record, made, "hermes", cases, replies, of_base_by_case, scale), folder)


@pytest.fixture(scope="module")
def server(weather: Weather, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of the report's line, with the same adapter at other scales: twice its own, and without rsLoRA."""
    place = tmp_path_factory.mktemp("server")
    scales: dict[str, JsonObject] = {"louder": {"lora_alpha": 2 * weather.scored.settings["lora_alpha"]}}
    scales["plain"] = {"use_rslora": False}
    for name, changed in scales.items():
        folder = Path(shutil.copytree(weather.folder, place / name))
        (folder / SETTINGS).write_text(json.dumps(weather.scored.settings | changed), encoding="utf-8")
    others = " ".join(f"{name}={place / name}" for name in scales)
    line = weather.serve_line().replace("--lora-modules", f"--lora-modules {others}")
    with serving(line, place / "server.log", on_gpu=False) as url:
        yield Server(url)


def test_a_server_gives_clients_what_was_scored(weather: Weather, server: Server) -> None:
    scored = weather.scored
    recorded = [reply.served.calls for reply in scored.replies.values() if reply.served]
    assert [json.loads(arguments) for ((_, arguments),) in recorded] == [
        call.function.arguments for case in scored.cases for call in case.expected_calls
    ]
    found = check_server(weather.config, scored, server, None, num_cases=50)
    assert found.differences == ()
    assert found.outcome == "as scored"
    counts = (found.same_prompts, found.same_readings, found.same_replies, found.same_verdicts)
    assert counts == (found.num_cases,) * 4 == (3,) * 4
    ways = (
        "as scored",
        "streamed",
        "without tools",
        *(f"tool_choice {what}" for what in ("none", "required", "named")),
    )
    assert found.asked == dict.fromkeys(ways, 3)
    assert found.canary is not None
    assert found.canary.largest_shift > 0.1
    assert found.strength is not None
    assert found.strength.off < 0.01 < 0.5 < found.strength.moved
    assert found.strength.from_base == pytest.approx(found.strength.moved, abs=0.01)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("louder", "lora_alpha is 16 where 8 was scored"),
        ("plain", "use_rslora is false where true was scored"),
    ],
)
def test_another_scale_is_not_what_was_scored(weather: Weather, server: Server, name: str, why: str) -> None:
    found = check_server(weather.config, weather.scored, server, name, num_cases=50)
    assert found.outcome == "differs"
    assert found.same_prompts == 3
    assert found.canary is not None
    by_settings, by_tokens = (one.cause for one in found.differences if one.part == "adapter")
    assert by_settings == f"its scale is another, for {why}"
    assert by_tokens.endswith("its scale is another, or its weights are")


def test_the_bare_base_is_not_what_was_scored(weather: Weather, server: Server) -> None:
    bare = check_server(weather.config, weather.scored, server, "base", num_cases=50)
    assert bare.outcome == "differs"
    assert bare.canary is None
    assert any("the adapter is not in force" in one.cause for one in bare.differences if one.part == "adapter")
    replies = [one.cause for one in bare.differences if one.part == "reply"]
    assert len(replies) == 3
    assert all("the adapter is not in force" in cause for cause in replies)


def test_another_template_and_a_stale_parser_are_told(weather: Weather, tmp_path: Path) -> None:
    template = tmp_path / "chat_template.jinja"
    right = (weather.folder / "chat_template.jinja").read_text(encoding="utf-8")
    template.write_text("{{ 'Hello. ' }}" + right, encoding="utf-8")
    line = weather.serve_line().replace(str(weather.folder / template.name), str(template))
    line = line.replace("--tool-call-parser hermes", "--tool-call-parser pythonic")
    with serving(line, tmp_path / "server.log", on_gpu=False) as url:
        found = check_server(weather.config, weather.scored, Server(url), None, num_cases=50)
    assert found.outcome == "differs"
    told = {(one.asked, one.part) for one in found.differences}
    assert {("as scored", "prompt"), ("streamed", "prompt"), ("without tools", "prompt")} <= told
    assert ("as scored", "calls") in told
    assert (found.same_prompts, found.num_cases) == (0, 3)


def test_an_engine_with_choices_says_one_of_them(prompts: list[Prompt]) -> None:
    chooser = Engine(settings(prompts, choices=("refusal", "compliance"), reply_format=None, max_new_tokens=16))
    _, generations = ask(chooser, prompts[:4], None)
    assert {generation.text for generation in generations} <= {"refusal", "compliance"}
    assert all(generation.served is None for generation in generations)
    assert json.loads(generations[0].model_dump_json())["finish_reason"] == "stop"


def test_an_engine_tells_how_likely_the_tokens_of_its_replies_were(prompts: list[Prompt]) -> None:
    teller = Engine(settings(prompts, likeliest=5))
    batches = [message for message in teller.answer(prompts[:3], None) if isinstance(message, Batch)]
    likely = {id_: said for batch in batches for id_, said in (batch.likely or {}).items()}
    replies = [reply for batch in batches for reply in batch.generations]
    assert len(replies) == 3
    for reply in replies:
        tokens, spread = likely[reply.case_id]
        assert len(tokens) == len(spread) == reply.output_tokens
        assert all(
            len(one) == 5 and max(one, key=one.__getitem__) == token for token, one in zip(tokens, spread, strict=True)
        )


def test_a_reply_that_reaches_the_limit_says_so(prompts: list[Prompt]) -> None:
    curt = Engine(settings(prompts, max_new_tokens=1, max_model_len=FITTING))
    _, (generation, endless) = ask(curt, [prompts[0], Prompt("endless", [5] * 50_000)], None)
    assert (generation.finish_reason, generation.output_tokens) == ("length", 1)
    assert endless.error is not None
    assert endless.error.endswith("the engine takes 8192")  # all that the model does: the cache holds it


def test_the_ranks_are_those_that_vllm_allows() -> None:
    from vllm.config.lora import MaxLoRARanks  # takes seconds, which no other test should wait for

    assert get_args(MaxLoRARanks) == SERVED_RANKS


# The last one: when its engine ends, vLLM takes from the process what the other engines in it share.
def test_adapters_are_scored_on_the_quantised_base_that_they_are_trained_on(
    prompts: list[Prompt], adapters: list[Adapter]
) -> None:
    """On a CPU as dequantised weights, which say what the base in 4 bits says, and not what the full base does."""
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    model = ModelConfig(base="tiny", quantization="nf4", dtype="float32")
    engine = Engine(settings(prompts, base=model), prompts[:NUM_CANARIES])
    for adapter in (None, adapters[0], None):
        loaded, generations = ask(engine, prompts, adapter)
        assert (loaded.base_weights, loaded.applied_as) == ("dequantised_nf4", "merged" if adapter else "base")
        quantised = load_frozen_base(tiny_base_folder(), model)
        expected = said_by_transformers(prompts, adapter, quantised)
        texts = [tokenizer.decode(expected[prompt.case_id]).removesuffix("<|im_end|>") for prompt in prompts]
        assert [generation.text for generation in generations] == texts
        if loaded.canary is not None:
            for prompt in prompts[:NUM_CANARIES]:
                first = loaded.canary.first[prompt.case_id]
                found = torch.tensor([of_adapter for _, of_adapter in first.values()])
                in_four_bits, in_full = (
                    first_log_probs(prompt, list(first), adapter, base)
                    for base in (load_frozen_base(tiny_base_folder(), model), None)
                )
                assert (found - in_four_bits).abs().max() < 0.1 * (found - in_full).abs().max()
