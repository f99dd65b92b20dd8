import pickle
from pathlib import Path

from builders import make_plan
from ray.tune.experiment import Trial
from watching import Watching

from orchestrator.search.names import HYPERPARAMETERS
from orchestrator.search.tell import TellTrackers
from orchestrator.tracking.tracker import Trackers
from orchestrator.training.listen import Listener


def test_what_is_stored_with_an_experiment_tells_nobody(tmp_path: Path) -> None:
    watching, plan = Watching(), make_plan()
    tell = TellTrackers(Listener(Trackers([watching])), plan, tmp_path, tmp_path)
    stored = pickle.loads(pickle.dumps(tell))
    trial = Trial(
        "train", trial_name_creator=lambda _: "trial-1", stub=True, config={HYPERPARAMETERS: plan.hyperparameters}
    )
    for its in (stored, tell):
        its.on_trial_start(0, [trial], trial)
    assert watching.calls == [("trial_started", "trial-1", plan.hyperparameters, 0)]
