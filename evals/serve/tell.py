"""What came of asking a server, in sentences."""

from collections.abc import Iterator

from evals.report.text import signed_text
from evals.serve.check import AS_SCORED, ServeCheck
from orchestrator.core.text import counted


def check_lines(found: ServeCheck) -> Iterator[str]:
    """The counts, the proof, every difference with its cause, and the verdict."""
    counts = f"{found.same_prompts} prompts, {found.same_replies} replies and {found.same_verdicts} verdicts"
    yield f"Of {counted(found.num_cases, 'held-out case')} {counts} are those that were scored."
    yield f"Calls, text and finish reason come out of the same tokens as they were scored in {found.same_readings}."
    others = ", ".join(f"{count} {name}" for name, count in found.asked.items() if name != AS_SCORED.name)
    yield f"Also asked: {others}."
    if found.canary is not None:
        moved, shift = f"{found.canary.num_texts_moved} of {found.canary.num_prompts}", found.canary.largest_shift
        yield f"The adapter is in force: {moved} canaries get another text, log probabilities up to {shift:.2g} away."
    if found.strength is not None:
        off, moved = f"{found.strength.off:.2g}", f"{found.strength.moved:.2g}"
        yield f"Their first tokens are {off} off in log probability on average; the adapter moves them by {moved}."
    else:
        yield "The run kept no log probabilities of its canaries, so another scale shows only where it changes a reply."
    for one in found.differences:
        yield f"- {one.case_id}, {one.asked}: the {one.part}: {one.cause}"
    if found.outcome == "as scored":
        yield f"{found.model} is served as it was scored."
        return
    bounds = f"{signed_text(found.difference)} ({signed_text(found.low)} to {signed_text(found.high)})"
    share = f"the share of cases answered as asked differs by {bounds}"
    if found.outcome == "equivalent":
        yield f"Equivalent: only rounding tells them apart, and {share}, less than {found.margin:g} either way."
    elif not (wrong := sum(not one.by_rounding for one in found.differences)):
        known = f"{share}, which is not shown to be less than {found.margin:g} either way"
        yield f"NOT SHOWN: only rounding tells replies apart, but {known}. Ask more cases (--cases)."
    else:
        yield f"DIFFERS: {counted(wrong, 'difference')} that rounding does not explain; {share}."
