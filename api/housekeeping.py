"""The removal of expired data, and of the oldest data beyond the disk limits."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from .intake.loras import LoraShelf
from .intake.uploads import UploadStore
from .queue.outputs import KeptOutput
from .queue.store import Store
from .queue.webhooks import WebhookSender
from .settings import Settings
from .storage.data_folder import OUTPUT_NAME, file_size, own_files
from .wire.problems import RequestRefused

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_SWEEPS = 60
SECONDS_PER_DAY = 86_400
REQUESTS_AT_ONCE = 200


@dataclass(frozen=True)
class Housekeeper:
    """Sweeps once a minute, in a worker thread.

    outputs: the service's own folder of videos; None if videos are in ComfyUI's output folder,
        where only files of known requests are removed.
    """

    settings: Settings
    store: Store
    uploads: UploadStore
    loras: LoraShelf
    webhooks: WebhookSender
    outputs: Path | None

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.to_thread(self.sweep)
            await asyncio.sleep(SECONDS_BETWEEN_SWEEPS)

    def sweep(self) -> None:
        """Remove expired data; what cannot be removed now is left to the next sweep."""
        steps: tuple[Callable[[], None], ...] = (
            self.uploads.sweep,
            self._forget_old,
            self._forget_while_large,
            self._remove_strays,
            self._keep_outputs_within_share,
            self.webhooks.sweep,
            self.loras.take_over,
            self.loras.make_room,
            self.store.shrink,
        )
        for step in steps:
            try:
                step()
            except (OSError, sqlite3.Error, RequestRefused) as error:
                logger.warning("Some old files could not be removed: %s", error)

    def _forget_old(self) -> None:
        before = self.store.now() - self.settings.keep_days * SECONDS_PER_DAY
        while ids := self.store.finished_before(before, most=REQUESTS_AT_ONCE):
            self._forget(ids)

    def _forget_while_large(self) -> None:
        """Remove the oldest requests from a database that has reached its limit."""
        while self.store.is_large():
            ids = self.store.finished_before(self.store.now(), most=REQUESTS_AT_ONCE)
            if not ids:
                return
            self._forget(ids)

    def _forget(self, request_ids: list[str]) -> None:
        # Files first: after a crash in between, the requests still list the remaining files.
        _remove(
            each.path for each in self.store.outputs.of_finished(request_ids) if _is_its_own(each)
        )
        self.store.forget(request_ids)

    def _remove_strays(self) -> None:
        """Remove old videos of unknown requests, for example of a database that was set aside."""
        if self.outputs is None:
            return
        known = {each.path for each in self.store.outputs.of_finished()}
        before = self.store.now() - self.settings.keep_days * SECONDS_PER_DAY
        for path in own_files(self.outputs, OUTPUT_NAME):
            if path not in known and path.stat().st_mtime < before:
                _remove([path])

    def _keep_outputs_within_share(self) -> None:
        sizes = [(each, file_size(each.path)) for each in self.store.outputs.of_finished()]
        total, share = sum(size for _, size in sizes), self.settings.share("outputs")
        gone = []
        for output, size in sizes:
            if total <= share:
                break
            gone.append(output)
            total -= size
        _remove(each.path for each in gone if _is_its_own(each))
        if gone:
            self.store.outputs.forget([each.token for each in gone])
            logger.info(
                "%d videos were removed to keep within the disk limit of outputs.", len(gone)
            )


def _is_its_own(output: KeptOutput) -> bool:
    """Return whether a file has the name that the service gave it."""
    name = output.path.name
    return name.startswith(output.request_id) and OUTPUT_NAME.fullmatch(name) is not None


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s could not be removed: %s", path, error)
