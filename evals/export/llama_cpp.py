"""The whole model as one GGUF file, made by llama.cpp's own converter where there is one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from orchestrator.core.errors import ConversionError, InputError

MODEL_FILE = "model.gguf"
CONVERTER = "convert_hf_to_gguf.py"
VARIABLE = "LLAMA_CPP"
_PROGRAMS = ("llama-server", "llama-cli")
_OUTTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""By the dtype of a config.json: without it the converter halves float32."""


def find_converter(given: Path | None) -> Path | None:
    """llama.cpp's converter in the folder `given` or that `LLAMA_CPP` names, else the one on PATH or near its programs.

    Raises:
        InputError: If a folder that was named has none.
    """
    named = given or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if named is not None:
        found = named.expanduser().absolute() / CONVERTER
        if not found.is_file():
            where = "--llama-cpp" if given else VARIABLE
            fix = "Name the folder of llama.cpp's source, from github.com/ggml-org/llama.cpp"
            raise InputError(f"there is no {CONVERTER} in {named}", where=where, fix=fix)
        return found
    places = [Path(place) for place in os.environ.get("PATH", "").split(os.pathsep) if place]
    for program in filter(None, map(shutil.which, _PROGRAMS)):
        beside = Path(program).resolve().parent
        places += [beside, *beside.parents[:2]]  # a build puts them into build/bin of the source
    return next((place / CONVERTER for place in places if (place / CONVERTER).is_file()), None)


def convert(converter: Path, merged: Path, place: Path) -> None:
    """Have the converter write the model in the folder `merged` as the file `place`, in the model's own dtype.

    It runs in llama.cpp's own environment where it has one (`.venv`, `venv`), else in this Python's.

    Raises:
        ConversionError: If it fails, with the last line that it said.
    """
    settings = json.loads((merged / "config.json").read_text(encoding="utf-8"))
    outtype = _OUTTYPES.get(settings.get("dtype") or settings.get("torch_dtype"), "auto")
    own = (converter.parent / name / "bin" / "python" for name in (".venv", "venv"))
    python = next((path for path in own if path.is_file()), Path(sys.executable))
    command = [str(python), str(converter), str(merged), "--outfile", str(place), "--outtype", outtype]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    if done.returncode or not place.is_file():
        place.unlink(missing_ok=True)
        last = next((line.strip() for line in reversed(done.stdout.splitlines()) if line.strip()), "it said nothing")
        what = f"llama.cpp's converter made no {place.name}: {last}"
        raise ConversionError(what, where=str(converter), fix=f"{python} is the Python that it ran in")
