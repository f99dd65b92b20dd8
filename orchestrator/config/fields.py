"""What the sections of the configuration share: their base, bounded types, and the words for rows of data."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]

Dtype = Literal["auto", "bfloat16", "float32"]

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
    "instruction",
]
"""The formats of rows. Each is read by the module of its name in `orchestrator/data/formats`."""
ROW_FORMATS: tuple[RowFormat, ...] = get_args(RowFormat)
RowFunction = Annotated[
    str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", examples=["package.module:function"])
]
"""A function of the user's own that turns a row of a source into one of the format `messages`."""
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
