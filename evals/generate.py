"""Cases -> generations with vLLM, the only file that imports it: one warm engine for the base and all adapters."""

import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from evals.records import Generation
from orchestrator.errors import EvaluationError
from orchestrator.records import FunctionCall, Record

SERVED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM allows for `max_lora_rank`; time and memory grow with it, so the smallest that fits is taken."""

IN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
"""Environment of the process that holds the engine. In the process itself it starts in a fraction of the time, and ends
with it."""


class EngineSettings(Record):
    """What an engine needs to know at its start. Sizes in tokens and bytes; None leaves a size to vLLM."""

    model_folder: str
    dtype: Literal["bfloat16", "float32"]
    trust_remote_code: bool
    on_gpu: bool
    max_model_len: int
    max_lora_rank: int | None
    kv_cache_bytes: int | None
    seed: int


class Prompt(NamedTuple):
    """One rendered case."""

    case_id: str
    token_ids: list[int]


class Adapter(NamedTuple):
    """An adapter as the engine knows it: its content hash is its name, so no two adapters share cached states."""

    id: str
    number: int
    folder: str


def smallest_served_rank(ranks: Sequence[int]) -> int | None:
    """The smallest allowed `max_lora_rank` that fits all `ranks`; None when there are none."""
    return min(served for served in SERVED_RANKS if served >= max(ranks)) if ranks else None


class Engine:
    """A vLLM engine in this process. Meant to live in a Ray actor, one for each device."""

    def __init__(self, settings: EngineSettings) -> None:
        os.environ.update(IN_PROCESS)
        from vllm import LLM

        placement: dict[str, Any] = {}
        if not settings.on_gpu:
            placement = {"distributed_executor_backend": "uni", "enforce_eager": True}
        if settings.kv_cache_bytes is not None:
            placement["kv_cache_memory_bytes"] = settings.kv_cache_bytes
        if settings.max_lora_rank is not None:
            placement.update(enable_lora=True, max_loras=1, max_lora_rank=settings.max_lora_rank)
        self._llm = LLM(
            settings.model_folder,
            dtype=settings.dtype,
            trust_remote_code=settings.trust_remote_code,
            max_model_len=settings.max_model_len,
            seed=settings.seed,
            disable_log_stats=False,  # latencies are read from the engine's own statistics
            **placement,
        )
        self._max_model_len = settings.max_model_len

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        adapter: Adapter | None,
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> list[Generation]:
        """Reply to every prompt with the base (`adapter` None) or one adapter.

        All prompts of a call go to the same weights: on a CPU vLLM 0.32 gives base rows that share a batch with adapter
        rows the adapter's weights.

        Returns:
            One generation a prompt, in order; one that leaves no room for a reply has finish_reason "error".
        """
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        fitting = [prompt for prompt in prompts if len(prompt.token_ids) < self._max_model_len]
        room = {prompt.case_id: self._max_model_len - len(prompt.token_ids) for prompt in fitting}
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompt.token_ids} for prompt in fitting],
            [
                SamplingParams(
                    temperature=temperature,
                    max_tokens=min(max_new_tokens, room[prompt.case_id]),
                    seed=seed,
                    stop_token_ids=[self._llm.get_tokenizer().eos_token_id],
                    skip_special_tokens=False,  # some models mark tool calls with special tokens
                )
                for prompt in fitting
            ],
            use_tqdm=False,
            lora_request=LoRARequest(adapter.id, adapter.number, adapter.folder) if adapter else None,
        )
        replies = {prompt.case_id: self._read(output, prompt) for prompt, output in zip(fitting, outputs, strict=True)}
        return [replies.get(prompt.case_id) or self._too_long(prompt) for prompt in prompts]

    def _read(self, output: Any, prompt: Prompt) -> Generation:
        reply = output.outputs[0]
        latency_s = output.metrics.last_token_ts - output.metrics.scheduled_ts
        if not math.isfinite(latency_s) or latency_s < 0:
            raise EvaluationError(f"the engine reports a latency of {latency_s} s", where=prompt.case_id)
        return Generation(
            case_id=prompt.case_id,
            text=reply.text.removesuffix(self._llm.get_tokenizer().eos_token),
            finish_reason=reply.finish_reason,
            prompt_tokens=len(prompt.token_ids),
            output_tokens=len(reply.token_ids),
            latency_s=round(latency_s, 6),
            lora_name=output.lora_request.lora_name if output.lora_request else None,
        )

    def _too_long(self, prompt: Prompt) -> Generation:
        return Generation(
            case_id=prompt.case_id,
            text="",
            finish_reason="error",
            prompt_tokens=len(prompt.token_ids),
            output_tokens=0,
            latency_s=0.0,
            error=f"the prompt has {len(prompt.token_ids)} tokens and the engine takes {self._max_model_len}",
        )


def serving_parser(name: str, tokenizer: Any) -> Callable[[str], list[FunctionCall]]:
    """The tool-call parser that `vllm serve --tool-call-parser NAME` reads replies with.

    Returns:
        A function from the text of a reply to its calls; a reply that the parser cannot read has none.

    Raises:
        ImportError: If vLLM is not installed here.
    """
    logging.getLogger("vllm").setLevel(logging.ERROR)  # what it says of GPUs on import means nothing to a parser
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.tool_parsers import ToolParserManager

    logging.getLogger("vllm.tool_parsers").setLevel(logging.CRITICAL)  # a reply it cannot read is told by the caller
    parser = ToolParserManager.get_tool_parser(name)(tokenizer)
    request = ChatCompletionRequest(messages=[], model="")

    def parse(text: str) -> list[FunctionCall]:
        found = parser.extract_tool_calls(text, request).tool_calls
        return [FunctionCall(name=call.function.name, arguments=json.loads(call.function.arguments)) for call in found]

    return parse


def adapters_for_engine(folders: dict[str, Path]) -> list[Adapter]:
    """Number the adapters for one engine; ids start at 1 because vLLM keeps 0 for the base."""
    return [Adapter(id_, number, str(folder)) for number, (id_, folder) in enumerate(folders.items(), start=1)]
