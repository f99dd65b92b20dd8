"""What a few real steps of a training showed."""

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
