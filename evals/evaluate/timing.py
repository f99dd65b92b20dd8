"""Latency: a few cases, asked one at a time of the base and all adapters in turns, so that all bear the same load.

A round is one turn of each on the same few cases, there and back from round to round (base, a, b; then b, a, base), so
that a machine that slows down slows all of them. A turn begins with a request that is not timed. Rounds are kept on
disk whole: one that an interruption or a dead engine cut off is asked again.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from evals.cases.samples import draw_cases
from evals.generate.engine import Adapter, EngineSettings, Prompt
from evals.generate.engines import Engines, time_alone
from evals.generate.journal import append_lines, whole_lines
from evals.records import Case
from evals.stats.latency import TimedReply
from orchestrator.core.errors import EvaluationError
from orchestrator.core.files import dump_jsonl, write_text_atomic
from orchestrator.core.progress import bar, say
from orchestrator.core.text import counted
from orchestrator.run.paths import RunDir

CASES_A_TURN = 4
"""Where a change of adapter puts other weights into the engine; where it is a part of the request, a turn is a case."""


class Timekeeper(NamedTuple):
    """Whom to time on what: adapters by id (None is the base) with the digest of what decides their replies."""

    run: RunDir
    asked: Mapping[str, tuple[Adapter | None, str]]
    prompts: Sequence[Prompt]

    def resume(self) -> list[TimedReply]:
        """The timed replies on disk that still hold, in whole rounds; the file is left with exactly these."""
        path, wanted = self.run.latency, {prompt.case_id: prompt.sha256 for prompt in self.prompts}
        kept: dict[tuple[str, str], TimedReply] = {}
        for reply in whole_lines(path, TimedReply):
            _, digest = self.asked.get(reply.adapter_id, (None, None))
            is_same = digest == reply.inputs_sha256
            if is_same and wanted.get(reply.case_id) == reply.prompt_sha256:
                kept[reply.adapter_id, reply.case_id] = reply
        whole = [case_id for case_id in wanted if all((key, case_id) in kept for key in self.asked)]
        replies = [kept[key, case_id] for case_id in whole for key in self.asked]
        write_text_atomic(path, dump_jsonl(replies))
        return replies

    def time_round(
        self, prompts: Sequence[Prompt], keys: Sequence[str], engines: Engines, settings: EngineSettings
    ) -> None:
        """Time one round, in the order of `keys`, and keep it.

        Raises:
            EvaluationError: If two engines die on it, or an adapter cannot be loaded.
        """
        sha256 = {prompt.case_id: prompt.sha256 for prompt in prompts}
        turns = [(self.asked[key][0], prompts) for key in keys]
        try:
            timed = time_alone(engines, settings, turns)
        except EvaluationError:
            timed = time_alone(engines, settings, turns)  # whole, in another engine
        replies = [
            TimedReply(
                adapter_id=key,
                inputs_sha256=self.asked[key][1],
                prompt_sha256=sha256[one.case_id],
                **one._asdict(),
            )
            for key, turn in zip(keys, timed, strict=True)
            for one in turn
        ]
        append_lines(self.run.latency, replies)


def time_replies(keeper: Timekeeper, settings: EngineSettings, engines: Engines) -> None:
    """Fill `evals/latency.jsonl` with what is missing in it. Replies that cannot be timed are told, and end nothing."""
    if not keeper.prompts:
        keeper.run.latency.unlink(missing_ok=True)
        return
    done = {reply.case_id for reply in keeper.resume()}
    left = [prompt for prompt in keeper.prompts if prompt.case_id not in done]
    if not left:
        return
    keys, size = list(keeper.asked), turn_size(settings)
    others = f", the base and {counted(len(keys) - 1, 'adapter')} in turns" if len(keys) > 1 else ""
    say(f"Timing {counted(len(left), 'case')} one at a time{others}.")
    with bar("timed replies", len(left) * len(keys)) as advance:
        for number, start in enumerate(range(0, len(left), size)):
            prompts, order = left[start : start + size], keys if number % 2 == 0 else keys[::-1]
            try:
                keeper.time_round(prompts, order, engines, settings)
            except EvaluationError as error:
                say(f"The latency of {counted(len(left) - start, 'case')} was not measured: {error}")
                return
            advance(len(prompts) * len(keys))


def turn_size(settings: EngineSettings) -> int:
    """Cases that one model is asked before the next one's turn."""
    return 1 if settings.on_gpu else CASES_A_TURN


def cases_to_time(
    cases: Sequence[Case], prompts: Sequence[Prompt], settings: EngineSettings, *, count: int, seed: int
) -> list[Prompt]:
    """The prompts of `count` cases, drawn evenly over kinds among those that leave room for a reply."""
    fitting = {prompt.case_id: prompt for prompt in prompts if len(prompt.token_ids) < settings.max_model_len}
    drawn = draw_cases([case for case in cases if case.id in fitting], max_cases=count, seed=seed)
    return [fitting[case.id] for case in drawn]
