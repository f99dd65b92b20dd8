"""The `orchestrator` command. Stages run as the very commands that a cluster would run: `python -m jobs.<stage>`.

Kept light so that `--help` answers at once: what needs pydantic or more is imported inside the command that needs it.
"""

import importlib.metadata
import importlib.resources
import json
import signal
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from orchestrator.core.child import run_child
from orchestrator.core.errors import BAD_INPUT, DONE, INTERRUPTED, ConfigError, OrchestratorError
from orchestrator.core.interrupt import SIGNALS, interrupt_once
from orchestrator.run.command import Stage, run_job
from orchestrator.usage import setting_meant

DISTRIBUTION = "tool-lora-orchestrator"
SCHEMA_FILE = "config.schema.json"
"""Written beside a starter config, whose first line names it to editors."""


class Form(StrEnum):
    """As what an adapter leaves its run."""

    ADAPTER = "adapter"
    MERGED = "merged"
    GGUF = "gguf"
    HUB = "hub"


CONFIG_HELP = "YAML file (`orchestrator init` writes one), or a run: its folder, or its name in runs/."
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help=CONFIG_HELP)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Replace one value, such as train.epochs=2. Repeatable."),
]
SIDE_HELP = "an adapter, `winner`, `base`, or another run"
Cases = Annotated[int, typer.Option("--cases", metavar="N", min=0, help="Held-out cases that it is asked.")]
AdapterName = Annotated[
    str, typer.Option("--adapter", metavar="ID", help="An adapter of the run, or `winner`: what the report recommends.")
]

app = typer.Typer(
    name="orchestrator",
    help="Finds the best LoRA adapter for your tools: data, search, scores and one report.",
    epilog="Start: orchestrator init config.yaml, then orchestrator run config.yaml. "
    "Exit codes: 0 done, 1 failed, 2 a gate is not met, 3 bad input, 130 interrupted.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

SET_UP, STAGES, OUT, CLUSTER = "Set up", "Stages (each resumes where it stopped)", "Out of the run", "Cluster"


def main() -> None:
    """Run the command line and exit."""
    code = run_command(sys.argv[1:])
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # a late one must not change the exit code
    sys.exit(code)


def run_command(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; what the user can correct is one message on stderr."""
    try:
        code = app(args=list(arguments), prog_name="orchestrator", standalone_mode=False)
    except OrchestratorError as error:
        typer.echo(f"Error: {error}", err=True)
        return error.exit_code
    except TyperException as error:
        meant = setting_meant(getattr(error, "option_name", ""), arguments)
        said = error.format_message().removesuffix(".").replace("Value error, ", "")  # pydantic's words
        typer.echo(f"Error: {said}. {meant}See: orchestrator --help", err=True)
        return BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    return code if isinstance(code, int) else DONE


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - the signature of an option's callback
    if wanted:
        typer.echo(importlib.metadata.version(DISTRIBUTION))
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 - its callback prints it
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Without a command, show the help."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command(rich_help_panel=SET_UP, epilog="Example: orchestrator init my-tools.yaml")
def init(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The file to write.")] = Path("config.yaml"),
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented starter config that runs as it is."""
    text = (importlib.resources.files("orchestrator.config") / "starter.yaml").read_text(encoding="utf-8")
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError("the file is already there", where=str(path), fix="Add --force to replace it") from None
    except OSError as error:
        raise ConfigError(f"the file cannot be written ({error.strerror})", where=str(path)) from None
    described = path.with_name(SCHEMA_FILE)
    described.write_text(_schema_text(), encoding="utf-8")
    typer.echo(f"Wrote {path}, and {described} for editors that complete keys. Next: orchestrator check {path}")


@app.command(rich_help_panel=SET_UP, epilog="Example: orchestrator schema > config.schema.json")
def schema() -> None:
    """Print the config's JSON Schema, with which editors complete and check keys."""
    typer.echo(_schema_text(), nl=False)


def _schema_text() -> str:
    from orchestrator.config.schema import RunConfig

    return json.dumps(RunConfig.model_json_schema(), indent=2) + "\n"


@app.command(rich_help_panel=SET_UP, epilog="Example: orchestrator doctor")
def doctor() -> int:
    """Check this machine: Python, packages, processor or GPU, disk, memory. Exits 1 if something needed is missing."""
    return run_child([sys.executable, "-m", "orchestrator.doctor"])


@app.command(rich_help_panel=STAGES, epilog="Example: orchestrator run configs/demo.yaml --set search.num_trials=4")
def run(config: ConfigFile, overrides: Overrides = None) -> int:
    """Do everything: prepare, search, evaluate, report. Exits 2 if a gate of the config is not met."""
    return _run_stage(Stage.RUN, config, overrides)


@app.command(rich_help_panel=STAGES, epilog="Example: orchestrator check config.yaml")
def check(config: ConfigFile, overrides: Overrides = None) -> int:
    """Check the data before anything trains: rows, splits, leaks, tokens, parity. Exits 3 if it is not ready."""
    return _run_stage(Stage.CHECK, config, overrides)


@app.command(rich_help_panel=STAGES, epilog="Example: orchestrator plan config.yaml --device H100 --device cpu:64")
def plan(
    config: ConfigFile,
    *,
    devices: Annotated[
        list[str] | None,
        typer.Option("--device", metavar="NAME", help="Plan for it: H100, cpu, cpu:64 (GiB). Repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Take times from a stated rate, not from a few real steps.")
    ] = False,
    overrides: Overrides = None,
) -> int:
    """Say what a run needs before it starts: steps, memory by part, time, cost, and what would make it fit."""
    named = [word for name in devices or () for word in ("--device", name)]
    flags = [*(["--json"] if as_json else []), *(["--no-probe"] if no_probe else [])]
    return _run_stage(Stage.PLAN, config, overrides, [*named, *flags])


@app.command(
    rich_help_panel=STAGES,
    epilog="Example: orchestrator prepare config.yaml --set 'data.sources=\\[{path: conversations.jsonl}]'",
)
def prepare(config: ConfigFile, overrides: Overrides = None) -> int:
    """Read the conversations, set bad rows aside with their reasons, split the rest."""
    return _run_stage(Stage.PREPARE, config, overrides)


@app.command(rich_help_panel=STAGES, epilog="Example: orchestrator train config.yaml --set lora.r=32 -s train.epochs=2")
def train(config: ConfigFile, overrides: Overrides = None) -> int:
    """Train one adapter with the config's rank, alpha and learning rate."""
    return _run_stage(Stage.TRAIN, config, overrides)


@app.command(rich_help_panel=STAGES, epilog="Example: orchestrator search runs/my-run --set search.num_trials=24")
def search(config: ConfigFile, overrides: Overrides = None) -> int:
    """Search rank, alpha and learning rate; keep the adapters with the lowest eval loss."""
    return _run_stage(Stage.SEARCH, config, overrides)


@app.command(rich_help_panel=STAGES, epilog="Example: orchestrator prefer runs/my-run --set prefer.beta=0.05")
def prefer(
    config: ConfigFile,
    *,
    adapter: Annotated[
        str | None,
        typer.Option("--adapter", metavar="ID", help="An adapter or `winner`; else that of the lowest eval loss."),
    ] = None,
    overrides: Overrides = None,
) -> int:
    """Have an adapter learn from pairs of replies: those of the data, of files, and its own wrong ones."""
    return _run_stage(Stage.PREFER, config, overrides, ["--adapter", adapter] if adapter is not None else [])


@app.command(rich_help_panel=STAGES, epilog="Example: orchestrator evaluate runs/my-run --set eval.max_cases=100")
def evaluate(
    config: ConfigFile,
    *,
    rescore: Annotated[bool, typer.Option("--rescore", help="Judge the stored replies again; asks no model.")] = False,
    adapters: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            metavar="DIR",
            help="Score this adapter too: a folder that PEFT saved, or a hub id. Repeatable.",
        ),
    ] = None,
    overrides: Overrides = None,
) -> int:
    """Score the kept adapters and the untouched base on held-out cases and suites. Resumes after a cut."""
    named = [word for name in adapters or () for word in ("--adapter", name)]
    return _run_stage(Stage.EVALUATE, config, overrides, [*(["--rescore"] if rescore else []), *named])


@app.command(rich_help_panel=STAGES, epilog="Example: orchestrator report config.yaml --compare last-week")
def report(
    config: ConfigFile,
    *,
    compare: Annotated[
        str | None,
        typer.Option("--compare", metavar="OTHER_RUN", help="Set another run beside it: a folder, or a run's name."),
    ] = None,
    overrides: Overrides = None,
) -> int:
    """Write the report from what the run has. Exits 2 if a gate of the config is not met."""
    return _run_stage(Stage.REPORT, config, overrides, ["--compare", compare] if compare is not None else [])


@app.command(rich_help_panel=OUT, epilog="Example: orchestrator export runs/my-run --to merged --out my-model")
def export(  # noqa: PLR0913 - they are the options of the command
    config: ConfigFile,
    *,
    to: Annotated[Form, typer.Option("--to", help="adapter: for PEFT. merged: a model. gguf: llama.cpp. hub: online.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The new folder.")] = None,
    llama_cpp: Annotated[
        Path | None, typer.Option("--llama-cpp", metavar="DIR", help="For a whole GGUF model.")
    ] = None,
    repo: Annotated[str | None, typer.Option("--repo", metavar="OWNER/NAME", help="Its repository on the hub.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Upload without asking.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Let everyone read the repository.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Upload what was not scored or misses a gate, too.")] = False,
    adapter: AdapterName = "winner",
    cases: Cases = 50,
    overrides: Overrides = None,
) -> int:
    """Take an adapter out of its run, and show that it still replies as it was scored. Exits 2 if it does not."""
    options = ["--to", to.value, "--adapter", adapter, "--cases", str(cases)]
    given = (("--out", out), ("--repo", repo), ("--llama-cpp", llama_cpp))
    options += [word for option, value in given if value for word in (option, str(value))]
    options += [option for option, wanted in (("--public", public), ("--anyway", anyway), ("--yes", yes)) if wanted]
    return run_job("export", config, overrides, options, asks=to is Form.HUB and not yes)


@app.command(rich_help_panel=OUT, epilog="Example: orchestrator verify my-model --run runs/my-run")
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `orchestrator export` wrote.")],
    *,
    config: Annotated[Path, typer.Option("--run", metavar="CONFIG", help=CONFIG_HELP)],
    adapter: AdapterName = "winner",
    cases: Cases = 50,
    overrides: Overrides = None,
) -> int:
    """Have an export answer the run's held-out cases again. Exits 2 if it does not reply as what was scored."""
    options = ["--folder", str(folder), "--adapter", adapter, "--cases", str(cases)]
    return run_job("verify", config, overrides, options)


@app.command(rich_help_panel=OUT, epilog="Example: orchestrator ab runs/my-run --old trial-3 --log live.jsonl")
def ab(
    config: ConfigFile,
    *,
    old: Annotated[str, typer.Option("--old", metavar="NAME", help=f"What is live: {SIDE_HELP}.")] = "base",
    new: Annotated[str, typer.Option("--new", metavar="NAME", help=f"What may replace it: {SIDE_HELP}.")] = "winner",
    logs: Annotated[
        list[str] | None, typer.Option("--log", metavar="FILE", help="Logged outcomes, JSON lines. Repeatable.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", metavar="SHARE", help="The smallest difference that matters, 0.02 if not given."),
    ] = None,
    overrides: Overrides = None,
) -> int:
    """How many live cases tell two adapters apart, and what logged outcomes say. Exits 2 if the new one is worse."""
    named = [word for path in logs or () for word in ("--log", path)]
    named += [] if margin is None else ["--margin", str(margin)]
    return run_job("ab", config, overrides, ["--old", old, "--new", new, *named])


@app.command(rich_help_panel=OUT, epilog="Example: orchestrator generate runs/my-run --prompt 'Is it cold in Oslo?'")
def generate(  # noqa: PLR0913 - one for each option
    config: ConfigFile,
    *,
    adapters: Annotated[
        list[str] | None,
        typer.Option("--adapter", metavar="ID", help="`winner`, `base` or an id. Repeatable; else base and winner."),
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="What the user says.")] = None,
    messages: Annotated[
        str | None, typer.Option("--messages", metavar="FILE", help="A conversation as JSON; - is stdin.")
    ] = None,
    tools: Annotated[str | None, typer.Option("--tools", metavar="FILE", help="The tools offered, as JSON.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Go on: you speak, and give the results of calls.")] = False,
    cases: Annotated[str | None, typer.Option("--cases", metavar="FILE", help="Cases in a suite's format.")] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="FILE", help="Gets their answers, JSON lines.")] = None,
    temperature: Annotated[
        float | None, typer.Option("--temperature", metavar="T", help="0 is greedy, 2 the most.")
    ] = None,
    top_p: Annotated[float, typer.Option("--top-p", metavar="P", help="Sample from this share of the likeliest.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print each answer as a line of JSON.")] = False,
    overrides: Overrides = None,
) -> int:
    """Ask the base and an adapter something, as they would be scored: text, calls, their verdict, tokens, latency."""
    named = {"--prompt": prompt, "--messages": messages, "--tools": tools, "--cases": cases, "--out": out}
    options = [f"--adapter={name}" for name in adapters or ()]
    options += [f"{option}={value}" for option, value in named.items() if value is not None]
    options += [f"--top-p={top_p}", *(["--chat"] if chat else []), *(["--json"] if as_json else [])]
    sampling = [] if temperature is None else [f"eval.temperature={temperature}"]
    return run_job("generate", config, [*(overrides or ()), *sampling], options, asks=True)


@app.command("serve-check", rich_help_panel=OUT, epilog="Example: orchestrator serve-check runs/my-run")
def serve_check(
    config: ConfigFile,
    *,
    url: Annotated[str | None, typer.Option("--url", help="A server that runs; else one starts.")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="What that server calls it.")] = None,
    adapter: AdapterName = "winner",
    cases: Cases = 50,
    overrides: Overrides = None,
) -> int:
    """Serve the adapter, and show that clients get what was scored: prompts, calls, replies. Exits 2 if they do not."""
    named = [word for option, value in (("--url", url), ("--model", model)) if value for word in (option, value)]
    return run_job("serve_check", config, overrides, [*named, "--adapter", adapter, "--cases", str(cases)])


@app.command(rich_help_panel=STAGES, epilog="Example: orchestrator status runs/my-run --watch")
def status(
    config: ConfigFile,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until the run rests.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    overrides: Overrides = None,
) -> None:
    """Say how a run is doing: stage, trials, curves, findings, the last error, how to go on. Needs its folder alone."""
    from orchestrator.run.find import find_run
    from orchestrator.status import show_status

    show_status(lambda: find_run(config, overrides or ()), watch=watch, as_json=as_json)


@app.command(
    rich_help_panel=CLUSTER, epilog="Example: orchestrator submit config.yaml search --address http://127.0.0.1:8265"
)
def submit(
    config: ConfigFile,
    stage: Annotated[Stage, typer.Argument(metavar="STAGE", help=f"One of {', '.join(Stage)}.")] = Stage.RUN,
    *,
    address: Annotated[str, typer.Option("--address", metavar="URL", help="The cluster's job server.")],
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the log to the end and exit with the job's code.")
    ] = True,
    overrides: Overrides = None,
) -> int:
    """Run a stage as a job on a running Ray cluster."""
    from orchestrator.config.load import load_config
    from orchestrator.run.find import find_config
    from orchestrator.submit import submit_job

    interrupt_once()
    return submit_job(load_config(*find_config(config, overrides or ())), stage.job, address=address, follow=wait)


def _run_stage(stage: Stage, config: Path, overrides: Sequence[str] | None, options: Sequence[str] = ()) -> int:
    return run_job(stage.job, config, overrides, options)
