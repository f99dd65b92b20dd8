"""A server asked the run's held-out cases, and its answers held against what was scored."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from transformers import PreTrainedTokenizerBase

from evals.export.own import own_adapter
from evals.export.verify import MARGIN, compare_replies, engine_of_run, evenly, replies_of_run
from evals.generate.as_served import as_served
from evals.generate.canary import (
    CANARY_LOGPROBS,
    CANARY_TOKENS,
    NUM_CANARIES,
    Strength,
    Trace,
    measure_strength,
    pick_canaries,
    prove_applied,
)
from evals.generate.engine import Prompt
from evals.generate.likelihoods import in_strength
from evals.records import HELD_OUT, CanaryProof, Case, EngineRecord, FirstTokens, Generation
from evals.serve.client import Answer, Model, Refused, Server
from evals.serve.compare import (
    Difference,
    Knowledge,
    Way,
    in_forced,
    in_prompt,
    in_reading,
    in_reply,
    in_settings,
)
from evals.serve.server import serving
from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.rendering import render_prompt, template_stop_ids
from orchestrator.chat.serving import client_request, reader_or_refusal
from orchestrator.chat.template_input import template_wants
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import AdapterError, EvaluationError, InputError, RunConflictError
from orchestrator.core.files import read_jsonl
from orchestrator.core.progress import bar, doing, say
from orchestrator.core.records import BASE_ADAPTER_ID, AdapterRecord, JsonObject, Record, ToolSpec
from orchestrator.models.adapters import SETTINGS
from orchestrator.models.base import base_tokenizer
from orchestrator.run.paths import RunDir

SAME_SHARE = 0.99
"""At least so many greedy replies are those that were scored; below it their verdicts have to be equivalent."""
OTHER_CASES = 8
"""Cases that are asked in each other way as well."""
AT_A_TIME, LIKELIEST = 8, 5
"""Requests at a time, and log probabilities of each token of a reply that are asked for."""

AS_SCORED = Way("as scored", {})
STREAMED = Way("streamed", {"stream": True})
WITHOUT_TOOLS = Way("without tools", {}, has_tools=False)
NONE = Way("tool_choice none", {"tool_choice": "none"}, reads_calls=False)
REQUIRED = Way("tool_choice required", {"tool_choice": "required"}, forces="some")
NAMED = Way("tool_choice named", {}, forces="one")


class ServeCheck(Record):
    """What came of it.

    Of `num_cases` cases so many have the prompt, the reading of the reply (calls, text, thoughts and finish reason from
    the same tokens), the reply and the verdict that the run has. `asked` counts the requests by the way of asking.
    `low` and `high` bound the difference of the share of cases answered as asked, served minus run, at 95 %. `canary`
    proves that the adapter is in force; None where the server does not have its base beside it. `strength` is how
    strongly; None where the run kept no log probabilities of its canaries.
    """

    url: str
    model: str
    adapter_id: str
    num_cases: int
    same_prompts: int
    same_readings: int
    same_replies: int
    same_verdicts: int
    difference: float
    low: float
    high: float
    margin: float
    asked: dict[str, int]
    canary: CanaryProof | None
    strength: Strength | None
    differences: tuple[Difference, ...]

    @property
    def outcome(self) -> Literal["as scored", "equivalent", "differs"]:
        """`as scored`: nothing differs but at most 1 % of the replies, by rounding. `equivalent`: more do."""
        if any(not found.by_rounding for found in self.differences):
            return "differs"
        if self.same_replies >= SAME_SHARE * self.num_cases:
            return "as scored"
        return "equivalent" if -self.margin < self.low and self.high < self.margin else "differs"


class Scored(NamedTuple):
    """What the run has of one adapter: its record, how its replies were made, and all of them beside the base's.

    `settings` are the adapter's, as PEFT writes them.
    """

    record: AdapterRecord
    engine: EngineRecord
    reply_format: str
    cases: list[Case]
    replies: dict[str, Generation]
    of_base: dict[str, Generation]
    settings: JsonObject


def read_scored(config: RunConfig, run: RunDir, adapter_id: str) -> Scored:
    """What a server is held against.

    Raises:
        RunConflictError: If the run has no replies of this adapter, or not of this one.
        AdapterError: If its files changed, or it was trained on another base.
    """
    record = own_adapter(config, run, adapter_id)
    replies = {reply.case_id: reply for reply in replies_of_run(run, adapter_id) if reply.has_reply}
    engine, reply_format = engine_of_run(run, adapter_id)
    engine.require_made_by(record, where=str(run.engine(adapter_id)))
    cases = [case for case in read_jsonl(run.cases, Case) if case.id in replies]
    base = run.generations(BASE_ADAPTER_ID)
    of_base = {reply.case_id: reply for reply in read_jsonl(base, Generation)} if base.is_file() else {}
    settings = json.loads((run.adapter(adapter_id) / SETTINGS).read_text(encoding="utf-8"))
    return Scored(record, engine, reply_format, cases, replies, of_base, settings)


@contextmanager
def server_for(config: RunConfig, run: RunDir, scored: Scored, url: str | None) -> Iterator[Server]:
    """The server at `url`, or without one a server of the adapter as the report serves it, ended with the block.

    Raises:
        RunConflictError: If nothing tells how the adapter was scored.
        EvaluationError: If the server does not come up or ends.
    """
    if url is not None:
        yield Server(url)
        return
    adapter_id = scored.record.id
    if scored.record.use_dora:
        fix = "Export it with --to merged, serve that, and give its --url"
        raise InputError("vLLM serves no DoRA adapter", where=adapter_id, fix=fix)
    line = as_served(config, scored.record, scored.engine, run.adapter(adapter_id).resolve())
    if line is None:
        what = "nothing tells how its replies were made"
        raise RunConflictError(what, where=str(run.engine(adapter_id)), fix="Run evaluate again")
    if line.note is not None:
        say(line.note)
    with serving(line.command, run.server_log(adapter_id), on_gpu=scored.engine.device != "cpu") as own:
        yield Server(own)


def check_server(config: RunConfig, scored: Scored, server: Server, model: str | None, *, num_cases: int) -> ServeCheck:
    """Ask the server the run's cases in every way, and compare.

    Raises:
        InputError: If the server has no such model.
        RunConflictError: If the run has no replies to held-out cases.
        EvaluationError: If the server breaks or is none.
    """
    served = choose_model(server, model or scored.record.id)
    cases = cases_to_ask(scored, num_cases)
    with doing("loading vLLM's parser"):
        knows = what_is_known(config, scored.reply_format, base_tokenizer(config.model), dtype=scored.engine.dtype)
    asking = _Asking(config, scored, server, served.name, knows)
    proof, strength, found = asking.proof_of(served)
    asked, answers = asking.ask_all(cases)
    found += [one for way, case, answer in answers for one in asking.compare(way, case, answer)]
    as_asked = [(case, answer) for way, case, answer in answers if way.name == AS_SCORED.name]
    return ServeCheck(
        url=server.url,
        model=served.name,
        adapter_id=scored.record.id,
        num_cases=len(cases),
        same_readings=len(cases) - len({one.case_id for one in found if _is_reading(one)}),
        margin=MARGIN,
        asked=asked,
        canary=proof,
        strength=strength,
        differences=tuple(found),
        **_figures(scored, knows, as_asked),
    )


def cases_to_ask(scored: Scored, num_cases: int) -> list[Case]:
    """Held-out cases that the run has replies to.

    Raises:
        InputError: If none is wanted.
        RunConflictError: If there is none.
    """
    cases = evenly([case for case in scored.cases if case.suite == HELD_OUT], num_cases)
    if not cases:
        what = "the run has no replies to held-out cases"
        raise RunConflictError(what, where=scored.record.id, fix="Run evaluate first")
    return cases


def _is_reading(found: Difference) -> bool:
    return found.asked == AS_SCORED.name and found.part not in ("prompt", "reply")


def choose_model(server: Server, name: str) -> Model:
    """The server's model of this name.

    Raises:
        InputError: If it has none.
    """
    offered = server.models()
    chosen = next((model for model in offered if model.name == name), None)
    if chosen is None:
        fix = "Name the model that is the adapter with --model"
        names = ", ".join(model.name for model in offered)
        raise InputError(f"the server has no model {name!r}", where=server.url, allowed=names, fix=fix)
    return chosen


def what_is_known(
    config: RunConfig, reply_format: str, tokenizer: PreTrainedTokenizerBase, *, dtype: str | None
) -> Knowledge:
    """How the run renders prompts and reads replies."""
    form = REPLY_FORMATS[reply_format]
    thoughts = form.reasoning_parser if config.data.thinking else None
    stops = template_stop_ids(tokenizer)

    def prompt(case: Case, tools: Sequence[ToolSpec]) -> list[int]:
        return render_prompt(tokenizer, case.messages, tools, thinking=config.data.thinking)

    return Knowledge(
        prompt=prompt,
        decode=lambda tokens: str(tokenizer.decode(list(tokens))),
        decode_plain=lambda tokens: str(tokenizer.decode(list(tokens), skip_special_tokens=True)),
        ends=(str(tokenizer.eos_token), *map(str, map(tokenizer.decode, stops))),
        serve=None if form.vllm_parser is None else reader_or_refusal(form.vllm_parser, tokenizer, reasoning=thoughts),
        parser=form.vllm_parser,
        call_ids=template_wants(tokenizer).call_ids,
        dtype=dtype,
        temperature=config.eval.temperature,
    )


@dataclass(frozen=True)
class _Asking:
    """One model of one server, asked what the run asked."""

    config: RunConfig
    scored: Scored
    server: Server
    model: str
    knows: Knowledge

    def proof_of(self, served: Model) -> tuple[CanaryProof | None, Strength | None, list[Difference]]:
        """Beside its base the proof that the adapter is in force, and how strongly, asked as the evaluation did.

        The proof is None where the base is not there, the strength where the run kept nothing of its canaries.
        """
        before, record = self.scored.engine.canary, self.scored.record
        kept = before.first if before else {}
        chosen = self._canaries(kept)
        there = self.server.adapter_settings(served)
        proof, causes = None, [] if there is None else [in_settings(there, self.scored.settings)]
        with doing("asking the canaries"):
            # One model after the other: on CPUs vLLM gives base rows beside adapter rows the adapter's weights.
            names = [self.model] if served.parent is None else [self.model, served.parent, served.parent]
            adapted, *bases = self._all_traces(names, chosen)
        try:
            proof = prove_applied(record.id, adapted, base=bases[0], base_again=bases[1]) if bases else None
        except AdapterError as error:
            causes.append(error.what)
        strength = measure_strength(kept, self._as_prompted(adapted))
        if strength is not None and (proof is not None or not bases):
            causes.append(in_strength(strength, self.knows.dtype))
        return (
            proof,
            strength,
            [
                Difference(case_id="canaries", asked=AS_SCORED.name, part="adapter", cause=cause)
                for cause in causes
                if cause is not None
            ],
        )

    def _as_prompted(self, traces: Sequence[Trace]) -> list[Trace]:
        """The traces of prompts that were scored; others are told of by their cases."""
        scored = self.scored.replies
        return [trace for trace in traces if trace.prompt_sha256 == scored[trace.case_id].prompt_sha256]

    def _canaries(self, kept: Mapping[str, FirstTokens]) -> list[Case]:
        """Those of the evaluation; where the run kept nothing of them, short cases of it."""
        replies, cases = self.scored.replies, self.scored.cases
        short = sorted(cases, key=lambda case: replies[case.id].prompt_tokens or 0)
        of_run = [case for case in cases if case.id in kept]
        return of_run or pick_canaries(short[: max(NUM_CANARIES, len(short) // 2)])

    def _all_traces(self, models: Sequence[str], cases: Sequence[Case]) -> list[list[Trace]]:
        try:
            return [self._traces(model, cases) for model in models]
        except Refused as refusal:
            what = f"the server refuses to say how likely the tokens of its replies are: {refusal}"
            raise EvaluationError(what, where=self.server.url, fix="Start it as report.json says") from refusal

    def _traces(self, model: str, cases: Sequence[Case]) -> list[Trace]:
        fields = {"model": model, "max_tokens": CANARY_TOKENS, "temperature": 0.0} | likeliest(CANARY_LOGPROBS)
        answers = [(case.id, self.server.ask(self._request(case, AS_SCORED) | fields)) for case in cases]
        return [
            Trace(id_, answer.tokens, answer.likely[0], Prompt(id_, list(answer.prompt)).sha256)
            for id_, answer in answers
        ]

    def ask_all(self, cases: Sequence[Case]) -> tuple[dict[str, int], list[tuple[Way, Case, Answer | Refused]]]:
        """Every answer, and how many there are by the way of asking."""
        with_tools = evenly([case for case in cases if case.tools], OTHER_CASES)
        plan = [(AS_SCORED, cases), (STREAMED, evenly(cases, OTHER_CASES)), (WITHOUT_TOOLS, with_tools)]
        plan += [(way, with_tools) for way in (NONE, REQUIRED, NAMED)] if self.knows.parser else []
        todo = [(way, case) for way, chosen in plan for case in chosen]
        with bar("answers", len(todo)) as advance, ThreadPoolExecutor(AT_A_TIME) as pool:
            try:
                found = list(pool.map(partial(self._answer, advance), todo))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return {way.name: len(chosen) for way, chosen in plan}, found

    def _answer(self, advance: Callable[[int], None], todo: tuple[Way, Case]) -> tuple[Way, Case, Answer | Refused]:
        way, case = todo
        extra = likeliest(LIKELIEST) if way is AS_SCORED else {}
        try:
            answer: Answer | Refused = self.server.ask(self._request(case, way) | extra)
        except Refused as refusal:
            answer = refusal
        advance(1)
        return way, case, answer

    def _request(self, case: Case, way: Way) -> JsonObject:
        request = client_request(case.messages, case.tools if way.has_tools else (), self.knows.call_ids) | way.fields
        if way.forces == "one":
            request["tool_choice"] = {"type": "function", "function": {"name": named_tool(case)}}
        if self.knows.parser is None and "tools" in request:
            request["tool_choice"] = "none"  # without a parser the server takes no other
        prompt = self.scored.replies[case.id].prompt_tokens or 0
        most = self.config.eval.max_model_len
        limit = self.config.eval.max_new_tokens if most is None else min(self.config.eval.max_new_tokens, most - prompt)
        return request | {"model": self.model, "max_tokens": limit}

    def compare(self, way: Way, case: Case, answer: Answer | Refused) -> list[Difference]:
        """Where an answer is not what was scored."""
        if isinstance(answer, Refused):
            return [Difference(case_id=case.id, asked=way.name, part="request", cause=f"the server refuses: {answer}")]
        scored = self.scored.replies[case.id]
        found = in_prompt(case, way, scored, answer, self.knows)
        if way.forces is not None:
            return found + in_forced(case, way, named_tool(case) if way.forces == "one" else None, answer)
        found += in_reading(case, way, scored, answer, self.knows)
        if way.name == AS_SCORED.name and not any(one.part == "prompt" for one in found):
            found += in_reply(case, way, scored, self.scored.of_base.get(case.id), answer, self.knows)
        return found


def named_tool(case: Case) -> str:
    """The tool whose call is forced: the one that the case wants called, else the first."""
    wanted = [call.function.name for call in case.expected_calls]
    return next((name for name in wanted), case.tools[0].function.name)


def likeliest(count: int) -> dict[str, Any]:
    """What asks for the likeliest tokens, by their ids."""
    return {"logprobs": True, "top_logprobs": count, "return_tokens_as_token_ids": True}


def _figures(scored: Scored, knows: Knowledge, answers: Sequence[tuple[Case, Answer | Refused]]) -> JsonObject:
    """The counts and the paired test of `compare_replies`, with the served replies as generations."""
    after = {case.id: _generation(case, answer, knows) for case, answer in answers}
    figures = compare_replies([case for case, _ in answers], scored.replies, after, scored.reply_format)
    return {key: value for key, value in figures.items() if key in ServeCheck.model_fields}


def _generation(case: Case, answer: Answer | Refused, knows: Knowledge) -> Generation:
    if isinstance(answer, Refused):
        return Generation(case_id=case.id, text="", finish_reason="error", error=str(answer))
    return Generation(
        case_id=case.id,
        text=knows.text(answer.tokens),
        finish_reason="length" if answer.finish_reason == "length" else "stop",
        prompt_sha256=Prompt(case.id, list(answer.prompt)).sha256,
    )
