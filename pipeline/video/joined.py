"""Files of several videos in a row: MPEG streams can be joined by `cat`.

In such a file the time stamps start again with every part, so each part is read as a separate
video.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from .container import ByteRange, demuxed, open_container

# Containers that can be joined by concatenating files.
JOINABLE = {"mpegts", "mpeg"}
# As ffmpeg's default: times that go back, or forward by more than this, belong to another video.
BACK_SECONDS = Fraction(1, 10)
FORWARD_SECONDS = 10
# The first time of a stream may be this much earlier than those of the others.
FIRST_BACK_SECONDS = Fraction(3, 2)
# The clock has 33 bits and runs at 90 kHz (ISO/IEC 13818-1).
WRAP_SECONDS = Fraction(2**33, 90000)
# A damaged file may seem to have any number of parts.
MOST_PARTS = 100

_PACK_HEADER = b"\x00\x00\x01\xba"
_SYNC_BYTE = 0x47
# Sizes of transport stream packets: plain, with Blu-ray's time stamps, with checksums.
_TRANSPORT_PACKETS = {(188, 0), (192, 4), (204, 0)}
# The first picture of a part is preceded by a few packets of tables.
_SEARCHED_BYTES = 64 * 1024


def joined_parts(path: Path) -> list[ByteRange]:
    """Return the parts of a joined file; one part for a single video.

    Raises:
        AnimateDiffV2VError: when the file cannot be opened.
    """
    end = path.stat().st_size
    starts = [0]
    # Open each part separately, since it may have other streams and codecs.
    while len(starts) < MOST_PARTS:
        start = _next_part(path, (starts[-1], end))
        if start is None or start <= starts[-1]:
            break
        starts.append(start)
    return list(zip(starts, [*starts[1:], end], strict=True))


def _next_part(path: Path, byte_range: ByteRange) -> int | None:
    """Return the byte offset at which the first part of a range ends; None if it is the last."""
    # A parser for the codec of one part would consume the start of the next one.
    with open_container(path, byte_range=byte_range, is_parsed=False) as container:
        streams = [*container.streams.video, *container.streams.audio]
        clock = _Clock()
        for packet in demuxed(container, *streams):
            if clock.jumps_at(packet):
                break
        else:
            return None
        identifiers = {stream.id for stream in streams}
        is_transport = container.format.name == "mpegts"
    first = byte_range[0] + min(position for _, position in clock.suspect.values())
    if is_transport:
        return _transport_start(path, first, identifiers)
    return _program_start(path, first)


@dataclass
class _Clock:
    """Tracks the decoding times of all streams, and detects jumps.

    Attributes:
        suspect: the first unexpected time of each stream, and its position in bytes.
    """

    last: dict[int, Fraction] = field(default_factory=dict)
    suspect: dict[int, tuple[Fraction, int]] = field(default_factory=dict)

    def jumps_at(self, packet: Any) -> bool:
        """Process a packet; return whether it confirms that another video has started."""
        if packet.dts is None or packet.pos is None or packet.pos < 0:
            return False
        index, seconds = packet.stream_index, packet.dts * packet.time_base
        before, back = self.last.get(index), BACK_SECONDS
        if before is None:
            before, back = max(self.last.values(), default=seconds), FIRST_BACK_SECONDS
        if _goes_on(before, seconds, back=back):
            self.last[index] = seconds
            self.suspect.pop(index, None)
            return False
        earlier = self.suspect.get(index)
        if earlier is not None and _goes_on(earlier[0], seconds, back=BACK_SECONDS):
            return True
        # A single unexpected time is damage; a second one means another video.
        self.suspect[index] = (seconds, packet.pos)
        return False


def without_wild_times(times: list[Fraction]) -> list[Fraction]:
    """Return the largest group of ascending times without a large gap."""
    groups: list[list[Fraction]] = []
    for time in times:
        if groups and time - groups[-1][-1] <= FORWARD_SECONDS:
            groups[-1].append(time)
        else:
            groups.append([time])
    return max(groups, key=len, default=[])


def _goes_on(before: Fraction, after: Fraction, *, back: Fraction) -> bool:
    forward = (after - before) % WRAP_SECONDS
    return forward <= FORWARD_SECONDS or forward >= WRAP_SECONDS - back


def _transport_start(path: Path, position: int, identifiers: set[int]) -> int:
    """Return the position of the tables in front of a part's first picture or sound."""
    with path.open("rb") as file:
        head = file.read(3 * 204)
        for size, offset in _TRANSPORT_PACKETS:
            if all(head[offset + size * k : offset + size * k + 1] == b"G" for k in range(3)):
                break
        else:
            return position
        start = position - (position - offset) % size if offset else position
        while start >= size and position - start < _SEARCHED_BYTES:
            file.seek(start - size + offset)
            sync, high, low = file.read(3)
            if sync != _SYNC_BYTE or ((high & 0x1F) << 8 | low) in identifiers:
                break
            start -= size
        return start


def _program_start(path: Path, position: int) -> int:
    """Return the position of the pack header in front of a part's first picture or sound."""
    begin = max(0, position - _SEARCHED_BYTES)
    with path.open("rb") as file:
        file.seek(begin)
        found = file.read(position - begin + len(_PACK_HEADER)).rfind(_PACK_HEADER)
    return position if found < 0 else begin + found
