"""The engine on Ray: an actor for each worker, on this machine or on a running cluster."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass, field
from typing import Any

from ..pipeline.errors import AnimateDiffV2VError
from .outcome import Outcome, outcome_of
from .ray_cluster import actors_on_a_gpu, gpu_count, gpu_share, ray_package, start_ray
from .run import BatchRun
from .unit import Unit, unit_document, unit_restored, with_ram_share

# How often an idle worker asks whether another one has taken too long.
POLL_SECONDS = 1.0
# A worker that cannot even start would be replaced forever.
MOST_STARTS_IN_VAIN = 3
# Units that an actor has at a time: the next one is read while the first is rendered.
UNITS_AHEAD = 2
# What actors may ask for of the memory that Ray counts.
_USABLE = 0.9


class RayWorker:
    """An actor that renders units one after another, and reads the next one meanwhile."""

    def __init__(self, device: str, workers: int) -> None:
        """Render on a torch device; Ray shows each actor only the GPUs that it gave it.

        Args:
            device: The device.
            workers: The number of actors on each machine, which share its memory.
        """
        from .render import Renderer  # noqa: PLC0415 - loads PyTorch, in the actor

        self._renderer, self._workers = Renderer(device), workers
        self._turn = threading.Lock()

    def name(self) -> str:
        """Return the machine and the process, for the ledger."""
        return f"{socket.gethostname()}-{os.getpid()}"

    def render(self, document: dict[str, Any]) -> Outcome:
        """Write a unit's result; called for the next unit before this one is done."""
        unit = with_ram_share(unit_restored(document), workers=self._workers)
        self._renderer.prepare(unit)
        with self._turn:
            return outcome_of(unit.name, lambda: self._renderer.render(unit))


@dataclass
class _Actor:
    name: str
    handle: Any
    models: str = ""
    units: dict[Any, str] = field(default_factory=dict)
    """The names of its units by reference, the first one at hand."""
    begun: str = ""


def run_on_ray(run: BatchRun, *, device: str = "auto", workers: int = 0) -> None:
    """Work on a batch until nothing is left.

    RAY_ADDRESS in the environment names a running cluster, all of whose machines see the clips,
    the model files and the output folder under the same paths; without it, Ray starts on this
    machine.

    Args:
        run: The batch.
        device: The torch device of all workers; "auto" is the GPU that Ray gives to each.
        workers: The number of actors; 0 is as many as fit on the GPUs of the cluster if the
            model files have a limit of device memory, else one for each GPU. More than there are
            GPUs share them.

    Raises:
        AnimateDiffV2VError: Ray is missing, the disk is full, or a file has changed.
    """
    ray = ray_package()
    is_ours = not ray.is_initialized()
    if is_ours:
        start_ray(ray, workers)
    engine = _Engine(run, ray, device)
    try:
        engine.work(workers)
    finally:
        engine.stop()
        run.stop()
        run.clean()
        if is_ours:
            ray.shutdown()


class _Engine:
    def __init__(self, run: BatchRun, ray: Any, device: str) -> None:
        self._run, self._ray, self._device = run, ray, device
        self._starting: dict[Any, Any] = {}
        self._actors: list[_Actor] = []
        self._options: dict[str, float] = {}
        self._workers_each = 1
        self._in_vain = 0

    def work(self, workers: int) -> None:
        if self._run.is_finished:
            return
        for _ in range(self._divide(workers)):
            self._start()
        while not self._run.is_finished:
            self._supply()
            waiting = [each for actor in self._actors for each in actor.units]
            heard, _ = self._ray.wait([*waiting, *self._starting], timeout=POLL_SECONDS)
            for reference in heard:
                self._hear(reference)

    def stop(self) -> None:
        """End all actors; the next run removes their unfinished files."""
        for handle in [*(each.handle for each in self._actors), *self._starting.values()]:
            self._ray.kill(handle)

    def _divide(self, workers: int) -> int:
        """Divide the cluster between actors, and return their number."""
        units, cluster = list(self._run.units.values()), self._ray.cluster_resources()
        gpus = gpu_count(self._ray, self._device)
        wanted = workers or max(1, gpus * (self._fitting(units) if gpus else 1))
        machines = sum(name.startswith("node:") and "__" not in name for name in cluster)
        self._workers_each = -(-wanted // max(1, machines))
        self._options = {
            "num_gpus": gpu_share(wanted, gpus),
            "memory": min(_ram_bytes(units), int(_USABLE * cluster.get("memory", 0) / wanted)),
        }
        return wanted

    def _fitting(self, units: list[Unit]) -> int:
        """Return how many actors fit on a GPU, by the limit of device memory of their units."""
        limits = [unit.files.max_memory_gb for unit in units]
        known = [each for each in limits if each is not None]
        is_known = known and len(known) == len(limits)
        return actors_on_a_gpu(self._ray, max(known) if is_known else None)

    def _start(self) -> None:
        # Two threads: one renders, the other one reads the next unit.
        kind = self._ray.remote(
            num_cpus=1, max_restarts=0, max_concurrency=UNITS_AHEAD, **self._options
        )(RayWorker)
        handle = kind.remote(self._device, self._workers_each)
        self._starting[handle.name.remote()] = handle

    def _supply(self) -> None:
        for actor in self._actors:
            if not actor.units:
                self._give(actor, repeats=True)
        # Others that wait for work are served before a second unit is put in store.
        if all(actor.units for actor in self._actors):
            for actor in self._actors:
                if len(actor.units) < UNITS_AHEAD:
                    self._give(actor)

    def _give(self, actor: _Actor, *, repeats: bool = False) -> None:
        unit = self._run.take(actor.name, models=actor.models, repeats=repeats)
        if unit is not None:
            actor.models = unit.models
            actor.units[actor.handle.render.remote(unit_document(unit))] = unit.name
            self._begin(actor)

    def _begin(self, actor: _Actor) -> None:
        """Note that an actor has begun its first unit."""
        first = next(iter(actor.units.values()), "")
        if first and first != actor.begun:
            self._run.begin(actor.name, first)
        actor.begun = first

    def _hear(self, reference: Any) -> None:
        if reference in self._starting:
            self._hear_start(reference, self._starting.pop(reference))
            return
        actor = next((each for each in self._actors if reference in each.units), None)
        if actor is None:
            return  # it has died, which another of its units has told
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            # A machine that was taken away, or a process that was killed.
            sentence = f"The worker {actor.name} has died ({_short(error)})."
            self._actors.remove(actor)
            self._run.lose(actor.name, sentence, running=actor.begun)
            self._ray.kill(actor.handle)
            self._start()
            return
        name = actor.units.pop(reference)
        if outcome.kind == "fatal":
            raise AnimateDiffV2VError(outcome.sentence)
        if outcome.result is not None:
            self._run.finish(actor.name, name, outcome.result)
        else:
            self._run.fail(actor.name, name, outcome.sentence)
        self._begin(actor)

    def _hear_start(self, reference: Any, handle: Any) -> None:
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
        self._actors.append(actor)


def _ram_bytes(units: list[Unit]) -> int:
    """Return the main memory that the model files of any unit take as they are loaded."""
    return max((sum(size for size, _ in unit.stamps.values()) for unit in units), default=0)


def _short(error: Exception) -> str:
    return type(error).__name__
