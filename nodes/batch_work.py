"""The work on a batch within ComfyUI: its networks, its progress bar, its cancel button."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..batch.inline import Progressed, run_inline
from ..batch.ledger import Ledger
from ..batch.plan import plan
from ..batch.render import check_unchanged, checking, rendered
from ..batch.report import write_page
from ..batch.run import BatchRun, Event, Result
from ..batch.summary import summarize
from ..batch.unit import Job, Shots, Unit
from ..pipeline import AnimateDiffV2VError
from ..pipeline.errors import Cancelled
from ..pipeline.job_video import open_reader, output_size
from ..pipeline.progress import IsCancelled, Progress
from . import host
from .frames import FrameSize, restyle_file
from .loading import load_managed_files
from .wording import for_graph

logger = logging.getLogger(__name__)

WORKER = "ComfyUI"


@dataclass(frozen=True)
class BatchOutcome:
    """The end of a batch."""

    page: Path
    done: list[Path]
    """The results of all clips that are done, in order."""
    failed: int
    """The number of clips that were put aside."""


def restyle_clips(
    jobs: Sequence[Job], out: Path, *, shots: Shots, style: host.Chain, say: Callable[[str], None]
) -> BatchOutcome:
    """Restyle clips into a folder, one after another; what is done and unchanged is skipped.

    Args:
        jobs: The clips.
        out: The output folder.
        shots: Where clips are cut.
        style: IP-Adapters for all clips.
        say: Shows a line on the node.

    Raises:
        AnimateDiffV2VError: no clip can be restyled, the disk is full, a file has changed, or
            another process works on the folder.
    """
    try:
        with Ledger(out) as ledger:
            outcome, sentences = _worked_on(ledger, jobs, shots=shots, style=style, say=say)
    except Cancelled:
        host.raise_if_interrupted()  # ends the prompt as its cancel button does
        raise
    except AnimateDiffV2VError as error:
        raise AnimateDiffV2VError(for_graph(str(error))) from error
    if not outcome.done:
        raise AnimateDiffV2VError(for_graph(sentences[0]))
    clips = f"{len(outcome.done)} of {len(jobs)} clips are done"
    say(f"{clips}, {outcome.failed} failed" if outcome.failed else clips)
    return outcome


def _worked_on(
    ledger: Ledger,
    jobs: Sequence[Job],
    *,
    shots: Shots,
    style: host.Chain,
    say: Callable[[str], None],
) -> tuple[BatchOutcome, list[str]]:
    """Return the outcome, and the sentences of what has failed."""
    say(f"looking at {len(jobs)} clips")
    units = plan(
        jobs, ledger.folder, store=ledger, shots=shots, is_cancelled=host.is_interrupted,
        on_clip=lambda number: say(f"looked at {number} of {len(jobs)} clips"),
    )  # fmt: skip
    bar = BatchBar(ledger, say)
    run = BatchRun(ledger, units, on_event=bar)
    try:
        run_inline(
            run, ManagedRenderer(style, bar), worker=WORKER, is_cancelled=host.is_interrupted
        )
    finally:
        page = write_page(ledger.folder, units, ledger.rows())
    rows = ledger.rows()
    targets = {unit.name: unit.target for unit in units if unit.kind in ("clip", "join")}
    done = [targets[row.name] for row in rows if row.state == "done" and row.name in targets]
    sentences = [row.sentence or "" for row in rows if row.state == "failed"]
    return BatchOutcome(page, done, summarize(rows).clips_failed), sentences


class BatchBar:
    """The bar of the running node, and the line on it: "clip 3 of 40: fox.mp4"."""

    def __init__(self, ledger: Ledger, say: Callable[[str], None]) -> None:
        """Prepare; nothing is shown yet."""
        self._ledger, self._say = ledger, say
        self._bar = host.NodeProgress()
        self._summary = summarize(())

    def __call__(self, event: Event) -> None:
        """Show an event of the batch."""
        assert event.unit is not None
        if event.kind == "begun":
            self._summary = summarize(self._ledger.rows())
            if event.unit.kind != "source":
                self._show(event.unit, Progress("decode", 0.0, "joining its parts"))
        elif event.kind in ("again", "put aside") and event.unit.kind != "source":
            logger.warning("%s: %s", event.unit.name, for_graph(event.sentence))
        elif event.kind == "done":
            self._bar.share(self._share(0, 0.0))

    def preview_with(self, model: host.ManagedModels) -> None:
        """Show previews of a model's latents from now on."""
        self._bar = host.NodeProgress(model.models.codec)

    def of(self, unit: Unit) -> Callable[[Progress], None]:
        """Return a function that shows the progress of a unit."""
        return lambda progress: self._show(unit, progress)

    def _show(self, unit: Unit, progress: Progress) -> None:
        summary = self._summary
        number = min(summary.clips_done + summary.clips_failed + 1, summary.clips)
        name = unit.name.replace("#", ", part ")
        line = f"clip {number} of {summary.clips}: {name}"
        if progress.message:
            line += f", {progress.message}"
        self._say(line)
        share = self._share(unit.frames, progress.fraction)
        self._bar(replace(progress, fraction=share, message=line))

    def _share(self, frames: int, fraction: float) -> float:
        """Return the share of all frames that is done, with a fraction of some more."""
        summary = self._summary
        if not summary.frames:
            return summary.clips_done / max(1, summary.clips)
        return min(1.0, (summary.frames_done + frames * fraction) / summary.frames)


class ManagedRenderer:
    """Renders units with networks that ComfyUI manages; they stay loaded for the next unit."""

    def __init__(self, style: host.Chain, bar: BatchBar) -> None:
        """Prepare; nothing is loaded yet.

        Args:
            style: IP-Adapters for all clips.
            bar: Shows the progress.
        """
        self._style, self._bar = style, bar
        self._loaded: tuple[tuple[str, bool], host.ManagedModels] | None = None

    def __call__(self, unit: Unit, on_progress: Progressed, is_cancelled: IsCancelled) -> Result:
        """Write a unit's result; an error of any kind is this unit's alone."""
        del on_progress  # the bar shows previews, too
        try:
            return rendered(
                unit, lambda: self._restyle(unit), device=str(host.unet_device()),
                is_cancelled=is_cancelled,
            )  # fmt: skip
        except (AnimateDiffV2VError, host.Interrupted):
            raise
        except Exception as error:
            logger.exception("%s cannot be restyled.", unit.name)
            raise AnimateDiffV2VError(f"{type(error).__name__}: {error}") from error

    def _restyle(self, unit: Unit) -> int:
        model, reader = self._model(unit), open_reader(unit.request)
        result = restyle_file(
            unit.request,
            model,
            size=FrameSize(*output_size(unit.request, reader)),
            control=host.Chain(),
            style=self._style,
            prepared=reader,
            progress=self._bar.of(unit),
            before_phase=checking(unit),
        )
        return result.frame_count

    def _model(self, unit: Unit) -> host.ManagedModels:
        fp8_weights = unit.request.sampling.speed.fp8_weights
        key = (unit.models, fp8_weights)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # frees the memory first
            files = unit.files
            model = load_managed_files(
                files, checkpoint=files.checkpoint.name, fp8_weights=fp8_weights
            )
            check_unchanged(unit)  # what was loaded is what was planned
            self._bar.preview_with(model)
            self._loaded = (key, model)
        return self._loaded[1]
