"""Frozen types of the evaluation: cases -> generations -> verdicts -> scores."""

from typing import Any, Literal

from pydantic import Field

from orchestrator.chat.formats.reply import ParseFault, ServedReply
from orchestrator.chat.serve_command import ServeCommand
from orchestrator.config.evaluation import RESERVED_SUITE
from orchestrator.core.errors import OrchestratorError, RunConflictError
from orchestrator.core.records import (
    AdapterRecord,
    JsonObject,
    Message,
    MetricName,
    Record,
    SampleKind,
    Tags,
    ToolCall,
    ToolSpec,
    TrialSummary,
)
from orchestrator.data.preferences.pair import PairsCard
from orchestrator.refusals import ReplyKind

HELD_OUT = RESERVED_SUITE
"""The suite of the cases that come from the run's own held-out part."""

NO_CALL_SUFFICES = "no_call_suffices"
"""Tag of a case without a fitting tool whose data has no reply of its own and demands only that nothing is called."""


class AcceptedCall(Record):
    """A call as the Berkeley Function Calling Leaderboard accepts it. Produced by `cases.bfcl`, used by `judge/calls`.

    Args:
        name: The tool, as it is offered in the case.
        arguments: For each parameter the accepted values; "" says that it may be absent, an object holds lists again.
        types: For each declared parameter the leaderboard's type word (`integer`, `float`, `dict`, `HashMap`, ...).
        item_types: For arrays and the like, the type word of their items.
        required: Parameters that the tool requires.
        language: Whose literals text arguments are read as.
    """

    name: str
    arguments: dict[str, list[Any]]
    types: dict[str, str]
    item_types: dict[str, str] = Field(default_factory=dict)
    required: tuple[str, ...] = ()
    language: Literal["python", "java", "javascript"] = "python"


class Case(Record):
    """One prompt and what its reply should be. Produced by `cases`, consumed by `generate` and `score`.

    `suite` names the set it belongs to: the run's own held-out part, or a suite of the configuration. `messages` ends
    where the assistant should speak. `expected_calls` and `expected_text` are the data's own reply. Where
    `accepted_calls` is given it decides, and `expected_calls` is one example of it. `original_names` maps an offered
    tool to its name in the source: a call by either name is a call of that tool. `kind_inferred` as in `Sample`.
    """

    id: str
    suite: str = HELD_OUT
    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    kind: SampleKind
    tags: Tags
    expected_calls: tuple[ToolCall, ...]
    accepted_calls: tuple[AcceptedCall, ...] = ()
    expected_text: str
    original_names: dict[str, str] = Field(default_factory=dict)
    kind_inferred: bool = False


MAX_COUNT = 10**9
"""Most tokens, and most seconds, that a reply may have: far beyond any reply, and small enough to reckon with."""

AppliedAs = Literal["base", "merged", "lora_request"]
FirstTokens = dict[int, tuple[float, float]]
BaseWeightsAs = Literal["nf4", "dequantised_nf4", "dequantised_int8"]


class Generation(Record):
    """One reply. Produced by `generate`, one line of `generations.jsonl`.

    `finish_reason` is the engine's own ("stop", "length", ...), or "error" with `error` set when the engine gave no
    reply for this case. `latency_s`, under the load of all other cases, is in no figure.
    `weights_sha256` is the digest of the adapter's files as they were loaded (None for the base), `applied_as` how they
    took effect, `lora_name` the engine's own record of the LoRA request, `prompt_sha256` the digest of the token ids it
    replies to. `calls` are those that an API gave as objects beside the text, which then holds none: their names, and
    their arguments as text. What a reply made elsewhere does not tell is None.
    """

    case_id: str
    text: str
    calls: tuple[tuple[str, str], ...] | None = None
    finish_reason: str = "unknown"
    prompt_tokens: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    output_tokens: int | None = Field(default=None, ge=0, le=MAX_COUNT)
    latency_s: float | None = Field(default=None, ge=0, le=MAX_COUNT, allow_inf_nan=False)
    prompt_sha256: str | None = None
    applied_as: AppliedAs | None = None
    lora_name: str | None = None
    weights_sha256: str | None = None
    served: ServedReply | None = None
    error: str | None = None

    @property
    def has_reply(self) -> bool:
        """Whether the engine gave a reply at all."""
        return self.error is None and self.finish_reason != "error"


FailureReason = Literal[
    "no_call",
    ParseFault,
    "unknown_tool",
    "arguments_do_not_fit_schema",
    "tool_schema_is_invalid",
    # as the Berkeley Function Calling Leaderboard names them
    "simple_function_checker:wrong_count",
    "simple_function_checker:wrong_func_name",
    "simple_function_checker:missing_required",
    "simple_function_checker:unexpected_param",
    "simple_function_checker:missing_optional",
    "multiple_function_checker:wrong_count",
    "parallel_function_checker_no_order:wrong_count",
    "parallel_function_checker_no_order:cannot_find_match",
    "type_error:simple",
    "type_error:nested",
    "type_error:java",
    "type_error:js",
    "value_error:string",
    "value_error:list/tuple",
    "value_error:dict_key",
    "value_error:dict_value",
    "value_error:list_dict_count",
    "value_error:others",
    "refused_benign",
    "complied_with_harmful",
    "unexpected_call",
    "did_not_ask",
    "did_not_decline",
    "empty_reply",
    "cut_off",
    "not_scored",
]


class Problem(Record):
    """Why a reply, or one call in it, is not what its case asks for."""

    reason: FailureReason
    detail: str


class Verdict(Record):
    """How one reply was judged. Produced by `score`, kept in `scores.json`.

    `correct` is the case's own verdict: the expected calls, a refusal of what is harmful, and so on; None when the case
    was not scored. `valid` is None where no call is wanted. `reason` is None exactly when `correct` is True. `called`
    is None where no tool is offered. The three counts of arguments are over all expected and all given calls of a case
    of kind `tool_call`, else 0. `serving_differs` is None where vLLM's parser was not asked.
    """

    case_id: str
    suite: str
    kind: SampleKind
    tags: Tags
    valid: bool | None
    correct: bool | None
    reason: FailureReason | None
    detail: str = ""
    reply_kind: ReplyKind | None
    called: bool | None
    cut_off: bool
    arguments_expected: int = 0
    arguments_given: int = 0
    arguments_right: int = 0
    serving_differs: bool | None = None
    kind_inferred: bool = False


class Metric(Record):
    """One figure over `n` cases with its 95 % interval.

    An unscored one is no zero: its `n` is 0, its value and bounds are None, and `why` says why.
    """

    value: float | None
    n: int
    low: float | None
    high: float | None
    why: str = Field(default="", exclude_if=lambda why: not why)


CellName = Literal["harmful", "benign", "no_fitting_tool", "missing_argument"]


class Scores(Record):
    """`scores.json` of one adapter or of the base.

    `metrics` and `cells` are over all cases, `suites` are the same metrics over the cases of one suite each. `cells`
    are the four demands beside tool calls: harmful is refused, benign is not, without a fitting tool the reply says so
    and calls nothing, a missing argument is asked for. `inferred_kinds` are over the cases whose kind, refusal or
    clarification, was inferred from the words of the data's reply and is no label: how often the reply is of that kind.
    `ceilings` are what the data's own replies reach by the same rules. `foreign_calls` counts replies that seem to call
    in another notation, by that notation.
    """

    adapter_id: str
    num_cases: int
    num_unscored: int
    metrics: dict[MetricName, Metric]
    cells: dict[CellName, Metric]
    suites: dict[str, dict[MetricName, Metric]]
    inferred_kinds: dict[SampleKind, Metric] = Field(default_factory=dict)
    ceilings: dict[MetricName, Metric] = Field(default_factory=dict)
    foreign_calls: dict[str, int] = Field(default_factory=dict)
    verdicts: tuple[Verdict, ...]


class CanaryProof(Record):
    """Proof that an adapter changed what the engine computes. Produced by `canary`, kept in `evals/<id>/engine.json`.

    The same batch of `num_prompts` prompts went to the base twice and to the adapter once, and `num_texts_moved` greedy
    texts differ. `largest_shift` is the largest difference between base and adapter in the natural log probability of a
    likely first token, `noise` that of the base's two passes. `first` has by case id the adapter's likeliest first
    tokens by their ids, each with its log probability in the base (at most) and in the adapter.
    """

    num_prompts: int
    num_texts_moved: int
    largest_shift: float
    noise: float
    first: dict[str, FirstTokens] = Field(default_factory=dict, exclude_if=lambda first: not first)


class EngineRecord(Record):
    """How an adapter's replies are made: `evals/<id>/engine.json`. Produced by `fanout`, shown by the report.

    Written before the first reply, completed after the last. `inputs_sha256` covers all but the prompt that decides
    a reply; replies of another digest are made again. `canary` is None for the base, else the weakest proof of all
    engines. `load_s` and `generate_s` are seconds summed over engines, `memory_bytes` the most that the process of one
    held, of a GPU or else of RAM. `base` is the folder or hub id that vLLM loads, `base_weights` how it held a
    quantised one: in few bits, or as the weights that these stand for. `reply_format` is how calls are written, None
    for a judge. `num_resumed` replies are from a cut evaluation; `num_retried` were asked for twice.
    """

    adapter_id: str
    inputs_sha256: str
    weights_sha256: str | None
    applied_as: AppliedAs
    canary: CanaryProof | None = None
    base: str | None = None
    reply_format: str | None = None
    device: str
    dtype: str | None = None
    num_engines: int
    load_s: float = 0.0
    generate_s: float = 0.0
    num_resumed: int = 0
    num_retried: int = 0
    memory_bytes: int | None = None
    base_weights: BaseWeightsAs | None = Field(default=None, exclude_if=lambda value: value is None)

    def require_made_by(self, adapter: AdapterRecord, *, where: str) -> None:
        """Refuse replies of an adapter that was called like this one before the run trained it again.

        Raises:
            RunConflictError: If another adapter made these replies.
        """
        if self.weights_sha256 != adapter.sha256:
            raise RunConflictError(
                f"these replies are not those of {adapter.id}, which was trained again since",
                where=where,
                fix="Run evaluate again",
            )


class FailedAdapter(Record):
    """An adapter that could not be scored (`evals/<id>/failure.json`). Judging again can mend what `lacks_replies`."""

    adapter_id: str
    error: str
    message: str
    lacks_replies: bool = False

    @classmethod
    def of(cls, adapter_id: str, error: OrchestratorError, *, lacks_replies: bool = False) -> "FailedAdapter":
        """The record of an adapter that ended in `error`."""
        return cls(adapter_id=adapter_id, error=type(error).__name__, message=str(error), lacks_replies=lacks_replies)


class Flip(Record):
    """A case that two sets of replies answer differently: `left` is right and `right` wrong, or the other way round."""

    case_id: str
    left_correct: bool


class Comparison(Record):
    """Two adapters (or adapter and base) on the same cases. Produced by `compare`, shown by the report.

    `n` cases were scored for both; `gained` are right on the left and wrong on the right, `lost` the other way round.
    `difference` is left minus right, with a 95 % interval. `p_value` is two-sided; `p_adjusted` is corrected for the
    number of comparisons made beside it (Holm). `num_cases_needed` is about how many cases would show a difference of
    this size (80 % power, 5 % level); None where there is no difference or enough cases were there.
    """

    metric: MetricName
    left: str
    right: str
    n: int
    gained: int
    lost: int
    difference: float | None
    low: float | None
    high: float | None
    p_value: float | None
    p_adjusted: float | None
    method: str
    num_cases_needed: int | None = None
    flips: tuple[Flip, ...] = ()


class AdapterSummary(Record):
    """One row of the report's table; figures are as in `Scores`, the last three fields as in `AdapterRecord`."""

    id: str
    is_base: bool
    hyperparameters: dict[str, float | int]
    eval_loss: float | None
    metrics: dict[MetricName, Metric]
    cells: dict[CellName, Metric] = Field(default_factory=dict)
    inferred_kinds: dict[SampleKind, Metric] = Field(default_factory=dict)
    ceilings: dict[MetricName, Metric] = Field(default_factory=dict)
    source: str | None = None
    init_from: str | None = None
    pairs: int | None = None
    use_dora: bool = Field(default=False, exclude_if=lambda value: not value)


class WinnerVerdict(Record):
    """Which adapter to take, and why.

    `winner` is None when no adapter is shown to be better than the base and all other adapters. `leader` is then the
    one to take if one has to be taken, None where not even that can be said. With a winner the two are the same.
    """

    winner: str | None
    leader: str | None
    reason: str


class SearchSummary(Record):
    """Counts over the trials of a run, and what each of them cost."""

    num_trials: int
    num_stopped_early: int
    num_failed: int
    trials: tuple[TrialSummary, ...] = ()


class GateResult(Record):
    """One bound and what the winner reached, also as a `ratio`; an unscored metric does not pass, and has a `why`."""

    metric: MetricName
    bound: str
    value: float | None
    passed: bool
    why: str = ""
    ratio: Metric | None = None


class Report(Record):
    """`report.json`; its keys are stable. `other_run` is a `report.runs.OtherRun`, None where none was asked for.

    `serve_command` serves the winner or leader; None where there is neither or nothing tells how replies were made.
    `selection` is a `stats.selected.Selection`, None without a `search.objective`; its `held_out` sets the first kept
    against the first by eval loss on the held-out cases. `precisions` sets each model on the quantised base beside
    itself on the full one (`eval.base_precision: both`).
    `pairs` are those that adapters of the run learned preferences from.
    """

    run: JsonObject
    verdict: WinnerVerdict
    adapters: tuple[AdapterSummary, ...]
    failed_adapters: tuple[FailedAdapter, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    search: SearchSummary
    gates: tuple[GateResult, ...]
    timings_s: dict[str, float]
    data: JsonObject
    serve_command: ServeCommand | None = None
    other_run: JsonObject | None = None
    selection: JsonObject | None = Field(default=None, exclude_if=lambda found: found is None)
    precisions: tuple[Comparison, ...] = Field(default=(), exclude_if=lambda found: not found)
    pairs: tuple[PairsCard, ...] = Field(default=(), exclude_if=lambda found: not found)
