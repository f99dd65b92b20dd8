"""What the chat template leaves out of the data, and what vLLM reads otherwise: told, and no reason not to train."""

from collections.abc import Iterator, Mapping

from evals.check.card import Finding, ParityCard, warning
from orchestrator.chat.formats import CONFIG_KEY
from orchestrator.core.text import counted
from orchestrator.data.card import NOT_SHOWN, TokenCard
from orchestrator.run.paths import SplitName

_WHERE = "model.chat_template"
_HERMES = "set model.chat_template to hermes"


def template_findings(tokens: Mapping[SplitName, TokenCard], parity: ParityCard | None) -> Iterator[Finding]:
    """Everything that concerns the chat template."""
    for part, card in tokens.items():
        lost = [row for row in card.left_out if row.reason in NOT_SHOWN]
        if lost:
            what = (
                f"{len(lost)} of {counted(card.samples + len(card.left_out), 'sample')} of {part} are left out, for "
                f"the chat template does not show them as they are ({lost[0].reason}), such as {lost[0].source}: "
                f"{lost[0].detail}"
            )
            yield warning(what, where=_WHERE, fix=lost[0].fix or f"To learn them, {_HERMES}")
    if parity is not None:
        yield from _of_parity(parity)


def _of_parity(parity: ParityCard) -> Iterator[Finding]:
    if parity.refused:
        count = counted(parity.refused.count, "sample")
        what = f"{count} of the test part cannot be asked about as a whole, such as {parity.refused.example}"
        yield warning(what, where=_WHERE, fix=f"Change them as those of train, or {_HERMES}")
    if parity.unread:
        count = counted(parity.unread.count, "expected reply", "expected replies")
        what = f"{count} of the test part can never be scored as right, such as {parity.unread.example}"
        yield warning(what, where=_WHERE, fix=f"Let the arguments fit the schemas of their tools, or {_HERMES}")
    if parity.served_otherwise:
        count = counted(parity.served_otherwise.count, "reply", "replies")
        what = (
            f"vLLM's {parity.serving_parser} parser reads other calls than the data has in {count} of the data, "
            f"which serving_difference_rate will count; such as {parity.served_otherwise.example}"
        )
        fix = f"If clients will be served by vLLM, take such texts out of the arguments, or {_HERMES}"
        yield warning(what, where=CONFIG_KEY, fix=fix)
