"""What a few real steps of a training showed, and a few real replies."""

from orchestrator.core.records import Record


class Measured(Record):
    """Real steps on the real base, in as many processes side by side as train. Produced by `probe`, kept in a cache.

    Attributes:
        tokens_per_s: Tokens that one process trains on, without padding; all adapters of a multi-LoRA engine together.
        read_tokens_per_s: The same for evaluation.
        peak_bytes: The most that a process held, of its GPU or else of RAM.
        steps: Steps that were timed.
        processes: How many ran side by side.
        probe_s: What all of it took.
    """

    tokens_per_s: float
    read_tokens_per_s: float
    peak_bytes: int
    steps: int
    processes: int
    probe_s: float


class MeasuredReplies(Record):
    """Real cases, answered by the base in an engine of an evaluation. Produced by `evals.generate.probe`.

    Attributes:
        start_s: What the engine takes to be ready.
        case_s: Seconds of a case where many are asked at once.
        token_s: What of these each token of the reply takes.
        alone_s: Seconds of a case that is asked alone.
        alone_token_s: What of these each token of the reply takes.
        reply_tokens: Tokens of the base's replies, on average.
        expected_tokens: The same of the replies that the data has for all cases.
        all_cases: Cases that the evaluation asks.
        all_alone: Requests that it makes of each model one at a time, for their latency.
        cases: Those of them that were asked here at once.
        peak_bytes: The most that the process held, of its GPU or else of RAM.
        probe_s: What all of it took.
    """

    start_s: float
    case_s: float
    token_s: float
    alone_s: float
    alone_token_s: float
    reply_tokens: float
    expected_tokens: float
    all_cases: int
    all_alone: int
    cases: int
    peak_bytes: int
    probe_s: float
