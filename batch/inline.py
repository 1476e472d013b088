"""The engine without processes: units are rendered one after another by the caller itself."""

from __future__ import annotations

from typing import Protocol

from ..pipeline.errors import AnimateDiffV2VError, Cancelled, DiskFull
from ..pipeline.progress import IsCancelled, never
from .run import BatchRun, Result
from .unit import FilesChanged, Unit


class Renders(Protocol):
    """A function that renders units; see render.Renderer."""

    def __call__(self, unit: Unit, on_progress: Progressed, is_cancelled: IsCancelled) -> Result:
        """Write a unit's result."""
        ...


class Progressed(Protocol):
    """A function that takes the progress of a unit."""

    def __call__(self, fraction: float, message: str) -> None:
        """Note the share that is done, and what is being done."""
        ...


def run_inline(
    run: BatchRun, render: Renders, *, worker: str, is_cancelled: IsCancelled = never
) -> None:
    """Work on a batch until nothing is left.

    Args:
        run: The batch.
        render: Renders a unit.
        worker: The name of this worker in the ledger.
        is_cancelled: Asked often; True stops the batch.

    Raises:
        AnimateDiffV2VError: the disk is full, or a file has changed.
        Cancelled: `is_cancelled` returned True.
    """
    run.coordinator.join(worker)
    models = ""
    try:
        while (unit := run.take(worker, models=models)) is not None:
            models = unit.models or models
            _render(run, unit, render, worker, is_cancelled)
    finally:
        run.stop()
        run.clean()


def _render(
    run: BatchRun, unit: Unit, render: Renders, worker: str, is_cancelled: IsCancelled
) -> None:
    run.begin(worker, unit.name)

    def progressed(fraction: float, message: str) -> None:
        run.progress(worker, unit.name, fraction, message)

    try:
        result = render(unit, progressed, is_cancelled)
    except (Cancelled, FilesChanged, DiskFull):
        raise
    except AnimateDiffV2VError as error:
        run.fail(worker, unit.name, str(error))
    else:
        run.finish(worker, unit.name, result)
