"""The built-in toy base, `model.base: tiny`: a real Qwen3, small enough for two CPU cores.

Its weights and tokenizer ship with the package (made by `pretrain`); the chat template is Qwen3's own and comes from
TRL, so the folder that models load from is put together on first use, in the user's cache.
"""

import json
import shutil
import tempfile
from pathlib import Path

from orchestrator.chat.template import qwen3_template
from orchestrator.core.errors import ModelNotFoundError
from orchestrator.core.files import digest_of, user_cache, write_text_atomic

SHIPPED = Path(__file__).parent / "tiny_base"
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def tiny_base_folder() -> Path:
    """Folder of the toy base, ready for transformers and vLLM.

    Raises:
        ModelNotFoundError: If the shipped files are missing or are not those that their recipe names.
    """
    recipe = SHIPPED / "recipe.json"
    digest = digest_of(*(SHIPPED / name for name in FILES))
    if not recipe.is_file() or json.loads(recipe.read_text(encoding="utf-8"))["files_sha256"] != digest:
        raise ModelNotFoundError(
            "the files of the built-in toy base are missing or damaged",
            where=str(SHIPPED),
            fix="Restore them from the repository, or build them again with `make tiny-base`",
        )
    folder = user_cache() / f"tiny-{digest_of(digest, qwen3_template())[:16]}"
    if not folder.is_dir():
        _put_together(folder)
    return folder


def _put_together(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tiny-"))
    partial.chmod(0o755)
    for name in FILES:
        shutil.copyfile(SHIPPED / name, partial / name)
    write_text_atomic(partial / "chat_template.jinja", qwen3_template())
    try:
        partial.rename(folder)
    except OSError:  # another process was first; its folder has the same content
        shutil.rmtree(partial)
        if not folder.is_dir():
            raise
