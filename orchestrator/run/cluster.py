"""The Ray cluster a run uses: started or joined, and checked before anything waits for it."""

import json
import logging
import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import ray
from ray._private import state as ray_state
from ray._private import worker as ray_worker
from ray._private.accelerators import get_all_accelerator_managers
from ray._private.authentication.authentication_token_setup import AuthenticationTokenLoader, Config
from ray._private.utils import get_num_cpus

from orchestrator.config.schema import ResourcesConfig, RunConfig
from orchestrator.config.storage import is_bucket
from orchestrator.core.errors import ResourceError
from orchestrator.core.interrupt import handlers_kept
from orchestrator.core.process import ENVIRONMENT_DEFAULTS
from orchestrator.core.text import shown
from orchestrator.run.folder import run_dir

LOCAL_STARTUPS = 8
"""Processes that a local cluster may start at once."""
ROUNDING = 1e-9
"""Ten shares of 0.1 CPU fit one CPU, whatever floating point says."""


@dataclass(frozen=True)
class WorkerShape:
    """What each worker of one training job asks for."""

    num_workers: int
    cpus: float
    gpus: int

    def total(self, resource: str) -> float:
        """CPUs or GPUs of all workers together."""
        return self.num_workers * (self.cpus if resource == "CPU" else self.gpus)


@contextmanager
def cluster_session(config: RunConfig) -> Iterator[None]:
    """Join the cluster that the config or RAY_ADDRESS names, or start one here and stop it at the end.

    Raises:
        ResourceError: If the cluster cannot be reached, or can never hold one training job.
    """
    address = cluster_address(config.resources)
    if not address:
        require_local_room(config.resources)
    with _messages_of_ray_in(run_dir(config).log), nullcontext() if address else _own_token():
        try:
            with handlers_kept():
                _join(address) if address else _start_local()
            worker_shape(config.resources)
            require_one_machine(config.resources)
            yield
        finally:
            ray.shutdown()


@contextmanager
def _messages_of_ray_in(log: Path) -> Iterator[None]:
    """Append to a file what Ray says of nodes and tasks, such as a worker's death; Ray would print it, in colour."""
    prints = ray_worker.print_to_stdstream

    def append(data: Mapping[str, Sequence[str]], ignore_prefix: bool) -> None:  # noqa: ARG001, FBT001 - as Ray calls it
        with suppress(OSError), log.open("a", encoding="utf-8") as file:
            file.writelines(f"Ray: {shown(line)}\n" for line in data["lines"])

    ray_worker.print_to_stdstream = append
    try:
        yield
    finally:
        ray_worker.print_to_stdstream = prints


def cluster_address(resources: ResourcesConfig) -> str | None:
    """The running cluster that a run joins, None where it starts one on this machine."""
    return resources.address or os.environ.get("RAY_ADDRESS")


def _start_local() -> None:
    # A trial is four light processes and its workers; Ray warns when more of them start at once than there are CPUs.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(LOCAL_STARTUPS))
    try:
        with _named_address():
            ray.init(
                address="local",
                include_dashboard=True,  # Ray Train asks it which jobs are dead before it frees what they held
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except Exception as error:  # noqa: BLE001 - Ray raises a bare Exception when its node does not come up
        what = f"no local Ray cluster could be started ({str(error).splitlines()[0]})"
        fix = "Try again when it is less busy, or look into the latest session's logs under /tmp/ray"
        raise ResourceError(what, where="this machine", fix=fix) from None


@contextmanager
def _own_token() -> Iterator[None]:
    """Let a cluster that starts now ask for a token that only this process and those that it starts know.

    RAY_AUTH_MODE and the user's own token are for clusters that are joined: without one, anyone on the network could
    run code here, and a file that holds one may be read by others.
    """
    try:
        with _environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}):
            _read_authentication()
            yield
    finally:
        _read_authentication()


def _read_authentication() -> None:
    """Have Ray look again at the environment, which it reads once in a process."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _named_address() -> Iterator[None]:
    """Let the processes of a cluster that starts now inherit its address.

    What Ray Train starts to free the CPUs of a stopped trial looks for its cluster by RAY_ADDRESS or among the
    processes of the machine, and gives up where it finds two clusters; the CPUs would then never be free again.
    """
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    with _environment({"RAY_GCS_SERVER_PORT": str(port), "RAY_ADDRESS": f"{ray.util.get_node_ip_address()}:{port}"}):
        yield


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment, and have them as they were at the end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _join(address: str) -> None:
    runtime = {"env_vars": _environment_of_workers()}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime)
    except (ConnectionError, ValueError, RuntimeError) as error:
        what = f"no Ray cluster answers ({str(error).splitlines()[0]})"
        fix = "Start one with `ray start --head`, or leave resources.address and RAY_ADDRESS empty for a local one"
        raise ResourceError(what, where=f"address {address}", fix=fix) from None


def _environment_of_workers() -> dict[str, str]:
    """The defaults that the job we run in, if any, does not set itself; Ray refuses two values for one name."""
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    given = job.get("runtime_env", {}).get("env_vars", {})
    return {name: value for name, value in ENVIRONMENT_DEFAULTS.items() if name not in given}


def require_one_machine(resources: ResourcesConfig) -> None:
    """Raise ResourceError if a run in a bucket would have workers on a machine that has no working folder of it."""
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if is_bucket(resources.storage_path) and (others or cluster_capacity()[1] is None):
        raise ResourceError(
            "a run in a bucket uses one machine alone, and this cluster has others or may add some",
            where="resources.storage_path",
            fix="Start it where RAY_ADDRESS and resources.address are empty, or name a folder that every node reaches",
        )


def worker_shape(resources: ResourcesConfig) -> WorkerShape:
    """The workers of one training job on the connected cluster.

    Raises:
        ResourceError: If the cluster, with all nodes that its autoscaler may add, can never hold them.
    """
    return fitting_shape(resources, *cluster_capacity(), is_local=cluster_address(resources) is None)


def fitting_shape(
    resources: ResourcesConfig,
    capacity: Mapping[str, float],
    largest_node: Mapping[str, float] | None,
    *,
    is_local: bool,
) -> WorkerShape:
    """The workers of one training job, if a cluster of this capacity can hold them; raises as `worker_shape`."""
    gpus = resources.gpus_per_worker
    if gpus is None:
        gpus = 1 if capacity.get("GPU", 0) >= 1 else 0
    shape = WorkerShape(resources.num_workers, resources.cpus_per_worker, gpus)
    for resource, per_worker in (("CPU", shape.cpus), ("GPU", float(shape.gpus))):
        if largest_node is not None and per_worker > largest_node.get(resource, 0):
            asked, limit = f"one worker asks for {per_worker:g}", "this machine" if is_local else "the largest node"
            lower, add = f"resources.{resource.lower()}s_per_worker", "a larger node"
            have = largest_node.get(resource, 0)
        elif shape.total(resource) > capacity.get(resource, 0):
            asked = f"{shape.num_workers} workers ask for {shape.total(resource):g}"
            limit = "this machine" if is_local else "the cluster"
            lower, add = f"resources.num_workers or resources.{resource.lower()}s_per_worker", "nodes"
            have = capacity.get(resource, 0)
        else:
            continue
        what = f"{asked} {resource}{'' if asked.endswith(' 1') else 's'}, but {limit} has {have:g}"
        fix = f"Lower {lower}, or add {add}"
        raise ResourceError(what, where="resources", fix=fix)
    return shape


def require_local_room(resources: ResourcesConfig) -> None:
    """Raise what `worker_shape` does if a cluster of this machine alone cannot hold a training job. Starts nothing."""
    capacity = local_capacity()
    fitting_shape(resources, capacity, capacity, is_local=True)


def concurrent_trials(wanted: int | None, shape: WorkerShape, capacity: Mapping[str, float]) -> int:
    """How many training jobs of this shape fit the cluster side by side: at least one, at most `wanted`."""
    fits = [int(capacity.get(key, 0) / shape.total(key) + ROUNDING) for key in ("CPU", "GPU") if shape.total(key)]
    return max(1, min(fits + ([wanted] if wanted else [])))


def local_capacity() -> dict[str, float]:
    """CPUs and GPUs that a cluster started on this machine would have, as Ray counts them. Starts nothing."""
    managers = [manager for manager in get_all_accelerator_managers() if manager.get_resource_name() == "GPU"]
    gpus = max((manager.get_current_node_num_accelerators() for manager in managers), default=0)
    return {"CPU": float(get_num_cpus()), "GPU": float(gpus)}


def cluster_capacity() -> tuple[dict[str, float], dict[str, float] | None]:
    """Resources of the whole cluster, and the most of each on one node (None where an autoscaler may add nodes)."""
    now: dict[str, float] = ray.cluster_resources()
    grown: dict[str, float] | None = ray_state.state.get_max_resources_from_cluster_config()
    if grown:
        return {key: max(now.get(key, 0), grown.get(key, 0)) for key in now.keys() | grown.keys()}, None
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return now, {key: max(node.get(key, 0) for node in nodes) for key in ("CPU", "GPU")}
