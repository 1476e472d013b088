"""The engine on Ray: an actor for each worker, on this machine or on a running cluster."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

from ..pipeline.errors import AnimateDiffV2VError
from .outcome import Outcome, outcome_of
from .run import BatchRun
from .unit import unit_document, unit_restored

# How often an idle worker asks whether another one has taken too long.
POLL_SECONDS = 1.0
# A worker that cannot even start would be replaced forever.
MOST_STARTS_IN_VAIN = 3


class RayWorker:
    """An actor that renders units one after another."""

    def __init__(self, device: str) -> None:
        """Render on a torch device; Ray shows each actor only the GPUs that it gave it."""
        from .render import Renderer  # noqa: PLC0415 - loads PyTorch, in the actor

        self._renderer = Renderer(device)

    def name(self) -> str:
        """Return the machine and the process, for the ledger."""
        return f"{socket.gethostname()}-{os.getpid()}"

    def render(self, document: dict[str, Any]) -> Outcome:
        """Write a unit's result."""
        unit = unit_restored(document)
        return outcome_of(unit.name, lambda: self._renderer.render(unit))


@dataclass
class _Actor:
    name: str
    handle: Any
    models: str = ""


def run_on_ray(run: BatchRun, *, device: str = "auto", workers: int = 0) -> None:
    """Work on a batch until nothing is left.

    RAY_ADDRESS in the environment names a running cluster, all of whose machines see the clips,
    the model files and the output folder under the same paths; without it, Ray starts on this
    machine.

    Args:
        run: The batch.
        device: The torch device of all workers; "auto" is the GPU that Ray gives to each.
        workers: The number of actors; 0 is one for each GPU of the cluster. More than there are
            GPUs share them.

    Raises:
        AnimateDiffV2VError: Ray is missing, the disk is full, or a file has changed.
    """
    ray = _ray()
    is_ours = not ray.is_initialized()
    if is_ours:
        _start_ray(ray, workers)
    engine = _Engine(run, ray, device)
    try:
        engine.work(workers)
    finally:
        engine.stop()
        run.stop()
        run.clean()
        if is_ours:
            ray.shutdown()


def _start_ray(ray: Any, workers: int) -> None:
    """Join the cluster that RAY_ADDRESS names, or start Ray on this machine."""
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


def _ray() -> Any:
    try:
        import ray  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise AnimateDiffV2VError(
            "The engine ray needs the package ray, which is not installed: install it with "
            '`python -m pip install "animatediff-v2v[ray]"`, or leave out --engine.'
        ) from error
    return ray


class _Engine:
    def __init__(self, run: BatchRun, ray: Any, device: str) -> None:
        self._run, self._ray, self._device = run, ray, device
        self._idle: dict[str, _Actor] = {}
        self._starting: dict[Any, Any] = {}
        self._running: dict[Any, tuple[_Actor, str]] = {}
        self._gpus_each = 0.0
        self._in_vain = 0

    def work(self, workers: int) -> None:
        gpus = int(self._ray.cluster_resources().get("GPU", 0)) if self._device != "cpu" else 0
        wanted = workers or max(1, gpus)
        self._gpus_each = min(1.0, gpus / wanted)
        if not self._run.is_finished:
            for _ in range(wanted):
                self._start()
        while not self._run.is_finished:
            self._supply()
            waiting = [*self._running, *self._starting]
            heard, _ = self._ray.wait(waiting, timeout=POLL_SECONDS)
            for reference in heard:
                self._hear(reference)

    def stop(self) -> None:
        """End all actors; the next run removes their unfinished files."""
        actors = [each.handle for each, _ in self._running.values()]
        actors += [each.handle for each in self._idle.values()] + list(self._starting.values())
        for handle in actors:
            self._ray.kill(handle)

    def _start(self) -> None:
        actor = self._ray.remote(num_cpus=1, num_gpus=self._gpus_each, max_restarts=0)(RayWorker)
        handle = actor.remote(self._device)
        self._starting[handle.name.remote()] = handle

    def _supply(self) -> None:
        for actor in list(self._idle.values()):
            unit = self._run.take(actor.name, models=actor.models, repeats=True)
            if unit is None:
                continue
            actor.models = unit.models
            del self._idle[actor.name]
            self._run.begin(actor.name, unit.name)
            reference = actor.handle.render.remote(unit_document(unit))
            self._running[reference] = (actor, unit.name)

    def _hear(self, reference: Any) -> None:
        if reference in self._starting:
            handle = self._starting.pop(reference)
            try:
                actor = _Actor(self._ray.get(reference), handle)
            except self._ray.exceptions.RayError as error:
                self._in_vain += 1
                if self._in_vain >= MOST_STARTS_IN_VAIN:
                    raise AnimateDiffV2VError(f"No worker starts on Ray: {error}") from error
                self._start()
                return
            self._in_vain = 0
            self._run.coordinator.join(actor.name)
            self._idle[actor.name] = actor
            return
        actor, name = self._running.pop(reference)
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            # A machine that was taken away, or a process that was killed.
            self._run.lose(actor.name, f"The worker {actor.name} has died ({_short(error)}).")
            self._ray.kill(actor.handle)
            self._start()
            return
        self._idle[actor.name] = actor
        if outcome.kind == "fatal":
            raise AnimateDiffV2VError(outcome.sentence)
        if outcome.result is not None:
            self._run.finish(actor.name, name, outcome.result)
        else:
            self._run.fail(actor.name, name, outcome.sentence)


def _short(error: Exception) -> str:
    return type(error).__name__
