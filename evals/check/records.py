"""Frozen types of what is known before anything trains: parity, and all that `check` found."""

from typing import Literal

from orchestrator.core.records import Record, SampleKind
from orchestrator.data.card import DataCard, TokenCard
from orchestrator.run.paths import SplitName

ParityProblemCode = Literal[
    "prompt_differs",
    "mask_wrong",
    "tools_dropped",
    "tool_calls_dropped",
    "tool_results_dropped",
    "system_dropped",
    "call_not_parsed",
    "call_changed",
    "serving_parser_differs",
]


class ParityProblem(Record):
    """One way in which training, evaluation and serving would not see the same tokens or calls."""

    code: ParityProblemCode
    sample_id: str
    detail: str


class ParityCard(Record):
    """Whether what is trained is what is evaluated and served. Produced by `parity`, shown by `check`.

    `prompts` samples of every kind had their evaluation prompt compared with their training tokens; `calls` gold calls
    were rendered, decoded and parsed; `serving_calls` of them also by vLLM's parser named `serving_parser` (None with
    `serving_note` where it could not be asked). `base_template_differs` of the prompts look otherwise when rendered
    with the base's own chat template: serve with the adapter's `chat_template.jinja`. `problems` holds the first of
    each code, `num_problems` counts all.
    """

    prompts: int
    prompt_kinds: dict[SampleKind, int]
    calls: int
    serving_parser: str | None
    serving_calls: int
    serving_note: str | None = None
    base_template_differs: int
    num_problems: int
    problems: tuple[ParityProblem, ...]


class CheckCard(Record):
    """Everything that `check` found. Kept in `check/check.json` under the digest of what was checked.

    `data_digest` is that of the split files alone. `data`, `tokens` and `parity` are None or empty from the first step
    that could not be done on. `not_ready` says in whole sentences what has to change before training; empty is ready.
    """

    digest: str
    data_digest: str
    data: DataCard | None
    tokens: dict[SplitName, TokenCard]
    parity: ParityCard | None
    not_ready: tuple[str, ...]
    duration_s: float
