"""What the data of a run is made from, as digests: a step whose digest is unchanged need not be done again."""

from importlib.metadata import version
from pathlib import Path

from orchestrator.config.schema import DataConfig, ModelConfig
from orchestrator.core.files import digest_of
from orchestrator.data.formats.bfcl import answers_path
from orchestrator.data.read.sources import named_files, source_files

PATHS = ("path", "answers", "tools")
"""Fields of a source that name files."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


def data_digest(config: DataConfig, *, base_dir: Path) -> str:
    """Digest of what decides the split files: the section and its files, by name and content and not by folder.

    A submitted job finds the same files in another place each time. A hub data set counts by its name and revision.

    Raises:
        DataError: If a source is not there.
    """
    files: list[Path] = []
    for source in config.sources:
        questions = source_files(source, base_dir=base_dir)
        found = [answers_path(path) for path in questions]
        files += [*questions, *(path for path in found if path is not None)]
        files += named_files(source, base_dir=base_dir)
    named = [source.model_dump() | {key: _name(getattr(source, key)) for key in PATHS} for source in config.sources]
    return digest_of(
        config.model_dump(mode="json") | {"sources": named}, [file.name for file in files], *files, _own_version()
    )


def _name(path: str | None) -> str | None:
    return path and Path(path).name


def tokenizer_digest(model: ModelConfig) -> str:
    """Digest of what decides how text becomes tokens: the base's name and revision, and a local folder's files."""
    folder = Path(model.base).expanduser()
    files = [folder / name for name in TOKENIZER_FILES] if folder.is_dir() else []
    return digest_of(model.base, model.revision, model.trust_remote_code, *files, _own_version())


def _own_version() -> str:
    return version("tool-lora-orchestrator")
