import shutil
from pathlib import Path

import pytest
from safetensors import SafetensorError

from evals.export import folder
from evals.export.folder import new_folder
from orchestrator.core.errors import InputError


def test_it_is_there_whole(tmp_path: Path) -> None:
    place = tmp_path / "above" / "out"
    with new_folder(place, needs_bytes=10) as partial:
        (partial / "file").write_text("x", encoding="utf-8")
        assert not place.exists()
    assert [path.name for path in place.iterdir()] == ["file"]
    assert [path.name for path in place.parent.iterdir()] == ["out"]


def test_nothing_is_left_of_one_that_failed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), new_folder(tmp_path / "out", needs_bytes=10):
        raise ValueError("broken")
    assert [path.name for path in tmp_path.iterdir()] == []


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="already there"), new_folder(tmp_path, needs_bytes=10):
        pass


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be written"), new_folder(tmp_path / "file" / "out", needs_bytes=10):
        pass


def test_a_disk_that_fills_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"cannot be written \(No space left"),
        new_folder(tmp_path / "o", needs_bytes=1),
    ):
        raise OSError(28, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing:\n I/O error: No space left on device (os error 28)"),
        shutil.Error([("a", "b", "No space left on device")]),
    ],
)
def test_whatever_finds_the_disk_full_is_said_in_one_line(tmp_path: Path, error: Exception) -> None:
    line = r"cannot be written \(.*No space left"
    with pytest.raises(InputError, match=line) as told, new_folder(tmp_path / "o", needs_bytes=1):
        raise error
    assert "\n" not in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_name_that_no_file_system_takes_is_refused(tmp_path: Path) -> None:
    place = tmp_path / ("long" * 100)
    with pytest.raises(InputError, match=r"cannot be written \(File name too long"), new_folder(place, needs_bytes=1):
        pass


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"GB free, and it takes 1000000\.1 GB"),
        new_folder(tmp_path / "o", needs_bytes=10**15),
    ):
        pass
    assert folder.SPARE_BYTES > 0
    assert [path.name for path in tmp_path.iterdir()] == []
