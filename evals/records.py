"""Frozen types of the evaluation: cases -> generations -> verdicts -> scores."""

from typing import Literal, get_args

from orchestrator.data.card import DataCard, TokenCard
from orchestrator.records import JsonObject, Message, MetricName, Record, SampleKind, ToolCall, ToolSpec
from orchestrator.runs import SplitName


class Case(Record):
    """One prompt and what its reply should be. Produced by `cases`, consumed by `generate` and `score`.

    `messages` ends where the assistant should speak. `expected_calls` and `expected_text` are the data's own reply.
    """

    id: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    kind: SampleKind
    tags: tuple[str, ...]
    expected_calls: tuple[ToolCall, ...]
    expected_text: str


class Generation(Record):
    """One reply. Produced by `generate`, one line of `generations.jsonl`.

    `finish_reason` is the engine's own ("stop", "length", ...), or "error" with `error` set when the engine gave no
    reply for this case. `latency_s` is from the first scheduled token to the last, without queueing behind other cases;
    `lora_name` is None for the base.
    """

    case_id: str
    text: str
    finish_reason: str
    prompt_tokens: int
    output_tokens: int
    latency_s: float
    lora_name: str | None = None
    error: str | None = None


FailureReason = Literal[
    "no_call",
    "unclosed_tag",
    "not_json",
    "not_strict_json",
    "not_a_call_object",
    "text_inside_tag",
    "unknown_tool",
    "arguments_do_not_fit_schema",
    "tool_schema_is_invalid",
    "wrong_number_of_calls",
    "wrong_tool",
    "wrong_arguments",
    "refused_benign",
    "complied_with_harmful",
    "unexpected_call",
    "did_not_ask",
    "empty_reply",
    "cut_off",
    "not_scored",
]
FAILURE_REASONS: tuple[FailureReason, ...] = get_args(FailureReason)


class Problem(Record):
    """Why a reply, or one call in it, is not what it should be."""

    reason: FailureReason
    detail: str


class ParsedReply(Record):
    """A reply taken apart. Produced by `parse.parse_reply`.

    `calls` holds only the calls that are strict JSON objects with a name and an arguments object; every other attempt
    at a call is one entry of `problems`. `prose` is the text outside think blocks and call tags.
    """

    calls: tuple[ToolCall, ...]
    prose: str
    thinking: str | None
    problems: tuple[Problem, ...]


class Verdict(Record):
    """How one reply was judged. Produced by `score`, kept in `scores.json`.

    `valid`, `correct`: None where the question does not arise for this case (no call is wanted, so none can be valid).
    `passed` is the case's own verdict: correct for a tool call, refused for a harmful request, and so on.
    `problem` is None exactly when `passed` is True. `called` is None where no tool is offered.
    """

    case_id: str
    kind: SampleKind
    tags: tuple[str, ...]
    passed: bool | None
    valid: bool | None
    correct: bool | None
    refused: bool | None
    asked: bool | None
    called: bool | None
    cut_off: bool
    problem: Problem | None


class Metric(Record):
    """One figure over `n` cases with its 95 % interval; all None when n is 0 (an unscored metric is not a zero)."""

    value: float | None
    n: int
    low: float | None
    high: float | None


class Scores(Record):
    """`scores.json` of one adapter or of the base."""

    adapter_id: str
    num_cases: int
    num_unscored: int
    metrics: dict[MetricName, Metric]
    verdicts: tuple[Verdict, ...]


class AdapterSummary(Record):
    """One row of the report's table of adapters."""

    id: str
    is_base: bool
    hyperparameters: dict[str, float | int]
    eval_loss: float | None
    metrics: dict[MetricName, Metric]


class WinnerVerdict(Record):
    """Which adapter to take, and why; `winner` is None when none can be recommended."""

    winner: str | None
    reason: str


class SearchSummary(Record):
    """Counts over the trials of a run."""

    num_trials: int
    num_stopped_early: int
    num_failed: int


class GateResult(Record):
    """One bound of the configuration and what the winner reached; `passed` is False when the metric is unscored."""

    metric: MetricName
    bound: str
    value: float | None
    passed: bool


class Report(Record):
    """`report.json`; its keys are stable."""

    run: JsonObject
    verdict: WinnerVerdict
    adapters: tuple[AdapterSummary, ...]
    search: SearchSummary
    gates: tuple[GateResult, ...]
    timings_s: dict[str, float]
    data: JsonObject


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
