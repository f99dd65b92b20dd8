"""Whether training, evaluation and serving see the same tokens and the same calls. Asked before anything trains."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from transformers import AutoTokenizer

from evals.check.card import ParityCard, ParityProblem, ParityProblemCode
from evals.check.dropped_parts import dropped_parts
from evals.check.parity_rows import ROWS_AT_ONCE, ParityRow, parity_rows
from orchestrator.chat.formats import REPLY_FORMATS
from orchestrator.chat.formats.reply import ServedReply, clip
from orchestrator.chat.named_templates import OWN, template_label
from orchestrator.chat.parse import same_calls
from orchestrator.chat.rendering import ChatFormat, chat_format, render_prompt, reply_format_of
from orchestrator.chat.segments import Span, call_fault
from orchestrator.chat.serving import ServingReader, ServingRenderer, serving_reader, serving_renderer
from orchestrator.chat.template import dated_template, own_template, written_date
from orchestrator.chat.template_input import RowLeftOut, plain_tools
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import ConfigError, DataError, EvaluationError
from orchestrator.core.files import digest_of, parse_line, write_text_atomic
from orchestrator.core.records import SAMPLE_KINDS, FunctionCall, Message, Sample
from orchestrator.core.text import num_same
from orchestrator.data.card import MOST_NOT_SHOWN, LeftOut, ReasonCount
from orchestrator.data.tokens.store import refuse_left_out, tokenize_run, tokens_digest
from orchestrator.models.base import base_folder, base_tokenizer
from orchestrator.run.folder import package_versions
from orchestrator.run.paths import RunDir

PROMPTS_A_KIND = 32
SHOWN_BEFORE = 20
"""Characters that are shown before the first that differs."""
_NO_THOUGHTS = {"reasoning_content": None}


def require_parity(config: RunConfig, run: RunDir) -> ParityCard:
    """The card of `check_parity`, if it found nothing.

    Raises:
        DataError: With the first problem, its sample and what to do; if too many samples cannot be trained on.
    """
    refuse_left_out(config, tokenize_run(config, run))
    card = check_parity(config, run)
    if card.problems:
        first = card.problems[0]
        raise DataError(
            f"{first.code}: {first.detail} ({card.num_problems} such problems in all)",
            where=f"sample {first.sample_id}",
            fix=first.advice,
        )
    return card


def check_parity(config: RunConfig, run: RunDir, *, with_serving_parser: bool = True) -> ParityCard:
    """Compare the tokens of a run with what evaluation sends and what a server reads, unless it is done for the same.

    Keeps the card in `data/tokens/parity.json`.

    Raises:
        DataError: If the stored tokens are not those of the split files.
    """
    folder = base_folder(config.model)
    tokenizer = base_tokenizer(config.model)
    base = str(tokenizer.chat_template)
    if config.model.chat_template == OWN:
        own = AutoTokenizer.from_pretrained(folder, trust_remote_code=config.model.trust_remote_code)
        base = dated_template(own_template(own), config.model.template_date)
    tokens = tokens_digest(config, run, tokenizer, ("train", "val", "test"))
    name = template_label(config.model.chat_template)
    digest = digest_of(tokens, base, name, with_serving_parser, package_versions())
    path = run.root / "data" / "tokens" / "parity.json"
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["digest"] == digest:
            return parse_line(json.dumps(stored["card"]), ParityCard, where=str(path))
    form = chat_format(tokenizer, thinking=config.data.thinking, reply_format=config.eval.reply_format)
    check = _Check(form, replace(form, template=base), name)
    if with_serving_parser:
        check.ask_server_to_render(folder, trust_remote_code=config.model.trust_remote_code)
    try:
        reply_format_of(config.eval.reply_format, form.tokenizer)
    except ConfigError as error:
        check.no_format = error.what
    card = check.of_run(run, with_serving_parser=with_serving_parser)
    content = {"digest": digest, "card": card.model_dump(mode="json")}
    write_text_atomic(path, json.dumps(content, indent=2) + "\n")
    return card


@dataclass
class _Check:
    """One comparison: what was found so far, over all rows."""

    form: ChatFormat
    base_form: ChatFormat
    template_name: str
    no_format: str = ""
    """Why there is no format: data without calls needs none."""
    serving: ServingReader | None = None
    serving_name: str | None = None
    render_served: ServingRenderer | None = None
    rendering_note: str | None = "vLLM's server code was not asked for prompts"
    served_prompts: int = 0
    problems: dict[ParityProblemCode, ParityProblem] = field(default_factory=dict)
    num_problems: int = 0
    calls: int = 0
    asked_calls: int = 0
    serving_calls: int = 0
    unread: list[ParityProblem] = field(default_factory=list)
    """Turns of the test part whose calls are not read as the data has them."""
    served_otherwise: list[str] = field(default_factory=list)
    refused: list[LeftOut] = field(default_factory=list)
    firsts: dict[ParityProblemCode, str] = field(default_factory=dict)
    """By what a template may drop: the first sample that has it."""
    drawn: dict[str, list[tuple[bytes, ParityRow]]] = field(default_factory=dict)
    """By kind: the rows of smallest rank, whose prompts are compared."""

    def of_run(self, run: RunDir, *, with_serving_parser: bool) -> ParityCard:
        """Look at every row and give the card."""
        note = self._ask_server() if with_serving_parser else "vLLM's parser was not asked"
        rows = parity_rows(run, self.form)
        for batch in iter(lambda: list(islice(rows, ROWS_AT_ONCE)), []):
            self._check_calls(batch)
            for row in batch:
                self._note_parts(row.sample)
                self._draw(row)
        self._check_template()
        self._check_test_part(run)
        drawn = [row for kind in SAMPLE_KINDS for _, row in self.drawn.get(kind, [])]
        base_differs = sum(self._check_prompts(row) for row in drawn)
        kinds = Counter(row.sample.kind for row in drawn)
        return ParityCard(
            chat_template=self.template_name,
            reply_format=self.form.reply_format,
            prompts=len(drawn),
            prompt_kinds={kind: kinds[kind] for kind in SAMPLE_KINDS if kinds[kind]},
            calls=self.calls,
            serving_parser=self.serving_name if self.serving else None,
            serving_calls=self.serving_calls,
            serving_note=note,
            served_prompts=self.served_prompts,
            rendering_note=self.rendering_note,
            refused=_first([f"{fault.source}: {fault.detail}" for fault in self.refused]),
            unread=_first([f"sample {problem.sample_id}: {problem.detail}" for problem in self.unread]),
            served_otherwise=_first(self.served_otherwise),
            base_template_differs=base_differs,
            template_date=written_date(self.form.template),
            num_problems=self.num_problems,
            problems=tuple(self.problems.values()),
        )

    def ask_server_to_render(self, base: Path, *, trust_remote_code: bool) -> None:
        """Load vLLM's rendering of requests, or note why that is not possible."""
        try:
            render = serving_renderer(base, self.form, trust_remote_code=trust_remote_code)
        except (ImportError, EvaluationError) as error:
            self.rendering_note = f"vLLM's server code could not be asked for prompts: {error}"
        else:
            self.render_served, self.rendering_note = render, None

    def _ask_server(self) -> str | None:
        """Load vLLM's parser; returns why that was not possible."""
        if self.form.reply_format is None:
            return f"vLLM's parser could not be asked: {self.no_format}"
        self.serving_name = REPLY_FORMATS[self.form.reply_format].vllm_parser
        if self.serving_name is None:
            return f"vLLM has no parser for replies in the format {self.form.reply_format}"
        reasoning = REPLY_FORMATS[self.form.reply_format].reasoning_parser if self.form.thinking else None
        try:
            self.serving = serving_reader(self.serving_name, self.form.tokenizer, reasoning=reasoning)
        except (ImportError, EvaluationError) as error:
            return f"vLLM's parser could not be asked: {error}"
        return None

    def _found(self, code: ParityProblemCode, sample_id: str, detail: str) -> None:
        self._add(ParityProblem(code=code, sample_id=sample_id, detail=detail))

    def _add(self, problem: ParityProblem) -> None:
        self.num_problems += 1
        self.problems.setdefault(problem.code, problem)

    def _check_calls(self, rows: Sequence[ParityRow]) -> None:
        """Decode every learned turn as the engine would and read its calls again."""
        spans = [(row, span) for row in rows for span in row.spans]
        texts = self.form.decode_batch([row.ids[span.start : span.end - 1] for row, span in spans])
        for (row, span), text in zip(spans, texts, strict=True):
            self._check_reply(row, span, text)
        for row in rows:
            if row.fault is not None:
                self._check_fault(row.sample, row.fault)

    def _check_reply(self, row: ParityRow, span: Span, text: str) -> None:
        sample, message, where = row.sample, row.sample.messages[span.place], f"turn {span.place + 1}"
        gold = [call.function for call in message.tool_calls]
        self.calls += len(gold)
        self.asked_calls += len(gold) * row.is_asked
        if self.form.reply_format is None:
            if gold:
                self._found("call_not_parsed", sample.id, f"{where}: {self.no_format}")
            return
        if fault := call_fault(self.form.reply_format, text, message, sample.tools):
            code: ParityProblemCode = "call_changed" if fault.is_read else "call_not_parsed"
            problem = ParityProblem(code=code, sample_id=sample.id, detail=f"{where}: {fault.detail}")
            if row.is_asked:
                self.unread.append(problem)
            else:
                self._add(problem)
        elif self.serving is not None and gold:
            self.serving_calls += len(gold)
            served = self.serving(text, sample.tools)
            if not _serves(served, gold):
                self.served_otherwise.append(f"sample {sample.id}: {where}: {clip(text)}")

    def _check_fault(self, sample: Sample, fault: LeftOut) -> None:
        """A test row that cannot be shown: evaluation leaves it out, or its calls could never be given."""
        calls = sum(len(message.tool_calls) for message in sample.messages)
        if fault.reason == "template_refuses":
            self.refused.append(fault)
        elif calls:
            self.asked_calls += calls
            given = {"sample_id": sample.id, "detail": fault.detail, "fix": fault.fix}
            self.unread.append(ParityProblem(code="call_not_parsed", **given))

    def _check_test_part(self, run: RunDir) -> None:
        """What the test part loses to the template is a problem only if it is most of it."""
        with run.split("test").open(encoding="utf-8") as lines:
            total = sum(1 for _ in lines)
        if len(self.refused) > MOST_NOT_SHOWN * total:
            for fault in self.refused:
                given = {"sample_id": fault.id, "detail": fault.detail, "fix": fault.fix}
                self._add(ParityProblem(code="template_refuses", **given))
        if len(self.unread) > MOST_NOT_SHOWN * self.asked_calls:
            for problem in self.unread:
                self._add(problem)

    def _note_parts(self, sample: Sample) -> None:
        roles = {message.role for message in sample.messages}
        has: dict[ParityProblemCode, bool] = {
            "tools_dropped": bool(sample.tools),
            "tool_calls_dropped": any(message.tool_calls for message in sample.messages),
            "tool_results_dropped": "tool" in roles,
            "system_dropped": "system" in roles,
        }
        for part, is_there in has.items():
            if is_there:
                self.firsts.setdefault(part, sample.id)

    def _check_template(self) -> None:
        """Render each part that the data has, made of words that no template writes, and look for the words."""
        for code, sample_id in self.firsts.items():
            for what in dropped_parts(self.form, code):
                self._found(code, sample_id, f"the chat template does not show {what}")

    def _draw(self, row: ParityRow) -> None:
        drawn = self.drawn.setdefault(row.sample.kind, [])
        rank = hashlib.sha256(row.sample.id.encode()).digest()
        if row.spans and (len(drawn) < PROMPTS_A_KIND or rank < drawn[-1][0]):
            drawn.append((rank, row))
            drawn.sort(key=lambda item: item[0])
            del drawn[PROMPTS_A_KIND:]

    def _check_prompts(self, row: ParityRow) -> bool:
        """Compare each learned turn with evaluation's prompt; returns whether the base's own template has another."""
        sample, form = row.sample, self.form
        differs = False
        for span in row.spans:
            before = sample.messages[: span.place]
            where = f"turn {span.place + 1}"
            prompt = render_prompt(form.tokenizer, before, sample.tools, thinking=form.thinking)
            if row.ids[: len(prompt)] != prompt:
                self._found(
                    "prompt_differs", sample.id, f"{where}: evaluation's prompt is not how the trained row begins"
                )
            if fault := self._mask_fault(row, span, prompt):
                self._found("mask_wrong", sample.id, f"{where}: {fault}")
            text = _prompt_text(form, before, sample)
            differs = differs or text != _prompt_text(self.base_form, before, sample)
            if text is not None and (fault := self._served_fault(before, sample, text)):
                self._found("served_prompt_differs", sample.id, f"{where}: {fault}")
        return differs

    def _served_fault(self, before: Sequence[Message], sample: Sample, prompt: str) -> str | None:
        """How the prompt that a server would render is another."""
        if self.render_served is None:
            return None
        self.served_prompts += 1
        shown = [message if self.form.thinking else message.model_copy(update=_NO_THOUGHTS) for message in before]
        try:
            served = self.render_served(shown, sample.tools)
        except EvaluationError as error:
            return error.what
        if served == prompt:
            return None
        begin = max(0, num_same(served, prompt) - SHOWN_BEFORE)
        return f"vllm serve renders {clip(served[begin:])} where training has {clip(prompt[begin:])}"

    def _mask_fault(self, row: ParityRow, span: Span, prompt: list[int]) -> str | None:
        reply, form = row.ids[span.start : span.end], self.form
        if span.start != len(prompt):
            return "what is learned does not begin where the prompt ends"
        if reply[-1] not in form.stop_ids or any(token in form.stop_ids for token in reply[:-1]):
            return "what is learned does not end with the first token at which vLLM stops"
        return None


def _first(found: Sequence[str]) -> ReasonCount | None:
    return ReasonCount(count=len(found), example=found[0]) if found else None


def _prompt_text(form: ChatFormat, before: Sequence[Message], sample: Sample) -> str | None:
    try:
        return form.text(form.plain(before), plain_tools(sample.tools), prompt=True)
    except RowLeftOut:
        return None


def _serves(served: ServedReply, gold: Sequence[FunctionCall]) -> bool:
    try:
        calls = [FunctionCall(name=name, arguments=json.loads(arguments)) for name, arguments in served.calls]
    except ValueError:
        return False
    return same_calls(calls, gold)
