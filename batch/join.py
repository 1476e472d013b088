"""Parts of a clip joined to one video, blended where they overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.frame_job import as_bytes
from ..pipeline.job_video import open_reader, open_writer, output_size
from ..pipeline.memory.devices import resolve_device
from ..pipeline.progress import IsCancelled, stop_if
from ..pipeline.request import Request
from ..pipeline.restore.video import is_restored, open_source, restored_video
from ..pipeline.video import FORMATS, VideoReader, VideoWriter
from ..pipeline.video.every_frame import EveryFrameReader
from .unit import Span

Frame = NDArray[np.uint8]


def join_parts(
    request: Request,
    parts: Sequence[Path],
    spans: Sequence[Span],
    *,
    device: str = "auto",
    is_cancelled: IsCancelled,
) -> int:
    """Write the clip that a request describes from its restyled parts; return its frames.

    Args:
        request: The clip; its sound is added.
        parts: The files of the parts, stored without loss.
        spans: The frames of the clip that each part has.
        device: Where frames between those of the parts are made, if the request wants them.
        is_cancelled: True stops the job.

    Raises:
        AnimateDiffV2VError: a part has another number of frames, or a file cannot be written.
    """
    with open_reader(request) as reader:
        # The reader is not read: it knows the size, the rate and the sound.
        reader.frame_count = spans[-1].stop
        size = output_size(request, reader)
        with ExitStack() as opened:
            writer = opened.enter_context(open_writer(request, reader))
            frames: Iterator[Frame] = _frames(parts, spans, size)
            if is_restored(request, reader):
                source = open_source(replace(request, width=size[0], height=size[1]))
                opened.enter_context(source)
                frames = _restored(source, frames, writer, device, is_cancelled)
            for frame in frames:
                stop_if(is_cancelled)
                writer.write(frame[None])
    return writer.frame_count


def _restored(
    source: EveryFrameReader,
    frames: Iterator[Frame],
    writer: VideoWriter,
    device: str,
    is_cancelled: IsCancelled,
) -> Iterator[Frame]:
    chosen = resolve_device(device)
    chunks = (torch.from_numpy(frame)[None].to(chosen) / 255 for frame in frames)
    for restored in restored_video(source, chunks, writer, is_cancelled=is_cancelled):
        yield as_bytes(restored[0])


def _frames(parts: Sequence[Path], spans: Sequence[Span], size: tuple[int, int]) -> Iterator[Frame]:
    tail: list[Frame] = []
    followers = [*(span.overlap for span in spans[1:]), 0]
    for path, span, kept in zip(parts, spans, followers, strict=True):
        count = 0
        with VideoReader(path, width=size[0], height=size[1]) as reader:
            frames = iter(reader)
            first = list(islice(frames, span.overlap))
            count += len(first)
            tail, held = [], _blended(tail, first)
            for frame in frames:
                count += 1
                held.append(frame)
                if len(held) > kept:
                    yield held.pop(0)
            yield from held[: len(held) - kept]
            tail = held[len(held) - kept :]
        if count != span.stop - span.start:
            raise AnimateDiffV2VError(
                f"{path} has {count} frames where {span.stop - span.start} were written: delete "
                "it and give the same command again."
            )
    yield from tail


def _blended(before: Sequence[Frame], after: Sequence[Frame]) -> list[Frame]:
    """Return frames that turn from those of one part into those of the next.

    The shares of the next part in an overlap of 3 frames are 1/4, 2/4 and 3/4.
    """
    mixed = []
    for index, (old, new) in enumerate(zip(before, after, strict=True), 1):
        share = np.float32(index / (len(after) + 1))
        mixed.append(np.rint(old * (1 - share) + new * share).astype(np.uint8))
    return mixed


def copy_source(request: Request, *, side: int, is_cancelled: IsCancelled) -> int:
    """Write the frames of a clip that are restyled as a small video; return their number."""
    with VideoReader(request.input, selection=request.selection) as reader:
        scale = min(1.0, side / max(reader.width, reader.height))
        width, height = (
            max(8, round(scale * each / 8) * 8) for each in (reader.width, reader.height)
        )
        request.output.parent.mkdir(parents=True, exist_ok=True)
    with (
        VideoReader(
            request.input, selection=request.selection, width=width, height=height, fit="stretch"
        ) as reader,
        VideoWriter(
            request.output, width=width, height=height, frame_rate=reader.frame_rate,
            format=FORMATS[request.format].name, pingpong=request.pingpong,
            loop_count=request.loop_count, metadata=request.metadata, overwrite=True,
        ) as writer,
    ):  # fmt: skip
        for frame in reader:
            stop_if(is_cancelled)
            writer.write(frame[None])
    return writer.frame_count
