"""Keeps the disk within what the owner gives: what has expired goes, then what is oldest."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..intake.loras import LoraShelf
from ..intake.uploads import UploadStore
from ..queue.store import KeptOutput, Store
from ..queue.webhooks import WebhookSender
from ..settings import Settings
from ..wire.problems import RequestRefused
from .data_folder import OUTPUT_NAME, file_size, own_files

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_SWEEPS = 60
SECONDS_PER_DAY = 86_400
REQUESTS_AT_ONCE = 200


@dataclass(frozen=True)
class Housekeeper:
    """Sweeps in a worker thread, from time to time.

    outputs: the folder of videos that belongs to the service alone; None where it is ComfyUI's,
        in which only files that a request names are touched.
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
        """Remove what is kept no longer; what cannot be removed now is another time."""
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
                logger.warning("Old files could not all be removed: %s", error)

    def _forget_old(self) -> None:
        before = self.store.now() - self.settings.keep_days * SECONDS_PER_DAY
        while ids := self.store.finished_before(before, most=REQUESTS_AT_ONCE):
            self._forget(ids)

    def _forget_while_large(self) -> None:
        """Make room for new requests in a database that is full."""
        while self.store.is_large():
            ids = self.store.finished_before(self.store.now(), most=REQUESTS_AT_ONCE)
            if not ids:
                return
            self._forget(ids)

    def _forget(self, request_ids: list[str]) -> None:
        # The files first: a request that is still known finds them again.
        _remove(each.path for each in self.store.outputs(request_ids) if _is_its_own(each))
        self.store.forget(request_ids)

    def _remove_strays(self) -> None:
        """Remove videos that no request knows, of a database that was set aside for instance."""
        if self.outputs is None:
            return
        known = {each.path for each in self.store.outputs()}
        before = self.store.now() - self.settings.keep_days * SECONDS_PER_DAY
        for path in own_files(self.outputs, OUTPUT_NAME):
            if path not in known and path.stat().st_mtime < before:
                _remove([path])

    def _keep_outputs_within_share(self) -> None:
        sizes = [(each, file_size(each.path)) for each in self.store.outputs()]
        total, share = sum(size for _, size in sizes), self.settings.share("outputs")
        gone = []
        for output, size in sizes:
            if total <= share:
                break
            gone.append(output)
            total -= size
        _remove(each.path for each in gone if _is_its_own(each))
        if gone:
            self.store.forget_outputs([each.token for each in gone])
            logger.info("%d videos were removed: all together were too large.", len(gone))


def _is_its_own(output: KeptOutput) -> bool:
    """Whether a file has the name that the service gave it."""
    name = output.path.name
    return name.startswith(output.request_id) and OUTPUT_NAME.fullmatch(name) is not None


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("%s could not be removed: %s", path, error)
