"""The section `prefer` of the configuration: what an adapter learns from pairs of replies after its training."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from orchestrator.config.data import SYNTHETIC, SourceConfig
from orchestrator.config.evaluation import Fraction, Positive, PositiveInt, Section, Seed, Share
from orchestrator.core.records import SAMPLE_KINDS, SampleKind

PreferenceLoss = Literal["sigmoid", "sigmoid_norm", "ipo", "hinge", "apo_zero"]
"""TRL's names. `sigmoid` is DPO (arXiv 2305.18290), `sigmoid_norm` the same by the mean token of each reply; `ipo` is
of arXiv 2310.12036, `hinge` of 2305.10425, `apo_zero` of 2408.06266."""


def _begin_with_sft(stages: tuple[str, ...]) -> tuple[str, ...]:
    if stages not in (("sft",), ("sft", "prefer")):
        raise ValueError("stages is [sft] or [sft, prefer]: preferences go on from an adapter")
    return stages


Trainings = Annotated[tuple[Literal["sft", "prefer"], ...], AfterValidator(_begin_with_sft)]
"""What a run does to get its adapters: a search by supervised fine-tuning, then preferences on top of the best one."""


class PreferConfig(Section):
    """Pairs of a better and a worse reply to one prompt, and how an adapter learns from them."""

    sources: tuple[SourceConfig, ...] = ()
    """Files of pairs, beside those that data.sources hold: rows of any format with a reply that is chosen and one that
    is rejected (docs/preferences.md)."""
    max_prompts: Annotated[int, Field(ge=0)] = 600
    """Ask the adapter at most this many training prompts, drawn evenly over kinds; its wrong replies become the worse
    ones of pairs. 0 asks none."""
    replies_per_prompt: PositiveInt = 2
    """Replies that are sampled to each of them."""
    temperature: Annotated[float, Field(gt=0.0, le=2.0)] = 1.0
    """At which they are sampled; at 1 what is likely is said often."""
    max_pairs: PositiveInt = 400
    """Learn from at most this many pairs."""
    shares: dict[SampleKind, Annotated[float, Field(ge=0.0)]] = dict.fromkeys(SAMPLE_KINDS, 1.0)
    """Proportions in which kinds may fill `max_pairs`: calls, refusals, questions back, answers without a call. A kind
    with too few pairs gives all it has, and no other takes its place."""
    val: Share = 0.1
    """Share of the pairs that is not learned but gives the eval loss."""
    beta: Positive = 0.1
    """How closely the adapter is held to what it was; lower lets it move further."""
    loss: PreferenceLoss = "sigmoid"
    """The loss of a pair, by TRL's name; `sigmoid` is DPO."""
    sft_weight: Fraction = 0.2
    """Weight of the better reply's own loss beside it, without which that reply may become unlikely as well
    (arXiv 2407.21783, section 4.1.4)."""
    learning_rate: Positive | None = None
    """Peak learning rate; None is a tenth of the rate that the adapter was trained with."""
    epochs: Positive = 2.0
    """Passes over the pairs. Batches and schedule are those of `train`; a sample there is a pair here."""
    seed: Seed = 0
    """Which prompts are drawn, what is sampled, and the order of the pairs."""

    @field_validator("sources")
    @classmethod
    def _are_read(cls, sources: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        if any(source.path == SYNTHETIC for source in sources):
            raise ValueError("the generator makes no pairs: name a file")
        return sources

    @model_validator(mode="after")
    def _some_kind_has_a_share(self) -> "PreferConfig":
        if not any(self.shares.values()):
            raise ValueError("shares leaves no kind a share: give at least one above 0")
        return self
