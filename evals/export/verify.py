"""Is what was exported still what was scored? It answers the run's own cases, and each reply is held against the run's.

Prompts are rendered by the exported folder's own tokenizer and chat template, without any argument, as a server does.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import TypeAdapter
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from evals.export.gguf import ADAPTER_FILE
from evals.export.gguf_back import write_back
from evals.export.gguf_model_back import write_model_back
from evals.export.llama_cpp import MODEL_FILE
from evals.generate.canary import CANARY_LOGPROBS, Strength, Trace, measure_strength, pick_canaries
from evals.generate.dealing import Work
from evals.generate.engine import Adapter, EngineSettings, Prompt
from evals.generate.engines import Engines, answer_all
from evals.generate.likelihoods import Likelihoods, in_strength, why_another
from evals.generate.listening import Heard
from evals.generate.settings import settings_of_run
from evals.records import HELD_OUT, Case, EngineRecord, Generation
from evals.report.text import signed_text
from evals.stats.comparison import compare, pair_verdicts
from evals.stats.decision import PRIMARY
from evals.stats.scores import score_cases
from orchestrator.chat.template_input import RowLeftOut, plain_messages, plain_tools, rendered, template_wants
from orchestrator.config.evaluation import Dtype
from orchestrator.config.schema import ModelConfig, RunConfig
from orchestrator.core.errors import AdapterError, EvaluationError, InputError, RunConflictError
from orchestrator.core.files import parse_line, read_jsonl
from orchestrator.core.progress import bar
from orchestrator.core.records import JsonObject, Record
from orchestrator.core.text import counted
from orchestrator.models.adapters import SETTINGS, read_adapter
from orchestrator.run.paths import RunDir

Kind = Literal["adapter", "merged", "gguf", "whole_gguf"]
GGUF_FILES: dict[Kind, str] = {"gguf": ADAPTER_FILE, "whole_gguf": MODEL_FILE}
MARGIN = 0.1
"""How much the share of cases answered as asked may differ where replies do."""
FIRST_CHARS = 200
"""Characters of a reply that are shown."""
ASKED = "exported"
"""The one work of the engines."""


class OtherReply(Record):
    """A reply that is not the one that was scored, and why; whether rounding explains it."""

    case_id: str
    cause: str
    by_rounding: bool


class Verification(Record):
    """What came of it; of `num_cases` cases so many have the prompt, the reply and the verdict that the run has.

    `low` and `high` bound the difference of the share of cases answered as asked, exported minus run, at 95 %. A case
    without a reply has another reply and another verdict, and is not answered as asked; `num_silent` are there.
    `strength` is how strongly the adapter is in force; None where the run kept no log probabilities of its canaries.
    `other_strength` says how that is another than when it was scored, None where rounding may explain it.
    """

    kind: Kind
    adapter_id: str
    num_cases: int
    same_prompts: int
    same_replies: int
    same_verdicts: int
    num_silent: int = 0
    difference: float
    low: float
    high: float
    margin: float
    others: tuple[OtherReply, ...] = ()
    strength: Strength | None = None
    other_strength: str | None = None

    @property
    def num_wrong(self) -> int:
        """Replies, and the adapter's strength, that rounding does not explain."""
        return sum(not other.by_rounding for other in self.others) + (self.other_strength is not None)

    @property
    def outcome(self) -> Literal["identical", "equivalent", "differs"]:
        """`equivalent`: only rounding tells them apart, and the share answered as asked by less than `margin`."""
        if self.same_prompts < self.num_cases or self.num_wrong:
            return "differs"
        if self.same_replies == self.num_cases:
            return "identical"
        return "equivalent" if -self.margin < self.low and self.high < self.margin else "differs"


def kinds_of(folder: Path) -> tuple[Kind, ...]:
    """What an exported folder holds: one thing, or an adapter and a whole model as GGUF.

    Raises:
        InputError: If it holds neither an adapter nor a model.
    """
    found: list[Kind] = [kind for kind, file in GGUF_FILES.items() if (folder / file).is_file()]
    if not found and (folder / SETTINGS).is_file():
        found = ["adapter"]
    if not found and (folder / "config.json").is_file():
        found = ["merged"]
    if not found:
        fix = "Name the folder that export wrote"
        raise InputError("there is neither an adapter nor a model", where=str(folder), fix=fix)
    return tuple(found)


def verify_export(
    config: RunConfig, run: RunDir, folder: Path, adapter_id: str, engines: Engines, *, num_cases: int
) -> list[Verification]:
    """Have each thing in the exported folder answer cases of the run, and compare.

    Raises:
        RunConflictError: If the run has no replies of this adapter, or does not say how they write calls.
        InputError: If the folder holds nothing that can answer, or its chat template refuses a case.
        AdapterError: If a GGUF file cannot be read.
    """
    kinds = kinds_of(folder)
    before = {reply.case_id: reply for reply in replies_of_run(run, adapter_id) if reply.has_reply}
    replied = [case for case in read_jsonl(run.cases, Case) if case.id in before]
    cases = evenly([case for case in replied if case.suite == HELD_OUT], num_cases)
    if not cases:
        raise RunConflictError("the run has no replies to held-out cases", where=adapter_id, fix="Run evaluate first")
    engine, reply_format = engine_of_run(run, adapter_id)
    kept = engine.canary.first if engine.canary else {}
    canaries = [case for case in replied if case.id in kept and case not in cases]
    found = []
    for kind in kinds:
        with _as_vllm_reads(folder, kind, config, run) as place:
            after = _answers(place, kind, config, engine, [*cases, *canaries], engines)
            dtype = _coarser(place, kind, engine.dtype)
        compared = compare_replies(cases, before, after.replies, reply_format)
        traces = [after.trace(id_) for id_ in kept if after.has_prompt_of(before.get(id_))]
        strength = measure_strength(kept, traces)
        found.append(
            Verification(
                kind=kind,
                adapter_id=adapter_id,
                num_cases=len(cases),
                margin=MARGIN,
                others=tuple(other_replies(cases, before, after, dtype)),
                strength=strength,
                other_strength=strength and in_strength(strength, dtype),
                **compared,
            )
        )
    return found


@dataclass(frozen=True)
class Answers:
    """What an exported model replied, by case id, and how likely its tokens were.

    `decode` gives the text of tokens, `ends` are texts that end a reply.
    """

    replies: dict[str, Generation]
    likely: dict[str, Likelihoods]
    decode: Callable[[Sequence[int]], str]
    ends: tuple[str, ...]
    temperature: float = 0.0

    def trace(self, case_id: str) -> Trace:
        """The reply as a canary's."""
        said = self.likely[case_id]
        return Trace(case_id, said.tokens, said.likely[0], self.replies[case_id].prompt_sha256)

    def has_prompt_of(self, scored: Generation | None) -> bool:
        """Whether the case of a scored reply was asked with the same prompt, and has an answer."""
        if scored is None or scored.case_id not in self.likely:
            return False
        return self.replies[scored.case_id].prompt_sha256 == scored.prompt_sha256


def other_replies(
    cases: Sequence[Case], before: dict[str, Generation], after: Answers, dtype: str | None
) -> Iterator[OtherReply]:
    """Each reply that is not the one that was scored, with its cause; of another prompt only where there is none."""
    for case in cases:
        scored, now = before[case.id], after.replies[case.id]
        if not now.has_reply:
            cause, by_rounding, said = f"no reply ({now.error})", False, ""
        elif now.text == scored.text or now.prompt_sha256 != scored.prompt_sha256:
            continue
        elif after.temperature > 0:
            cause, by_rounding, said = f"replies are drawn at temperature {after.temperature:g}", True, now.text
        else:
            cause, by_rounding = why_another(scored.text, after.likely[case.id], after.decode, after.ends, dtype)
            said = now.text
        shown = f": {said[:FIRST_CHARS]!r}, and {scored.text[:FIRST_CHARS]!r} was scored"
        yield OtherReply(case_id=case.id, cause=f"{cause}{shown}", by_rounding=by_rounding)


def _answers(
    folder: Path, kind: Kind, config: RunConfig, engine: EngineRecord, cases: Sequence[Case], engines: Engines
) -> Answers:
    """The replies to the cases; prompts are rendered by the folder's own tokenizer and template."""
    tokenizer = _tokenizer_of(folder)
    prompts = [Prompt(case.id, _served_tokens(tokenizer, case, config, folder), case.tools) for case in cases]
    model, adapter, ranks, merges = _open(folder, kind, config.model, engine.adapter_id)
    replying = _as_in_run(config, model, engine)
    settings = settings_of_run(replying, tokenizer, prompts, ranks=ranks, on_gpu=engines.on_gpu, merges=merges)
    heard = _ask(engines, settings.model_copy(update={"likeliest": CANARY_LOGPROBS}), adapter, prompts)
    return Answers(
        replies={reply.case_id: reply for reply in heard.replies[ASKED]},
        likely=heard.likely[ASKED],
        decode=lambda tokens: str(tokenizer.decode(list(tokens))),
        ends=(str(tokenizer.eos_token), *map(str, map(tokenizer.decode, settings.stop_token_ids))),
        temperature=settings.temperature,
    )


@contextmanager
def _as_vllm_reads(folder: Path, kind: Kind, config: RunConfig, run: RunDir) -> Iterator[Path]:
    """The folder itself, or the content of a GGUF file as vLLM reads it, in the run's folder, which all nodes reach."""
    if kind not in GGUF_FILES:
        yield folder
        return
    with tempfile.TemporaryDirectory(dir=run.root, prefix=".gguf-") as place:
        (write_back if kind == "gguf" else write_model_back)(folder, config.model, Path(place))
        yield Path(place)


def replies_of_run(run: RunDir, adapter_id: str) -> Iterator[Generation]:
    """What the adapter replied; a RunConflictError if that is not there."""
    path = run.generations(adapter_id)
    if not path.is_file() or not run.cases.is_file() or not run.engine(adapter_id).is_file():
        raise RunConflictError(f"the run has no replies of {adapter_id}", where=str(run.root), fix="Run evaluate first")
    return read_jsonl(path, Generation)


def engine_of_run(run: RunDir, adapter_id: str) -> tuple[EngineRecord, str]:
    """How the adapter's replies were made, and how calls are written in them; a RunConflictError if not said."""
    made = run.engine(adapter_id)
    engine = parse_line(made.read_text(encoding="utf-8"), EngineRecord, where=str(made))
    if engine.reply_format is None:
        what = "it does not say how calls are written in the replies"
        raise RunConflictError(what, where=str(made), fix="Run evaluate again, which writes it and keeps the replies")
    return engine, engine.reply_format


def evenly(cases: Sequence[Case], count: int) -> list[Case]:
    """Up to `count` cases, evenly spaced over the given order.

    Raises:
        InputError: If it is none.
    """
    if count < 1:
        raise InputError(f"{counted(count, 'case')} cannot be asked", where="--cases", allowed="1 or more")
    if len(cases) <= count:
        return list(cases)
    return [cases[number * len(cases) // count] for number in range(count)]


def _served_tokens(tokenizer: PreTrainedTokenizerBase, case: Case, config: RunConfig, folder: Path) -> list[int]:
    """The prompt as a server renders it that knows only the folder."""
    shown = plain_messages(case.messages, template_wants(tokenizer), thinking=config.data.thinking)
    names, template = tokenizer.special_tokens_map, str(tokenizer.chat_template)
    try:
        text = rendered(names, template, shown, plain_tools(case.tools), add_generation_prompt=True)[0]
    except RowLeftOut as problem:
        raise InputError(f"case {case.id} cannot be rendered: {problem.detail}", where=str(folder)) from None
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _tokenizer_of(folder: Path) -> PreTrainedTokenizerBase:
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the reader raises whatever a broken file brings about
        raise _unreadable(folder, "tokenizer", error) from error
    if not tokenizer.chat_template:
        raise InputError("there is no chat template in it", where=str(folder), fix="Export it again")
    return tokenizer


def _unreadable(folder: Path, what: str, error: Exception) -> InputError:
    why = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return InputError(f"its {what} cannot be read: {why}", where=str(folder), fix="Export it again")


def _coarser(folder: Path, kind: Kind, computed: str | None) -> str | None:
    """What rounds the replies: the dtype that they are computed in, or of a whole model the one that it is kept in."""
    if kind not in ("merged", "whole_gguf") or computed != "float32":
        return computed
    kept = AutoConfig.from_pretrained(folder, trust_remote_code=False).dtype
    return computed if kept is None else str(kept).removeprefix("torch.")


class _Exported(NamedTuple):
    """What an exported folder holds: the model that answers, and the adapter on it, None where it is merged."""

    model: ModelConfig
    adapter: Adapter | None = None
    ranks: tuple[int, ...] = ()
    merges: bool = False


def _open(folder: Path, kind: Kind, of_run: ModelConfig, adapter_id: str) -> _Exported:
    if kind in ("merged", "whole_gguf"):
        try:
            AutoConfig.from_pretrained(folder, trust_remote_code=of_run.trust_remote_code)
        except (OSError, ValueError) as error:
            raise _unreadable(folder, "config.json", error) from None
        plain = {"base": str(folder), "revision": None, "quantization": "none"}
        return _Exported(of_run.model_copy(update=plain))
    record = read_adapter(folder)
    if kind == "adapter" and record.id != adapter_id:  # a GGUF file does not say which adapter it holds
        what = f"the adapter in it is {record.id}, and it would be held against the replies of {adapter_id}"
        raise InputError(what, where=str(folder), fix=f"Add --adapter {record.id}")
    return _Exported(of_run, Adapter(record.id, 1, str(folder), record.sha256), (record.r,), record.use_dora)


def _as_in_run(config: RunConfig, model: ModelConfig, engine: EngineRecord) -> RunConfig:
    """The configuration under which a model replies in the run's dtype, and its calls are read as they were there."""
    dtype = config.model.dtype if engine.dtype is None else TypeAdapter(Dtype).validate_python(engine.dtype)
    read = config.eval.model_copy(update={"reply_format": engine.reply_format})
    return config.model_copy(update={"model": model.model_copy(update={"dtype": dtype}), "eval": read})


def _ask(engines: Engines, settings: EngineSettings, adapter: Adapter | None, prompts: Sequence[Prompt]) -> Heard:
    works = [Work(ASKED, adapter, prompts)]
    with bar("replies", len(prompts)) as advance:
        heard, canaries = Heard(advance), pick_canaries(prompts) if adapter else []
        failed = answer_all(works, engines=engines, settings=settings, canaries=canaries, listener=heard)
    if failed:
        raise AdapterError(failed[0].message, where=adapter.folder if adapter else None)
    return heard


def compare_replies(
    cases: Sequence[Case], before: dict[str, Generation], after: dict[str, Generation], reply_format: str
) -> JsonObject:
    """What of a `Verification` comes from the replies.

    Raises:
        EvaluationError: If no case has a reply of both.
    """
    pairs = [(before[case.id], after[case.id]) for case in cases]
    silent = [reply.error or "there is no reply" for _, reply in pairs if not reply.has_reply]
    if len(silent) == len(pairs):
        what = f"none of {len(pairs)} cases got a reply; the first because {silent[0]}"
        raise EvaluationError(what, where="what was exported")
    exported, of_run = (
        score_cases(name, cases, [replies[case.id] for case in cases], reply_format=reply_format)
        for name, replies in (("exported", after), ("run", before))
    )
    judged = tuple(
        verdict if verdict.correct is not None else verdict.model_copy(update={"correct": False})
        for verdict in exported.verdicts
    )
    (found,) = compare([pair_verdicts(exported.model_copy(update={"verdicts": judged}), of_run, PRIMARY)])
    if found.difference is None or found.low is None or found.high is None:
        raise EvaluationError("none of the run's replies was scored", where="the run", fix="Run evaluate again")
    differing = [pair for pair in pairs if pair[0].text != pair[1].text or not pair[1].has_reply]
    return {
        "same_prompts": sum(one.prompt_sha256 == other.prompt_sha256 for one, other in pairs),
        "same_replies": len(pairs) - len(differing),
        "same_verdicts": sum(
            one.correct == other.correct for one, other in zip(exported.verdicts, of_run.verdicts, strict=True)
        ),
        "num_silent": len(silent),
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
    }


def verification_lines(found: Verification) -> list[str]:
    """What came of it, in sentences."""
    counts = f"{found.same_prompts} prompts, {found.same_replies} replies and {found.same_verdicts} verdicts"
    of = f"{GGUF_FILES[found.kind]}: of" if found.kind in GGUF_FILES else "Of"
    lines = [f"{of} {counted(found.num_cases, 'held-out case')} {counts} are those that were scored."]
    share = "the share of cases answered as asked differs by "
    bounds = f"{signed_text(found.difference)} ({signed_text(found.low)} to {signed_text(found.high)})"
    if found.same_prompts < found.num_cases:
        others = f"{found.num_cases - found.same_prompts} of {found.num_cases} prompts are others"
        lines.append(f"DIFFERS: {others}: its chat template or tokenizer is not that of the run.")
    elif found.num_wrong:
        lines.append(
            f"DIFFERS: {counted(found.num_wrong, 'difference')} that rounding does not explain; {share}{bounds}."
        )
    elif found.outcome == "equivalent":
        lines.append(f"Equivalent: only rounding tells them apart, and {share}{bounds}, less than {found.margin:g}.")
    elif found.outcome == "differs":
        known = f"{share}{bounds}, which is not shown to be less than {found.margin:g} either way"
        lines.append(f"NOT SHOWN: only rounding tells replies apart, but {known}. Ask more cases (--cases).")
    if found.num_silent:
        lines.append(f"{counted(found.num_silent, 'case')} got no reply, which counts as another one and as wrong.")
    if found.other_strength is not None:
        lines.append(f"- the adapter: {found.other_strength}")
    return lines + [f"- {other.case_id}: {other.cause}" for other in found.others]
