"""`animatediff-v2v batch --status`: how far a batch is, from any shell."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from ..batch.ledger import Ledger, is_being_worked_on
from ..batch.summary import duration, summarize
from ..pipeline.errors import AnimateDiffV2VError
from .parsing import reworded


def status(folder: Path) -> Iterator[str]:
    """Yield lines on the state of the batch in a folder.

    Raises:
        AnimateDiffV2VError: there is none.
    """
    if not folder.is_dir():
        raise AnimateDiffV2VError(f"There is no folder {folder}; give that of a batch.")
    now, is_running = time.time(), is_being_worked_on(folder)
    with Ledger(folder, read_only=True) as ledger:
        rows = ledger.rows()
    summary = summarize(rows, now=now if is_running else None)
    state = "running" if is_running else "not running"
    yield f"{folder}: {state}, {summary.sentence()}"
    for row in rows:
        if row.state == "running" and is_running and row.begun is not None:
            yield f"  {row.name} on {row.worker} for {duration(now - row.begun)}"
    for row in rows:
        if row.state == "failed" and row.kind != "source":
            yield f"  {row.name} has failed: {reworded(row.sentence or '')}"
