"""Hold a server against what was scored: `python -m jobs.serve_check --config FILE [--url URL] [--adapter ID]`."""

import sys
from argparse import ArgumentParser

from jobs._main import run_job
from jobs.verify import add_question_options
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE, GATE_NOT_MET, InputError
from orchestrator.core.progress import say, stage
from orchestrator.run.paths import RunDir


def serve_check(config: RunConfig, run: RunDir, *, url: str | None, model: str | None, adapter: str, cases: int) -> int:
    """Have a server answer cases of the run; exits 2 if it does not do so as it was scored."""
    from evals.generate.chosen import choose_adapter
    from evals.serve.check import cases_to_ask, check_server, read_scored, server_for
    from evals.serve.tell import check_lines

    if model is not None and url is None:
        fix = "Name that server with --url, or choose the adapter with --adapter"
        raise InputError("only a server that runs has a name for it", where="--model", fix=fix)
    scored = read_scored(config, run, choose_adapter(run, adapter))
    cases_to_ask(scored, cases)  # told before a server starts
    with stage("serve-check"), server_for(config, run, scored, url) as server:
        found = check_server(config, scored, server, model, num_cases=cases)
    for line in check_lines(found):
        say(line)
    return GATE_NOT_MET if found.outcome == "differs" else DONE


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--url", help="a server that runs; without it one is started")
    parser.add_argument("--model", metavar="NAME", help="what the server calls the adapter; its id by default")
    add_question_options(parser)


if __name__ == "__main__":
    sys.exit(run_job("serve_check", serve_check, add_options=_add_options))
