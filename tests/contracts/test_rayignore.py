import zipfile
from pathlib import Path

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Name -> size of what `ray job submit --working-dir .` sends from this checkout."""
    archive = tmp_path_factory.mktemp("package") / "package.zip"
    excludes = get_runtime_env_default_excludes()
    create_package(str(ROOT), archive, include_gitignore=True, excludes=excludes)
    return {each.filename: each.file_size for each in zipfile.ZipFile(archive).infolist() if not each.is_dir()}


def test_all_code_and_configs_travel(package: dict[str, int]) -> None:
    for folder in ("orchestrator", "evals", "jobs", "configs"):
        wanted = {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert {name for name in wanted if "__pycache__" not in name} <= package.keys()


def test_nothing_else_travels(package: dict[str, int]) -> None:
    folders = {name.split("/")[0] for name in package if "/" in name}
    assert folders == {name for name in ("orchestrator", "evals", "jobs", "configs") if any((ROOT / name).iterdir())}


def test_the_package_is_far_below_rays_limit(package: dict[str, int]) -> None:
    assert sum(package.values()) < 64 * 2**20
