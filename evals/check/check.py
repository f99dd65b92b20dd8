"""Everything that can be known about a configuration before anything trains, its data first."""

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from evals.cases.suites import suite_files
from evals.check.card import CheckCard, Finding
from evals.check.of_cases import adapter_findings, case_findings, earlier_run_findings, gate_findings, suite_cases
from evals.check.of_preferences import preference_findings
from evals.check.of_template import template_findings
from evals.check.of_training import repeat_findings, resource_findings, training_findings
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import InputError
from orchestrator.core.files import digest_of, parse_line, write_text_atomic
from orchestrator.data.card import DataCard, TokenCard
from orchestrator.data.prepare.prepare import data_digest, prepare_data, tokenizer_digest
from orchestrator.run.copies import local_path
from orchestrator.run.paths import RunDir, SplitName


def check_path(folder: RunDir) -> Path:
    """Where a check's card is kept."""
    return folder.root / "check.json"


def read_check(folder: RunDir) -> CheckCard | None:
    """The card of the last check in this folder, None where there is none that this version can read."""
    path = check_path(folder)
    if not path.is_file():
        return None
    try:
        return parse_line(path.read_text(encoding="utf-8"), CheckCard, where=str(path))
    except InputError:
        return None


def check_data(config: RunConfig, folder: RunDir, *, base_dir: Path) -> CheckCard:
    """Check all that `config` says, its data first, in `folder`, unless a check of the same is there.

    What a run would refuse is in the card's `not_ready`, not raised.
    """
    # Of this machine and of other runs, which no card of an earlier check knows.
    around = [*resource_findings(config), *earlier_run_findings(config)]
    try:
        made_from = data_digest(config.data, base_dir=base_dir)
        digest = _digest(config, made_from, base_dir)
    except InputError as error:
        content = {"is_data_ready": False, "not_ready": (str(error),), "duration_s": 0.0}
        return _with(CheckCard(digest="", data_digest="", data=None, tokens={}, parity=None, **content), around)
    stored = read_check(folder)
    # One that was not done to its end may fare better now: a hub that answers, a base that is there.
    if stored is not None and stored.digest == digest and stored.parity is not None:
        return _with(stored, around)
    check_path(folder).unlink(missing_ok=True)  # must not outlive a check that is cut off below
    started = time.monotonic()
    reusable = stored if stored is not None and stored.data_digest == made_from and folder.card.is_file() else None
    if reusable is None or reusable.data is None:
        folder.quarantine.unlink(missing_ok=True)
    found, fault = _look_at_data(config, folder, base_dir, reusable.data if reusable else None)
    problems = () if found["parity"] is None else found["parity"].problems
    not_ready = [
        *([fault] if fault else []),
        *(f"{problem.code}: sample {problem.sample_id}: {problem.detail}. {problem.advice}." for problem in problems),
    ]
    findings = list(_look_at_the_rest(config, folder, found, base_dir))
    card = CheckCard(
        digest=digest,
        data_digest=made_from,
        is_data_ready=not not_ready,
        not_ready=(*not_ready, *_stopping(findings)),
        warnings=tuple(finding.text for finding in findings if not finding.stops),
        duration_s=round(time.monotonic() - started, 3),
        **found,
    )
    write_text_atomic(check_path(folder), card.model_dump_json(indent=2) + "\n")
    return _with(card, around)


def token_cards(config: RunConfig, folder: RunDir, *, base_dir: Path) -> dict[SplitName, TokenCard]:
    """The tokens of a configuration's data in the folder of a check, as far as they are not there.

    Raises:
        InputError: If the data or the base cannot be used.
    """
    made_from, stored = data_digest(config.data, base_dir=base_dir), read_check(folder)
    if stored is None or stored.data_digest != made_from or not folder.card.is_file():
        check_path(folder).unlink(missing_ok=True)
        prepare_data(config, folder, base_dir=base_dir)
    from orchestrator.data.tokens.store import tokenize_run

    return tokenize_run(config, folder)


def _with(card: CheckCard, around: Iterable[Finding]) -> CheckCard:
    """The card with what may be otherwise at the next check of the same, so that is not kept."""
    return card.model_copy(update={"not_ready": (*card.not_ready, *_stopping(around))})


def _stopping(findings: Iterable[Finding]) -> list[str]:
    return [finding.text for finding in findings if finding.stops]


def _digest(config: RunConfig, made_from: str, base_dir: Path) -> str:
    """Digest of all that a check looks at, but for the machine."""
    pairs = data_digest(config.data.model_copy(update={"sources": config.prefer.sources}), base_dir=base_dir)
    files = [path for path in suite_files(config.eval.suites) if path.is_file()]
    folder = local_path(config.model.base)
    start = None
    if config.train.init_from is not None:
        from orchestrator.models.start import start_digest

        start = start_digest(config)
    settings = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return digest_of(made_from, pairs, tokenizer_digest(config.model), config, start, *files, *settings)


def _look_at_data(
    config: RunConfig, folder: RunDir, base_dir: Path, known: DataCard | None
) -> tuple[dict[str, Any], str | None]:
    """The card's data, tokens and parity, as far as they were found, and why no further; `known` is of this data."""
    found: dict[str, Any] = {"data": known, "tokens": {}, "parity": None}
    try:
        found["data"] = known or prepare_data(config, folder, base_dir=base_dir)
        # Transformers and vLLM take seconds to load: not before the data is known to be good.
        from orchestrator.data.tokens.store import refuse_left_out, tokenize_run

        found["tokens"] = tokenize_run(config, folder)
        refuse_left_out(config, found["tokens"])
        from evals.check.parity import check_parity

        found["parity"] = check_parity(config, folder)
    except InputError as error:
        return found, str(error)
    return found, None


def _look_at_the_rest(config: RunConfig, folder: RunDir, found: dict[str, Any], base_dir: Path) -> Iterator[Finding]:
    """What concerns more than the data, as far as that was found."""
    suites, unreadable = suite_cases(config)
    yield from unreadable
    yield from gate_findings(config.gates)
    yield from adapter_findings(config.eval.adapters)
    if found["data"] is None:
        return
    yield from repeat_findings(found["data"])
    yield from preference_findings(config, folder, base_dir)
    yield from case_findings(config, folder, suites, found["parity"])
    if found["tokens"]:
        yield from training_findings(config, found["data"], found["tokens"])
        yield from template_findings(found["tokens"], found["parity"])
    if found["parity"] is not None:
        from evals.check.of_base import base_findings
        from evals.check.of_engine import engine_findings

        of_base = list(base_findings(config, longest=max(card.longest for card in found["tokens"].values())))
        yield from of_base
        if not any(finding.stops for finding in of_base):
            yield from engine_findings(config, folder, suites)


def take_over_check(folder: RunDir, run: RunDir, digest: str) -> bool:
    """Give a run the data of the check in `folder`, tokens included, if it was made from the same and found ready."""
    card = read_check(folder)
    if card is None or card.data_digest != digest or not card.is_data_ready:
        return False
    target = run.split("train").parent
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder.split("train").parent, target, copy_function=_link)
    return True


def _link(source: str, target: str) -> None:
    # Files of a run are replaced and never changed, so two runs may share one; not every file system can.
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
