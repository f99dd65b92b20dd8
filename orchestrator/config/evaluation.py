"""The section `eval` of the configuration, and what all sections share: their base, bounded types, formats of rows."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.config.storage import check_storage

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

Dtype = Literal["auto", "bfloat16", "float16", "float32"]

RowFormat = Literal[
    "messages",
    "sharegpt",
    "hermes",
    "xlam",
    "toolace",
    "glaive",
    "mcp",
    "tool_pairs",
    "bfcl",
    "api_log",
    "bedrock",
    "gemini",
    "langchain",
    "responses",
    "instruction",
]
"""The formats of rows. Each is read by the module of its name in `orchestrator/data/formats`."""
ROW_FORMATS: tuple[RowFormat, ...] = get_args(RowFormat)
RowFunction = Annotated[
    str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", examples=["package.module:function"])
]
"""A function of the user's own that turns a row of a source into one of the format `messages`."""
PATHS_START = "a path in the configuration starts at the file's folder, one in --set at the current folder"
"""What a relative path is relative to, as the end of a sentence."""
HUB = "hub:"
"""Start of a source path that names a data set of the Hugging Face hub."""


def is_function(row_format: str) -> bool:
    """Whether the format of a source is a `RowFunction`."""
    return ":" in row_format


class Section(BaseModel):
    """Frozen, closed section of the configuration; field docstrings become the descriptions of its JSON Schema."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


RESERVED_SUITE = "held_out"
"""The name of the run's own held-out cases, which no suite of the configuration may take."""

if TYPE_CHECKING:
    ReplyFormatSetting = str
else:
    ReplyFormatSetting = Literal["auto", *REPLY_FORMATS]

SuiteFormat = Literal["auto", "canonical", "cases", "xstest", "when2call"] | RowFormat
SuiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class SuiteConfig(Section):
    """One set of cases beside the run's held-out part: a file and how it is written."""

    name: SuiteName
    """Names the suite in scores and reports, and starts the ids of its cases (`<name>/<id>`): letters, digits, `.`,
    `_` and `-`. `held_out` is the run's own."""
    path: str = Field(min_length=1)
    """A file (JSON, JSON lines, CSV or Parquet, also gzipped), relative to the config file's folder."""
    format: SuiteFormat = "auto"
    """How rows are written: `bfcl`, `xstest`, `when2call` and `mcp` as published, `cases` as `python -m evals.cases`
    writes them, `canonical` as `prepare` writes samples, or any format of data.sources; `auto` looks at each row."""
    answers: str | None = None
    """For `bfcl`: the file of accepted answers; None looks for `<name>_answers.jsonl` beside the questions."""
    limit: PositiveInt | None = None
    """Use the first `limit` rows; None uses all."""

    @model_validator(mode="after")
    def _is_a_file(self) -> "SuiteConfig":
        if self.name == RESERVED_SUITE:
            raise ValueError(f"the name {RESERVED_SUITE!r} is that of the run's own held-out cases: choose another")
        check_storage(self.path)
        if self.path.startswith(HUB):
            raise ValueError("a suite is a file: download the data set and name its file as the path")
        if self.answers is not None and self.format not in ("auto", "bfcl"):
            raise ValueError(f"answers belong to format bfcl, not {self.format}")
        return self


class JudgeConfig(Section):
    """A model that gives a second opinion on which replies refuse; the scores do not depend on it."""

    base: str = Field(min_length=1)
    """A local folder or a hub id."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; None takes the hub's default. Pin it for runs that must repeat."""
    dtype: Dtype = "auto"
    """Weights of the judge. `auto` is bfloat16 where the GPU or processor computes in it, else float32."""
    trust_remote_code: bool = False
    """Run Python code that comes with a hub model. Leave off unless you have read that code."""
    max_new_tokens: PositiveInt = 16
    """Longest opinion; one word is asked for."""


CPU_KV_CACHE_GIB = 1.0
"""Key-value cache of an engine without a GPU that is given no size: vLLM would take nearly all of the memory."""


class EvalConfig(Section):
    """Scoring on held-out cases and suites with vLLM."""

    max_new_tokens: PositiveInt = 512
    """Longest reply; a reply cut off here is counted and shown apart."""
    max_cases: PositiveInt | None = None
    """Score at most this many held-out cases, drawn evenly over kinds; None scores all. Suites have their own limit."""
    base_precision: Literal["as_trained", "full", "both"] = Field(
        default="as_trained", exclude_if=lambda value: value == "as_trained"
    )
    """On which base adapters are scored and exported where `model.quantization` quantises it. `as_trained`: on the
    quantised one, by vLLM's bitsandbytes loader (NF4 on a GPU), else on its dequantised weights. `full`: on
    `model.base` as stored. `both`: as trained, and once more in full, with each model's difference in the report."""
    turns: Literal["all", "last"] = "all"
    """Which turns of the assistant in a conversation are cases: every one that answers the user or a tool, or only the
    last. Cases of one conversation are alike, so `all` gives more cases and hardly as much more certainty."""
    suites: tuple[SuiteConfig, ...] = ()
    """Sets of cases that are scored beside the held-out part, such as published benchmarks."""
    adapters: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Adapters to score beside the run's own: folders that PEFT saved, relative to the config file's folder, or hub
    ids. What made them does not matter, but they must fit model.base."""
    reply_format: ReplyFormatSetting = "auto"
    """How calls are written in replies; `auto` infers it from the chat template of the base."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """0 is greedy decoding; vLLM takes up to 2."""
    seed: Seed = 0
    """Seed of sampling and of the draw of cases."""
    num_engines: PositiveInt | None = None
    """Engines that share the replies; None starts one for each GPU, or one for each machine without."""
    tensor_parallel: PositiveInt = Field(default=1, exclude_if=lambda value: value == 1)
    """GPUs of one node that an engine's weights are split over, for a base that one does not hold; vLLM's
    `--tensor-parallel-size`. The number of attention heads must be a multiple of it."""
    max_model_len: PositiveInt | None = None
    """Longest prompt plus reply in tokens; None takes what the cases need, up to the model's own limit."""
    kv_cache_gib: Annotated[float, Field(gt=0.0)] | None = None
    """Memory for the key-value cache, on each GPU of an engine; None is 1 GiB on a CPU, vLLM's own choice on a GPU."""
    latency_cases: Annotated[int, Field(ge=0)] = 16
    """Time this many cases, drawn evenly over kinds, one request at a time; the base and all adapters take turns. 0
    measures no latency."""
    max_unscored_rate: Fraction = 0.05
    """Fail the stage when more than this share of the cases got no reply from the engine."""
    judge: JudgeConfig | None = None
    """A model that gives a second opinion on refusals; None asks no model."""

    @model_validator(mode="after")
    def _suites_are_told_apart(self) -> "EvalConfig":
        repeated = [name for name, count in Counter(suite.name for suite in self.suites).items() if count > 1]
        if repeated:
            raise ValueError(f"two suites are called {repeated[0]!r}: give each a name of its own")
        return self
