"""The report as trackers receive it."""

from evals.records import Report
from orchestrator.core.files import read_jsonl
from orchestrator.core.records import TrialRecord
from orchestrator.run.paths import RunDir
from orchestrator.tracking.events import Event, Reported, Scored


def report_events(report: Report, run: RunDir) -> list[Event]:
    """The metrics of each adapter and the base, at the step at which it was best, and the files of the report."""
    trials = read_jsonl(run.trials, TrialRecord) if run.trials.is_file() else ()
    steps = {trial.trial_id: trial.best_step or 0 for trial in trials}
    scored = [
        Scored(
            trial=adapter.id,
            step=steps.get(adapter.id, 0),
            values={name: metric.value for name, metric in adapter.metrics.items() if metric.value is not None},
        )
        for adapter in report.adapters
    ]
    files = sorted(str(path) for path in run.report.iterdir() if path.is_file())
    return [*scored, Reported(files=tuple(files))]
