"""The coordinator of batches on a farm of 1,000 machines, under a virtual clock.

    python benchmarks/farm.py [--workers 1000] [--units 100000]

Simulated with simpy: machines that die (5 % an hour) and are replaced, machines that are slow,
units that hang, and results that are written but lost. Nothing may be lost or done twice, and the
whole must take at most 1.15 of the time that the same machines without faults would need.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import simpy
from animatediff_v2v.batch.coordinator import Coordinator, Task
from animatediff_v2v.batch.ledger import Ledger
from animatediff_v2v.batch.unit import Unit
from animatediff_v2v.pipeline import ModelFiles, Request, SamplingSettings

HOUR = 3600.0
MEAN_UNIT_SECONDS = 60.0
DEATHS_AN_HOUR = 0.05
SECONDS_TO_REPLACE = 300.0
SECONDS_TO_NOTICE = 30.0
SLOW_MACHINES = 0.02  # of all, and how much slower
SLOWNESS = 3.0
HANGING_UNITS = 0.0002  # of all attempts: they never end
LOST_WRITES = 0.001
POLL_SECONDS = 5.0
MOST_RATIO = 1.15
MOST_SECONDS = 60.0


class Farm:
    """Machines that work on one ledger."""

    def __init__(self, *, workers: int, units: int, seed: int, ledger: Ledger) -> None:
        self.random = random.Random(seed)
        self.env = simpy.Environment()
        self.ledger = ledger
        self.seconds = [
            self.random.lognormvariate(0, 0.5) * MEAN_UNIT_SECONDS for _ in range(units)
        ]
        ledger.store_plan(unit(index) for index in range(units))
        tasks = [Task(f"{index}", f"models {index % 3}") for index in range(units)]
        self.coordinator = Coordinator(tasks)
        self.started = self.deaths = self.lost_writes = self.hangs = self.repeats = 0
        self.done_twice = 0
        for _ in range(workers):
            self.env.process(self.machine())

    def machine(self) -> Iterator[simpy.Event]:
        """One machine after another in the same place."""
        while not self.coordinator.is_finished:
            self.started += 1
            name = f"machine-{self.started}"
            slowness = SLOWNESS if self.random.random() < SLOW_MACHINES else 1.0
            lifetime = self.random.expovariate(DEATHS_AN_HOUR / HOUR)
            self.coordinator.join(name)
            died = self.env.timeout(lifetime)
            working = self.env.process(self.work(name, slowness))
            yield died | working
            if working.is_alive:
                working.interrupt()
                self.deaths += 1
                yield self.env.timeout(SECONDS_TO_NOTICE)
                for task, verdict in self.coordinator.lose(name):
                    if verdict == "again":
                        self.ledger.wait(task)
                    else:
                        self.ledger.put_aside(task, "Its machines died.", self.env.now)
                yield self.env.timeout(SECONDS_TO_REPLACE)

    def work(self, name: str, slowness: float) -> Iterator[simpy.Event]:
        models = ""
        try:
            while not self.coordinator.is_finished:
                task = self.coordinator.take(name, self.env.now, models=models, repeats=True)
                if task is None:
                    yield self.env.timeout(POLL_SECONDS)
                    continue
                models = task.models
                self.ledger.begin(task.name, name, self.env.now)
                seconds = slowness * self.seconds[int(task.name)]
                if self.random.random() < HANGING_UNITS:
                    self.hangs += 1
                    seconds = 1000 * HOUR
                yield self.env.timeout(seconds)
                self.finish(name, task)
        except simpy.Interrupt:
            return

    def finish(self, name: str, task: Task) -> None:
        if self.random.random() < LOST_WRITES:
            self.lost_writes += 1
            for lost, verdict in self.coordinator.fail(name, task.name):
                if verdict == "again":
                    self.ledger.wait(lost)
                else:
                    self.ledger.put_aside(lost, "Its file was not there.", self.env.now)
        elif self.coordinator.finish(name, task.name, self.env.now):
            stored = self.ledger.finish(
                task.name, worker=name, now=self.env.now, result=name, stamp=(1, 1)
            )
            self.done_twice += not stored
        else:
            self.repeats += 1

    def run(self) -> float:
        """Return the virtual seconds until all is done."""
        while not self.coordinator.is_finished:
            self.env.step()
        return self.env.now


def unit(index: int) -> Unit:
    return replace(_UNIT, name=f"{index}", clip=f"{index}")


_UNIT = Unit(
    name="",
    kind="clip",
    clip="",
    request=Request(
        input=Path("a.mp4"), output=Path("b.mp4"), prompt="", sampling=SamplingSettings(seed=0)
    ),
    files=ModelFiles(checkpoint=Path("a.safetensors")),
)


def ideal(seconds: list[float], workers: int) -> float:
    """The makespan on machines without faults, each taking the next unit when it is free."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder)) as ledger:
        # Machines wait for no disk here: what is measured is the order, and that no row is wrong.
        for pragma in ("synchronous = OFF", "journal_mode = MEMORY"):
            ledger._connection.execute(f"PRAGMA {pragma}")
        farm = Farm(workers=given.workers, units=given.units, seed=given.seed, ledger=ledger)
        makespan = farm.run()
        states = dict(Counter(row.state for row in ledger.rows()))
    used = time.process_time() - begun
    least = ideal(farm.seconds, given.workers)
    print(
        f"{given.units} units on {given.workers} machines, virtual time {makespan / HOUR:.2f} h, "
        f"ideal {least / HOUR:.2f} h, ratio {makespan / least:.3f}"
    )
    print(
        f"deaths {farm.deaths}, lost writes {farm.lost_writes}, hanging units {farm.hangs}, "
        f"second results ignored {farm.repeats}"
    )
    print(f"in the ledger {states}, done twice {farm.done_twice}; {used:.1f} s of CPU")
    good = (
        states == {"done": given.units}
        and farm.done_twice == 0
        and makespan <= MOST_RATIO * least
        and used <= MOST_SECONDS
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
