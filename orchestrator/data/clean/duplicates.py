"""Near-duplicates: samples whose words overlap, found by MinHash signatures and then compared word by word.

Signatures are cut into bands; two samples that agree in a whole band are looked at closer (locality-sensitive hashing,
Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4). Buckets are made by sorting, not by a
dictionary, so that a million samples fit.
"""

import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from datasketch import MinHash
from numpy.typing import NDArray

from orchestrator.core.records import Sample

NUM_PERM = 64
"""Hashes in a signature."""
MAX_BAND_MISS, MAX_AGREEMENT_MISS = 0.009, 0.001
"""Chances that a pair just at the threshold shares no band, and that its signatures agree too seldom to be looked at:
together such a pair is found with probability 0.99, and a more alike pair more surely."""
MAX_RIVALS = 300
"""Kept samples of one bucket that others are compared with: the first ones; more would make large buckets quadratic."""
MAX_COMPARED = 50
"""Samples with the best agreement of signatures that one sample is compared with word by word."""
COMPARED_FIRST = 4
"""Of those, how many are tried before the rest are read: mostly one of them is alike, or none at all."""
MAX_CACHED_WORDS, ARRAY_OVERHEAD = 32_000_000, 16
"""Words kept in memory between comparisons, at eight bytes each, and what an array of them takes besides."""
RUN = 3
"""Words in a run."""

_UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Myanmar, Khmer
    r"\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Japanese
    r"\u2e80-\u2fdf\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?<!\w)-(?=\d))?[^\W_{_UNSPACED}]+")
_MIX = np.uint64(0x9E3779B97F4A7C15)
_EMPTY = MinHash(num_perm=NUM_PERM, seed=1, scheme="affine32")
"""Its permutations are drawn once and shared: drawing them for each sample would take longer than hashing it."""

WordsOf = Callable[[int], frozenset[str]]
Signatures = NDArray[np.uint32]


def shingles(sample: Sample) -> frozenset[str]:
    """The three-word runs of what is asked, called and answered, and one more word for the set of offered tools.

    Counted are texts of the user and the assistant, reasoning, and calls (name and arguments), one after the other.
    Left out is what many rows of a data set share and what would outweigh a short request: system text, the tools'
    schemas, and tool results. Words are runs of letters and digits in lower case, with the sign of a negative number,
    so that other numbers make other words; in scripts that write no spaces each character is a word. A conversation of
    fewer than three words gives its words.
    """
    words = [word for text in _texts(sample) for word in _WORD.findall(text.lower())]
    runs = map(" ".join, zip(words, words[1:], words[2:], strict=False)) if len(words) >= RUN else words
    offered = " ".join(sorted(tool.function.name for tool in sample.tools))
    return frozenset(runs).union([f"tools:{offered}"] if offered else ())


def _texts(sample: Sample) -> Iterator[str]:
    for message in sample.messages:
        if message.role in ("system", "tool"):
            continue
        yield message.reasoning_content or ""
        yield message.content
        for call in message.tool_calls:
            yield call.function.name
            yield json.dumps(call.function.arguments, sort_keys=True, ensure_ascii=False)


def signature(words: frozenset[str]) -> Signatures:
    """The MinHash signature of a set of words, `uint32[NUM_PERM]`: the same in every process."""
    sketch = MinHash(NUM_PERM, permutations=_EMPTY.permutations, scheme=_EMPTY.scheme, hashfunc=zlib.crc32)
    sketch.update_batch(map(str.encode, words))
    values: Signatures = sketch.hashvalues
    return values


def near_duplicates(
    signatures: Signatures, rank: NDArray[np.integer], threshold: float, words_of: WordsOf
) -> dict[int, int]:
    """Find the samples that a kept sample of smaller rank resembles.

    Only samples that are kept make others duplicates: where A resembles B and B resembles C but A does not resemble C,
    A and C stay. A pair of Jaccard similarity `threshold` is found with probability 0.99 or more, down to a threshold
    of 0.07; no pair below the threshold is ever taken. What is kept does not depend on the order of the rows.

    Args:
        signatures: `uint32[n, NUM_PERM]`, of `signature`.
        rank: `int[n]`, all different: of samples alike the one with the smallest is kept.
        threshold: Jaccard similarity of word sets, in (0, 1], from which two samples are near-duplicates.
        words_of: The word set of a row, asked for again whenever it is needed.

    Returns:
        The row of each near-duplicate, and that of a kept sample that it resembles.
    """
    index = _Index(signatures, threshold, words_of)
    found: dict[int, int] = {}
    for row in np.argsort(rank, kind="stable").tolist():
        match = index.first_alike(row)
        if match is None:
            index.insert(row)
        else:
            found[row] = match
    return found


def similar_to(
    rows: Sequence[int], others: Sequence[int], signatures: Signatures, threshold: float, words_of: WordsOf
) -> dict[int, int]:
    """Each of `rows` that resembles one of `others`, with such a one: held-out samples that resemble one of train.

    `signatures` are those of all rows; they, `threshold` and `words_of` are as for `near_duplicates`.
    """
    index = _Index(signatures, threshold, words_of)
    for row in others:
        index.insert(row)
    matches = ((row, index.first_alike(row)) for row in rows)
    return {row: match for row, match in matches if match is not None}


class _Index:
    """Finds, among the rows inserted so far, one that a row resembles."""

    def __init__(self, signatures: Signatures, threshold: float, words_of: WordsOf) -> None:
        self._threshold = threshold
        # The low byte of each hash says nearly as much and is four times faster to compare (b-bit minwise hashing, Li
        # and König 2010): other hashes agree in it once in 256, which lets in a pair too many, never one too few.
        self._sketches = signatures.astype(np.uint8)
        self._words = _WordCache(words_of)
        self._min_agreeing = _min_agreeing(threshold)
        self._buckets: NDArray[np.int32] = _buckets(signatures, _band_width(threshold))
        self._shares_a_bucket = np.any(self._buckets >= 0, axis=1)
        self._room = np.minimum(np.bincount(self._buckets[self._buckets >= 0]), MAX_RIVALS)
        self._starts = np.cumsum(self._room) - self._room
        self._filled = np.zeros_like(self._room)
        # Rows are noted by their place among those inserted, so that nothing depends on how they are numbered.
        self._slots = np.empty(self._room.sum(), dtype=np.int32)
        self._inserted = np.empty(len(signatures), dtype=np.int32)
        self._num_inserted = 0

    def insert(self, row: int) -> None:
        if not self._shares_a_bucket[row]:
            return
        buckets = self._buckets_of(row)
        open_buckets = buckets[self._filled[buckets] < self._room[buckets]]
        self._slots[self._starts[open_buckets] + self._filled[open_buckets]] = self._num_inserted
        self._filled[open_buckets] += 1
        self._inserted[self._num_inserted] = row
        self._num_inserted += 1

    def first_alike(self, row: int) -> int | None:
        rivals = self._rivals(row) if self._shares_a_bucket[row] else []
        if not rivals:
            return None
        words = self._words.of(row)
        for some in (rivals[:COMPARED_FIRST], rivals[COMPARED_FIRST:]):
            similar = _jaccard(words, [self._words.of(rival) for rival in some]) >= self._threshold
            if similar.any():
                return some[int(similar.argmax())]
        return None

    def _buckets_of(self, row: int) -> NDArray[np.int32]:
        buckets: NDArray[np.int32] = self._buckets[row]
        return buckets[buckets >= 0]

    def _rivals(self, row: int) -> list[int]:
        """Inserted rows whose signatures agree enough with this one's, the best first."""
        buckets = self._buckets_of(row)
        spans = zip(self._starts[buckets].tolist(), self._filled[buckets].tolist(), strict=True)
        members = [self._slots[start : start + filled] for start, filled in spans if filled]
        if not members:
            return []
        places = np.concatenate(members)
        agreeing = (self._sketches[self._inserted[places]] == self._sketches[row]).sum(axis=1)
        enough = agreeing >= self._min_agreeing
        # A row stands in several of the buckets; sorting by place first lets ties go to the earlier row.
        likely, first = np.unique(places[enough], return_index=True)
        best = np.argsort(-agreeing[enough][first], kind="stable")[:MAX_COMPARED]
        chosen: list[int] = self._inserted[likely[best]].tolist()
        return chosen


class _WordCache:
    """Word sets as sorted hashes, eight bytes a word."""

    def __init__(self, words_of: WordsOf) -> None:
        self._words_of = words_of
        self._cached: dict[int, NDArray[np.int64]] = {}
        self._size = 0

    def of(self, row: int) -> NDArray[np.int64]:
        if row in self._cached:
            return self._cached[row]
        words = self._words_of(row)
        hashes = np.sort(np.fromiter(map(hash, words), dtype=np.int64, count=len(words)))
        self._size += len(hashes) + ARRAY_OVERHEAD
        if self._size > MAX_CACHED_WORDS:
            self._cached, self._size = {}, len(hashes) + ARRAY_OVERHEAD
        self._cached[row] = hashes
        return hashes


def _jaccard(words: NDArray[np.int64], others: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """`float[n]`: the similarity of a set to each of `n` others. Sets without words are like no other."""
    if not len(words) or not others:
        return np.zeros(len(others))
    sizes = np.array([len(other) for other in others])
    joined = np.concatenate(others)
    nearest = words[np.minimum(np.searchsorted(words, joined), len(words) - 1)]
    shared = np.bincount(np.repeat(np.arange(len(others)), sizes), weights=nearest == joined, minlength=len(others))
    return shared / (len(words) + sizes - shared)


def _band_width(threshold: float) -> int:
    """The most hashes a band can have so that pairs at the threshold still agree in a whole one."""
    widths = range(NUM_PERM, 0, -1)
    return next((width for width in widths if (1 - threshold**width) ** (NUM_PERM // width) <= MAX_BAND_MISS), 1)


def _min_agreeing(threshold: float) -> int:
    """The number of equal hashes that a pair at the threshold reaches but for a chance of `MAX_AGREEMENT_MISS`."""
    from scipy.stats import binom  # half a second in each process that only makes signatures

    return int(binom.ppf(MAX_AGREEMENT_MISS, NUM_PERM, threshold))


def _buckets(signatures: Signatures, width: int) -> NDArray[np.int32]:
    """`int32[n, bands]`: rows that agree in a band have its bucket's number in common; -1 is a bucket of one."""
    num_bands = NUM_PERM // width
    buckets = np.empty((len(signatures), num_bands), dtype=np.int32)
    num_buckets = 0
    for band in range(num_bands):
        keys = _hash_rows(signatures[:, band * width : (band + 1) * width])
        _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
        is_shared = counts > 1
        numbers = np.where(is_shared, num_buckets - 1 + np.cumsum(is_shared), -1)
        buckets[:, band] = numbers[inverse]
        num_buckets += int(is_shared.sum())
    return buckets


def _hash_rows(columns: Signatures) -> NDArray[np.uint64]:
    hashes = np.zeros(len(columns), dtype=np.uint64)
    for column in columns.T:
        hashes = (hashes ^ column) * _MIX
        hashes ^= hashes >> np.uint64(32)
    return hashes
