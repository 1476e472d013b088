"""The package ray, and the cluster that it joins or starts."""

from __future__ import annotations

import os
from typing import Any

from ..pipeline.errors import AnimateDiffV2VError

# What a process takes of a GPU besides what is counted: the driver's context and libraries.
CONTEXT_BYTES = 10**9
# Ray counts ten-thousandths of a GPU.
_SHARES_OF_A_GPU = 10_000
_PROBE_SECONDS = 60.0


def ray_package() -> Any:
    """Import and return the package ray; raises AnimateDiffV2VError if it is not installed."""
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise AnimateDiffV2VError(
            "The engine ray needs the package ray, which is not installed: install it with "
            '`python -m pip install "animatediff-v2v[ray]"`, or leave out --engine.'
        ) from error
    return ray


def start_ray(ray: Any, workers: int) -> None:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine.

    Args:
        ray: The package.
        workers: The number of actors that will run on this machine; 0 is one for each core.

    Raises:
        AnimateDiffV2VError: There is no such cluster, or Ray does not start.
    """
    address = os.environ.get("RAY_ADDRESS")
    # Ray gives each actor a core, and starts an idle process for each other core.
    here = {} if address else {"_node_ip_address": "127.0.0.1", "num_cpus": workers or None}
    for is_last in (bool(address), True):
        try:
            ray.init(include_dashboard=None, log_to_driver=False, logging_level="error", **here)
            return
        except Exception as error:  # Ray raises this very class when a busy machine takes 30 s
            ray.shutdown()
            if is_last:
                where = f"There is no Ray cluster at RAY_ADDRESS, {address}"
                if not address:
                    where = "Ray does not start on this machine"
                raise AnimateDiffV2VError(f"{where}: {error}") from error


def gpu_count(ray: Any, device: str) -> int:
    """Return the number of GPUs of the cluster; 0 if the device of all actors is the CPU."""
    return int(ray.cluster_resources().get("GPU", 0)) if device != "cpu" else 0


def gpu_share(workers: int, gpus: int) -> float:
    """Return what part of a GPU each of some actors gets; 0 without GPUs.

    Actors on one GPU have equal shares of it; two thirds would leave the last third unused.
    """
    each = -(-workers // gpus) if gpus else 0
    return _SHARES_OF_A_GPU // each / _SHARES_OF_A_GPU if each else 0


def actors_on_a_gpu(ray: Any, max_memory_gb: float | None) -> int:
    """Return how many actors with this limit of device memory fit on a GPU; 1 without a limit."""
    if max_memory_gb is None:
        return 1
    probe = ray.remote(num_gpus=1)(_gpu_bytes).remote()
    try:
        whole: int = ray.get(probe, timeout=_PROBE_SECONDS)
    except (ray.exceptions.RayError, TimeoutError):
        return 1
    return max(1, int(whole / (max_memory_gb * 1e9 + CONTEXT_BYTES)))


def _gpu_bytes() -> int:
    """Return the memory of the GPU that Ray gave to this task."""
    import torch  # noqa: PLC0415 - in the task

    return int(torch.cuda.mem_get_info()[1])
