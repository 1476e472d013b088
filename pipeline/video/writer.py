"""Writing of a video, frame by frame, to a file that appears only when complete."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from fractions import Fraction
from itertools import count
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ..choices import checked_path, checked_type
from ..errors import AnimateDiffV2VError
from ..output_file import check_output, is_there
from ..part_folder import PartFolder
from ..ranges import LOOP_COUNT
from .audio import Audio, AudioSpan
from .audio_file import StoredAudio, store_audio, usable_audio
from .command import (
    METADATA_FILE,
    PICTURE_FOLDER,
    PICTURE_NAME,
    RawPictures,
    encode_arguments,
    join_arguments,
    joined_name,
    metadata_text,
    output_name,
    palette_arguments,
)
from .encoder import EncoderProcess
from .formats import FormatName, OutputFormat, output_format
from .frame_times import played_times, write_times
from .selection import exact_rate
from .spool import FrameSpool
from .target import check_target, disk_error

logger = logging.getLogger(__name__)


class VideoWriter:
    """Encodes frames into a file, in parallel to the caller's own work.

    A context manager. ffmpeg runs in a separate process and writes into a hidden folder next to
    the target. If the `with` block succeeds, the file gets its name; otherwise it is removed.

    Attributes:
        path: the finished file (for "png", a folder).
        frame_count: the number of frames in it.
        frame_times: seconds of each written frame, the first at 0; to be filled for a rate that
            varies, in formats with time stamps. Empty for `frame_rate`.
        file_size: in bytes, after the block.
    """

    _audio: StoredAudio | None = None
    _padding = (0, 0)
    _pictures: RawPictures | None = None
    _encoder: EncoderProcess | None = None
    _spool: FrameSpool | None = None

    def __init__(
        self,
        path: str | Path,
        *,
        width: int,
        height: int,
        frame_rate: Fraction,
        format: FormatName = "mp4-h264",
        crf: int | None = None,
        audio: Audio | AudioSpan | None = None,
        pingpong: bool = False,
        loop_count: int = 0,
        metadata: Mapping[str, str] | None = None,
        hardware: bool = False,
        overwrite: bool = False,
    ) -> None:
        """Check everything that can be checked before the first frame.

        Frames that are needed more than once (for pingpong, loops, or a gif's palette) are stored
        on disk until the end; otherwise they go directly to the encoder.

        Args:
            path: the file to write.
            width: of the frames, in pixels; padded if it is odd and the format needs it even.
            height: of the frames, in pixels; padded like the width.
            frame_rate: frames per second.
            format: the name of the output format.
            crf: quality, lower is better; None for the format's default.
            audio: cut to the video's duration, or padded with silence.
            pingpong: play the frames forwards, then backwards without repeating the first and last.
            loop_count: how often the video is repeated: by the player for gif and webp, where 0 is
                forever; in other files by writing the frames and the sound again.
            metadata: texts to store in the file, such as the workflow.
            hardware: encode on the graphics card if one of its encoders works.
            overwrite: replace an existing file. False refuses it, and also keeps one that appears
                during the encoding: the video then gets a numbered name.

        Raises:
            AnimateDiffV2VError: for a folder that is missing or not writable, a wrong extension,
                an existing file, and values out of range.
        """
        self.path = checked_path("path", path).absolute()
        self.format: OutputFormat = output_format(format)
        self.width, self.height = _checked_size(width, height)
        self.frame_rate = _checked_rate(frame_rate, form=self.format)
        self.frame_count = self.file_size = 0
        self.frame_times: list[Fraction] = []
        self._crf = self.format.checked_crf(crf)
        self._loop_count = _checked_loops(loop_count)
        self._pingpong = checked_type("pingpong", pingpong, bool)
        self._hardware = checked_type("hardware", hardware, bool)
        self._metadata = dict(checked_type("metadata", metadata, dict[str, str] | None) or {})
        checked_type("audio", audio, Audio | AudioSpan | None)
        self._audio_source = usable_audio(audio, form=self.format)
        self._overwrite = checked_type("overwrite", overwrite, bool)
        check_target(self.path, self.format)
        sources = [audio.path] if isinstance(audio, AudioSpan) else []
        check_output(self.path, inputs=sources, overwrite=overwrite)
        self._part_folder = _part_folder(self.path)
        self._folder = self._part_folder.path

    def __enter__(self) -> VideoWriter:
        """Return the writer itself."""
        return self

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Encode uint8 [n, height, width, 3], or 4 with alpha, 0..255.

        Raises:
            AnimateDiffV2VError: for another shape or dtype, and when encoding fails.
        """
        self._check_frames(frames)
        try:
            if self._pictures is None:
                self._begin(channels=frames.shape[3])
            for frame in frames:
                target = self._spool or self._encoder
                assert target is not None
                target.write(self._padded(frame).data)
                self.frame_count += 1
        except OSError as error:
            raise disk_error(error, path=self.path) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the file, or remove it if the block failed."""
        try:
            if kind is None:
                self._finish()
        except OSError as failure:
            raise disk_error(failure, path=self.path) from failure
        finally:
            if self._encoder is not None:
                self._encoder.kill()
            if self._spool is not None:
                self._spool.close()
            self._part_folder.remove()

    def _padded(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if any(self._padding):
            # Repeat the last row and column: a black line would be visible at the edge.
            sides = ((0, self._padding[0]), (0, self._padding[1]), (0, 0))
            frame = np.pad(frame, sides, mode="edge")
        return np.ascontiguousarray(frame)

    def _begin(self, *, channels: int) -> None:
        if channels == 4 and not self.format.has_alpha:
            logger.info("%s files have no alpha; it is left out.", self.format.name)
        multiple = self.format.size_multiple
        self._padding = (-self.height % multiple, -self.width % multiple)
        height, width = self.height + self._padding[0], self.width + self._padding[1]
        self._pictures = RawPictures(
            width=width, height=height, channels=channels, frame_rate=self.frame_rate
        )
        self._audio = self._stored_audio()
        if self._pingpong or self._passes > 1 or self.format.has_palette:
            self._spool = FrameSpool(
                self._folder / "frames.raw", frame_bytes=width * height * channels
            )
        else:
            self._encoder = self._encode()

    def _finish(self) -> None:
        if self._pictures is None:
            raise AnimateDiffV2VError(f"{self.path} was not written: no frame was given.")
        if self._spool is not None:
            self._encode_spool(self._spool)
        assert self._encoder is not None
        self._encoder.finish()
        whole = self._folder / output_name(self.format)
        if self.frame_times:
            timed = self._folder / f"timed{self.format.extension}"
            write_times(whole, timed, self._played(), self.format.container_options)
            timed.replace(whole)
        if self._audio is not None:
            whole = self._join(self._audio)
        if self._metadata and self.format.add_metadata is not None:
            first = whole if self.format.extension else whole / (PICTURE_NAME % 1)
            self.format.add_metadata(first, self._metadata)
        if self.path.is_dir():
            self.path.rmdir()
        elif not self._overwrite and is_there(self.path):
            taken, self.path = self.path, _free_name(self.path)
            logger.warning(
                "%s has appeared since the job began and stays as it is; the video is %s.",
                taken,
                self.path,
            )
        whole.replace(self.path)
        files = self.path.iterdir() if self.path.is_dir() else [self.path]
        self.file_size = sum(each.stat().st_size for each in files)

    @property
    def _passes(self) -> int:
        return 1 if self.format.loops_itself else 1 + self._loop_count

    def _encode_spool(self, spool: FrameSpool) -> None:
        order = self._order(self.frame_count)
        if self.format.has_palette:
            assert self._pictures is not None
            spool.flush()
            self._run(palette_arguments(self._pictures, source=spool.path.name))
        self._encoder = self._encode()
        for index in order:
            self._encoder.write(spool.read(index))
        self.frame_count = len(order)

    def _order(self, count: int) -> list[int]:
        """Return the numbers of `count` written frames in the order in which the file has them."""
        order = [*range(count)]
        if self._pingpong:
            order += range(count - 2, 0, -1)
        return order * self._passes

    def _played(self) -> list[Fraction]:
        order = self._order(len(self.frame_times))
        return played_times(self.frame_times, order, last_seconds=1 / self.frame_rate)

    def _encode(self) -> EncoderProcess:
        assert self._pictures is not None
        by_encoder = bool(self._metadata) and self.format.add_metadata is None
        if by_encoder and self.format.holds_metadata:
            text = metadata_text(self._metadata)
            (self._folder / METADATA_FILE).write_text(text, encoding="utf-8", newline="\n")
        elif by_encoder:
            logger.info("%s files hold no metadata; it is left out.", self.format.name)
        if not self.format.extension:
            (self._folder / PICTURE_FOLDER).mkdir()
        arguments = encode_arguments(
            self.format,
            pictures=self._pictures,
            crf=self._crf,
            loop_count=self._loop_count,
            has_metadata=by_encoder and self.format.holds_metadata,
            hardware=self._hardware,
        )
        return EncoderProcess(arguments, folder=self._folder, target=self.path)

    def _join(self, audio: StoredAudio) -> Path:
        duration = self._played()[-1] if self.frame_times else self.frame_count / self.frame_rate
        sound = audio.arguments(duration / self._passes, passes=self._passes)
        self._run(join_arguments(self.format, sound=sound, duration_seconds=duration))
        return self._folder / joined_name(self.format)

    def _run(self, arguments: list[str]) -> None:
        self._encoder = EncoderProcess(arguments, folder=self._folder, target=self.path)
        self._encoder.finish()

    def _stored_audio(self) -> StoredAudio | None:
        if self._audio_source is None:
            return None
        return store_audio(self._audio_source, folder=self._folder, form=self.format)

    def _check_frames(self, frames: NDArray[np.uint8]) -> None:
        channels = {self._pictures.channels} if self._pictures else {3, 4}
        good = (
            getattr(frames, "dtype", None) == np.uint8
            and frames.ndim == 4
            and frames.shape[1:3] == (self.height, self.width)
            and frames.shape[3] in channels
        )
        if not good:
            raise AnimateDiffV2VError(
                f"The frames are {getattr(frames, 'dtype', type(frames).__name__)}"
                f" {list(np.shape(frames))}; give uint8 [n, {self.height}, {self.width},"
                f" {' or '.join(str(each) for each in sorted(channels))}]."
            )


def _checked_size(width: int, height: int) -> tuple[int, int]:
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 16384:
            raise AnimateDiffV2VError(f"{name} is {value!r} pixels; give 1 to 16384.")
    return width, height


def _checked_rate(frame_rate: Fraction | float, *, form: OutputFormat) -> Fraction:
    rate = exact_rate(frame_rate)
    if not 0 < rate <= form.highest_frame_rate:
        raise AnimateDiffV2VError(
            f"frame_rate is {frame_rate}; {form.name} takes more than 0 and up to"
            f" {form.highest_frame_rate} frames per second."
        )
    return rate


def _checked_loops(loop_count: int) -> int:
    LOOP_COUNT.check("loop_count", loop_count)
    return loop_count


def _free_name(path: Path) -> Path:
    """Return a numbered file name that does not exist yet: out-2.mp4 next to out.mp4."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return next(each for each in numbered if not is_there(each))


def _part_folder(path: Path) -> PartFolder:
    try:
        return PartFolder(path)
    except OSError as error:
        raise disk_error(error, path=path) from error
