"""Cases -> generations with vLLM, and the only file that runs its engine: a warm one for the base and all adapters.

A base that `model.quantization` keeps in few bits is quantised by vLLM where its loader can, NF4 with LoRA requests on
a GPU; elsewhere its dequantised matrices are put into the running engine.

On a GPU an adapter is a LoRA request. On a CPU, and on a GPU that computes in float32, its merged matrices are put into
the running engine, because vLLM's LoRA path there is several times slower and gives base rows that share a batch with
adapter rows the adapter's weights.
"""

import hashlib
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from evals.generate.canary import CANARY_LOGPROBS, CANARY_TOKENS, Trace, prove_applied
from evals.generate.likelihoods import Likelihoods
from evals.generate.peak import Peak, peak_memory
from evals.generate.placement import FITTING as FITTING
from evals.generate.placement import UNPACKED, placement, takes_requests
from evals.generate.placement import EngineSettings as EngineSettings
from evals.generate.weight_swap import WeightSwap, changed_adapter, reset_prefix_cache
from evals.records import AppliedAs, BaseWeightsAs, CanaryProof, Generation
from orchestrator.chat.serving import reader_or_refusal
from orchestrator.core.errors import AdapterError, EvaluationError
from orchestrator.core.records import ToolSpec

IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""Environment of the process that holds the engine. In that very process it starts in a fraction of the time."""
ON_CPU = {"TORCHDYNAMO_DISABLE": "1"}
"""Also for an engine on a CPU, which runs eagerly: compiling the one function that vLLM compiles anyway takes longer
than a small model's whole evaluation."""

BATCH_S = 0.25
"""Finished replies are handed over at most this often."""
BEAT_S = 5.0
"""Where none finishes for so long, an empty batch says that the engine is alive."""


class Prompt(NamedTuple):
    """One rendered case. Of several replies to it, each is sampled by a `draw` of its own, which changes the seed."""

    case_id: str
    token_ids: list[int]
    tools: tuple[ToolSpec, ...] = ()
    draw: int = 0

    @property
    def sha256(self) -> str:
        """Digest of the token ids."""
        return hashlib.sha256(b" ".join(b"%d" % token for token in self.token_ids)).hexdigest()


class Adapter(NamedTuple):
    """An adapter as the engine knows it: its content hash is its name, so no two adapters share cached states."""

    id: str
    number: int
    folder: str
    sha256: str


class Loaded(NamedTuple):
    """How an adapter took effect, the seconds that took, and the proof."""

    applied_as: AppliedAs
    load_s: float
    canary: CanaryProof | None
    device: str
    dtype: str
    base_weights: BaseWeightsAs | None = None


class Batch(NamedTuple):
    """Replies that finished (none is a sign of life), seconds since the last batch, most bytes the process has held.

    `likely` has their likelihoods by case id where the settings ask for them.
    """

    generations: list[Generation]
    generate_s: float
    memory_bytes: int = 0
    likely: dict[str, Likelihoods] | None = None


class Piece(NamedTuple):
    """What one step of the engine adds to the text of a reply."""

    case_id: str
    text: str


class Timed(NamedTuple):
    """One reply that was asked for alone: seconds to its first and its last token, how many there are, and memory."""

    case_id: str
    first_token_s: float
    total_s: float
    output_tokens: int
    peak_memory_bytes: int | None = None


def served_architectures() -> frozenset[str]:
    """The classes of models that vLLM lists, empty where it is not installed."""
    try:
        from vllm.model_executor.models.registry import ModelRegistry
    except ImportError:
        return frozenset()
    return frozenset(ModelRegistry.get_supported_archs())


def load_vllm() -> None:
    """Load what an engine's start needs, which takes longer than the start itself."""
    from vllm import LLM, SamplingParams  # noqa: F401


def offer_unpacked() -> None:
    """Have vLLM in this process know the load format `UNPACKED`: what weights that were saved in few bits stand for."""
    from vllm.model_executor.model_loader import register_model_loader
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    from orchestrator.models.base import BaseWeights

    class Unpacked(DefaultModelLoader):  # type: ignore[misc]  # vllm ships no types
        def get_all_weights(self, model_config: Any, model: Any) -> Iterator[tuple[str, Any]]:  # noqa: ARG002
            base = BaseWeights(Path(model_config.model), packed_as=model_config.dtype)
            return ((name, base.tensor(name)) for name in base.names())

    register_model_loader(UNPACKED)(Unpacked)


class Engine:
    """A vLLM engine in this process. Each adapter has to prove itself on the `canaries`, if there are any."""

    def __init__(self, settings: EngineSettings, canaries: Sequence[Prompt] = ()) -> None:
        os.environ.update(IN_PROCESS if settings.on_gpu else IN_PROCESS | ON_CPU)
        from vllm import LLM

        from orchestrator.models.base import base_folder, compute_dtype, stored_quantization

        folder = base_folder(settings.base)
        dtype = compute_dtype(settings.dtype)
        as_requests = takes_requests(settings, dtype)
        is_packed = stored_quantization(folder) is not None
        if is_packed:
            offer_unpacked()
        self._settings = settings
        self._llm = LLM(
            str(folder),
            dtype=dtype,
            trust_remote_code=settings.base.trust_remote_code,
            max_model_len=settings.max_model_len,
            seed=settings.seed,
            disable_log_stats=False,  # latencies are read from the engine's own statistics
            **placement(settings, dtype, is_packed=is_packed),
        )
        self._max_model_len: int = self._llm.model_config.max_model_len
        self._tokenizer = self._llm.get_tokenizer()
        parser = settings.serving_parser
        thoughts = settings.reasoning_parser
        self._serve = None if parser is None else reader_or_refusal(parser, self._tokenizer, reasoning=thoughts)
        self._dtype = dtype
        self._swap = None if as_requests else WeightSwap(self._llm, settings.base)
        self._canaries = [prompt for prompt in canaries if self._room(prompt) > 0]
        self._base_traces: tuple[list[Trace], list[Trace]] | None = None
        self._proofs: dict[str, CanaryProof | None] = {}

    def answer(
        self, prompts: Sequence[Prompt], adapter: Adapter | None, *, streams: bool = False
    ) -> Iterator[Loaded | Piece | Batch]:
        """Reply to every prompt with the base (`adapter` None) or one adapter.

        Yields:
            One `Loaded`, then each reply exactly once, in batches as they finish; if it `streams`, also the pieces of
            their texts before. A prompt that leaves no room for a reply gets a generation with finish_reason "error".

        Raises:
            AdapterError: If the adapter's files are not those that its name says or cannot be loaded.
            InertAdapterError: If it changes nothing.
        """
        if self._canaries and self._base_traces is None:
            self._apply(None)
            self._base_traces = (self._traces(None), self._traces(None))
        started = time.monotonic()
        self._apply(adapter)
        canary = self._proof(adapter)
        how, took = self._applied_as(adapter), time.monotonic() - started
        yield Loaded(how, took, canary, self._device(), self._dtype, self._base_weights())
        yield from self._replies(prompts, adapter, streams=streams)

    def time(self, prompts: Sequence[Prompt], adapter: Adapter | None) -> list[Timed]:
        """Reply to one prompt at a time, so that none waits for another, greedily and without cached prefixes.

        The first prompt is asked once more before, which is not timed: it warms up what a change of weights cooled.

        Raises:
            AdapterError: As for `answer`.
        """
        self._apply(adapter)
        return [self._time(prompt, adapter) for prompt in (*prompts[:1], *prompts)][1:]

    def _time(self, prompt: Prompt, adapter: Adapter | None) -> Timed:
        reset_prefix_cache(self._llm)
        params = self._sampling(prompt)
        params.temperature = 0.0
        given, request = {"prompt_token_ids": prompt.token_ids}, self._lora_request(adapter)
        with self._peak() as peak:
            started = time.monotonic()
            (output,) = self._llm.generate([given], params, use_tqdm=False, lora_request=request)
            total_s = round(time.monotonic() - started, 6)
        first_token_s = min(round(output.metrics.first_token_latency, 6), total_s)
        return Timed(prompt.case_id, first_token_s, total_s, len(output.outputs[0].token_ids), peak.num_bytes)

    def _peak(self) -> AbstractContextManager[Peak]:
        """The memory of a block, which is not told where other processes hold the weights."""
        is_split = self._settings.tensor_parallel > 1
        return nullcontext(Peak()) if is_split else peak_memory(on_gpu=self._settings.on_gpu)

    def _apply(self, adapter: Adapter | None) -> None:
        if self._swap is not None:
            is_changed = self._swap.use(*((adapter.folder, adapter.sha256) if adapter else (None, None)))
            if is_changed and adapter is None and self._base_traces and self._traces(None) not in self._base_traces:
                raise EvaluationError("the base does not reply as it did before the adapters", where="the vLLM engine")
        elif adapter is not None:
            from orchestrator.models.adapters import read_adapter

            if read_adapter(Path(adapter.folder)).sha256 != adapter.sha256:
                raise changed_adapter(adapter.folder)
            try:
                self._llm.llm_engine.add_lora(self._lora_request(adapter))
            except (ValueError, RuntimeError) as error:
                raise AdapterError(f"vLLM cannot load the adapter: {error}", where=adapter.folder) from error

    def _proof(self, adapter: Adapter | None) -> CanaryProof | None:
        if adapter is None or self._base_traces is None:
            return None
        if adapter.sha256 not in self._proofs:
            base, again = self._base_traces
            self._proofs[adapter.sha256] = prove_applied(adapter.id, self._traces(adapter), base=base, base_again=again)
        return self._proofs[adapter.sha256]

    def _applied_as(self, adapter: Adapter | None) -> AppliedAs:
        if adapter is None:
            return "base"
        return "merged" if self._swap is not None else "lora_request"

    def _base_weights(self) -> BaseWeightsAs | None:
        kind = self._settings.base.quantization
        if kind == "none":
            return None
        if self._swap is None:
            return "nf4"
        return "dequantised_nf4" if kind == "nf4" else "dequantised_int8"

    def _device(self) -> str:
        if not self._settings.on_gpu:
            return "cpu"
        import torch

        return str(torch.cuda.get_device_name())

    def _traces(self, adapter: Adapter | None) -> list[Trace]:
        """What a model does with the canaries: one batch without cached prefixes, so that it is the same each time."""
        from vllm import SamplingParams

        reset_prefix_cache(self._llm)
        params = SamplingParams(temperature=0.0, max_tokens=CANARY_TOKENS, logprobs=CANARY_LOGPROBS, seed=0)
        prompts = [{"prompt_token_ids": prompt.token_ids} for prompt in self._canaries]
        outputs = self._llm.generate(prompts, params, use_tqdm=False, lora_request=self._lora_request(adapter))
        return [
            Trace(prompt.case_id, tuple(reply.token_ids), {id_: one.logprob for id_, one in reply.logprobs[0].items()})
            for prompt, reply in zip(self._canaries, (output.outputs[0] for output in outputs), strict=True)
        ]

    def _replies(self, prompts: Sequence[Prompt], adapter: Adapter | None, *, streams: bool) -> Iterator[Piece | Batch]:
        by_id = {prompt.case_id: prompt for prompt in prompts}
        engine = self._llm.llm_engine
        request, limit = self._lora_request(adapter), f"the engine takes {self._max_model_len}"
        finished: list[Generation] = []
        likely: dict[str, Likelihoods] = {}
        for prompt in prompts:
            if self._room(prompt) > 0:
                given = {"prompt_token_ids": prompt.token_ids}
                engine.add_request(prompt.case_id, given, self._sampling(prompt), lora_request=request)
            else:
                error = f"the prompt has {len(prompt.token_ids)} tokens and {limit}"
                finished.append(failed_generation(prompt, error))
        clock, told = time.monotonic(), dict.fromkeys(by_id, 0)
        while engine.has_unfinished_requests():
            outputs = engine.step()
            for output in outputs if streams else ():
                text = output.outputs[0].text
                yield Piece(output.request_id, text[told[output.request_id] :])
                told[output.request_id] = len(text)
            done = [output for output in outputs if output.finished]
            finished += [self._read(output, by_id[output.request_id], adapter) for output in done]
            if self._settings.likeliest:
                likely |= {output.request_id: _likelihoods(output.outputs[0]) for output in done}
            if time.monotonic() - clock >= (BATCH_S if finished else BEAT_S):
                yield Batch(finished, time.monotonic() - clock, self._held(), likely)
                finished, likely, clock = [], {}, time.monotonic()
        yield Batch(finished, time.monotonic() - clock, self._held(), likely)

    def _held(self) -> int:
        """The most bytes that this process has held; 0 where others hold the weights."""
        from orchestrator.models.memory import memory_peak

        return memory_peak() if self._settings.tensor_parallel == 1 else 0

    def _sampling(self, prompt: Prompt) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        settings = self._settings
        return SamplingParams(
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=min(settings.max_new_tokens, self._room(prompt)),
            seed=settings.seed + prompt.draw,
            stop_token_ids=[self._tokenizer.eos_token_id, *settings.stop_token_ids],
            skip_special_tokens=False,  # some models mark tool calls with special tokens
            structured_outputs=StructuredOutputsParams(choice=list(settings.choices)) if settings.choices else None,
            logprobs=settings.likeliest or None,
        )

    def _lora_request(self, adapter: Adapter | None) -> Any:
        from vllm.lora.request import LoRARequest

        if adapter is None or self._swap is not None:
            return None
        return LoRARequest(adapter.id, adapter.number, adapter.folder)

    def _room(self, prompt: Prompt) -> int:
        return self._max_model_len - len(prompt.token_ids)

    def _read(self, output: Any, prompt: Prompt, adapter: Adapter | None) -> Generation:
        reply = output.outputs[0]
        latency_s = output.metrics.last_token_ts - output.metrics.scheduled_ts
        if not math.isfinite(latency_s) or latency_s < 0:
            raise EvaluationError(f"the engine reports a latency of {latency_s} s", where=prompt.case_id)
        ends = [self._tokenizer.eos_token, *map(self._tokenizer.decode, self._settings.stop_token_ids)]
        text = reply.text.removesuffix(next(filter(reply.text.endswith, ends), ""))
        return Generation(
            case_id=prompt.case_id,
            text=text,
            finish_reason=reply.finish_reason,
            prompt_tokens=len(prompt.token_ids),
            output_tokens=len(reply.token_ids),
            latency_s=round(latency_s, 6),
            prompt_sha256=prompt.sha256,
            applied_as=self._applied_as(adapter),
            lora_name=output.lora_request.lora_name if output.lora_request else None,
            weights_sha256=adapter.sha256 if adapter else None,
            served=self._serve(text, prompt.tools) if self._serve else None,
        )


def _likelihoods(reply: Any) -> Likelihoods:
    likely = ({id_: one.logprob for id_, one in each.items()} for each in reply.logprobs)
    return Likelihoods(tuple(reply.token_ids), tuple(likely))


def failed_generation(prompt: Prompt, error: str) -> Generation:
    """The record of a case that got no reply."""
    return Generation(
        case_id=prompt.case_id,
        text="",
        finish_reason="error",
        prompt_tokens=len(prompt.token_ids),
        prompt_sha256=prompt.sha256,
        error=error,
    )


def adapters_for_engine(digests: dict[str, tuple[Path, str]]) -> list[Adapter]:
    """Number the adapters (id -> folder and digest) for an engine; from 1 on, because vLLM keeps 0 for the base."""
    numbered = enumerate(digests.items(), start=1)
    return [Adapter(id_, number, str(folder), sha256) for number, (id_, (folder, sha256)) in numbered]
