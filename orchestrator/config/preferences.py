"""The section `prefer` of the configuration: what an adapter learns from pairs of replies after its training."""

from itertools import product
from typing import Annotated, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, Field, field_validator, model_validator

from orchestrator.config.data import SYNTHETIC, SourceConfig
from orchestrator.config.evaluation import Fraction, Positive, PositiveInt, Section, Seed, Share
from orchestrator.core.records import SAMPLE_KINDS, SampleKind

PreferenceLoss = Literal["sigmoid", "sigmoid_norm", "ipo", "hinge", "apo_zero", "kto"]
"""TRL's names. `sigmoid` is DPO (arXiv 2305.18290), `sigmoid_norm` the same by the mean token of each reply; `ipo` is
of arXiv 2310.12036, `hinge` of 2305.10425, `apo_zero` of 2408.06266, `kto` of 2402.01306."""
KTO: PreferenceLoss = "kto"
"""The loss that looks at each reply alone, so that it needs no pairs."""
SFT_WEIGHT = 0.2
"""`prefer.sft_weight` where the configuration gives none."""
Value = TypeVar("Value")
OneOrMore = Annotated[tuple[Positive, ...], Field(min_length=1)]


def _begin_with_sft(stages: tuple[str, ...]) -> tuple[str, ...]:
    if stages not in (("sft",), ("sft", "prefer")):
        raise ValueError("stages is [sft] or [sft, prefer]: preferences go on from an adapter")
    return stages


Trainings = Annotated[tuple[Literal["sft", "prefer"], ...], AfterValidator(_begin_with_sft)]
"""What a run does to get its adapters: a search by supervised fine-tuning, then preferences on top of the best one."""


class Learning(NamedTuple):
    """One way to learn from the pairs; without a learning rate, a share of the adapter's own."""

    loss: PreferenceLoss
    beta: float
    learning_rate: float | None
    sft_weight: float


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
    beta: Positive | OneOrMore = 0.1
    """How closely the adapter is held to what it was; lower lets it move further. Of a list, as of those of `loss` and
    `learning_rate`, every combination is trained from the same adapter and pairs, and the one that does best on the
    pairs of val is kept."""
    loss: PreferenceLoss | Annotated[tuple[PreferenceLoss, ...], Field(min_length=1)] = "sigmoid"
    """The loss of a pair, by TRL's name, or a list: `sigmoid` is DPO. `kto` learns from each reply alone, so that rows
    with one reply and a label (`label`, `kto_tag`) count too."""
    sft_weight: Fraction | None = None
    """Weight of the better reply's own loss beside it, without which that reply may become unlikely as well
    (arXiv 2407.21783, section 4.1.4). None is 0.2, and nothing with `kto`, which has no such term."""
    learning_rate: Positive | OneOrMore | None = None
    """Peak learning rate, or a list; None is a tenth of the rate that the adapter was trained with."""
    epochs: Positive = 2.0
    """Passes over the pairs. Batches and schedule are those of `train`; a sample there is a pair here, or two replies
    with `kto`."""
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

    @model_validator(mode="after")
    def _losses_go_together(self) -> "PreferConfig":
        if KTO in self.losses and set(self.losses) != {KTO}:
            raise ValueError("loss: kto learns from single replies and the others from pairs; try them in two runs")
        if self.sft_weight and KTO in self.losses:
            raise ValueError("sft_weight cannot be met: TRL's kto has no term for it. Leave it out, or set it to 0")
        return self

    @property
    def losses(self) -> tuple[PreferenceLoss, ...]:
        """Those that are tried."""
        return (self.loss,) if isinstance(self.loss, str) else self.loss

    @property
    def takes_replies_alone(self) -> bool:
        """Whether the loss can learn from a reply that has no rival."""
        return KTO in self.losses

    @property
    def learnings(self) -> list[Learning]:
        """Every combination of loss, beta and learning rate, each once."""
        betas, rates = _values(self.beta), _values(self.learning_rate)
        weight = SFT_WEIGHT if self.sft_weight is None else self.sft_weight
        combined = dict.fromkeys(product(self.losses, betas, rates))
        return [Learning(*one, 0.0 if one[0] == KTO else weight) for one in combined]


def _values(given: Value | tuple[Value, ...]) -> tuple[Value, ...]:
    return given if isinstance(given, tuple) else (given,)
