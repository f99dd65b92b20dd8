import copy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cluster() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
    return loaded


def checked(cluster: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` does with the file before it calls the cloud."""
    prepared: dict[str, Any] = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    return prepared


def test_ray_up_accepts_the_file(cluster: dict[str, Any]) -> None:
    prepared = checked(cluster)
    assert prepared["cluster_name"] == "tool-lora"
    assert set(prepared["available_node_types"]) == {"head", "gpu_worker"}


def test_the_check_can_fail(cluster: dict[str, Any]) -> None:
    cluster["max_worker"] = 4
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        checked(cluster)


def test_the_head_takes_no_work_and_gpu_workers_are_spot_from_none(cluster: dict[str, Any]) -> None:
    head, worker = (checked(cluster)["available_node_types"][name] for name in ("head", "gpu_worker"))
    assert head["resources"]["CPU"] == 0
    assert "GPU" not in head["resources"]
    assert "InstanceMarketOptions" not in head["node_config"]
    assert (worker["min_workers"], worker["max_workers"]) == (0, 4)
    assert worker["resources"]["GPU"] == 1
    assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_the_job_server_is_not_open_to_the_network(cluster: dict[str, Any]) -> None:
    start = cluster["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in start
    assert "RAY_AUTH_MODE=token" in start
    assert "RAY_AUTH_MODE=token" in cluster["worker_start_ray_commands"][-1]


def test_the_image_has_the_ray_that_is_pinned(cluster: dict[str, Any]) -> None:
    pinned = next(
        line for line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines() if '"ray[' in line
    )
    version = pinned.split("==")[1].split('"')[0]
    assert cluster["docker"]["image"].startswith(f"rayproject/ray:{version}-py311")
    rayjob = (ROOT / "deploy/kuberay/rayjob.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(rayjob)["spec"]["rayClusterSpec"]["rayVersion"] == version


def test_setup_installs_the_projects_own_dependencies(cluster: dict[str, Any], tmp_path: Path) -> None:
    import shutil
    import subprocess
    import sys

    shutil.copy(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    command = cluster["setup_commands"][1]
    here = command.replace("/home/ray/project", str(tmp_path)).replace("~/project", str(tmp_path))
    subprocess.run(["bash", "-c", here.replace("python ", f"{sys.executable} ", 1)], check=True)
    wanted = (tmp_path / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert "ray[default,train,tune]==2.60.0" in wanted
    assert any(line.startswith("vllm==") for line in wanted)
