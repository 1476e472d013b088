"""Writing a video: one file, fed frame by frame, there when it is whole and not before."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from ..errors import AnimateDiffV2VError
from .audio import Audio, AudioSpan
from .audio_file import audio_arguments
from .encoder import EncoderProcess
from .formats import BT709_TAGS, OutputFormat, output_format
from .selection import exact_rate


class VideoWriter:
    """Encodes frames into one file beside the caller's own work.

    A context manager. ffmpeg runs in a process of its own and writes into a hidden folder beside
    the target; when the `with` block ends well the file gets its name, otherwise nothing is left.

    path: the finished file. frame_count: frames in it. file_size: bytes, after the block.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        width: int,
        height: int,
        frame_rate: Fraction,
        format: str = "mp4-h264",
        crf: int | None = None,
        audio: Audio | AudioSpan | None = None,
        pingpong: bool = False,
        loop_count: int = 0,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Check everything that can be checked before the first frame.

        width, height: of the frames, pixels; odd sides are padded where the format needs it.
        crf: quality, lower is better; None for the format's default.
        audio: cut to the video's length, or filled up with silence.
        Raises AnimateDiffV2VError for a folder that is missing or not writable, a wrong
        extension, and values out of range.
        """
        self.path = Path(path)
        self.format: OutputFormat = output_format(format)
        self.width, self.height = _checked_size(width, height)
        self.frame_rate = _checked_rate(frame_rate)
        self.crf = self.format.checked_crf(crf)
        self.frame_count = 0
        self.file_size = 0
        self._audio, self._metadata = audio, dict(metadata or {})
        self._pingpong, self._loop_count = pingpong, loop_count
        self._channels = 0
        self._encoder: EncoderProcess | None = None
        _check_target(self.path, self.format)
        self._folder = _hidden_folder(self.path)

    def __enter__(self) -> VideoWriter:
        """Return the writer itself."""
        return self

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Encode uint8 [n, height, width, 3], or 4 with alpha, 0..255.

        Raises AnimateDiffV2VError for another shape or type, and when encoding fails.
        """
        self._check_frames(frames)
        if self._encoder is None:
            self._channels = frames.shape[3]
            self._encoder = self._start()
        for frame in frames:
            self._encoder.write(np.ascontiguousarray(frame).data)
            self.frame_count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Complete the file, or leave nothing when the block failed."""
        try:
            if kind is None:
                self._finish()
        finally:
            if self._encoder is not None:
                self._encoder.kill()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self) -> None:
        if self._encoder is None:
            raise AnimateDiffV2VError(f"{self.path} was not written: no frame was given.")
        self._encoder.finish()
        self._part.replace(self.path)
        self.file_size = self.path.stat().st_size

    @property
    def _part(self) -> Path:
        return self._folder / f"video{self.format.extension}"

    def _check_frames(self, frames: NDArray[np.uint8]) -> None:
        channels = {self._channels} if self._channels else {3, 4}
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

    def _start(self) -> EncoderProcess:
        pixels = "rgb24" if self._channels == 3 else "rgba"
        source = [
            "-f",
            "rawvideo",
            "-pix_fmt",
            pixels,
            "-video_size",
            f"{self.width}x{self.height}",
        ]
        source += ["-framerate", str(self.frame_rate), "-i", "pipe:0"]
        sound_in, sound_out = audio_arguments(self._audio, form=self.format, folder=self._folder)
        picture = ["-map", "0:v", "-c:v", self.format.encoder, "-vf", self._filters()]
        picture += ["-pix_fmt", self.format.pixel_format]
        if self.format.quality_option:
            picture += [self.format.quality_option, str(self.crf)]
        if self.format.is_yuv:
            picture += [word for tag in BT709_TAGS for word in tag]
        arguments = [*source, *sound_in, *picture, *sound_out, *self.format.options]
        return EncoderProcess([*arguments, str(self._part)], target=self.path)

    def _filters(self) -> str:
        multiple = self.format.size_multiple
        filters = []
        if self.width % multiple or self.height % multiple:
            filters.append(_padding(self.width, self.height, multiple=multiple))
        if self.format.is_yuv:
            filters.append(
                "scale=flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
                ":in_range=full:out_color_matrix=bt709:out_range=limited"
            )
        return ",".join(filters) or "null"


def _padding(width: int, height: int, *, multiple: int) -> str:
    padded_width = -(-width // multiple) * multiple
    padded_height = -(-height // multiple) * multiple
    right, bottom = padded_width - width, padded_height - height
    # The last column and row are repeated: a black line would show at the edge.
    return (
        f"pad={padded_width}:{padded_height}:0:0,"
        f"fillborders=right={right}:bottom={bottom}:mode=smear"
    )


def _checked_size(width: int, height: int) -> tuple[int, int]:
    for name, value in (("width", width), ("height", height)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 16384:
            raise AnimateDiffV2VError(f"{name} is {value!r} pixels; give 1 to 16384.")
    return width, height


def _checked_rate(frame_rate: Fraction | float) -> Fraction:
    rate = exact_rate(frame_rate)
    if rate <= 0:
        raise AnimateDiffV2VError(
            f"frame_rate is {frame_rate}; give frames per second above 0, for instance 8."
        )
    return rate


def _check_target(path: Path, form: OutputFormat) -> None:
    if path.suffix.lower() != form.extension:
        raise AnimateDiffV2VError(
            f"{path.name} does not fit the format {form.name}, whose files end in"
            f" {form.extension}; change the name or the format."
        )
    if path.is_dir():
        raise AnimateDiffV2VError(f"{path} is a folder; give the name of a file in it.")
    if not path.parent.is_dir():
        raise AnimateDiffV2VError(f"There is no folder {path.parent}; make it first.")


def _hidden_folder(path: Path) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=f".{path.stem}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise AnimateDiffV2VError(
            f"The folder {path.parent} may not be written to ({error.strerror}); choose another."
        ) from error
