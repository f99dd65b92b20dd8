import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.core import memory

HOLES = """
import sys
from orchestrator.core.memory import hold_little_memory
if sys.argv[1] == "gives back":
    hold_little_memory()
MIB = 1 << 20
bytearray(30 * MIB)  # freed at once: blocks up to this size come from the heap from now on, if nothing is set
before = int(open("/proc/self/statm").read().split()[1])
blocks = [bytearray(4 * MIB) for _ in range(40)]
del blocks[:-1]
print((int(open("/proc/self/statm").read().split()[1]) - before) * 4096 // MIB)
"""


def held_mib(how: str, program: str = HOLES) -> int:
    command = [sys.executable, "-c", program, how]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_freed_blocks_below_one_in_use_are_given_back() -> None:
    assert held_mib("keeps") > 100
    assert held_mib("gives back") < 20


SCATTERED = """
import sys
from orchestrator.core.memory import give_freed_memory_back
KIB = 1 << 10
before = int(open("/proc/self/statm").read().split()[1])
blocks = [bytearray(64 * KIB) for _ in range(1600)]
blocks = blocks[::100]  # each in use keeps all below it in the heap
if sys.argv[1] == "gives back":
    give_freed_memory_back()
print((int(open("/proc/self/statm").read().split()[1]) - before) * 4096 >> 20)
"""


def test_free_pages_between_small_blocks_in_use_are_given_back() -> None:
    assert held_mib("keeps", SCATTERED) > 80
    assert held_mib("gives back", SCATTERED) < 10


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own").write_text("")
    monkeypatch.setattr(memory, "CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    return tmp_path


def write_group(folder: Path, names: tuple[str, str], limit: object, used: int, stat: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    if stat:
        (folder / "memory.stat").write_text(stat)


V2 = ("memory.max", "memory.current")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


@pytest.mark.parametrize(("names", "inside"), [(V2, "."), (V1, "memory")])
def test_a_containers_limit_is_the_limit(groups: Path, names: tuple[str, str], inside: str) -> None:
    write_group(groups / inside, names, 3000, 1000)
    assert memory.total_memory() == 3000
    assert memory.free_memory() == 2000


@pytest.mark.parametrize("limit", ["max", 9223372036854771712])
def test_a_group_without_a_limit_changes_nothing(groups: Path, limit: object) -> None:
    whole = memory.total_memory()
    write_group(groups, V2 if limit == "max" else V1, limit, 1000)
    assert memory.total_memory() == whole


def test_files_that_the_kernel_drops_do_not_count_as_used(groups: Path) -> None:
    write_group(groups, V2, 3000, 2500, "anon 100\ninactive_file 2000\n")
    assert memory.free_memory() == 2500


def test_the_tightest_of_all_groups_above_the_process_counts(groups: Path) -> None:
    (groups / "own").write_text("5:cpu,cpuacct:/elsewhere\n4:memory:/pods/one\n0::/\n")
    write_group(groups / "memory/pods/one", V1, 9000, 1000)
    write_group(groups / "memory/pods", V1, 5000, 4000)
    write_group(groups / "memory/elsewhere", V1, 10, 0)
    assert memory.total_memory() == 5000
    assert memory.free_memory() == 1000


def test_the_peak_of_a_process_is_its_own_and_not_that_of_who_started_it() -> None:
    ballast = bytearray(400 << 20)
    for page in range(0, len(ballast), 4096):
        ballast[page] = 1
    assert memory.resident_peak() > 400 << 20
    command = "from orchestrator.core.memory import resident_peak; print(resident_peak())"
    told = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert int(told.stdout) < 200 << 20
