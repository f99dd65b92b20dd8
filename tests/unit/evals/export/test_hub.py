"""Uploads to a stand-in of the hub, by the hub's own client."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hf_xet
import hub_stand_in
import pytest
from builders import write_peft_checkpoint
from huggingface_hub import ModelCard, constants
from report_run import BEST, write_run

from evals.export import hub
from evals.export.export import export_adapter
from evals.export.hub import UploadPlan, plan_lines, plan_upload, refuse_objections, upload
from evals.export.publish import Wish, publish
from evals.generate.chosen import read_report
from evals.report.write import write_report
from orchestrator.config.schema import Gate, RunConfig
from orchestrator.core.errors import GATE_NOT_MET, AdapterError, InputError, RunConflictError, UploadError
from orchestrator.core.files import digest_of
from orchestrator.models.adapters import RECORD, SETTINGS, WEIGHTS
from orchestrator.run.paths import RunDir

REPO = "someone/calls-tools"


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Starts a stand-in with some faults, to which the hub's client of this process then speaks; gives its folder."""
    with ExitStack() as servers:

        def started(*faults: str) -> Path:
            root = tmp_path / "hub"
            root.mkdir(exist_ok=True)
            command = [sys.executable, hub_stand_in.__file__, str(root), *faults]
            server = servers.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            servers.callback(server.kill)
            assert server.stdout is not None
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.stdout.readline().strip()}")
            return root

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in takes large files by the older way
        monkeypatch.setattr(hub, "WAITS_S", (0.1, 0.1))
        monkeypatch.setenv("HF_TOKEN", "hf_writer")
        yield started


@pytest.fixture
def scored(reported: tuple[RunConfig, RunDir], tmp_path: Path) -> tuple[RunConfig, RunDir]:
    """A copy of the run."""
    config, run = reported
    shutil.copytree(run.root, tmp_path / "run")
    return config, RunDir(tmp_path / "run")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> tuple[RunConfig, RunDir]:
    """A run with a report whose best adapter has files."""
    config, run = write_run(tmp_path_factory.mktemp("runs"))
    folder = write_peft_checkpoint(run.adapter(BEST), model_folder)
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    sha256 = digest_of(folder / WEIGHTS, folder / SETTINGS)
    for path, key in ((folder / RECORD, "sha256"), (run.engine(BEST), "weights_sha256")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: sha256}), encoding="utf-8")
    write_report(config, run)
    return config, run


def planned(scored: tuple[RunConfig, RunDir], repo: str = REPO, *, public: bool = False) -> UploadPlan:
    return plan_upload(*scored, BEST, repo, wants_public=public)


def exported(scored: tuple[RunConfig, RunDir], folder: Path) -> Path:
    export_adapter(*scored, BEST, "hub", folder)
    return folder


def test_the_upload_is_the_export_in_a_private_repository(
    tmp_path: Path, start: Callable[..., Path], scored: tuple[RunConfig, RunDir]
) -> None:
    root, folder = start(), exported(scored, tmp_path / "out")
    plan = planned(scored)
    (first, *rest) = plan_lines(plan)
    sizes = [path.stat().st_size for path in folder.iterdir() if path.name != "README.md"]
    num_files, size = len(sizes) + 1, sum(sizes) / 1e6
    told = f"makes the private model repository {REPO} at {constants.ENDPOINT}: {num_files} files, {size:.1f} MB."
    assert first == f"{BEST} {told}"
    report = read_report(scored[1])
    assert report is not None
    assert rest == [f"Its card says: {report.verdict.reason}"]
    refuse_objections(plan)
    assert not (root / "repos").exists()  # a plan changes nothing
    assert upload(folder, plan) == f"{constants.ENDPOINT}/{REPO}"
    assert json.loads((root / "repos" / REPO / "private.json").read_text()) is True
    sent = root / "repos" / REPO / "files"
    assert {path.name: path.read_bytes() for path in sent.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }
    card = ModelCard.load(sent / "README.md")
    assert {result.dataset_name for result in card.data.get("eval_results", [])} == {"held-out conversations"}
    assert "## Training" in card.text
    assert "learning_rate" in card.text
    assert str(tmp_path) not in card.content


def test_what_is_there_is_not_sent_again(
    tmp_path: Path, start: Callable[..., Path], scored: tuple[RunConfig, RunDir]
) -> None:
    root, folder = start(), exported(scored, tmp_path / "out")
    for is_there in (False, True):
        plan = planned(scored)
        assert plan.is_there == is_there
        upload(folder, plan)
    requests = (root / "requests.log").read_text().splitlines()
    assert sum(line.startswith("PUT") for line in requests) == 1
    assert sum("/commit/" in line for line in requests) == 2


@pytest.fixture
def by_xet(start: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """As `start`, and large files go as they do wherever hf_xet is installed."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "xet"))
    return start


@pytest.mark.parametrize("faults", [(), ("late",)])
def test_large_files_go_by_xet(
    tmp_path: Path, by_xet: Callable[..., Path], scored: tuple[RunConfig, RunDir], faults: tuple[str, ...]
) -> None:
    root, folder = by_xet(*faults), exported(scored, tmp_path / "out")
    upload(folder, planned(scored))
    assert not any(line.startswith("PUT") for line in (root / "requests.log").read_text().splitlines())
    large = {path.name: path for path in folder.iterdir() if path.name.endswith(hub_stand_in.LARGE)}
    assert WEIGHTS in large
    for path in (root / "repos" / REPO / "files").iterdir():
        if path.name not in large:
            assert path.read_bytes() == (folder / path.name).read_bytes()
            continue
        assert path.read_text() == hashlib.sha256(large[path.name].read_bytes()).hexdigest()
        (named,) = hf_xet.hash_files([str(large[path.name])])
        found = hf_xet.XetFileInfo(named.hash, large[path.name].stat().st_size)
        with hf_xet.XetSession().new_file_download_group(endpoint=f"local://{root / hub_stand_in.XET}") as group:
            group.start_download_file(found, str(tmp_path / path.name))
        assert (tmp_path / path.name).read_bytes() == large[path.name].read_bytes()


def test_a_hub_without_xet_is_one_line_that_says_how_to_do_without(
    tmp_path: Path, by_xet: Callable[..., Path], scored: tuple[RunConfig, RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, folder = by_xet("older"), exported(scored, tmp_path / "out")
    plan = planned(scored)
    with pytest.raises(UploadError, match=r"404 Not Found.*with HF_HUB_DISABLE_XET=1 it goes the older way") as told:
        upload(folder, plan)
    assert "\n" not in str(told.value)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    upload(folder, plan)
    assert (root / "repos" / REPO / "files" / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


@pytest.mark.parametrize("fault", ["cut", "busy"])
def test_an_upload_that_breaks_goes_on(
    tmp_path: Path,
    start: Callable[..., Path],
    scored: tuple[RunConfig, RunDir],
    fault: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, folder = start(fault), exported(scored, tmp_path / "out")
    upload(folder, planned(scored))
    assert (root / "repos" / REPO / "files" / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    said = capsys.readouterr()
    assert "hf_writer" not in said.out + said.err


def test_a_hub_that_is_gone_is_one_line(
    tmp_path: Path, start: Callable[..., Path], scored: tuple[RunConfig, RunDir], monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    plan, folder = planned(scored), exported(scored, tmp_path / "out")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UploadError, match=r"the connection to http://127.0.0.1:9 broke.*The same command goes on"):
        upload(folder, plan)


@pytest.mark.parametrize(
    ("token", "line"),
    [("hf_stranger", r"the hub does not know the token.*in HF_TOKEN"), ("hf_reader", "does not let this token write")],
)
def test_a_token_without_the_right_is_told(
    tmp_path: Path,
    start: Callable[..., Path],
    scored: tuple[RunConfig, RunDir],
    monkeypatch: pytest.MonkeyPatch,
    token: str,
    line: str,
) -> None:
    start()
    plan, folder = planned(scored), exported(scored, tmp_path / "out")
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=line) as told:
        upload(folder, plan)
    assert token not in str(told.value)


def test_without_a_token_nothing_is_asked(
    start: Callable[..., Path], scored: tuple[RunConfig, RunDir], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = start()
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with pytest.raises(InputError, match=r"no token with which to write.*hf auth login"):
        planned(scored)
    assert not (root / "requests.log").exists()


@pytest.mark.parametrize("repo", ["no-owner", "a/b/c", "someone/.hidden--", "some one/name", ""])
def test_a_name_that_is_none_is_told(start: Callable[..., Path], scored: tuple[RunConfig, RunDir], repo: str) -> None:
    start()
    with pytest.raises(InputError, match=r"--repo: .*Allowed: OWNER/NAME"):
        planned(scored, repo)


def test_a_public_repository_is_not_taken_for_a_private_one(
    tmp_path: Path, start: Callable[..., Path], scored: tuple[RunConfig, RunDir]
) -> None:
    root, folder = start(), exported(scored, tmp_path / "out")
    upload(folder, planned(scored, public=True))
    assert json.loads((root / "repos" / REPO / "private.json").read_text()) is False
    with pytest.raises(InputError, match=r"there and public.*--public"):
        planned(scored)
    assert next(plan_lines(planned(scored, public=True))).startswith(f"{BEST} goes into the public")


def test_a_missed_gate_speaks_against_it(start: Callable[..., Path], scored: tuple[RunConfig, RunDir]) -> None:
    start()
    config, run = scored
    strict = config.model_copy(
        update={"gates": {"tool_call_validity": Gate(min=1.0), "tool_call_accuracy": Gate(min=0)}}
    )
    plan = planned((strict, run))
    assert list(plan_lines(plan))[-2:] == [
        "Gates met: 1 of 2.",
        "Against it: the gate tool_call_validity is not met: wanted at least 1.",
    ]
    with pytest.raises(RunConflictError, match=r"not uploaded, because the gate tool_call_validity.*--anyway"):
        refuse_objections(plan)


def test_what_was_not_scored_speaks_against_it(start: Callable[..., Path], scored: tuple[RunConfig, RunDir]) -> None:
    start()
    (scored[1].report / "report.json").unlink()
    assert planned(scored).objections == (f"{BEST} has no scores",)


def test_scores_of_an_adapter_that_was_trained_again_do_not_count(
    start: Callable[..., Path], scored: tuple[RunConfig, RunDir]
) -> None:
    start()
    made = scored[1].engine(BEST)
    made.write_text(json.dumps(json.loads(made.read_text()) | {"weights_sha256": "0" * 64}), encoding="utf-8")
    assert planned(scored).objections == (f"{BEST} is not the adapter that was scored",)


def test_files_that_changed_are_not_planned(start: Callable[..., Path], scored: tuple[RunConfig, RunDir]) -> None:
    start()
    with (scored[1].adapter(BEST) / WEIGHTS).open("ab") as weights:
        weights.write(b"0")
    with pytest.raises(AdapterError, match="not those that were recorded"):
        planned(scored)


@pytest.fixture
def writes(scored: tuple[RunConfig, RunDir]) -> Callable[[int], Callable[[str, Path], int]]:
    """Writes the export as the job does; what it replies has the exit code that is given."""

    def of_code(code: int) -> Callable[[str, Path], int]:
        def write(name: str, place: Path) -> int:
            export_adapter(*scored, name, "hub", place)
            return code

        return write

    return of_code


Writes = Callable[[int], Callable[[str, Path], int]]


@pytest.mark.parametrize(
    ("answer", "yes", "is_sent"),
    [("", True, True), ("y\n", False, True), ("YES\n", False, True), ("n\n", False, False), ("\n", False, False)],
)
def test_nothing_is_sent_before_a_yes(
    start: Callable[..., Path],
    scored: tuple[RunConfig, RunDir],
    writes: Writes,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    yes: bool,
    is_sent: bool,
) -> None:
    root = start()
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert publish(*scored, BEST, Wish(REPO, yes, public=False, anyway=False), writes(0)) == 0
    assert (root / "repos" / REPO).is_dir() == is_sent


def test_where_nobody_can_say_yes_it_is_asked_for(
    start: Callable[..., Path], scored: tuple[RunConfig, RunDir], writes: Writes, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = start()
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(InputError, match=r"nobody says yes.*--yes"):
        publish(*scored, BEST, Wish(REPO, yes=False, public=False, anyway=False), writes(0))
    with pytest.raises(InputError, match=r"no repository is named.*--repo OWNER/NAME"):
        publish(*scored, BEST, Wish(None, yes=True, public=False, anyway=False), writes(0))
    assert not (root / "repos").exists()


@pytest.mark.parametrize("anyway", [False, True])
def test_what_replies_otherwise_is_not_uploaded_unless_it_is_wanted(
    start: Callable[..., Path], scored: tuple[RunConfig, RunDir], writes: Writes, anyway: bool
) -> None:
    root = start()
    wish = Wish(REPO, yes=True, public=False, anyway=anyway)
    assert publish(*scored, BEST, wish, writes(GATE_NOT_MET)) == GATE_NOT_MET
    assert (root / "repos" / REPO).is_dir() == anyway
