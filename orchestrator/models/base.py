"""The frozen base model: its folder (here, on the hub, or the built-in toy base), tokenizer, tensors and digest."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from orchestrator.chat.named_templates import OWN, named_template
from orchestrator.chat.template import dated_template, own_template, training_template
from orchestrator.chat.template_input import adapted_template, refuse_endless
from orchestrator.config.evaluation import PATHS_START
from orchestrator.config.schema import SMOLLM2, TINY, ModelConfig, RunConfig
from orchestrator.core.errors import ConfigError, InputError, ModelNotFoundError
from orchestrator.core.files import digest_of
from orchestrator.models.packed import parts_of, stored_kind, unpacked, unpacked_shape
from orchestrator.models.quantised import (
    Quantised,
    is_quantised,
    make_trainable_on,
    quantization_settings,
    require_whole_blocks,
)
from orchestrator.models.weight_files import WEIGHTS, indexed_files, refuse_pickled_base
from orchestrator.run.copies import local_path
from orchestrator.toy.smollm2 import smollm2_base_folder
from orchestrator.toy.tiny import tiny_base_folder

Dtype = Literal["bfloat16", "float16", "float32"]

BUILT_IN = {TINY: tiny_base_folder, SMOLLM2: smollm2_base_folder}
BASES = f"a local folder, a hub id such as Qwen/Qwen3-0.6B, {' or '.join(BUILT_IN)}"
LOCAL_STARTS = ("/", "./", "../", "~")
"""No hub id begins like these."""
MODEL_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "*.py"]


def base_folder(model: ModelConfig) -> Path:
    """Local folder of the base model; a hub model is fetched once into the Hugging Face cache of this machine.

    Raises:
        ModelNotFoundError: If there is no such folder or hub model, its weights are pickles, or the hub cannot be
            reached.
    """
    if model.base in BUILT_IN:
        return BUILT_IN[model.base]()
    folder = local_path(model.base)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFoundError(
                "the folder holds no model (config.json is missing)",
                where=str(folder),
                fix="Point model.base at a folder in Hugging Face format",
            )
        refuse_pickled_base(folder)
        return folder.resolve()
    if model.base.startswith(LOCAL_STARTS):
        what, fix = f"the base model {model.base!r} is no folder here", f"Check the path ({PATHS_START})"
        raise ModelNotFoundError(what, where="model.base", allowed=BASES, fix=fix)
    try:
        return Path(snapshot_download(model.base, revision=model.revision, allow_patterns=MODEL_FILES))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelNotFoundError(
            f"the base model {model.base!r} is neither a folder here nor could it be fetched from the hub "
            f"({str(error).splitlines()[0]})",
            where="model.base",
            allowed=BASES,
            fix=f"Check the name ({PATHS_START}); for a private model set HF_TOKEN, without network copy it here first",
        ) from None


def loadable_name(model: ModelConfig) -> str:
    """What transformers and vLLM load the base by: a folder's absolute path, or its hub id.

    Raises:
        ModelNotFoundError: If a built-in base is damaged or not made yet, or a folder holds no model.
    """
    is_local = model.base in BUILT_IN or local_path(model.base).is_dir()
    return str(base_folder(model)) if is_local else model.base


def base_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The base's tokenizer (see `load_tokenizer`), with the run's date in its chat template.

    Raises:
        ModelNotFoundError: If the base is not there, or has no tokenizer that can be read.
        InputError: If it has no chat template.
    """
    given = None if model.chat_template == OWN else named_template(model.chat_template)
    trusts, day = model.trust_remote_code, model.template_date
    return load_tokenizer(base_folder(model), trust_remote_code=trusts, day=day, template=given)


def load_tokenizer(
    folder: Path, *, trust_remote_code: bool, day: date | None = None, template: str | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, with the chat template that renders both training and evaluation.

    `day` is the date that a template shows which asks for today's; None: the clock's. `template` stands in for the one
    that the tokenizer came with.

    Raises:
        ModelNotFoundError: If the folder holds none that can be read.
        InputError: If it has no chat template, or one that does not end.
    """
    with _readable(folder, "tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if template is not None:
        tokenizer.chat_template = template
    refuse_endless(own_template(tokenizer), tokenizer.special_tokens_map)
    taking_all = adapted_template(training_template(tokenizer), tokenizer.special_tokens_map)
    tokenizer.chat_template = dated_template(taking_all, day)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_frozen_base(
    folder: Path, model: ModelConfig, *, on_gpu: bool = False, attention: str | None = None
) -> PreTrainedModel:
    """The base model without gradients, in the dtype and the quantisation that `model` names.

    `attention` is transformers' name for how it is computed; None leaves that to the base.

    It is on the CPU; a quantised one that shall be `on_gpu` is loaded there, matrix by matrix.

    Raises:
        ModelNotFoundError: If the folder holds no causal language model that can be read.
        InputError: If a processor would compute with it wrongly.
    """
    dtype = compute_dtype(model.dtype)
    settings: dict[str, Any] = {"dtype": dtype, "trust_remote_code": model.trust_remote_code, "use_safetensors": True}
    if attention is not None:
        settings["attn_implementation"] = attention
    if model.quantization != "none":
        if stored_quantization(folder) is None:
            settings["quantization_config"] = quantization_settings(model.quantization, getattr(torch, dtype))
        settings["device_map"] = {"": torch.cuda.current_device() if on_gpu else "cpu"}
    with _readable(folder, "model"):
        base = AutoModelForCausalLM.from_pretrained(folder, **settings).requires_grad_(requires_grad=False)
    if is_quantised(base):
        if not on_gpu:
            require_whole_blocks(base)
        make_trainable_on(base, getattr(torch, dtype))
    return base


def load_settings(folder: Path, *, trust_remote_code: bool) -> PretrainedConfig:
    """Transformers' configuration of the base.

    Raises:
        ModelNotFoundError: If it cannot be read, or is of an architecture that transformers does not know.
    """
    with _readable(folder, "configuration"):
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)


def empty_base(folder: Path, *, trust_remote_code: bool) -> PreTrainedModel:
    """The base's layers without its weights, on the meta device: made at once, whatever its size. Leave it as it is.

    Raises:
        ModelNotFoundError: If the folder holds no causal language model, or one whose weights are quantised.
    """
    return _empty_base(folder, digest_of(folder / "config.json"), trust_remote_code=trust_remote_code)


@lru_cache(maxsize=1)
def _empty_base(folder: Path, _settings: str, *, trust_remote_code: bool) -> PreTrainedModel:
    settings = load_settings(folder, trust_remote_code=trust_remote_code)
    if stored_quantization(folder):
        del settings.quantization_config  # the layers are those of the plain base
    with _readable(folder, "model"), torch.device("meta"):
        return AutoModelForCausalLM.from_config(settings, trust_remote_code=trust_remote_code)


def stored_quantization(folder: Path) -> Quantised | None:
    """How the weights of a base were quantised before they were saved; None: not at all.

    Raises:
        ModelNotFoundError: If in a way that adapters cannot be trained on.
    """
    kind = stored_kind(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    if kind is None or kind in ("nf4", "int8"):
        return kind  # type: ignore[return-value]  # mypy does not narrow by `in`
    raise ModelNotFoundError(
        f"the base's weights are quantised ({kind}), so that no adapter can be trained on them and scored",
        where=str(folder),
        fix="Use the model that it was made from, in bfloat16, float16 or float32; `model.quantization` quantises that",
    )


def require_its_precision(config: RunConfig) -> None:
    """Refuse settings that want a base in another precision than that in which it was saved in few bits.

    Raises:
        ModelNotFoundError: If the base is not there, or quantised in a way that adapters cannot be trained on.
        ConfigError: If `model.quantization` or `eval.base_precision` does not fit the base.
    """
    kind = stored_quantization(base_folder(config.model))
    if kind is None:
        return
    if config.model.quantization != kind:
        what = f"the weights of {config.model.base} were saved in {kind}"
        raise ConfigError(what, where="model.quantization", fix=f"Set it to {kind}: they are then used as they are")
    if config.eval.base_precision != "as_trained":
        what = f"the weights of {config.model.base} were saved in {kind}, so that there is no full base"
        raise ConfigError(what, where="eval.base_precision", fix="Leave it out")


@contextmanager
def _readable(folder: Path, what: str) -> Iterator[None]:
    """Explain what transformers raises for a folder that it cannot read."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AssertionError, ImportError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):  # memory that ran out, above all
            raise
        words = "its weights have other shapes than config.json says"
    else:
        return
    fix = "Point model.base at an instruction-tuned causal language model in Hugging Face format, saved in whole"
    raise ModelNotFoundError(f"the base's {what} cannot be loaded ({words})", where=str(folder), fix=fix)


def compute_dtype(wanted: Literal["auto", "bfloat16", "float16", "float32"]) -> Dtype:
    """`auto` is bfloat16 where the GPU, or without one the processor, multiplies in it; else float16 or float32."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    has_bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if has_bfloat16 else "float32"


class BaseWeights:
    """Checkpoint tensors of a folder in Hugging Face format, by name; nothing is read before it is asked for.

    Weights that bitsandbytes saved in few bits have the names, shapes and numbers of plain ones, in type `packed_as`.

    Attributes:
        is_packed: Whether there are such.

    Raises:
        ModelNotFoundError: If the folder has no weights as safetensors.
    """

    def __init__(self, folder: Path, *, packed_as: torch.dtype | None = None) -> None:
        self._folder, self._packed_as = folder, packed_as
        self._places = _files_by_tensor(folder)
        self._parts = parts_of(self._places)
        beside = {part for parts in self._parts.values() for part in parts}
        self._files = {name: file for name, file in self._places.items() if name not in beside}
        self.is_packed = bool(self._parts)

    def require_whole(self) -> int:
        """Open every file; returns the bytes of all of them.

        Raises:
            ModelNotFoundError: If one is missing, or cut off, or no safetensors.
        """
        paths = [self._folder / name for name in sorted(set(self._files.values()))]
        with _readable(self._folder, "weights"):
            for path in paths:
                with safe_open(path, framework="pt"):
                    pass
            return sum(path.stat().st_size for path in paths)

    def names(self) -> list[str]:
        """The names of all tensors, sorted."""
        return sorted(self._files)

    def with_siblings(self, names: Iterable[str]) -> list[str]:
        """The named tensors and all others of the modules that hold theirs, sorted.

        `model.layers.0.self_attn.q_proj.weight` brings along the keys, values and the rest of that `self_attn`.
        """
        parents = {_parent(name) for name in names}
        return sorted(name for name in self._files if _parent(name) in parents)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of a tensor, None where the base has none of that name."""
        if name not in self._files:
            return None
        with safe_open(self._folder / self._files[name], framework="pt") as file:
            stored = tuple(file.get_slice(name).get_shape())
        return unpacked_shape(stored, self._beside(name)) if name in self._parts else stored

    def names_by_file(self) -> dict[str, list[str]]:
        """The names of all tensors, by the name of the file that holds them."""
        by_file: dict[str, list[str]] = {}
        for name, file_name in self._files.items():
            by_file.setdefault(file_name, []).append(name)
        return by_file

    def num_parameters(self) -> int:
        """Numbers in all tensors, from the headers of the files."""
        if self.is_packed:
            return sum(math.prod(self.shape(name) or ()) for name in self._files)
        count = 0
        for file_name, names in self.names_by_file().items():
            with safe_open(self._folder / file_name, framework="pt") as file:
                count += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
        return count

    def tensor(self, name: str) -> torch.Tensor:
        """A tensor as stored, or what it stands for, on the CPU."""
        stored = self._stored(name)
        return unpacked(stored, self._beside(name), self._packed_as) if name in self._parts else stored

    def _stored(self, name: str) -> torch.Tensor:
        with safe_open(self._folder / self._places[name], framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor

    def _beside(self, name: str) -> dict[str, torch.Tensor]:
        return {part: self._stored(part) for part in self._parts[name]}


def _parent(name: str) -> str:
    """The module above the one that holds a tensor."""
    return name.rsplit(".", 2)[0]


def _files_by_tensor(folder: Path) -> dict[str, str]:
    indexed = indexed_files(folder)
    if indexed is not None:
        return indexed
    if not (folder / WEIGHTS).is_file():
        raise ModelNotFoundError(
            "the base has no weights as safetensors", where=str(folder), fix="Save the model with save_pretrained"
        )
    with _readable(folder, "weights"), safe_open(folder / WEIGHTS, framework="pt") as file:
        return dict.fromkeys(file.keys(), WEIGHTS)


def base_sha256(folder: Path) -> str:
    """Digest of everything in a base's folder that decides what it computes: weights, configuration, tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".model", ".txt")):
        with path.open("rb") as file:
            digest.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
