import json
import subprocess
import sys
import threading
from datetime import date, datetime
from pathlib import Path

import pytest
from builders import make_config, names_in
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.schema import (
    DataConfig,
    Gate,
    LoraConfig,
    ModelConfig,
    ResourcesConfig,
    RunConfig,
    SearchConfig,
    SourceConfig,
    TrainConfig,
)
from orchestrator.core.errors import DataError, RunConflictError
from orchestrator.core.files import digest_of, write_text_atomic
from orchestrator.core.records import EvalPoint
from orchestrator.run.folder import (
    Ledger,
    current_commit,
    locked,
    open_run,
    package_versions,
    read_ledger,
    run_dir,
    run_stage,
    with_template_date,
)
from orchestrator.run.paths import RunDir

ROOT = Path(__file__).resolve().parents[3]


class Work:
    """Counts how often it was done; fails while `error` is set."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.done = 0
        self.error = error

    def __call__(self) -> None:
        self.done += 1
        if self.error is not None:
            raise self.error


def test_the_layout_of_a_run() -> None:
    run = RunDir(Path("/r"))
    paths = [run.config, run.ledger, run.log, run.quarantine, run.card, run.trials, run.report, run.ray, run.cases]
    paths += [run.split("val"), run.adapter("ab"), run.generations("base"), run.scores("base")]
    expected = (
        "config.json run.json job.log data/quarantine.jsonl data/card.json trials.jsonl report ray evals/cases.jsonl "
        "data/val.jsonl adapters/ab evals/base/generations.jsonl evals/base/scores.json"
    )
    assert [str(path) for path in paths] == [f"/r/{place}" for place in expected.split()]


def test_a_file_is_written_whole_with_its_folders_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    write_text_atomic(path, "one\n")
    write_text_atomic(path, "zwei ä\n")
    assert path.read_text(encoding="utf-8") == "zwei ä\n"
    assert names_in(path.parent) == ["c.txt"]


def test_a_writer_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    write_text_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text_atomic(path, "x" * 100_000 + "\ud800")  # a lone surrogate has no UTF-8
    assert path.read_text(encoding="utf-8") == "old"
    assert names_in(tmp_path) == ["c.txt"]


def test_a_reader_sees_an_old_file_or_a_new_one_never_a_part(tmp_path: Path) -> None:
    path, size, finished = tmp_path / "c.txt", 200_000, threading.Event()
    write_text_atomic(path, "0" * size)

    def write() -> None:
        for digit in "123456789":
            write_text_atomic(path, digit * size)
        finished.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[str] = []
    while not finished.is_set():
        seen.append(path.read_text(encoding="utf-8"))
    writer.join()
    assert all(len(text) == size and len(set(text)) == 1 for text in seen)
    assert path.read_text(encoding="utf-8") == "9" * size


def test_two_writers_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    writers = [threading.Thread(target=write_text_atomic, args=(path, str(n) * 50_000)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(set(path.read_text(encoding="utf-8"))) == 1
    assert names_in(tmp_path) == ["c.txt"]


@given(st.dictionaries(st.text(), st.integers()))
def test_a_digest_ignores_the_order_of_keys(content: dict[str, int]) -> None:
    assert digest_of(content) == digest_of(dict(reversed(content.items())))


@given(st.lists(st.text()), st.lists(st.text()))
def test_a_digest_tells_other_parts_apart(one: list[str], other: list[str]) -> None:
    assert (digest_of(*one) == digest_of(*other)) == (one == other)


def test_a_digest_reads_files_and_records_by_content(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"\x00\xff")
    other.write_bytes(b"\x00\xff")
    assert digest_of(one) == digest_of(other)
    other.write_bytes(b"\x00\xfe")
    assert digest_of(one) != digest_of(other)
    assert digest_of(one) != digest_of(tmp_path / "absent")
    assert digest_of(EvalPoint(step=1, eval_loss=1)) != digest_of(EvalPoint(step=2, eval_loss=1))


def worked_in(config: RunConfig) -> RunDir:
    """A run in which a stage is done."""
    run = open_run(config)
    run_stage(run, "prepare", "digest", lambda: None)
    return run


def test_until_a_stage_is_done_the_configuration_may_change(tmp_path: Path) -> None:
    run = open_run(make_config(tmp_path, search=SearchConfig(num_trials=4)))
    changed = make_config(tmp_path, search=SearchConfig(seed=5))
    assert open_run(changed) == run
    run_stage(run, "prepare", "digest", lambda: None)
    with pytest.raises(RunConflictError, match="seed was 5, is 0"):
        open_run(make_config(tmp_path, search=SearchConfig(seed=0)))


def test_a_stage_whose_output_is_gone_is_done_again(tmp_path: Path) -> None:
    run, output = RunDir(tmp_path), tmp_path / "output"
    assert run_stage(run, "prepare", "one", output.touch, [output]) is True
    assert run_stage(run, "prepare", "one", output.touch, [output]) is False
    output.unlink()
    assert run_stage(run, "prepare", "one", output.touch, [output]) is True


def test_a_run_lies_in_its_storage_under_its_name(tmp_path: Path) -> None:
    assert run_dir(make_config(tmp_path, name="mine")).root == tmp_path / "mine"
    assert names_in(tmp_path) == []
    assert run_dir(make_config(Path("runs"))).root == Path.cwd() / "runs" / "run"


def test_a_run_keeps_its_config_and_is_taken_up_again(tmp_path: Path) -> None:
    config = make_config(tmp_path, lora=LoraConfig(r=64))
    run = open_run(config)
    assert type(config).model_validate_json(run.config.read_text(encoding="utf-8")) == config
    assert open_run(config) == run


def test_another_config_is_refused_with_the_fields_that_differ(tmp_path: Path) -> None:
    worked_in(make_config(tmp_path, name="a"))
    other = make_config(tmp_path, name="a", lora=LoraConfig(r=64), train=TrainConfig(max_steps=7))
    with pytest.raises(RunConflictError) as caught:
        open_run(other)
    assert str(caught.value) == (
        f"{tmp_path / 'a'}: the run 'a' was made with another configuration; lora.r was 16, is 64; "
        "train.max_steps was null, is 7. Give this run another name (--set name=...) or remove the folder."
    )
    assert json.loads((tmp_path / "a" / "config.json").read_text())["lora"]["r"] == 16


def test_a_list_that_differs_is_named_whole(tmp_path: Path) -> None:
    worked_in(make_config(tmp_path))
    with pytest.raises(RunConflictError, match=r"data\.sources was \[.*, is \[.*\"limit\": 5"):
        open_run(make_config(tmp_path, data=DataConfig(sources=(SourceConfig(path="synthetic", limit=5),))))


def test_resources_and_gates_may_change(tmp_path: Path) -> None:
    worked_in(make_config(tmp_path))
    changed = make_config(
        tmp_path,
        gates={"tool_call_validity": Gate(min=0.9)},
        resources=ResourcesConfig(storage_path=str(tmp_path), num_workers=2, cpus_per_worker=0.5),
    )
    run = open_run(changed)
    stored = json.loads(run.config.read_text(encoding="utf-8"))
    assert stored["resources"]["num_workers"] == 2
    assert stored["gates"] == {"tool_call_validity": {"min": 0.9, "max": None}}


def test_a_source_may_lie_in_another_folder_but_not_be_another_file(tmp_path: Path) -> None:
    def with_source(path: str) -> DataConfig:
        return DataConfig(sources=(SourceConfig(path=path),))

    worked_in(make_config(tmp_path, data=with_source("/here/a.jsonl")))
    open_run(make_config(tmp_path, data=with_source("/there/a.jsonl")))
    with pytest.raises(RunConflictError, match=r"b\.jsonl"):
        open_run(make_config(tmp_path, data=with_source("/there/b.jsonl")))


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ("{", r"\(Invalid JSON"),
        ("[]", r"\(Input should be an object"),
        ('{"another": "shape"}', r"\(another: "),
        ('{"search": {"runner": "packed"}}', r"\(search\.runner: .* 'packed'; its name is 'multi_lora'\)"),
    ],
)
def test_a_stored_config_that_cannot_be_read_is_refused_with_the_reason(
    tmp_path: Path, stored: str, reason: str
) -> None:
    run = worked_in(make_config(tmp_path))
    run.config.write_text(stored, encoding="utf-8")
    with pytest.raises(RunConflictError, match=f"cannot be read by this version {reason}"):
        open_run(make_config(tmp_path))


def test_a_storage_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunConflictError, match=r"cannot be written.*resources\.storage_path"):
        open_run(make_config(tmp_path / "file"))


def test_a_stage_is_done_once_for_the_same_input(tmp_path: Path) -> None:
    run, work = RunDir(tmp_path), Work()
    assert run_stage(run, "prepare", "one", work) is True
    assert run_stage(run, "prepare", "one", work) is False
    assert work.done == 1
    entry = read_ledger(run).stages["prepare"]
    assert (entry.status, entry.input_digest) == ("done", "one")
    assert entry.duration_s is not None
    assert entry.duration_s >= 0
    assert entry.started_at.endswith("+00:00")


def test_a_stage_is_done_again_for_another_input(tmp_path: Path) -> None:
    run, work = RunDir(tmp_path), Work()
    for digest in ("one", "two", "one"):
        assert run_stage(run, "prepare", digest, work) is True
    assert work.done == 3


@pytest.mark.parametrize(
    ("error", "status"),
    [(DataError("bad"), "failed"), (RuntimeError("bug"), "failed"), (KeyboardInterrupt(), "interrupted")],
)
def test_a_stage_that_did_not_end_is_marked_and_done_again(error: BaseException, status: str, tmp_path: Path) -> None:
    run, work = RunDir(tmp_path), Work(error)
    with pytest.raises(type(error)):
        run_stage(run, "search", "one", work)
    assert read_ledger(run).stages["search"].status == status
    work.error = None
    assert run_stage(run, "search", "one", work) is True
    assert work.done == 2
    assert read_ledger(run).stages["search"].status == "done"


def test_a_stage_that_was_cut_off_is_done_again(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib; from orchestrator.run.folder import run_stage;"
        "from orchestrator.run.paths import RunDir;"
        "run_stage(RunDir(pathlib.Path(sys.argv[1])), 'train', 'one', lambda: os._exit(9))"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=False)
    run, work = RunDir(tmp_path), Work()
    assert killed.returncode == 9
    assert read_ledger(run).stages["train"].status == "running"
    assert run_stage(run, "train", "one", work) is True
    assert work.done == 1


def test_the_ledger_says_running_during_the_work_and_keeps_other_stages(tmp_path: Path) -> None:
    run, seen = RunDir(tmp_path), list[Ledger]()
    run_stage(run, "prepare", "p", Work())
    run_stage(run, "train", "t", lambda: seen.append(read_ledger(run)))
    assert {stage: entry.status for stage, entry in seen[0].stages.items()} == {"prepare": "done", "train": "running"}
    ledger = read_ledger(run)
    assert {stage: entry.status for stage, entry in ledger.stages.items()} == {"prepare": "done", "train": "done"}
    assert ledger.versions == package_versions()
    assert ledger.commit == current_commit()


def test_no_ledger_is_an_empty_one_and_a_broken_one_is_named(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    assert read_ledger(run) == Ledger()
    run.ledger.write_text('{"stages": {"prepare": {}}}', encoding="utf-8")
    with pytest.raises(DataError, match=r"run\.json: stages\.prepare\.status"):
        read_ledger(run)


def test_the_versions_are_those_that_are_installed() -> None:
    import pydantic
    import ray

    versions = package_versions()
    assert versions["python"] == ".".join(str(part) for part in sys.version_info[:3])
    assert versions["ray"] == ray.__version__
    assert pydantic.__name__ not in versions


def test_another_process_that_holds_the_run_is_respected(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from orchestrator.run.folder import locked\n"
        "from orchestrator.run.paths import RunDir\n"
        "with locked(RunDir(pathlib.Path(sys.argv[1]))):\n"
        "    print('held', flush=True); sys.stdin.readline()"
    )
    command, pipe = [sys.executable, "-c", script, str(tmp_path)], subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunConflictError, match="another process works in this run"), locked(RunDir(tmp_path)):
            pass
        holder.communicate("go on\n")
    assert holder.returncode == 0
    with locked(RunDir(tmp_path)):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib; from orchestrator.run.folder import locked\n"
        "from orchestrator.run.paths import RunDir\n"
        "with locked(RunDir(pathlib.Path(sys.argv[1]))):\n"
        "    os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=False).returncode == 9
    with locked(RunDir(tmp_path)):
        pass


def test_the_lock_is_given_back_when_the_work_fails(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(DataError), locked(RunDir(tmp_path)):
            raise DataError("bad")


def test_a_search_can_be_given_more_trials_and_not_fewer_once_it_has_begun(tmp_path: Path) -> None:
    four, five = (make_config(tmp_path, search=SearchConfig(num_trials=number)) for number in (4, 5))
    run = worked_in(five)
    assert open_run(four) == open_run(five) == run
    run_stage(run, "search", "digest", lambda: None)
    with pytest.raises(RunConflictError, match=r"has 5 trials; it can be given more, but not fewer \(4\)") as caught:
        open_run(four)
    assert "nothing was changed" in str(caught.value)
    assert json.loads(run.config.read_text(encoding="utf-8"))["search"]["num_trials"] == 5
    assert open_run(make_config(tmp_path, search=SearchConfig(num_trials=24))) == run


def test_a_run_whose_folder_was_renamed_is_the_same_run(tmp_path: Path) -> None:
    worked_in(make_config(tmp_path, name="before")).root.rename(tmp_path / "after")
    assert open_run(make_config(tmp_path, name="after")).root == tmp_path / "after"


def dated(config: RunConfig, day: date | None) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update={"template_date": day})})


YESTERYEAR, TODAY = date(2025, 1, 2), datetime.now().astimezone().date()


def test_a_run_keeps_the_date_of_the_day_on_which_it_was_made(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    assert with_template_date(config).model.template_date == TODAY
    run = open_run(dated(config, YESTERYEAR))
    run_stage(run, "prepare", "digest", Work())
    resumed = with_template_date(config)
    assert resumed.model.template_date == YESTERYEAR
    assert open_run(resumed) == run
    assert json.loads(run.config.read_text(encoding="utf-8"))["model"]["template_date"] == "2025-01-02"
    other = with_template_date(dated(config, TODAY))
    assert other.model.template_date == TODAY
    with pytest.raises(RunConflictError, match=r'model\.template_date was "2025-01-02", is'):
        open_run(other)


def test_a_run_of_an_earlier_version_keeps_the_clock_and_its_digests(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    run = open_run(config)
    assert "template_date" not in run.config.read_text(encoding="utf-8")
    assert with_template_date(config) == config
    run_stage(run, "prepare", "digest", Work())
    assert open_run(with_template_date(config)) == run


def test_a_configuration_that_cannot_be_read_gives_no_date(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    write_text_atomic(run_dir(config).config, "{")
    assert with_template_date(config).model.template_date == TODAY


def test_the_date_is_one_of_iso_8601() -> None:
    assert ModelConfig.model_validate({"template_date": "2025-01-02"}).template_date == YESTERYEAR
    with pytest.raises(ValueError, match="template_date"):
        ModelConfig.model_validate({"template_date": "2 Jan"})
