"""Cases by which a search chooses: of the validation part, never of the held-out one."""

from collections.abc import Sequence

from evals.cases.samples import Turns, cases_from_samples, draw_cases
from evals.records import Case
from orchestrator.core.errors import DataError
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import Sample
from orchestrator.run.paths import RunDir

VALIDATION = "validation"
"""The suite of these cases."""
GROWTH = 4
"""How many times as many cases the best adapters are asked in the end."""


def validation_cases(run: RunDir, *, most: int, seed: int, turns: Turns) -> list[Case]:
    """At most `most` cases, drawn evenly over kinds; a smaller draw of the same seed is a part of a larger one.

    Raises:
        DataError: If the validation part has no turn of the assistant to score.
    """
    path = run.split("val")
    found = cases_from_samples(read_jsonl(path, Sample), turns=turns) if path.is_file() else []
    if not found:
        raise DataError(
            "the validation part has no turn of the assistant to score",
            where=str(path),
            fix="Raise data.split.val, or set search.objective to eval_loss without search.constraints",
        )
    drawn = draw_cases(found, max_cases=most, seed=seed)
    return [case.model_copy(update={"suite": VALIDATION}) for case in drawn]


def first_cases(cases: Sequence[Case], *, most: int, seed: int) -> list[Case]:
    """The smaller draw of these cases."""
    return draw_cases(cases, max_cases=most, seed=seed)
