import math
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config.schema import TrackerName
from orchestrator.core.errors import InputError
from orchestrator.tracking import destinations
from orchestrator.tracking.destinations import IN_PROCESS, OUTSIDE, require_installed
from orchestrator.tracking.events import Measured, Opened, Run, TrialBegan, append, read_events, tagged
from orchestrator.tracking.project import flat


@given(values=st.dictionaries(st.text(min_size=1), st.floats()), step=st.integers(0), trial=st.text(min_size=1))
def test_events_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, float], step: int, trial: str
) -> None:
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    written: list[Opened | Measured] = [Opened(key="k"), Measured(trial=trial, step=step, at=1.5, values=values)]
    for event in written:
        append(path, event)
    found = list(read_events(path))
    assert [repr(event) for event, _ in found] == [repr(event) for event in written]  # NaN is not equal to itself
    assert [repr(event) for event, _ in read_events(path, found[0][1])] == [repr(written[1])]


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append(path, Opened(key="k"))
    whole = path.stat().st_size
    with path.open("a") as file:
        file.write('{"event": "meas')
    assert list(read_events(path)) == [(Opened(key="k"), whole)]


def test_names_are_grouped_as_trackers_show_them() -> None:
    values = {"eval_loss": 1.0, "train_loss": 2.0, "learning_rate": 3.0, "tokens": math.inf}
    assert tagged(values) == {"eval/loss": 1.0, "train/loss": 2.0, "train/learning_rate": 3.0, "train/tokens": math.inf}


def test_a_configuration_is_shown_by_dotted_keys() -> None:
    config = {"train": {"rate": 1e-4, "steps": None, "on": True}, "ranks": [8, 16], "name": "demo"}
    assert flat(config) == {"train.rate": "0.0001", "train.on": "true", "ranks": "[8, 16]", "name": "demo"}


def test_a_key_of_a_trial_holds_only_what_trackers_take() -> None:
    run = Run(key="0af3", name="demo", folder=Path("runs/demo"), config={})
    assert run.trial_key("trial 1/é") == "0af3-trial-1--"
    assert TrialBegan(trial="t", hyperparameters={"r": 8}, step=0).event == "trial_began"


def test_every_name_of_the_configuration_leads_somewhere() -> None:
    assert set(get_args(TrackerName)) == {IN_PROCESS, *OUTSIDE}


def test_a_package_that_is_missing_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    require_installed(["tensorboard"])
    monkeypatch.setattr(destinations, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"the package wandb is not installed.*pip install wandb"):
        require_installed(["tensorboard", "wandb"])
