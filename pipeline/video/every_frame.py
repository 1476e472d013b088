"""All frames of the time that the kept frames of a video span."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np

from .ahead import Ahead
from .reader import FRAMES_AHEAD, VideoReader
from .selection import last_half_frame
from .source_frame import SourceFrame


class EveryFrameReader(VideoReader):
    """Reads all frames from the first kept one on, and says which are kept.

    Those are the frames that a VideoReader with the same selection yields. The last frame is the
    one before the next that would be kept, or the last of the time span.
    """

    def frames(self) -> Iterator[SourceFrame]:
        """Yield the frames in order; iterate once. Memory does not depend on their number.

        Raises:
            AnimateDiffV2VError: at the end, when no frame was selected.
        """
        every = Ahead(self._every(), depth=FRAMES_AHEAD)
        self._ahead = every  # for close()
        yield from every

    def _every(self) -> Generator[SourceFrame, None, None]:
        waiting: deque[SourceFrame] = deque()
        noted = self._noted(waiting)
        stop, has_begun = self._stop_seconds(), False
        for index, frame in self._on_grid(noted):
            if self._is_past_cap(index):
                break
            if self.selection.is_kept(index):
                frame.kept += 1
                self.frame_count += 1
            # No later time of the grid is nearest to an earlier frame.
            while waiting[0] is not frame:
                earlier = waiting.popleft()
                has_begun = has_begun or earlier.kept > 0
                if has_begun:
                    yield earlier
        # The grid may end before the span does.
        for frame in chain(list(waiting), (frame for _, frame in noted)):
            has_begun = has_begun or frame.kept > 0
            if not frame.kept and stop is not None and frame.seconds >= stop:
                break
            if has_begun:
                yield frame
            waiting.clear()
        if self.frame_count == 0:
            raise self._nothing_selected()

    def _noted(self, waiting: deque[SourceFrame]) -> Iterator[tuple[Fraction, SourceFrame]]:
        """Yield the frames of the source with their times, and append them to `waiting`."""
        converter = self._converter()
        timed: Iterable[tuple[Fraction, Any]] = self._timed()
        for seconds, frame in timed:
            picture = np.ascontiguousarray(converter.convert(frame)[..., :3])
            waiting.append(SourceFrame(seconds, picture))
            yield seconds, waiting[-1]

    def _is_past_cap(self, index: int) -> bool:
        """Return whether `frame_load_cap` frames are kept before this index on the grid."""
        cap = self.selection.frame_load_cap
        passed = index - self.selection.skip_first_frames
        return cap > 0 and passed >= cap * self.selection.select_every_nth_frame

    def _stop_seconds(self) -> Fraction | None:
        """Return the time at which frames are past the span or the cap; None for the end."""
        selection, source_rate = self.selection, self.info.frame_rate
        start, rate = Fraction(selection.start_time_seconds), selection.grid_rate(source_rate)
        span, ends = self._span(), []
        if span is not None:
            ends.append(span)
        if selection.frame_load_cap:
            frames = selection.frame_load_cap * selection.select_every_nth_frame
            ends.append((selection.skip_first_frames + frames) / rate)
        half = last_half_frame(source_rate=source_rate, rate=rate)
        return start + min(ends) - half if ends else None
