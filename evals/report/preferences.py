"""What adapters learned preferences from, and what that changed: the pairs, what was tried, before against after."""

from collections.abc import Iterator

from evals.records import AdapterSummary
from evals.report.blocks import Block, Datum, Heading, Note, Table, number, numbers
from evals.report.inputs import Preferences
from evals.report.precision import gap_row
from evals.report.text import loss_text
from evals.report.view import View
from evals.stats.preferred import COMPARED
from orchestrator.core.records import TrialRecord
from orchestrator.core.text import counted
from orchestrator.data.preferences.pair import PairsCard

ORIGIN_TEXTS = {"data": "rows of the data", "file": "files of pairs", "own_replies": "the adapter's own wrong replies"}
"""What the origins of pairs are called."""


def preference_blocks(view: View) -> Iterator[Block]:
    """Each adapter that learned preferences, if the run still has its pairs."""
    for made in view.report.adapters:
        found = view.inputs.preferences.get(made.init_from or "") if made.pairs is not None else None
        if found is not None:
            yield from _before_and_after(view, made)
            yield from _pairs(found.card)
            yield from _tried(made, found)


def _before_and_after(view: View, made: AdapterSummary) -> Iterator[Block]:
    sides = (made.id, made.init_from)
    found = [one for one in view.report.comparisons if (one.left, one.right) == sides and one.metric in COMPARED]
    if not found:
        yield Note(f"{made.init_from} was not scored, so {made.id} is compared with it in nothing.")
        return
    yield Heading(f"{made.init_from} before and after", "on the same cases; chance corrected over all rows")
    yield Table(
        ("Metric", "Cases", "After minus before", "95 % interval", "Chance"), [gap_row(one)[1:] for one in found]
    )


def _pairs(card: PairsCard) -> Iterator[Block]:
    parts = ", ".join(f"{count:,} for {part}" for part, count in card.parts.items())
    alone = ", ".join(f"{count:,} {label}" for label, count in card.alone.items())
    yield Heading("Pairs", parts)
    if alone:
        yield Note(f"Single replies among them, by their label: {alone}.")
    rows = [
        (ORIGIN_TEXTS[origin], Datum(f"{count:,}", "num"), Datum(f"{card.kept.get(origin, 0):,}", "num"))
        for origin, count in card.found.items()
    ]
    yield Table(("From", "Found", "Kept"), rows)
    head = ("Kind", "Replies asked", "Wrong", "Found", "Wanted", "Kept", "Chosen longer", "Shorter", "Mean tokens")
    kinds = []
    for kind, one in card.kinds.items():
        asked = card.asked.get(kind)
        replies = (0, 0) if asked is None else (asked.replies, asked.wrong)
        counts = (*replies, one.found, one.wanted, one.kept, one.chosen_longer, one.chosen_shorter)
        tokens = "" if one.tokens is None else "{:.1f} and {:.1f}".format(*one.tokens)
        kinds.append(numbers(kind, [*(f"{count:,}" for count in counts), tokens]))
    yield Table(head, kinds)
    if card.left_out:
        yield Heading("Left out", f"each with its reason in preferences/{card.adapter_id}/ledger.jsonl")
        yield Table(("Reason", "Pairs"), [(Datum(why, "code"), count) for why, count in card.left_out.items()])
    shared = sum(leak.prompts.count + leak.near_duplicates.count for leak in card.leaks.values())
    held_out = f"{counted(shared, 'held-out conversation')} among them" if shared else "No held-out conversation"
    yield Note(f"{held_out} asks the same as a pair or is nearly the same.")


def _tried(made: AdapterSummary, found: Preferences) -> Iterator[Block]:
    if len(found.trials) < 2:
        return
    yield Heading("What was tried", "each from the same adapter and pairs; the lowest loss on the pairs of val is kept")
    keys = list(dict.fromkeys(key for trial in found.trials for key in trial.hyperparameters))
    rows = [_trial(trial, keys, made) for trial in found.trials]
    yield Table(("Loss", *keys, "Loss on val", "At step", "Ended", ""), rows)


def _trial(trial: TrialRecord, keys: list[str], made: AdapterSummary) -> list[Datum]:
    settings = [Datum(number(trial.hyperparameters.get(key)), "num") for key in keys]
    step = "" if trial.best_step is None else f"{trial.best_step:,}"
    ended = (trial.stop_reason or trial.status).replace("_", " ")
    kept = Datum("kept" if trial.adapter_id == made.id else "")
    loss = Datum(loss_text(trial.best_eval_loss), "num")
    return [Datum(trial.loss or "", "code"), *settings, loss, Datum(step, "num"), Datum(ended), kept]
