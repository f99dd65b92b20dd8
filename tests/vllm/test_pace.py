"""The pace of an evaluation: a few real replies of the toy base, in a process of their own, measured once."""

from pathlib import Path

import pytest

from evals.evaluate.pace import Pace, kept_replies, measured_replies
from orchestrator.config.schema import RunConfig
from orchestrator.core.errors import TrainingError
from orchestrator.data.prepare.prepare import prepare_data
from orchestrator.plan.memory import GIB
from orchestrator.probe import processes
from orchestrator.run.folder import run_dir

pytestmark = pytest.mark.vllm


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pace:
    monkeypatch.setattr(processes, "user_cache", lambda: tmp_path / "cache")
    config = RunConfig.model_validate(
        {
            "name": "paced",
            "model": {"base": "tiny", "dtype": "float32"},
            "data": {"sources": [{"path": "synthetic", "catalogue": "easy", "limit": 120}], "split": {"test": 0.2}},
            "eval": {"max_new_tokens": 24, "kv_cache_gib": 0.2},
            "resources": {"storage_path": str(tmp_path / "runs")},
        }
    )
    run = run_dir(config)
    prepare_data(config, run, base_dir=tmp_path)
    return Pace(config, run, on_gpu=False)


def test_a_few_replies_tell_the_pace_and_are_made_once(asked: Pace, capsys: pytest.CaptureFixture[str]) -> None:
    assert kept_replies(asked) is None
    found = measured_replies(asked, GIB)
    assert found is not None
    assert found.case_s > 0
    assert 0 <= found.token_s < found.case_s  # 0 where prefixes that cases share save more than replies take
    assert 0 < found.alone_token_s < found.alone_s
    assert 1 < found.reply_tokens <= 24
    assert 5 < found.expected_tokens < 100
    assert found.all_cases >= found.cases >= 8
    assert (found.all_alone, found.start_s > 0) == (20, True)
    assert 0.3 * GIB < found.peak_bytes < 3 * GIB
    assert kept_replies(asked) == found == measured_replies(asked, GIB)
    assert capsys.readouterr().out.count("Answering a few cases") == 1


def test_other_settings_of_the_evaluation_are_measured_anew(asked: Pace) -> None:
    longer = asked.config.model_copy(update={"eval": asked.config.eval.model_copy(update={"max_new_tokens": 25})})
    assert asked._replace(config=longer).place != asked.place
    (asked.run.split("test")).write_text("", encoding="utf-8")
    assert asked.place.parent.name == "probes"


def test_no_engine_is_started_for_which_there_is_no_memory(asked: Pace) -> None:
    with pytest.raises(TrainingError, match=r"a probe takes 4096.0 GiB, and only .* are free"):
        measured_replies(asked, 4096 * GIB)
