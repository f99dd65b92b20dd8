"""How many pairs the data and the files of pairs hold, before an adapter is asked for replies of its own."""

from collections import Counter
from pathlib import Path

from orchestrator.config.schema import RunConfig
from orchestrator.core.records import Record
from orchestrator.data.preferences.pair import Candidate, PairOrigin
from orchestrator.data.preferences.rows import pairs_of_sources
from orchestrator.data.rejection import Reason
from orchestrator.run.paths import RunDir


class KnownPairs(Record):
    """Pairs that rows hold, by origin, and rows that give none, by reason; `alone` of the pairs are single replies.

    Not yet looked at: held-out conversations, near-duplicates, lengths and shares of kinds, which leave out more.
    """

    found: dict[PairOrigin, int]
    alone: int
    left_out: dict[str, int]

    @property
    def total(self) -> int:
        """All that are found."""
        return sum(self.found.values())


def known_pairs(config: RunConfig, run: RunDir, base_dir: Path) -> KnownPairs:
    """Count them; the data is prepared in `run`, and relative paths start at `base_dir`.

    Raises:
        DataError: If a file cannot be read.
    """
    found, left_out, alone = Counter[PairOrigin](), Counter[str](), 0
    for one in pairs_of_sources(config, run, base_dir):
        if not isinstance(one, Candidate):
            left_out[one.left_out or ""] += 1
        elif one.label is not None and not config.prefer.takes_replies_alone:
            left_out[Reason.UNPAIRED] += 1
        else:
            found[one.origin] += 1
            alone += one.label is not None
    return KnownPairs(found=dict(found), alone=alone, left_out=dict(left_out))
