"""Reading of the selected frames of a video, at the output size."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..choices import checked_type
from ..errors import AnimateDiffV2VError
from .ahead import Ahead
from .conversion import FrameConverter
from .geometry import DEFAULT_LONG_SIDE, Fit, output_size
from .info import VideoInfo
from .pictures import at_rate
from .probe import probe_video
from .selection import Frame, FrameSelection, grid_count, nearest_on_grid
from .sources import open_source

logger = logging.getLogger(__name__)

FRAMES_AHEAD = 2
# Skipping less than this is faster by decoding than by seeking.
SEEK_SECONDS = 4


class VideoReader:
    """Streams the frames of a video that a FrameSelection selects.

    A context manager; iterate once. Memory use does not depend on the length of the video.

    Attributes:
        info: the properties of the video.
        width: of the yielded frames, a multiple of 8.
        height: of the yielded frames, a multiple of 8.
        frame_rate: frames per second of the kept frames, exact.
        expected_frame_count: the number of kept frames; None if only decoding can tell.
        frame_count: the number of frames yielded so far; exact after the iteration.
        alpha: uint8 [height, width] of the last yielded frame; None if the video has no alpha.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        selection: FrameSelection | None = None,
        width: int = 0,
        height: int = 0,
        fit: Fit = "crop",
    ) -> None:
        """Open a video for reading.

        If one of width and height is 0, the aspect ratio is kept. If both are 0, a video with a
        side longer than 768 is scaled down to 768.

        Args:
            path: the video.
            selection: the frames to keep.
            width: of the output, rounded to a multiple of 8; 0 for the video's own.
            height: of the output, rounded to a multiple of 8; 0 for the video's own.
            fit: "crop" cuts out the middle, "pad" adds black bars, "stretch" distorts.

        Raises:
            AnimateDiffV2VError: when the video cannot be read, or no frame would be selected.
        """
        checked_type("selection", selection, FrameSelection | None)
        checked_type("width", width, int)
        checked_type("height", height, int)
        self.selection = selection or FrameSelection()
        self.info: VideoInfo = probe_video(path)
        if self.info.container == "folder" and self.selection.force_rate:
            self.info = at_rate(self.info, self.selection.force_rate)
        shown = (self.info.width, self.info.height)
        self.width, self.height = output_size(source=shown, width=width, height=height, fit=fit)
        self._asked = (width, height)
        self._is_brought_down = not (width or height) and max(shown) > DEFAULT_LONG_SIDE
        self.fit = fit
        self.frame_rate = self.selection.output_rate(self.info.frame_rate)
        self.expected_frame_count = self._expected()
        self.frame_count = 0
        self.alpha: NDArray[np.uint8] | None = None
        if self.expected_frame_count == 0:
            raise self._nothing_selected()
        self._source = open_source(self.info)
        self._ahead: Ahead[Any] | None = None
        self._is_ahead = False

    def __enter__(self) -> VideoReader:
        """Return the reader itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, even during the iteration."""
        self.close()

    def close(self) -> None:
        """Stop decoding and close the file."""
        if self._ahead is not None:
            self._ahead.stop()
        self._source.close()

    def read_ahead(self, frames: int) -> None:
        """Start to decode up to so many frames, which the iteration then begins with."""
        self._ahead = Ahead(self._selected(), depth=frames)
        self._is_ahead = True

    @property
    def time_span(self) -> tuple[float, float]:
        """Return start and duration, in seconds of the video, of the frames yielded so far.

        Before the iteration, of the expected frames.
        """
        grid_rate = self.selection.grid_rate(self.info.frame_rate)
        start = Fraction(self.selection.start_time_seconds)
        start += self.selection.skip_first_frames / grid_rate
        count = self.frame_count or self.expected_frame_count or 0
        return float(start), float(count / self.frame_rate)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Yield uint8 [height, width, 3], 0..255, sRGB as displayed.

        Raises:
            AnimateDiffV2VError: at the end, when no frame was selected.
        """
        converter = self._converter()
        held, picture = None, None
        self.frame_count = 0
        self._tell_size()
        if self._ahead is not None and not self._is_ahead:
            self._ahead.stop()
        if self._ahead is None or not self._is_ahead:
            self._ahead = Ahead(self._selected(), depth=FRAMES_AHEAD)
        self._is_ahead = False
        for frame in self._ahead:
            if picture is None or frame is not held:
                held, picture = frame, converter.convert(frame)
            if self.info.has_alpha:
                self.alpha = np.ascontiguousarray(picture[..., 3])
            self.frame_count += 1
            yield np.ascontiguousarray(picture[..., :3]) if self.info.has_alpha else picture
        if self.frame_count == 0:
            raise self._nothing_selected()
        if self.expected_frame_count and self.frame_count < self.expected_frame_count:
            logger.warning(
                "%s gave %d frames where its header promised %d; it is cut off or damaged.",
                self.info.path,
                self.frame_count,
                self.expected_frame_count,
            )

    def _converter(self) -> FrameConverter:
        return FrameConverter(
            size=(self.width, self.height),
            fit=self.fit,
            orientation=self.info.orientation,
            cropping=self.info.cropping,
            pixel_aspect=self.info.pixel_aspect,
            with_alpha=self.info.has_alpha,
            colour_transfer=self.info.colour_transfer,
        )

    def _tell_size(self) -> None:
        """Log if the size differs from the requested one, or from the video's."""
        used = (self.width, self.height)
        for name, asked, side in zip(("width", "height"), self._asked, used, strict=True):
            if asked and asked != side:
                sentence = "%s is %d; %d is used, as sizes are multiples of 8."
                logger.warning(sentence, name, asked, side)
        if self._is_brought_down:
            logger.info(
                "The video's %dx%d pixels are scaled down to %dx%d, a size that suits SD1.5;"
                " give width and height for another.",
                self.info.width,
                self.info.height,
                *used,
            )

    def _selected(self) -> Generator[object, None, None]:
        kept = 0
        for index, frame in self._on_grid(self._timed()):
            if self.selection.is_kept(index):
                yield frame
                kept += 1
                if kept == self.selection.frame_load_cap:
                    return

    def _timed(self) -> Iterator[tuple[Fraction, object]]:
        """Yield (seconds, frame) from the first that can be selected on."""
        return self._source.frames(from_seconds=self._grid_start()[1])

    def _grid_start(self) -> tuple[int, Fraction]:
        """Return the index on the grid at which reading begins, and its seconds."""
        selection = self.selection
        start = Fraction(selection.start_time_seconds)
        skipped = selection.skip_first_frames / selection.grid_rate(self.info.frame_rate)
        if skipped < SEEK_SECONDS:
            return 0, start
        # The grid starts at the first kept frame, so that what is before it is not decoded.
        return selection.skip_first_frames, start + skipped

    def _on_grid(self, timed: Iterable[tuple[Fraction, Frame]]) -> Iterator[tuple[int, Frame]]:
        """Yield (index on the grid, frame nearest to its time) for frames with their seconds."""
        info = self.info
        rate = self.selection.grid_rate(info.frame_rate)
        passed, start = self._grid_start()
        span = self._span()
        on_grid = nearest_on_grid(
            timed,
            rate=rate,
            source_rate=info.frame_rate,
            start_seconds=start,
            span_seconds=None if span is None else span - passed / rate,
            last_frame_seconds=info.last_frame_seconds,
        )
        return enumerate(on_grid, start=passed)

    def _span(self) -> Fraction | None:
        return self.selection.span_seconds(self.info.duration)

    def _expected(self) -> int | None:
        span = self._span()
        if span is None or (self.info.duration is None):
            return None
        rate = self.selection.grid_rate(self.info.frame_rate)
        return self.selection.kept_count(
            grid_count(span, source_rate=self.info.frame_rate, rate=rate)
        )

    def _nothing_selected(self) -> AnimateDiffV2VError:
        chosen = self.selection
        if self.expected_frame_count:
            return AnimateDiffV2VError(
                f"Of the {self.expected_frame_count} selected frames of {self.info.path} none can"
                " be decoded; the file is cut off or damaged."
            )
        return AnimateDiffV2VError(
            f"No frame of {self.info.path} is selected: it has"
            f" {self.info.frame_count or 'an unknown number of'} frames"
            f" ({self.info.duration_seconds:.3f} s), start_time_seconds is"
            f" {chosen.start_time_seconds:g} and skip_first_frames is {chosen.skip_first_frames};"
            " lower them."
        )
