"""Pairs that files hold: rows with a reply that is chosen and one that is rejected, or with one reply and a label.

A row is in any format of the data. It is read twice by the readers of all data: once as it is, once as if it preferred
the reply that it rejects.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.config.schema import SYNTHETIC, DataConfig, RunConfig, SourceConfig
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import Message, Sample
from orchestrator.data.preferences.pair import Candidate, PairEntry, PairOrigin
from orchestrator.data.prepare.collect import converted
from orchestrator.data.prepare.convert import Converted, Refused
from orchestrator.data.rejection import Reason
from orchestrator.run.paths import RunDir

Found = Candidate | PairEntry
"""A pair, or why a row gives none."""


def pairs_of_sources(config: RunConfig, run: RunDir, base_dir: Path) -> Iterator[Found]:
    """The pairs of the run's data, which is prepared, and of the files of `prefer.sources`.

    Relative paths start at `base_dir`.

    Raises:
        DataError: If a file cannot be read.
    """
    yield from pairs_of_data(config.data, base_dir, lambda: read_jsonl(run.split("train"), Sample))
    for source in config.prefer.sources:
        yield from pairs_of_file(source, config.data, base_dir)


def pairs_of_data(config: DataConfig, base_dir: Path, train: Callable[[], Iterator[Sample]]) -> Iterator[Found]:
    """The pairs that rows of `data.sources` hold, as far as `prepare` dealt the row to train.

    `train` gives the samples of train; a row is known by its place in its file. A reply that is labelled as bad was
    dealt to no part, and is found by itself. Rows without a pair are passed over.
    """
    worse: dict[str, Sample | PairEntry] = {}
    for source in config.sources:
        if source.path == SYNTHETIC:
            continue
        for better, rival in _both(source, config, base_dir, "data"):
            if _left_out(rival) == Reason.NO_RIVAL:
                continue
            if _left_out(better) == Reason.TO_AVOID:
                yield _bad_alone(rival, "data")
            else:
                worse[rival.source] = rival
    for sample in train() if worse else ():
        if (found := worse.pop(sample.source, None)) is not None:
            yield _pair(sample, found, "data")
    for place, found in worse.items():
        detail = "prepare set the row aside, left it out as a duplicate, or dealt it to a held-out part"
        kind = found.kind if isinstance(found, Sample) else None
        yield PairEntry(id=found.id, origin="data", source=place, kind=kind, left_out="not_in_train", detail=detail)


def pairs_of_file(source: SourceConfig, config: DataConfig, base_dir: Path) -> Iterator[Found]:
    """The pairs of a file of `prefer.sources`; every row is one, or says why not."""
    for chosen, rejected in _both(source, config, base_dir, "file"):
        if _left_out(chosen) == Reason.TO_AVOID:
            yield _bad_alone(rejected, "file")
        else:
            yield chosen if isinstance(chosen, PairEntry) else _pair(chosen, rejected, "file")


def _both(
    source: SourceConfig, config: DataConfig, base_dir: Path, origin: PairOrigin
) -> Iterator[tuple[Sample | PairEntry, Sample | PairEntry]]:
    """Each row as it is, and as if it preferred the reply that it rejects."""
    better = _read(source, config, base_dir, origin, rejected=False)
    worse = _read(source, config, base_dir, origin, rejected=True)
    return zip(better, worse, strict=True)


def _read(
    source: SourceConfig, config: DataConfig, base_dir: Path, origin: PairOrigin, *, rejected: bool
) -> Iterator[Sample | PairEntry]:
    for rows in converted(source, config, base_dir, rejected=rejected):
        yield from (_sample(row) if isinstance(row, Converted) else _refused(row, origin) for row in rows)


def _sample(row: Converted) -> Sample:
    return Sample.model_validate_json(row.line)


def _refused(refused: Refused, origin: PairOrigin) -> PairEntry:
    row = refused.row
    place = f"{row.source}:{row.line}"
    return PairEntry(id=place, origin=origin, source=place, left_out=row.reason, detail=row.detail)


def _left_out(found: Sample | PairEntry) -> str | None:
    return found.left_out if isinstance(found, PairEntry) else None


def _bad_alone(found: Sample | PairEntry, origin: PairOrigin) -> Found:
    return found if isinstance(found, PairEntry) else Candidate(found, None, origin, label=False)


def _pair(sample: Sample, worse: Sample | PairEntry, origin: PairOrigin) -> Found:
    if _left_out(worse) == Reason.UNPAIRED:
        return Candidate(sample, None, origin, label=True)
    if isinstance(worse, PairEntry):
        return worse.model_copy(update={"id": sample.id, "kind": sample.kind})
    *asked, reply = worse.messages
    candidate = Candidate(sample, reply, origin)
    if list(map(_shown, sample.messages[:-1])) != list(map(_shown, asked)):
        detail = "what stands before the chosen reply is not what stands before the rejected one"
        return PairEntry.of(candidate, left_out="prompts_differ", detail=detail)
    return candidate


def _shown(message: Message) -> Message:
    """A message as the model sees it: ids of calls are made anew for each reading."""
    calls = tuple(call.model_copy(update={"id": None}) for call in message.tool_calls)
    return message.model_copy(update={"learned": True, "tool_calls": calls, "tool_call_id": None})
