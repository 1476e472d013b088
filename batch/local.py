"""The engine for this machine: a worker process for each device."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from ..pipeline.errors import AnimateDiffV2VError
from .run import BatchRun
from .unit import Unit, with_ram_share
from .worker import SECONDS_FOR_LAST_STEP, Message, work

logger = logging.getLogger(__name__)

# Units that a worker has at a time: the next one is read while the first is rendered.
UNITS_AHEAD = 2
# A worker that cannot even start would be replaced forever.
MOST_STARTS_IN_VAIN = 3
POLL_SECONDS = 1.0


@dataclass
class _Process:
    name: str
    device: str
    process: BaseProcess
    connection: Connection
    units: list[Unit] = field(default_factory=list)
    is_ready: bool = False


def run_here(run: BatchRun, *, device: str = "auto", workers: int = 0) -> None:
    """Work on a batch until nothing is left.

    Args:
        run: The batch.
        device: The torch device of all workers; "auto" is every GPU of this machine, or its CPU.
        workers: The number of worker processes; 0 is one for each device.

    Raises:
        AnimateDiffV2VError: the disk is full, a file has changed, or workers cannot start.
        KeyboardInterrupt: from outside; the workers are stopped first.
    """
    engine = _Engine(run)
    try:
        engine.work(device, workers)
    finally:
        engine.stop()
        run.stop()
        run.clean()


class _Engine:
    def __init__(self, run: BatchRun) -> None:
        self._run = run
        self._context = multiprocessing.get_context("spawn")
        self._workers: dict[str, _Process] = {}
        self._started = self._in_vain = self._wanted = 0

    def work(self, device: str, workers: int) -> None:
        if self._run.is_finished:
            return
        self._wanted = workers
        # The first worker of "auto" says what devices there are; this process loads no PyTorch.
        for _ in range(1 if device == "auto" else max(1, workers)):
            self._start(device)
        while not self._run.is_finished:
            for worker in self._workers.values():
                self._supply(worker)
            heard = {each.connection: each for each in self._workers.values()}
            for connection in wait(list(heard), POLL_SECONDS):
                assert isinstance(connection, Connection)
                self._hear(heard[connection])

    def stop(self) -> None:
        """Let workers stop at their next step; end those that do not."""
        for worker in self._workers.values():
            try:
                worker.connection.send(None)
            except OSError:
                continue  # it has died
        end = time.monotonic() + 2 * SECONDS_FOR_LAST_STEP
        for worker in self._workers.values():
            while worker.process.is_alive() and time.monotonic() < end:
                self._drain(worker)
                worker.process.join(0.05)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()

    def _start(self, device: str) -> None:
        self._started += 1
        name = f"{device}-{self._started}" if device != "auto" else f"worker-{self._started}"
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(theirs, device), name=name, daemon=True)
        process.start()
        # Otherwise the pipe would stay open when the worker dies.
        theirs.close()
        self._workers[name] = _Process(name, device, process, ours)
        self._run.coordinator.join(name)

    def _start_others(self, accelerators: Sequence[str]) -> None:
        """Start the workers that go with the first one, which is on the first accelerator."""
        devices = accelerators or ["cpu"]
        wanted = self._wanted or len(devices)
        for number in range(len(self._workers), wanted):
            self._start(devices[number % len(devices)])

    def _supply(self, worker: _Process) -> None:
        while worker.is_ready and len(worker.units) < UNITS_AHEAD:
            # Others that wait for work are served before a second unit is put in store here.
            if worker.units and any(not each.units for each in self._workers.values()):
                return
            models = worker.units[-1].models if worker.units else ""
            unit = self._run.take(worker.name, models=models)
            if unit is None:
                return
            worker.units.append(unit)
            try:
                worker.connection.send(with_ram_share(unit, workers=len(self._workers)))
            except OSError:
                return  # it has died, which is heard next

    def _hear(self, worker: _Process) -> None:
        try:
            message: Message = worker.connection.recv()
        except (EOFError, OSError):
            self._replace(worker)
            return
        name = message.unit
        if message.kind == "ready":
            worker.is_ready, self._in_vain = True, 0
            if worker.device == "auto":
                self._start_others(message.text.split(",") if message.text else [])
        elif message.kind == "begun":
            self._run.begin(worker.name, name)
        elif message.kind == "progress":
            self._run.progress(worker.name, name, message.fraction, message.text)
        elif message.kind == "log":
            logger.warning("%s", message.text)
        elif message.kind == "fatal":
            raise AnimateDiffV2VError(message.text)
        else:
            worker.units = [unit for unit in worker.units if unit.name != name]
            if message.kind == "done" and message.result is not None:
                self._run.finish(worker.name, name, message.result)
            elif message.kind == "failed":
                self._run.fail(worker.name, name, message.text)

    def _replace(self, worker: _Process) -> None:
        worker.process.join()
        worker.connection.close()
        del self._workers[worker.name]
        if not worker.is_ready:
            self._in_vain += 1
        running = worker.units[0].name if worker.units else None
        sentence = f"The worker {worker.name} {_ending(worker.process.exitcode)}."
        self._run.lose(worker.name, sentence, running=running)
        if self._in_vain >= MOST_STARTS_IN_VAIN:
            raise AnimateDiffV2VError(f"{sentence} No worker starts; see the messages above.")
        self._start(worker.device)

    @staticmethod
    def _drain(worker: _Process) -> None:
        """Read what a worker still says: it waits while the pipe is full."""
        try:
            while worker.connection.poll():
                worker.connection.recv()
        except (EOFError, OSError):
            return


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by signal {-code}"
    return f"ended with code {code}"
