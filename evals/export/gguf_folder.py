"""The files of a GGUF export: adapter, whole model, and how llama.cpp and Ollama use them."""

import shlex
import tempfile
from pathlib import Path

from evals.export.gguf import ADAPTER_FILE, write_gguf
from evals.export.llama_cpp import CONVERTER, MODEL_FILE, convert
from evals.export.merged import write_merged
from evals.export.modelfile import MODELFILE, SERVED_WITH, UNTOLD, write_modelfile
from orchestrator.config.schema import ModelConfig, RunConfig
from orchestrator.core.errors import ConversionError
from orchestrator.core.progress import say

COMMANDS_FILE = "COMMANDS.txt"


def write_gguf_folder(
    config: RunConfig, base: Path, adapter: Path, out: Path, converter: Path | None, *, is_asked: bool
) -> None:
    """Write the export; the whole model only with a `converter`, and if it fails and was not asked for, without.

    Raises:
        InputError: If the package gguf is missing, or llama.cpp's names for this base are not known here.
        AdapterError: If the adapter does not fit the base.
        ConversionError: If the converter fails that the user asked for.
    """
    write_gguf(base, adapter, out)
    if converter is not None:
        try:
            _write_whole(config.served_model, adapter, out, converter)
        except ConversionError as error:
            if is_asked:
                raise
            say(f"{error} The folder has the adapter alone.")
    is_told = write_modelfile(config, out)
    (out / COMMANDS_FILE).write_text(commands(base, out, is_told=is_told), encoding="utf-8")


def _write_whole(base: ModelConfig, adapter: Path, out: Path, converter: Path) -> None:
    with tempfile.TemporaryDirectory(dir=out) as place:
        merged = Path(place) / adapter.name  # which the converter makes the model's name
        merged.mkdir()
        write_merged(base, adapter, merged)
        convert(converter, merged, out / MODEL_FILE)


def commands(base: Path, folder: Path, *, is_told: bool) -> str:
    """How to use the files of `folder`, for a shell in it; `is_told` says whether Ollama has the template."""
    whole, of_base = f"llama-server -m {MODEL_FILE} {SERVED_WITH}", f"--lora {ADAPTER_FILE} {SERVED_WITH}"
    lines = ["# The whole model, base and adapter in one, in llama.cpp's server:"]
    if not (folder / MODEL_FILE).is_file():
        lines = [
            "# The whole model, base and adapter in one: `orchestrator export CONFIG --to merged --out merged`, then",
            f"python llama.cpp/{CONVERTER} merged --outfile {MODEL_FILE}",
        ]
    lines += [
        whole,
        "# The adapter beside the base, which is made once:",
        f"python llama.cpp/{CONVERTER} {shlex.quote(str(base))} --outfile base.gguf",
        f"llama-server -m base.gguf {of_base}",
    ]
    if is_told:
        lines += ["# In Ollama; its Modelfile says what is otherwise there:", f"ollama create my-model -f {MODELFILE}"]
    else:
        lines += [f"# {line}" for line in UNTOLD.splitlines()]
    return "\n".join(lines) + "\n"
