"""What stages say when they end."""

from pathlib import Path

import pytest
from builders import make_trial, write_peft_checkpoint
from report_run import write_run

from evals.records import Metric
from evals.stats.selected import CheckpointScore, Selection
from jobs._results import code_of_search, say_evaluated, say_next, say_searched, say_trained, share_text, shown
from orchestrator.config.schema import ModelConfig
from orchestrator.core.errors import DONE, GATE_NOT_MET
from orchestrator.core.files import dump_jsonl, write_text_atomic
from orchestrator.core.records import AdapterRecord
from orchestrator.models.adapters import keep_adapter
from orchestrator.models.base import BaseWeights, load_tokenizer
from orchestrator.run.paths import RunDir
from orchestrator.toy.tiny import tiny_base_folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return RunDir(tmp_path / "runs" / "demo")


def test_the_next_command_names_the_run_as_one_would_here(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    say_next("evaluate", run)
    assert capsys.readouterr().out == "Next: orchestrator evaluate runs/demo\n"
    assert shown(Path("/elsewhere/run")) == "/elsewhere/run"


def test_training_says_loss_and_folder(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    trial = make_trial("adapter-1").model_copy(update={"steps": 12})
    write_text_atomic(run.trials, dump_jsonl([trial]))
    say_trained(run)
    assert capsys.readouterr().out == "adapter-1: eval loss 0.5000 at step 10 of 12.\n"


def test_a_search_says_its_best_trials_and_where_their_adapters_are(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [make_trial(f"trial-{number}", eval_loss=number / 10) for number in range(1, 10)]
    trials[0] = trials[0].model_copy(update={"adapter_id": "trial-1", "stop_reason": "no_improvement"})
    write_text_atomic(run.trials, dump_jsonl(trials))
    say_searched(run)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "The best of 9 trials:"
    assert lines[2].split() == ["trial-1", "4", "8", "0.001", "0.1000", "no", "improvement", "kept"]
    assert len(lines) == 2 + 5 + 1
    assert lines[-1] == "1 adapter in runs/demo/adapters."


@pytest.mark.parametrize(("is_met", "code"), [(True, DONE), (False, GATE_NOT_MET), (None, DONE)])
def test_a_search_says_what_chose_its_adapters_and_which_is_nearest_to_its_constraints(
    run: RunDir, capsys: pytest.CaptureFixture[str], is_met: bool | None, code: int
) -> None:
    trials = [make_trial(f"trial-{number}", eval_loss=number / 10) for number in (1, 2)]
    trials = [trial.model_copy(update={"adapter_id": trial.trial_id}) for trial in trials]
    write_text_atomic(run.trials, dump_jsonl(trials))
    assert code_of_search(run) == DONE
    figures = {"no_tool_accuracy": Metric(value=0.25, n=8, low=0.1, high=0.6)}
    scored = [
        CheckpointScore(
            trial_id=trial.trial_id, step=10, eval_loss=trial.best_eval_loss or 0.0, num_cases=8, objective=0.25,
            figures=figures, missed={} if is_met else {"no_tool_accuracy": 0.35}, is_behind=False,
        )
        for trial in trials
    ]  # fmt: skip
    selection = Selection(
        objective="no_tool_accuracy", weights={"no_tool_accuracy": 1.0}, constraints=("no_tool_accuracy at least 0.6",),
        rule="", seed=0, cases={"answer": 8}, num_first=8, finalists=tuple(scored[::-1]), kept=("trial-2",),
        by_loss=("trial-1",), held_against="trial-1", is_met=is_met, nearest="trial-2" if is_met is False else None,
    )  # fmt: skip
    write_text_atomic(run.selected, selection.model_dump_json())
    say_searched(run)
    said = " ".join(capsys.readouterr().out.split())
    assert "Chosen by no_tool_accuracy on validation cases: trial-2 (no_tool_accuracy 0.25, eval loss 0.2000)" in said
    assert "Eval loss alone would have taken trial-1." in said
    assert ("the nearest is trial-2, with no_tool_accuracy 0.25" in said) == (is_met is False)
    assert code_of_search(run) == code


def test_an_evaluation_says_scores_the_base_last(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(run.root.parent)
    (found,) = run.root.parent.glob("*/evals")
    say_evaluated(RunDir(found.parent))
    answered, place = capsys.readouterr().out.splitlines()
    assert answered.startswith("Answered as asked, of 150 cases: ")
    assert answered.rpartition(", ")[2].startswith("base 0.")
    assert place.endswith("evals.")


def test_the_share_of_trained_parameters_is_counted(run: RunDir, tmp_path: Path, model_folder: Path) -> None:
    source = write_peft_checkpoint(tmp_path / "checkpoint", model_folder)
    tokenizer = load_tokenizer(tiny_base_folder(), trust_remote_code=False)
    count = BaseWeights(model_folder).num_parameters()
    kept = keep_adapter(
        source, run, make_trial(), model=ModelConfig(base="tiny"), tokenizer=tokenizer, base_parameters=count
    )
    trained = kept.trained_parameters
    assert trained is not None
    assert kept.total_parameters == count + trained
    million = AdapterRecord.model_validate(
        {**kept.model_dump(), "trained_parameters": 10_092_544, "total_parameters": 606_142_464}
    )
    write_text_atomic(run.adapter_record(kept.id), million.model_dump_json())
    assert share_text(run, kept.id) == "10.1 M of 606 M parameters trained (1.67 %)."
    older = kept.model_copy(update={"trained_parameters": None, "total_parameters": None})
    write_text_atomic(run.adapter_record(kept.id), older.model_dump_json())
    assert share_text(run, kept.id) == ""
