"""Prefetching in a thread: the next frames are decoded while the last one is in use."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

# How often a thread that waits for room checks whether it should stop.
POLL_SECONDS = 0.05


class Ahead(Generic[Item]):
    """Runs a generator in a thread, a few items ahead of the reader; iterate once."""

    def __init__(self, items: Generator[Item, None, None], *, depth: int) -> None:
        """Start at once; at most `depth` items are queued."""
        self._items = items
        self._waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fill, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        """Yield the items; exceptions of the generator are raised here."""
        while True:
            item, end = self._waiting.get()
            if isinstance(end, StopIteration):
                return
            if end is not None:
                raise end
            assert item is not None
            yield item

    def stop(self) -> None:
        """Stop the thread and wait for it to end, which takes one item at most."""
        self._stopped.set()
        self._thread.join()
        with self._waiting.mutex:
            self._waiting.queue.clear()
            self._waiting.queue.append((None, StopIteration()))
            self._waiting.not_empty.notify()

    def _fill(self) -> None:
        end: BaseException = StopIteration()
        try:
            for item in self._items:
                if not self._put(item, None):
                    break
        except BaseException as error:
            end = error
        finally:
            self._items.close()
        self._put(None, end)

    def _put(self, item: Item | None, end: BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._waiting.put((item, end), timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
