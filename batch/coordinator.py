"""The order in which workers take units, and what happens when one fails or dies.

It knows no clock, no process and no network: an engine tells it what has happened and when.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

MOST_FAILURES = 3
# More than failures: machines are also taken away. A unit that kills every worker must end too.
MOST_DEATHS = 6
# An idle worker repeats a unit that has taken this many times as long as units usually do.
STRAGGLER_FACTOR = 2.0
_RECENT = 200

Verdict = Literal["again", "put aside"]


@dataclass(frozen=True)
class Task:
    """A unit as the coordinator sees it."""

    name: str
    models: str = ""
    """The networks that it takes; tasks with none come last."""
    needs: tuple[str, ...] = ()


@dataclass
class _State:
    task: Task
    needs: int
    failures: int = 0
    deaths: int = 0
    failed_on: set[str] = field(default_factory=set)
    running: dict[str, float] = field(default_factory=dict)
    """Workers that have it, and since when."""
    is_over: bool = False


class Coordinator:
    """Hands out tasks. Each call takes constant time, or the logarithm of the workers."""

    def __init__(
        self, tasks: Iterable[Task], *, done: Iterable[str] = (), failed: Iterable[str] = ()
    ) -> None:
        """Start with the tasks that remain.

        Args:
            tasks: All tasks, in the order in which they should begin.
            done: The names of those that need not be done.
            failed: The names of those that cannot be done, nor what needs them.
        """
        self._states = {task.name: _State(task, len(set(task.needs))) for task in tasks}
        self._followers: dict[str, list[str]] = defaultdict(list)
        self._ready: dict[str, deque[str]] = defaultdict(deque)
        self._left = len(self._states)
        self._busy: dict[str, set[str]] = defaultdict(set)
        self._begun: list[tuple[float, str]] = []
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self.workers: set[str] = set()
        for name, state in self._states.items():
            for needed in set(state.task.needs):
                self._followers[needed].append(name)
        for name, state in self._states.items():
            if state.needs == 0:
                self._ready[state.task.models].append(name)
        for name in done:
            self._end(name)
        for name in failed:
            self._fail(name)

    @property
    def is_finished(self) -> bool:
        """True when nothing is left that can be done."""
        return self._left == 0

    def join(self, worker: str) -> None:
        """Add a worker."""
        self.workers.add(worker)

    def take(
        self, worker: str, now: float, *, models: str = "", repeats: bool = False
    ) -> Task | None:
        """Return the next task for a worker, or None if there is none now.

        Args:
            worker: The worker.
            now: Seconds on any clock.
            models: The digest of the networks that it has loaded; their tasks come first.
            repeats: Repeat a task that another worker has had for too long, when no other is left.
        """
        name = self._next(worker, models)
        if name is None and repeats:
            name = self._straggler(worker, now)
        if name is None:
            return None
        state = self._states[name]
        state.running[worker] = now
        self._busy[worker].add(name)
        heapq.heappush(self._begun, (now, name))
        return state.task

    def begin(self, worker: str, name: str, now: float) -> None:
        """Start the time of a task that a worker took before it was free."""
        if worker in self._states[name].running:
            self._states[name].running[worker] = now
            heapq.heappush(self._begun, (now, name))

    def finish(self, worker: str, name: str, now: float) -> bool:
        """Note that a task is done; return False if it was done or put aside before."""
        state = self._states[name]
        begun = self._release(worker, name)
        if begun is not None:
            self._seconds.append(now - begun)
        if state.is_over:
            return False
        self._end(name)
        return True

    def fail(self, worker: str, name: str) -> list[tuple[str, Verdict]]:
        """Note that a task has failed on a worker; return what becomes of it and its followers."""
        state = self._states[name]
        self._release(worker, name)
        if state.is_over:
            return []
        state.failures += 1
        state.failed_on.add(worker)
        if state.failures >= MOST_FAILURES:
            return self._fail(name)
        self._wait(name)
        return [(name, "again")]

    def lose(self, worker: str, *, running: str | None = None) -> list[tuple[str, Verdict]]:
        """Note that a worker has died; return its tasks and what becomes of each.

        Args:
            worker: The worker.
            running: The task that it was at; the others, which it only had in store, are not
                blamed. None blames all.
        """
        self.workers.discard(worker)
        verdicts: list[tuple[str, Verdict]] = []
        for name in list(self._busy.pop(worker, ())):
            state = self._states[name]
            state.running.pop(worker, None)
            if state.is_over:
                continue
            if running is None or name == running:
                state.deaths += 1
            if state.deaths >= MOST_DEATHS:
                verdicts += self._fail(name)
            elif not state.running:
                self._wait(name)
                verdicts.append((name, "again"))
        return verdicts

    # --- inside ----------------------------------------------------------------------------------

    def _next(self, worker: str, models: str) -> str | None:
        spare: tuple[str, str] | None = None
        for kind in sorted(self._ready, key=lambda kind: (not kind, kind != models)):
            name, passed = self._first(kind, worker)
            if name is not None:
                return name
            spare = spare or (kind, passed[0]) if passed else spare
        # The same worker again, if there is no other that could try.
        if spare is None or not self.workers <= self._states[spare[1]].failed_on:
            return None
        self._ready[spare[0]].remove(spare[1])
        self._drop_empty(spare[0])
        return spare[1]

    def _first(self, kind: str, worker: str) -> tuple[str | None, list[str]]:
        """Take the first task of a kind that has not failed on a worker; list those that have."""
        queue, passed, found = self._ready[kind], [], None
        while queue and found is None:
            name = queue.popleft()
            state = self._states[name]
            if worker in state.failed_on and not state.is_over:
                passed.append(name)
            elif not state.is_over:  # by another worker, or before it began
                found = name
        queue.extendleft(reversed(passed))
        self._drop_empty(kind)
        return found, passed

    def _drop_empty(self, kind: str) -> None:
        if not self._ready[kind]:
            del self._ready[kind]

    def _straggler(self, worker: str, now: float) -> str | None:
        if not self._seconds:
            return None
        longest = STRAGGLER_FACTOR * median(self._seconds)
        while self._begun and now - self._begun[0][0] >= longest:
            begun, name = heapq.heappop(self._begun)
            state = self._states[name]
            is_running = len(state.running) == 1 and begun in state.running.values()
            if not state.is_over and is_running and worker not in state.running:
                return name
        return None

    def _release(self, worker: str, name: str) -> float | None:
        self._busy[worker].discard(name)
        return self._states[name].running.pop(worker, None)

    def _wait(self, name: str) -> None:
        state = self._states[name]
        if not state.running:
            self._ready[state.task.models].appendleft(name)

    def _end(self, name: str) -> None:
        state = self._states[name]
        if state.is_over:
            return
        state.is_over = True
        self._left -= 1
        # What follows comes next, so that clips are finished one after another.
        for follower in self._followers[name]:
            after = self._states[follower]
            after.needs -= 1
            if after.needs == 0 and not after.is_over:
                self._ready[after.task.models].appendleft(follower)

    def _fail(self, name: str) -> list[tuple[str, Verdict]]:
        """End a task and all that need it; return them."""
        state = self._states[name]
        if state.is_over:
            return []
        state.is_over = True
        self._left -= 1
        verdicts: list[tuple[str, Verdict]] = [(name, "put aside")]
        for follower in self._followers[name]:
            verdicts += self._fail(follower)
        return verdicts
