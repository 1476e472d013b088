"""Times of frames in a finished video: each frame at its own, where the rate varies."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av

# Ticks of a second. Matroska and WebM have 1000, whatever is asked for.
TICKS = 90_000


def played_times(
    times: Sequence[Fraction], order: Sequence[int], *, last_seconds: Fraction
) -> list[Fraction]:
    """Return when each frame of an order is shown, and the end of the last one.

    Frames that follow each other backwards are as far apart as forwards. Between others, such as
    the last frame and the first of the next pass, `last_seconds` pass.

    >>> third = Fraction(1, 3)
    >>> [str(each) for each in played_times([0 * third, third, 3 * third], [0, 1, 2, 1], \
last_seconds=third)]
    ['0', '1/3', '1', '5/3', '2']
    """
    played = [Fraction(0)]
    for one, other in pairwise(order):
        is_step = abs(one - other) == 1
        played.append(played[-1] + (abs(times[other] - times[one]) if is_step else last_seconds))
    return [*played, played[-1] + last_seconds]


def write_times(
    path: Path, target: Path, times: Sequence[Fraction], options: Sequence[str]
) -> None:
    """Copy a video of a constant rate with other times of its frames; nothing is encoded again.

    Args:
        path: the video, without sound.
        target: the file to write, of the same format.
        times: seconds of each frame in the order in which they are shown, and the end of the last.
        options: of the container, as ffmpeg's arguments: "-movflags", "+faststart".
    """
    names = [each.removeprefix("-") for each in options[::2]]
    settings = dict(zip(names, options[1::2], strict=True))
    with av.open(str(path)) as source, av.open(str(target), "w", options=settings) as made:
        stream = source.streams.video[0]
        copy = made.add_stream_from_template(stream, opaque=True)
        copy.time_base = Fraction(1, TICKS)
        made.metadata.update(source.metadata)
        packets = [packet for packet in source.demux(stream) if packet.pts is not None]
        for packet, (start, decoded, length) in zip(packets, _ticks(packets, times), strict=True):
            packet.time_base = Fraction(1, TICKS)
            packet.pts, packet.dts, packet.duration = start, decoded, length
            packet.stream = copy
            made.mux(packet)


def _ticks(packets: Sequence[Any], times: Sequence[Fraction]) -> list[tuple[int, int, int]]:
    """Return presentation time, decoding time and duration of each packet, in stored order."""
    shown = [round(seconds * TICKS) for seconds in times]
    for index in range(1, len(shown)):
        shown[index] = max(shown[index], shown[index - 1] + 1)
    by_time = sorted(range(len(packets)), key=lambda index: packets[index].pts)
    rank = {index: place for place, index in enumerate(by_time)}
    # No frame is decoded after it is shown: with frames stored as 0 3 1 2, the second is decoded
    # when frame 1 is shown, and frame 1 a frame later.
    delay = max(shown[index] - shown[rank[index]] for index in range(len(packets)))
    return [
        (shown[place], shown[index] - delay, shown[place + 1] - shown[place])
        for index, place in sorted(rank.items())
    ]
