"""Everything that can be known about a config's data before anything trains: rows, splits, leaks, tokens, parity."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from evals.check.card import CheckCard
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import InputError
from orchestrator.core.files import digest_of, parse_line, write_text_atomic
from orchestrator.data.prepare.prepare import data_digest, prepare_data, tokenizer_digest
from orchestrator.run.paths import RunDir


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
    """Prepare, tokenise and compare the data of `config` in `folder`, unless a check of the same is there.

    What a run would refuse is in the card's `not_ready`, not raised.
    """
    try:
        made_from = data_digest(config.data, base_dir=base_dir)
    except InputError as error:
        return CheckCard(
            digest="", data_digest="", data=None, tokens={}, parity=None, not_ready=(str(error),), duration_s=0.0
        )
    digest = digest_of(made_from, tokenizer_digest(config.model))
    stored = read_check(folder)
    if stored is not None and stored.digest == digest and stored.parity is not None:
        return stored  # one that was not done to its end may fare better now: a hub that answers, a base that is there
    for of_other_data in (check_path(folder), folder.quarantine):  # must not outlive a check that is cut off below
        of_other_data.unlink(missing_ok=True)
    started = time.monotonic()
    found = _findings(config, folder, base_dir)
    duration_s = round(time.monotonic() - started, 3)
    card = CheckCard(digest=digest, data_digest=made_from, **found, duration_s=duration_s)
    write_text_atomic(check_path(folder), card.model_dump_json(indent=2) + "\n")
    return card


def _findings(config: RunConfig, folder: RunDir, base_dir: Path) -> dict[str, Any]:
    """The card's data, tokens and parity, as far as they were found, and what is not ready."""
    found: dict[str, Any] = {"data": None, "tokens": {}, "parity": None}
    try:
        found["data"] = prepare_data(config, folder, base_dir=base_dir)
        # Transformers and vLLM take seconds to load: not before the data is known to be good.
        from orchestrator.data.tokens.store import refuse_left_out, tokenize_run

        found["tokens"] = tokenize_run(config, folder)
        refuse_left_out(config, found["tokens"])
        from evals.check.parity import check_parity

        found["parity"] = parity = check_parity(config, folder)
    except InputError as error:
        return {**found, "not_ready": (str(error),)}
    return {**found, "not_ready": tuple(f"{problem.code}: {problem.detail}" for problem in parity.problems)}


def take_over_check(folder: RunDir, run: RunDir, digest: str) -> bool:
    """Give a run the data of the check in `folder`, tokens included, if it was made from the same and found ready."""
    card = read_check(folder)
    if card is None or card.data_digest != digest or card.not_ready:
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
