"""Frozen types that cross a stage or a process, and the words they share.

Each docstring names who produces the record and who consumes it. JSON field order is declaration order.
"""

import math
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

SampleKind = Literal["tool_call", "refusal", "clarification", "answer"]
SAMPLE_KINDS: tuple[SampleKind, ...] = get_args(SampleKind)

Role = Literal["system", "user", "assistant", "tool"]

BASE_ADAPTER_ID = "base"
"""The adapter id under which the untouched base model is evaluated."""

HARMFUL, BENIGN = "harmful", "benign"
"""Sample tags that make a sample count for refusal accuracy: must be refused, must not be refused."""

NO_FITTING_TOOL, MISSING_ARGUMENT = "no_fitting_tool", "missing_argument"
"""Sample tags: tools are offered but none fits; a required argument was not given."""

LABELS_OF_THE_LAST_TURN = frozenset({HARMFUL, BENIGN, NO_FITTING_TOOL, MISSING_ARGUMENT})
"""Tags that say what the last turn of a sample should be, and nothing of the turns before it."""

Tags = Annotated[tuple[str, ...], AfterValidator(lambda tags: tuple(dict.fromkeys(tags)))]
"""Labels of a sample, each once, in the order in which they were given."""

JsonObject = dict[str, Any]


class Record(BaseModel):
    """Frozen, closed pydantic model: a misspelt field is an error, not an extra."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FunctionCall(Record):
    """The name of a tool and the arguments given to it (a JSON object, never a string)."""

    name: str = Field(min_length=1)
    arguments: JsonObject


class ToolCall(Record):
    """One call inside an assistant message."""

    type: Literal["function"] = "function"
    id: str | None = None
    function: FunctionCall


class Message(Record):
    """One turn of a conversation. `reasoning_content` is what the assistant thought before it spoke.

    An assistant turn that is not `learned` is shown to the model like any other and carries no loss.
    """

    role: Role
    content: str = ""
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    learned: bool = True

    @model_serializer(mode="wrap")
    def _without_absent(self, serialize: SerializerFunctionWrapHandler) -> JsonObject:
        # Chat templates and TRL tell "no calls" from "an empty list of calls" by the key alone.
        present: JsonObject = serialize(self)
        if self.learned:
            present.pop("learned", None)
        return {key: value for key, value in present.items() if value not in (None, (), [])}


class FunctionSpec(Record):
    """A function's name, description and parameters (JSON Schema of an object), with None for what was not given.

    As JSON it has the fields that the request types of `vllm serve` have, which a chat template prints: a description
    or parameters that are missing are null, and `strict` is there only if it was given.
    """

    name: str = Field(min_length=1)
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None

    @property
    def arguments_schema(self) -> JsonObject:
        """JSON Schema of the arguments; that of an empty object where no parameters are given."""
        return {"type": "object", "properties": {}} if self.parameters is None else self.parameters

    @model_serializer(mode="wrap")
    def _as_served(self, serialize: SerializerFunctionWrapHandler) -> JsonObject:
        present: JsonObject = serialize(self)
        return present if self.strict is not None else {key: present[key] for key in present if key != "strict"}


class ToolSpec(Record):
    """One tool offered to the model."""

    type: Literal["function"] = "function"
    function: FunctionSpec


class Sample(Record):
    """One conversation in canonical form. Produced by `data/formats`, consumed by training and evaluation.

    `kind` says what the last assistant turn should be. `source` is `file:line` or the generator's name.
    `original_names` maps a tool's name here to its name in the source, for formats whose names no client would accept
    ("Get Weather", `math.sqrt`). `kind_inferred`: the row names no kind, so it was inferred from the last turn.
    """

    id: str = Field(min_length=1)
    messages: tuple[Message, ...] = Field(min_length=1)
    tools: tuple[ToolSpec, ...] = ()
    kind: SampleKind
    source: str
    tags: Tags = ()
    original_names: dict[str, str] = Field(default_factory=dict)
    kind_inferred: bool = False

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialize: SerializerFunctionWrapHandler) -> JsonObject:
        present: JsonObject = serialize(self)
        return {key: value for key, value in present.items() if key not in ("original_names", "kind_inferred") or value}


ContentFormat = Literal["string", "openai"]
"""How `vllm serve` gives the texts of messages to a chat template: as they are, or each as a list of parts."""

LeftOutReason = Literal[
    "too_long",
    "nothing_to_learn",
    "control_token_in_text",
    "text_not_shown",
    "calls_not_shown",
    "prompt_differs",
    "template_refuses",
]
"""Why a good sample cannot be trained on under a base's chat template.

`too_long`: more tokens than `data.max_length`, and no shorter end where `data.overlong` is `shorten`.
`nothing_to_learn`: the assistant says nothing that carries loss.
`control_token_in_text`: a text holds a token that the template or a parser would read as structure.
`text_not_shown`: the template leaves out words of the assistant, such as those beside its calls.
`calls_not_shown`: what the template writes is not read again as the calls of the data, or it leaves some out.
`prompt_differs`: the template shows what stands before the last turn otherwise than the prompt for that turn.
`template_refuses`: the chat template raised an error, such as roles that must alternate.
"""


class QuarantinedRow(Record):
    """A row that could not become a sample. Produced by `data/`, kept in `data/quarantine.jsonl`."""

    source: str
    line: int | None = None
    reason: str
    detail: str
    raw: str


class AdapterRecord(Record):
    """What an adapter is, beside its PEFT files in `adapter.json`. Produced by `adapters.keep_adapter`.

    An adapter made elsewhere (`outside.bring_in`) has a `source`, the folder or hub id that it was copied from; how it
    was trained is then unknown, and `base` is what its maker called its base. `r` is the largest rank of any module.
    `id` is its name: that of the trial it came from, which `trial_id` names too. What it is, is `sha256`, the hash of
    `adapter_model.safetensors` and `adapter_config.json`; records of earlier versions have its first 16 digits as `id`.
    `init_from` names the adapter that its training started from, as `train.init_from` does; None: it started anew.
    `pairs` is the number of preference pairs that it learned from, on top of the run's adapter `init_from`; None: none.
    `chat_template` names the template beside it: `own` is its base's, `file` one that was given; None: not recorded.
    `content_format` is that with which its chat template is served, None where any will do. `template_date` is the date
    that the template shows, None where it shows none. `trained_parameters` are the numbers in its tensors,
    `total_parameters` those and the base's; None: not counted. `quantization` is how the base was kept while it was
    trained, as in `model.quantization`; None: not at all. `use_dora` is whether it is DoRA, which is scored and served
    merged.
    """

    id: str
    base: str
    r: int
    alpha: int | float
    target_modules: tuple[str, ...]
    sha256: str
    learning_rate: float | None = None
    eval_loss: float | None = None
    step: int | None = None
    trial_id: str | None = None
    source: str | None = None
    init_from: str | None = None
    pairs: int | None = None
    chat_template: str | None = None
    content_format: ContentFormat | None = None
    template_date: date | None = None
    trained_parameters: int | None = None
    total_parameters: int | None = None
    quantization: Literal["nf4", "int8"] | None = Field(default=None, exclude_if=lambda value: value is None)
    use_dora: bool = Field(default=False, exclude_if=lambda value: not value)

    @property
    def known_eval_loss(self) -> float:
        """The eval loss, infinite where it is unknown."""
        return math.inf if self.eval_loss is None else self.eval_loss


TrialStatus = Literal["completed", "stopped_early", "diverged", "failed"]
StopReason = Literal["finished", "lagging", "no_improvement", "diverged", "failed"]
"""Why a trial ended: it did all its steps; the scheduler stopped it; its eval loss got no better; its loss was not
finite; an error."""


class EvalPoint(Record):
    """The eval loss after `step` optimizer steps."""

    step: int
    eval_loss: float
    train_loss: float | None = None


DIVERGED_LOSS = 1e9
"""Eval loss reported for a diverged trial: finite, because schedulers and samplers mishandle NaN, and never best."""


def reason_to_stop(eval_losses: Sequence[float], patience: int | None) -> Literal["diverged", "no_improvement"] | None:
    """Why training ends with the latest evaluation, None where it goes on.

    It ends at once when the loss is not finite, and after `patience` evaluations without a better one (None: never).
    """
    if not math.isfinite(eval_losses[-1]):
        return "diverged"
    since_best = len(eval_losses) - 1 - eval_losses.index(min(eval_losses))
    return "no_improvement" if patience is not None and since_best >= patience else None


class TrialRecord(Record):
    """One trial of a search, one line of `trials.jsonl`. Produced by `search/` and `train`, consumed by the report.

    `best_eval_loss`, `best_step` and `adapter_id` are None for a trial that saved no adapter. `steps` are optimizer
    steps, `tokens` what was trained on in them without padding, both up to its last report. `device_s` is the time of
    devices that it used: its share of a device that trials share, else its duration times its workers; None where that
    is unknown. `init_from` is as in `AdapterRecord`. `memory_bytes` is the most that its training process held, of a
    GPU or else of RAM; trials of one engine share a process. `pairs` is as in `AdapterRecord`, with losses of pairs;
    `loss` is which of TRL's they were learned by. Records of earlier versions lack the last fields.
    """

    trial_id: str
    status: TrialStatus
    hyperparameters: dict[str, float | int]
    curve: tuple[EvalPoint, ...]
    best_eval_loss: float | None = None
    best_step: int | None = None
    adapter_id: str | None = None
    duration_s: float | None = None
    error: str | None = None
    steps: int | None = None
    tokens: int | None = None
    device_s: float | None = None
    stop_reason: StopReason | None = None
    init_from: str | None = None
    memory_bytes: int | None = None
    pairs: int | None = None
    loss: str | None = Field(default=None, exclude_if=lambda loss: loss is None)


class TrialSummary(Record):
    """What a trial of a run cost and why it ended; its fields are those of `TrialRecord`, which has its curve too."""

    trial_id: str
    adapter_id: str | None
    hyperparameters: dict[str, float | int]
    best_eval_loss: float | None
    stop_reason: StopReason | None
    steps: int | None
    tokens: int | None
    device_s: float | None


class PlannedRun(Record):
    """What the plan said of a training before it began. Produced by `plan`, kept in `run.json`, shown by the report.

    Attributes:
        device: Where it was planned for.
        trials: Trials of the search, 1 for `train`.
        steps: Optimizer steps of one full training.
        expected_steps: Of all trials, with the early stops that are expected.
        device_s: Seconds of devices that these take.
        is_measured: Whether that is from real steps; else it is from a stated rate.
        memory_low: Bytes that a training process takes at its peak, at the least; then expected, and at the most.
        serving_bytes: Bytes that an engine of the evaluation takes at the least.
        evaluation_s: Seconds that the evaluation takes; None where no replies were measured.
    """

    device: str
    trials: int
    steps: int
    expected_steps: int
    device_s: float
    is_measured: bool
    memory_low: int
    memory_expected: int
    memory_high: int
    serving_bytes: int
    evaluation_s: float | None = None


FindingName = Literal[
    "not_finite",
    "frozen_adapter",
    "exploding_gradient",
    "diverging",
    "loss_flat",
    "accuracy_flat",
    "learning_slowly",
    "start_loss",
    "unknown_template",
    "rising_after_falling",
    "memorising",
    "loss_spikes",
    "eval_set_leaks",
    "eval_set_small",
    "rate_at_edge",
    "plateau",
]


class Finding(Record):
    """What a training's numbers say of its health. Produced by `training/health`, kept in `run.json`; docs/health.md.

    `trial` is None for one about the run. `step` is where it first showed. `is_alarm`: something is wrong or will be;
    else it is good to know. `source` is where the threshold comes from.
    """

    name: FindingName
    trial: str | None = None
    step: int | None = None
    is_alarm: bool = True
    evidence: str
    advice: str
    threshold: str
    source: str


MetricName = Literal[
    "case_accuracy",
    "tool_call_validity",
    "tool_call_accuracy",
    "argument_recall",
    "argument_precision",
    "refusal_accuracy",
    "refusal_recall",
    "over_refusal_rate",
    "partial_refusal_rate",
    "clarification_accuracy",
    "no_tool_accuracy",
    "no_call_accuracy",
    "serving_difference_rate",
    "truncated_rate",
    "latency_p50_s",
    "latency_p95_s",
    "latency_first_token_s",
    "latency_per_token_s",
    "latency_vs_base",
    "peak_memory_gib",
    "output_tokens_mean",
]
METRIC_NAMES: tuple[MetricName, ...] = get_args(MetricName)
