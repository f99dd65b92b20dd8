"""The card of a check, and how a person sees it: tables and whole sentences, the verdict last."""

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date
from typing import Literal, NamedTuple

from evals.stats.data_card import (
    MANY_REPEATS,
    DataTable,
    data_sentences,
    data_tables,
    leak_warning,
    reasons_table,
    repeated_share,
)
from orchestrator.chat.named_templates import OWN
from orchestrator.core.errors import ConfigError
from orchestrator.core.files import read_jsonl
from orchestrator.core.progress import say, show_table
from orchestrator.core.records import QuarantinedRow, Record, SampleKind
from orchestrator.core.text import counted, duration_text
from orchestrator.data.card import DataCard, ReasonCount, TokenCard
from orchestrator.data.rejection import Reasons
from orchestrator.run.paths import RunDir, SplitName

BAR_CHARS = 30
MAX_ROWS: Mapping[str, int] = {"Tools": 12, "Tags": 12}
"""Most rows shown of a table that may be long, by its title; the card has all."""

ParityProblemCode = Literal[
    "prompt_differs",
    "served_prompt_differs",
    "template_refuses",
    "mask_wrong",
    "tools_dropped",
    "tool_calls_dropped",
    "tool_results_dropped",
    "system_dropped",
    "call_not_parsed",
    "call_changed",
]


FIXES: dict[ParityProblemCode, str] = {
    "prompt_differs": "Remove the sample, or use a base whose chat template shows earlier turns alike",
    "served_prompt_differs": "Remove the sample, or use a base whose chat template renders it alike",
    "template_refuses": "Remove the sample, or use a base whose chat template takes it",
    "mask_wrong": "Remove the folder data/tokens of the run, so that the data is tokenised again",
    "tools_dropped": "Set model.chat_template to hermes, or use a base whose template shows the offered tools",
    "tool_calls_dropped": "Set model.chat_template to hermes, or use a base whose template shows tool calls",
    "tool_results_dropped": "Set model.chat_template to hermes, or use a base whose template shows tool results",
    "system_dropped": "Set model.chat_template to hermes, or use a base whose template shows system messages",
    "call_not_parsed": "Set model.chat_template to hermes, or use a base whose template writes calls in a format that "
    "is read, such as Qwen3, or set eval.reply_format to the format that it writes",
    "call_changed": "Use a base whose chat template writes the whole of a call as JSON, such as Qwen3",
}


class ParityProblem(Record):
    """One way in which training, evaluation and serving would not see the same tokens or calls."""

    code: ParityProblemCode
    sample_id: str
    detail: str
    fix: str | None = None

    @property
    def advice(self) -> str:
        """What to do about it: its own `fix`, or that of its code."""
        return self.fix or FIXES[self.code]


class ParityCard(Record):
    """Whether what is trained is what is evaluated and served. Produced by `check_parity`.

    `chat_template` names what renders (`model.chat_template`; `file` for one that was given), and `reply_format` is how
    calls are read in replies, None where the template shows none.
    `prompts` samples of every kind had their evaluation prompt compared with their training tokens; `calls` gold calls
    were rendered, decoded and parsed, `serving_calls` of them also by vLLM's `serving_parser` (None where it could not
    be asked; `serving_note` says why); in `served_otherwise` replies that parser read other calls than the strict one.
    `unread` are replies of the test part whose calls the strict parser does not read as the data has them, so that no
    model can be right on them. `served_prompts` prompts were compared with what vLLM's server code renders
    (`rendering_note` says why none was). `refused` are samples of the test part that the template refuses as a whole:
    what evaluation cannot ask of them is left out. `base_template_differs` of the prompts render differently with the
    base's own chat template: serve with the adapter's `chat_template.jinja`. `template_date` is the date that the
    template shows in all of them, None where it shows none. `problems` holds the first of each code, `num_problems`
    counts all.
    """

    chat_template: str | None = None
    reply_format: str | None = None
    prompts: int
    prompt_kinds: dict[SampleKind, int]
    calls: int
    serving_parser: str | None
    serving_calls: int
    serving_note: str | None = None
    served_prompts: int = 0
    rendering_note: str | None = None
    refused: ReasonCount | None = None
    unread: ReasonCount | None = None
    served_otherwise: ReasonCount | None = None
    base_template_differs: int
    template_date: date | None = None
    num_problems: int
    problems: tuple[ParityProblem, ...]


class Finding(NamedTuple):
    """Something that a run of the configuration would meet: what, where and how to fix it, in whole sentences.

    `stops` is whether the run would be refused or could never succeed; otherwise it would go on and be worth less.
    """

    stops: bool
    text: str


def fatal(what: str, *, where: str, allowed: str | None = None, fix: str | None = None) -> Finding:
    """A finding that stops a run, in the words of the error that it would end with."""
    return Finding(stops=True, text=str(ConfigError(what, where=where, allowed=allowed, fix=fix)))


def warning(what: str, *, where: str, allowed: str | None = None, fix: str | None = None) -> Finding:
    """A finding with which a run goes on."""
    return Finding(stops=False, text=str(ConfigError(what, where=where, allowed=allowed, fix=fix)))


class CheckCard(Record):
    """Everything that `check` found. Kept in `check/check.json` under the digest of what was checked.

    `data_digest` is that of the split files alone. Both digests are empty where the sources could not be read. `data`,
    `tokens` and `parity` are None or empty from the first step that failed. `is_data_ready` says whether the data can
    be trained on. `not_ready` says in whole sentences what has to change before a run; empty means ready. `warnings`
    are what makes a run worth less.
    """

    digest: str
    data_digest: str
    data: DataCard | None
    tokens: dict[SplitName, TokenCard]
    parity: ParityCard | None
    is_data_ready: bool
    not_ready: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    duration_s: float


def show_check(
    card: CheckCard,
    folder: RunDir,
    *,
    is_new: bool,
    conflict: str | None,
    say_needs: Callable[[], object] = lambda: None,
) -> None:
    """Print a check that was made in `folder`, now or earlier.

    `conflict` is why a run of this config is refused; `say_needs` says what one takes, before the verdict.
    """
    # A check that could not read its sources set nothing aside: what lies there is of other data.
    has_rows_aside = bool(card.digest) and folder.quarantine.is_file()
    if card.data is not None:
        show_data(card.data)
    elif has_rows_aside:
        reasons = Reasons()
        for row in read_jsonl(folder.quarantine, QuarantinedRow):
            reasons.add_row(row)
        _show(reasons_table("Set aside", reasons.counts()))
    show_tokens(card.tokens)
    if card.parity is not None:
        show_parity(card.parity)
    if has_rows_aside:
        say(f"\nAll of it, with every row that was set aside and its reason: {folder.quarantine.parent}")
    if card.warnings or card.not_ready:
        say("")
    for text in card.warnings:
        say(f"Warning: {text}")
    for text in card.not_ready:
        say(f"Error: {text}")
    if conflict:
        say(f"Note: the data was checked, but a run of this configuration would be refused: {conflict}")
    say_needs()
    took = duration_text(card.duration_s)
    how = f"checked in {took}" if is_new else f"by an earlier check of the same, which took {took}"
    say(f"{_verdict(card)} ({how})")


def _verdict(card: CheckCard) -> str:
    share = repeated_share(card.data) if card.data else 0.0
    repeats = f"; {share:.0%} of the rows were set aside as repeats" if share > MANY_REPEATS else ""
    if card.not_ready:
        faults = counted(len(card.not_ready), "thing")
        return f"NOT READY: {faults} to change, listed above{repeats}"
    return f"READY with {counted(len(card.warnings), 'warning')}{repeats}" if card.warnings else "READY"


def show_data(card: DataCard) -> None:
    """What the report says of the data."""
    say("")
    for sentence in data_sentences(card):
        say(sentence)
    for table in data_tables(card):
        _show(table)
    warning = leak_warning(card)
    if warning:
        say(warning)


def _show(table: DataTable) -> None:
    if not table.rows:
        return
    rows = table.rows[: MAX_ROWS.get(table.title)]
    hidden = len(table.rows) - len(rows)
    title = f"{table.title} ({len(table.rows):,}, {hidden:,} more not shown)" if hidden else table.title
    show_table(title, table.head, [[cell if isinstance(cell, str) else f"{cell:,}" for cell in row] for row in rows])
    if table.note:
        say(table.note)


def show_tokens(cards: Mapping[SplitName, TokenCard]) -> None:
    """Lengths as a histogram, and what carries the loss."""
    for part, card in cards.items():
        learned = f"{card.learned_tokens:,} ({card.learned_tokens / max(card.tokens, 1):.1%})"
        most = max((count for _, count in card.histogram), default=1) or 1
        rows = [
            [f"up to {up_to:,}", f"{count:,}", "#" * -(-count * BAR_CHARS // most)] for up_to, count in card.histogram
        ]
        show_table(f"Tokens a row, {part}", ["tokens", "rows", ""], rows)
        made = f"{counted(card.samples, 'sample')} in {counted(card.rows, 'row')}"
        say(
            f"{part}: {made} of {card.tokens:,} tokens, of which {learned} carry the loss; "
            f"longest {card.longest:,}; {len(card.left_out):,} left out, {card.shortened:,} shortened."
        )
        for reason, count in Counter(row.reason for row in card.left_out).most_common():
            first = next(row for row in card.left_out if row.reason == reason)
            say(f"  left out: {reason} x {count:,}, such as {first.source}: {first.detail}")


def show_parity(card: ParityCard) -> None:
    """Whether training, evaluation and serving see the same tokens and calls."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in card.prompt_kinds.items())
    served = (
        f"vLLM's {card.serving_parser} parser was asked about {card.serving_calls:,} of them"
        if card.serving_parser
        else card.serving_note or "no serving parser was asked"
    )
    rendered = (
        f"vLLM's server code rendered {card.served_prompts:,} of the prompts itself"
        if card.rendering_note is None
        else card.rendering_note
    )
    by = "the base's own chat template" if card.chat_template == OWN else f"the chat template {card.chat_template}"
    read = f"calls are read as {card.reply_format}" if card.reply_format else "no calls are read"
    say(f"\nConversations are rendered by {by}; {read}.")
    say(
        f"Parity: {card.prompts:,} prompts ({kinds}) compared token by token with what is trained on; "
        f"{card.calls:,} calls rendered, decoded and parsed again; {served}; {rendered}. "
        + (f"{card.num_problems:,} problems." if card.num_problems else "No problem.")
    )
    if card.base_template_differs:
        say(
            f"{card.base_template_differs:,} of the prompts differ in the base's own chat template: "
            "serve adapters with the chat_template.jinja beside them."
        )
    if card.template_date is not None:
        say(
            f"The chat template shows a date: {card.template_date} in training, in evaluation and in the template "
            "beside each adapter (model.template_date)."
        )
    for problem in card.problems:
        say(f"  {problem.code}: {problem.sample_id}: {problem.detail}")
