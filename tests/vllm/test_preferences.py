"""A whole preference stage: an adapter's own replies, pairs of a file, the training, and what is kept of it."""

import json
from pathlib import Path

import pytest
from builders import keep_tiny, write_samples, write_tiny_adapter

from evals.preferences.start import adapter_to_prefer
from jobs.prefer import prefer
from orchestrator.config.schema import RunConfig
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import TrialRecord
from orchestrator.data.preferences.pair import PairEntry, PreferencePair, read_card
from orchestrator.data.preferences.store import ledger_path, pairs_path
from orchestrator.models.adapters import read_adapter
from orchestrator.run.cluster import cluster_session
from orchestrator.run.folder import open_run, read_ledger
from orchestrator.run.paths import RunDir
from orchestrator.toy.synthetic import generate_samples

pytestmark = [pytest.mark.vllm, pytest.mark.ray, pytest.mark.usefixtures("joins_cluster")]

SAMPLES = list(generate_samples(90, seed=11, catalogue="easy"))


def _write_pairs(path: Path) -> None:
    """Pairs of the samples from 30 on; the last ones are those that the run holds out."""
    rows = (
        sample.model_dump(mode="json", include={"tools", "kind", "tags"})
        | {"chosen": [message.model_dump(mode="json") for message in sample.messages]}
        | {
            "rejected": [
                *(message.model_dump(mode="json") for message in sample.messages[:-1]),
                {"role": "assistant", "content": "Whatever you say."},
            ]
        }
        for sample in SAMPLES[30:]
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _start(tmp_path: Path) -> tuple[RunConfig, RunDir]:
    _write_pairs(tmp_path / "pairs.jsonl")
    config = RunConfig.model_validate(
        {
            "name": "preferring",
            "model": {"base": "tiny"},
            "resources": {"storage_path": str(tmp_path)},
            "train": {"batch_size": 8, "micro_batch_size": 4},
            "eval": {"max_new_tokens": 16},
            "prefer": {
                "sources": [{"path": str(tmp_path / "pairs.jsonl")}],
                "max_prompts": 6,
                "replies_per_prompt": 2,
                "max_pairs": 32,
                "epochs": 1,
                "beta": [0.1, 0.5],
            },
        }
    )
    run = open_run(config)
    write_samples(run, "train", SAMPLES[:30])
    write_samples(run, "val", SAMPLES[80:85])
    write_samples(run, "test", SAMPLES[85:])
    keep_tiny(run, write_tiny_adapter(tmp_path / "trial-1", rank=8, std=0.02))
    return config, run


def test_an_adapter_learns_preferences_once_and_nothing_that_is_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = _start(tmp_path)
    with cluster_session(config):
        prefer(config, run, lambda: None)
        made = read_adapter(run.adapter("trial-1-prefer"))
        start = read_adapter(run.adapter("trial-1"))
        card = read_card(run.preferences("trial-1"))
        assert (made.init_from, made.pairs, made.eval_loss) == ("trial-1", card.parts["train"], None)
        assert made.sha256 != start.sha256
        assert (made.r, made.alpha, made.target_modules) == (start.r, start.alpha, start.target_modules)

        assert sum(one.replies for one in card.asked.values()) == 12
        assert card.found["file"] == 60
        entries = list(read_jsonl(ledger_path(run.preferences("trial-1")), PairEntry))
        assert sum(entry.left_out == "held_out" for entry in entries if entry.origin == "file") >= 10
        asked = {sample.messages[-2].content for sample in SAMPLES[80:]}
        pairs = list(read_jsonl(pairs_path(run.preferences("trial-1")), PreferencePair))
        assert pairs
        assert not asked & {message.content for pair in pairs for message in pair.messages}
        assert all((leak.prompts.count, leak.near_duplicates.count) == (0, 0) for leak in card.leaks.values())

        trial, other = read_jsonl(run.preferences("trial-1").trials, TrialRecord)
        assert (trial.trial_id, trial.init_from, trial.pairs) == ("trial-1-prefer", "trial-1", made.pairs)
        assert {one.hyperparameters["beta"] for one in (trial, other)} == {0.1, 0.5}
        assert trial.best_eval_loss is not None
        assert other.best_eval_loss is not None
        assert trial.best_eval_loss <= other.best_eval_loss
        assert (trial.adapter_id, other.adapter_id) == ("trial-1-prefer", None)
        assert trial.curve[-1].eval_loss < trial.curve[0].eval_loss + 0.1
        assert read_ledger(run).stages["prefer"].status == "done"

        capsys.readouterr()
        prefer(config, run, lambda: None, adapter="trial-1-prefer")
    assert "prefer: skipped" in capsys.readouterr().out
    assert adapter_to_prefer(config, run, None).id == "trial-1"
