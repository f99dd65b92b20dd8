"""Take an adapter out of the run: `python -m jobs.export --config FILE --to FORM --out DIR [--adapter ID]`."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from evals.export.folder import FORMS, Form, refuse_unused
from jobs._main import READ, run_job
from jobs.verify import add_question_options, say_verified
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import DONE, InputError
from orchestrator.core.progress import doing, say
from orchestrator.run.paths import RunDir


def export(config: RunConfig, run: RunDir, *, to: Form, out: str | None, adapter: str, cases: int, **more: Any) -> int:
    """Write the export, and have it answer `cases` of the run's cases; the exit code is that of `verify`."""
    refuse_unused(to, {"out": out, **more})
    llama_cpp = more.pop("llama_cpp")

    def write(name: str, place: Path) -> int:
        from evals.export.export import export_adapter

        with doing(f"writing {place}"):
            named = Path(llama_cpp) if llama_cpp else None
            adapter_id = export_adapter(config, run, name, to, place, llama_cpp=named)
        say(f"{adapter_id} is in {place}.")
        if to in ("merged", "gguf"):
            from evals.export.card import merged_into

            if onto := merged_into(config):
                say(f"A whole model has the adapter, which was trained on a quantised base, merged into {onto}.")
        if cases == 0 or not run.generations(adapter_id).is_file():
            say("It was not asked anything, so nothing shows that it replies as it was scored.")
            return DONE
        return say_verified(config, run, place, adapter_id, num_cases=cases)

    if to == "hub":
        from evals.export.publish import Wish, publish

        return publish(config, run, adapter, Wish(**more), write)
    if out is None:
        raise InputError("no folder is named", where="--out", fix="Add --out DIR")
    return write(adapter, Path(out).absolute())


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--to", choices=FORMS, required=True)
    parser.add_argument("--out", metavar="DIR", help="the new folder")
    parser.add_argument("--llama-cpp", metavar="DIR", help="llama.cpp's source, for the whole model as GGUF")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="the model repository on the hub")
    parser.add_argument("--yes", action="store_true", help="upload without asking")
    parser.add_argument("--public", action="store_true", help="a repository that everyone can read")
    parser.add_argument("--anyway", action="store_true", help="without scores, and with gates that are not met, too")
    add_question_options(parser)


if __name__ == "__main__":
    sys.exit(run_job("export", export, add_options=_add_options, scene=READ))
