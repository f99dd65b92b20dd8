"""Base and adapter as one model in Hugging Face format, in the base's own dtype and files."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import save_file

from orchestrator.chat.serve_command import GENERATION
from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import ResourceError
from orchestrator.core.memory import free_memory
from orchestrator.core.progress import bar, say
from orchestrator.models.adapters import RECORD, SETTINGS, load_adapter, merged_tensor
from orchestrator.models.adapters import WEIGHTS as ADAPTER_WEIGHTS
from orchestrator.models.base import BaseWeights, base_folder
from orchestrator.models.dequantised import weights_of
from orchestrator.models.weight_files import INDEX
from orchestrator.plan.memory import gib

OF_THE_BASE = ("config.json", GENERATION, INDEX)
OF_LARGEST = 1.75
"""Memory that merging takes, as a share of the base's largest file."""
NOT_MERGED = (ADAPTER_WEIGHTS, SETTINGS, RECORD)
"""Files of an adapter's folder that a merged model does not have."""


def write_merged(model: ModelConfig, adapter_folder: Path, out: Path) -> None:
    """Write the merged model into the empty folder `out`, one file of the base at a time.

    Where `model` quantises the base, the adapter is merged into its dequantised weights.

    Raises:
        ResourceError: If less memory is free than the largest of these files takes.
        AdapterError: If the adapter does not fit the base.
        ModelNotFoundError: If the base has no weights as safetensors.
    """
    folder, base = base_folder(model), weights_of(model)
    _require_memory(memory_of_merging(folder))
    adapter = load_adapter(adapter_folder, base)
    files = base.names_by_file()
    with bar("files", len(files)) as advance:
        for file, names in files.items():
            tensors = {}
            for name in names:
                stored = base.tensor(name)
                is_adapted = name in adapter.pairs
                tensors[name] = merged_tensor(adapter, base, name).to(stored.dtype) if is_adapted else stored
            save_file(tensors, out / file, metadata={"format": "pt"})
            advance(1)
    for path in folder.iterdir():
        if path.name in OF_THE_BASE or path.suffix == ".py":
            shutil.copyfile(path, out / path.name)
    if base.is_packed:
        _as_plain(out, files)
    for path in adapter_folder.iterdir():  # the tokenizer, and the template and ends of turn that were trained
        if path.is_file() and path.name not in NOT_MERGED and path.name != GENERATION:
            shutil.copyfile(path, out / path.name)
    _add_ends(adapter_folder / GENERATION, out / GENERATION)


def memory_of_merging(folder: Path) -> int:
    """Bytes that merging into the base of this folder takes beside Python and its libraries (`benchmarks/merge.py`)."""
    stored = [(folder / file).stat().st_size for file in BaseWeights(folder).names_by_file()]
    return int(OF_LARGEST * max(stored) * (bytes_of_weights(folder) / sum(stored)))


def _require_memory(needed: int) -> None:
    free = free_memory()
    say(f"Merging takes about {gib(needed)} of memory; {gib(free)} are free.")
    if needed > free:
        raise ResourceError(
            f"merging takes {gib(needed)} of memory, and {gib(free)} are free",
            fix="End other programs, or export on a machine with more memory",
        )


def _as_plain(out: Path, files: Mapping[str, Sequence[str]]) -> None:
    """Let the settings of a base that was saved in few bits name the plain weights that were written."""
    settings = json.loads((out / "config.json").read_text(encoding="utf-8"))
    del settings["quantization_config"]
    (out / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    if (out / INDEX).is_file():
        weight_map = {name: file for file, names in files.items() for name in names}
        (out / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}) + "\n", encoding="utf-8")


def _add_ends(own: Path, place: Path) -> None:
    """Put the tokens that end a reply of the adapter into the merged model's generation configuration."""
    if own.is_file():
        settings = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
        settings["eos_token_id"] = json.loads(own.read_text(encoding="utf-8"))["eos_token_id"]
        place.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def bytes_of_weights(folder: Path) -> int:
    """Bytes of the merged weights, which are those of the base's, or of its plain weights where it is in few bits."""
    base = BaseWeights(folder)
    return 2 * base.num_parameters() if base.is_packed else base.require_whole()
