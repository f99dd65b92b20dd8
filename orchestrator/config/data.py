"""The section `data` of the configuration: sources of rows, how they are read, and how samples are divided."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from orchestrator.config.evaluation import (
    HUB,
    PositiveInt,
    RowFormat,
    RowFunction,
    Section,
    Seed,
    Share,
    is_function,
)
from orchestrator.config.storage import check_storage

SYNTHETIC = "synthetic"
"""The source path that stands for the built-in generator."""


Column = Annotated[str, Field(min_length=1)]


class SourceConfig(Section):
    """One source of conversations."""

    path: str = Field(min_length=1)
    """A file (JSON, JSON lines, CSV or Parquet, also gzipped) or a pattern such as `data/*.jsonl`, relative to the
    config file's folder; a file in a bucket, `s3://bucket/rows.jsonl`; `hub:owner/name` for a data set of the Hugging
    Face hub; `synthetic` for the generator."""
    format: Literal["auto", "synthetic"] | RowFormat | RowFunction = "auto"
    """How rows are written, see docs/data.md; `auto` looks at each row and says why on the data card;
    `package.module:function` is a function of your own that turns a row into one of `messages`."""
    fields: dict[str, Column] = Field(default={}, examples=[{"messages": "dialog", "tools": "meta.tools"}])
    """For rows whose columns have other names: field that the format reads -> column to take it from, as a name, a
    path such as `meta.tools`, or a template such as `"{title}\\n{description}"`; `label?` may be missing from a row."""
    answers: str | None = None
    """For `bfcl`: the file of accepted answers; None looks for `<name>_answers.jsonl` beside the questions."""
    tools: str | None = None
    """A JSON file with a list of tools (or an MCP `tools/list` result), offered in rows that offer none themselves."""
    subset: str | None = None
    """For a hub data set: its configuration; None takes the only one."""
    part: str = "train"
    """For a hub data set: which of its splits to read."""
    revision: str | None = None
    """For a hub data set: branch, tag or commit. Pin it for runs that must repeat."""
    limit: PositiveInt | None = None
    """Use the first `limit` rows; None uses all. For `synthetic`, how many samples to make (default 2000)."""
    catalogue: Literal["full", "easy"] = "full"
    """For `synthetic`: all tools, or an easier part with fewer and shorter tools a prompt."""

    @field_validator("path", "answers", "tools")
    @classmethod
    def _is_a_place(cls, place: str | None) -> str | None:
        return place and check_storage(place)

    @model_validator(mode="after")
    def _path_and_format_agree(self) -> "SourceConfig":
        if self.format == SYNTHETIC and self.path != SYNTHETIC:
            raise ValueError("format 'synthetic' reads no file: set path to 'synthetic'")
        if not self.path.startswith(HUB) and (self.subset or self.revision or self.part != "train"):
            raise ValueError("subset, part and revision belong to a hub data set: set path to 'hub:owner/name'")
        if self.path.startswith(HUB) and not self.path.removeprefix(HUB).strip("/"):
            raise ValueError("path 'hub:' names no data set: write hub:owner/name")
        if self.fields and (self.path == SYNTHETIC or is_function(self.format)):
            raise ValueError("fields are for rows that a format reads, not for the generator or a function of your own")
        if self.catalogue != "full" and self.path != SYNTHETIC:
            raise ValueError("catalogue belongs to the generator: set path to 'synthetic'")
        if self.answers is not None and self.format not in ("auto", "bfcl"):
            raise ValueError(f"answers belong to format bfcl, not {self.format}")
        return self


class SplitConfig(Section):
    """How samples are dealt to train, val and test."""

    val: Share = 0.1
    """Share of samples for the eval loss."""
    test: Share = 0.1
    """Share of samples held out for scoring."""
    by: Literal["conversation", "tool"] = "conversation"
    """`conversation` keeps conversations that start alike together. `tool` holds out tools: no conversation of train
    calls or offers a tool of val or test, so that the scores tell how the adapter does on tools it never saw."""
    seed: Seed = 0
    """Changes which samples fall where; the same seed and sample always give the same place."""

    @model_validator(mode="after")
    def _train_is_left(self) -> "SplitConfig":
        if self.val + self.test >= 1.0:
            raise ValueError(f"val + test is {self.val + self.test:g}; it must stay below 1 so that train is not empty")
        return self


class DataConfig(Section):
    """What to learn from and how to divide it."""

    sources: tuple[SourceConfig, ...] = Field(default=(SourceConfig(path="synthetic"),), min_length=1)
    """Files of tool-call conversations; at least one."""
    split: SplitConfig = SplitConfig()
    """Shares of the three parts."""
    system: Annotated[str, Field(min_length=1)] | None = None
    """System prompt of the conversations that have none, in training and in held-out cases; suites stay as they are."""
    max_length: Annotated[int, Field(ge=32)] = 2048
    """Longest training sample in tokens."""
    overlong: Literal["leave_out", "shorten"] = "leave_out"
    """What becomes of longer samples: left out and listed, or ended after the last assistant turn that fits. Never cut
    inside a turn: half a tool call teaches broken JSON."""
    reasoning: Literal["drop", "keep"] = "drop"
    """Whether what the assistant thought before it spoke is learned, and thinking switched on in evaluation."""
    near_duplicate_threshold: Annotated[float, Field(gt=0.0, le=1.0)] | None = 0.9
    """Leave out a sample whose words overlap with another's by at least this much (Jaccard similarity of three-word
    runs, found by MinHash); None leaves out exact duplicates only."""
    max_quarantine_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Refuse the data when more than this share of its rows is bad; duplicates are left out without counting here."""

    @property
    def thinking(self) -> bool:
        """Whether the assistant may think before it speaks."""
        return self.reasoning == "keep"
