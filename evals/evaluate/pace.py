"""How long an evaluation will take: a few of its cases, answered once on this machine and kept in a cache."""

import math
import os
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from evals.evaluate.fanout import collect_cases, rendered_cases
from evals.evaluate.timing import turn_size
from evals.generate.engines import MAX_ENGINE_CPUS
from evals.generate.probe import MOST, RepliesRequest, spread
from evals.generate.settings import settings_of_run
from evals.stats.ceiling import own_reply
from orchestrator.config.schema import RunConfig
from orchestrator.core.files import digest_of
from orchestrator.core.progress import doing, say
from orchestrator.models.base import base_tokenizer
from orchestrator.plan.measured import MeasuredReplies
from orchestrator.probe.measure import this_place
from orchestrator.probe.processes import keep, memory_limit, probe_place, read_kept, run_probes
from orchestrator.run.paths import RunDir

LAYOUT = 1
"""The version of what is measured: another one is measured again."""
REPLIES = "evals.generate.probe"
"""The process that makes them."""


class Pace(NamedTuple):
    """What to measure, in a run whose data is prepared, and where the result is kept."""

    config: RunConfig
    run: RunDir
    on_gpu: bool

    @property
    def place(self) -> Path:
        """Where its result is kept."""
        config, cases = self.config, self.run.split("test")
        key = digest_of(
            LAYOUT,
            [config.served_model.model_dump(mode="json"), config.eval.model_dump(mode="json"), config.data.thinking],
            cases.read_text(encoding="utf-8") if cases.is_file() else "",
            this_place(),
        )
        return probe_place(f"replies-{key[:16]}")


def kept_replies(pace: Pace) -> MeasuredReplies | None:
    """What was measured before, None where nothing was, or nothing that this version reads."""
    return read_kept(pace.place, MeasuredReplies)


def measured_replies(pace: Pace, planned: int) -> MeasuredReplies | None:
    """What was measured before, else measured now; None where no case leaves room for a reply.

    Args:
        pace: What to measure.
        planned: Bytes that the engine takes as planned.

    Raises:
        InputError: If there are no cases, or the base's template refuses them.
        TrainingError: If there is too little memory for it, or the engine cannot answer.
    """
    if (before := kept_replies(pace)) is not None:
        return before
    request = _request(pace)
    if not request.prompts:
        return None
    limit = memory_limit(planned, on_gpu=pace.on_gpu)
    threads = {} if pace.on_gpu else {"OMP_NUM_THREADS": str(min(MAX_ENGINE_CPUS, os.cpu_count() or 1))}
    say("Answering a few cases with the base, which takes about a minute ...")
    with doing("answering a few cases"):
        (found,) = run_probes(REPLIES, [request], MeasuredReplies, limit, threads)
    keep(pace.place, found)
    return found


def _request(pace: Pace) -> RepliesRequest:
    config, tokenizer = pace.config, base_tokenizer(pace.config.model)
    cases, prompts = rendered_cases(config, tokenizer, collect_cases(config, pace.run))
    settings = settings_of_run(config, tokenizer, prompts, ranks=config.search.space.r, on_gpu=pace.on_gpu)
    fitting = [prompt.token_ids for prompt in prompts if len(prompt.token_ids) < settings.max_model_len]
    expected = [len(tokenizer(text).input_ids) for case in cases if (text := own_reply(case).text)]
    timed = min(config.eval.latency_cases, len(fitting))
    return RepliesRequest(
        settings=settings,
        prompts=tuple(tuple(ids) for ids in spread(fitting, MOST)),
        expected_tokens=fmean(expected) if expected else 1.0,
        all_cases=len(cases),
        all_alone=timed + math.ceil(timed / turn_size(settings)),  # each turn begins with one that is not timed
    )
