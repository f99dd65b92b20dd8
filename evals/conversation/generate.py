"""Try the base and the adapters of a run: what the command `generate` does."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from evals.conversation.asking import Asked, read_conversation
from evals.conversation.bulk import answer_cases, read_cases, summary_rows
from evals.conversation.converse import Chat, Replier, converse, render_conversation
from evals.conversation.screen import JsonScreen, Screen
from evals.conversation.speakers import Speaker
from evals.generate.engines import Engines
from orchestrator.config.schema import RunConfig
from orchestrator.core.files import dump_jsonl
from orchestrator.core.process import output_file, write_output
from orchestrator.core.progress import on_terminal, say, show_table
from orchestrator.models.base import base_tokenizer

OpenEngines = Callable[[RunConfig], AbstractContextManager[Engines]]
"""Starts what replies; what the user gave is read before, so that a mistake is told at once."""


def generate(config: RunConfig, speakers: list[Speaker], given: Asked, engines_of: OpenEngines) -> None:
    """Show what each speaker replies, or write what they reply to a file of cases.

    Raises:
        InputError: If what is asked cannot be read, or leaves no room for a reply.
        AdapterError: If an adapter cannot be loaded or changes nothing.
        EvaluationError: If the engine dies.
    """
    if given.cases is not None and given.out is not None:
        _answer_cases(config, speakers, given, Path(given.cases), Path(given.out), engines_of)
        return
    tokenizer = base_tokenizer(config.model)
    start = read_conversation(given.prompt, given.messages, given.tools, keep_thoughts=config.data.thinking)
    if start.messages:
        render_conversation(config, tokenizer, start, "start")
    screen = JsonScreen() if given.as_json else Screen()
    if not start.tools:
        screen.say("No tools are offered; --tools FILE offers some.")
    alone = config.model_copy(update={"eval": config.eval.model_copy(update={"num_engines": 1})})
    with engines_of(alone) as engines:
        replier = Replier(config, tokenizer, engines, speakers, given.top_p, grows=given.chat)
        if given.chat:
            Chat(replier, start, screen, ask_user).run()
        else:
            converse(replier, start, screen)


def ask_user(question: str) -> str | None:
    """The user's next line, with editing and history on a terminal; None at the end of the input."""
    if not (sys.stdin.isatty() and on_terminal()):
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None
    import readline  # noqa: F401 - gives `input` its editing

    try:
        return input(question)
    except EOFError:
        say("")
        return None


def _answer_cases(
    config: RunConfig, speakers: list[Speaker], given: Asked, path: Path, out: Path, engines_of: OpenEngines
) -> None:
    place, tokenizer = output_file(out, [path]), base_tokenizer(config.model)
    found = read_cases(config, tokenizer, path)
    if found.refused:
        first = next(iter(found.refused))
        say(f"{len(found.refused)} of {len(found.cases)} cases cannot be asked; {first}: {found.refused[first]}.")
    with engines_of(config) as engines:
        answers = answer_cases(config, tokenizer, found, speakers, engines, top_p=given.top_p)
    write_output(place, dump_jsonl(answers))
    show_table(f"{place}:", ("", "as asked", "without a reply"), summary_rows(speakers, answers))
