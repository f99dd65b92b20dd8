import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.run.cluster import WorkerShape, concurrent_trials


@pytest.mark.parametrize(
    ("wanted", "shape", "capacity", "trials"),
    [
        (None, WorkerShape(1, 1.0, 0), {"CPU": 2.0}, 2),
        (None, WorkerShape(2, 1.0, 0), {"CPU": 2.0}, 1),
        (None, WorkerShape(1, 2.0, 0), {"CPU": 7.0}, 3),
        (None, WorkerShape(1, 0.5, 0), {"CPU": 2.0}, 4),
        (1, WorkerShape(1, 1.0, 0), {"CPU": 8.0}, 1),
        (9, WorkerShape(1, 1.0, 0), {"CPU": 2.0}, 2),
        (None, WorkerShape(2, 4.0, 1), {"CPU": 64.0, "GPU": 4.0}, 2),
        (None, WorkerShape(1, 8.0, 1), {"CPU": 16.0, "GPU": 8.0}, 2),
        (None, WorkerShape(1, 1.0, 1), {"CPU": 16.0, "GPU": 0.0}, 1),
        (None, WorkerShape(4, 1.0, 0), {"CPU": 2.0}, 1),
    ],
)
def test_how_many_trials_fit_side_by_side(
    wanted: int | None, shape: WorkerShape, capacity: dict[str, float], trials: int
) -> None:
    assert concurrent_trials(wanted, shape, capacity) == trials


@given(
    st.none() | st.integers(1, 50),
    st.integers(1, 8),
    st.integers(1, 8),
    st.integers(0, 2),
    st.integers(0, 128),
    st.integers(0, 16),
)
def test_what_runs_at_once_fits_and_one_more_would_not(
    wanted: int | None, workers: int, cpus_each: int, gpus_each: int, cpus: int, gpus: int
) -> None:
    shape, capacity = WorkerShape(workers, float(cpus_each), gpus_each), {"CPU": float(cpus), "GPU": float(gpus)}

    def fit(number: int) -> bool:
        return all(number * shape.total(resource) <= capacity[resource] for resource in ("CPU", "GPU"))

    trials = concurrent_trials(wanted, shape, capacity)
    assert trials >= 1
    assert trials == 1 or fit(trials)
    assert trials <= (wanted or trials)
    if trials != wanted:
        assert not fit(trials + 1)
