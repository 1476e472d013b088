"""The output formats: container, codecs, and encoder options."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import AnimateDiffV2VError
from .picture_metadata import add_png_metadata, add_webp_metadata

FormatName = Literal[
    "mp4-h264",
    "mp4-h265",
    "mp4-av1",
    "webm-vp9",
    "mov-prores",
    "mkv-ffv1",
    "gif",
    "webp",
    "png",
]


@dataclass(frozen=True, kw_only=True)
class HardwareEncoder:
    """An encoder on a graphics card that replaces a software encoder.

    Attributes:
        quality: ffmpeg options with a placeholder `{crf}`, or `{percent}` with 100 for best.
    """

    encoder: str
    quality: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class OutputFormat:
    """One output format.

    Attributes:
        extension: with its dot; empty for a folder of pictures.
        encoder: ffmpeg's name of the video encoder; `options` are for it.
        pixel_format: the stored pixel format.
        alpha_pixel_format: the stored pixel format with alpha; None if there is none.
        is_yuv: colours are converted to BT.709 limited range and tagged accordingly.
        quality_option: ffmpeg's option for `crf`; empty if the quality is fixed.
        default_crf: only with a quality option; 0 is best.
        highest_crf: only with a quality option.
        audio_encoder: None for formats without sound.
        audio_channels: the maximum number of audio channels.
        container_options: options that the container needs, with any encoder.
        size_multiple: width and height are padded to a multiple of this.
        highest_frame_rate: the highest frame rate that players support.
        loops_itself: the file stores its number of loops, so frames are not written repeatedly.
        holds_metadata: text can be stored in it.
        add_metadata: stores text in a finished file (of a folder, in its first picture), where
            ffmpeg does not do it.
    """

    name: FormatName
    extension: str
    content_type: str
    codec: str
    encoder: str
    pixel_format: str
    alpha_pixel_format: str | None = None
    is_yuv: bool = True
    options: tuple[str, ...] = ()
    alpha_options: tuple[str, ...] = ()
    hardware: tuple[HardwareEncoder, ...] = ()
    quality_option: str = ""
    default_crf: int = 0
    highest_crf: int = 0
    audio_encoder: str | None = None
    audio_options: tuple[str, ...] = ()
    audio_channels: Collection[int] = range(1, 9)
    container_options: tuple[str, ...] = ()
    size_multiple: int = 1
    highest_frame_rate: int = 1000
    loops_itself: bool = False
    holds_metadata: bool = True
    add_metadata: Callable[[Path, Mapping[str, str]], None] | None = None

    @property
    def has_alpha(self) -> bool:
        """True if the format can store an alpha channel."""
        return self.alpha_pixel_format is not None

    @property
    def has_time_stamps(self) -> bool:
        """True if each frame can have a time of its own; pictures and animations have a rate."""
        return self.audio_encoder is not None

    @property
    def has_palette(self) -> bool:
        """True if it has a palette, for which all frames must be read first."""
        return self.pixel_format == "pal8"

    def checked_crf(self, crf: int | None) -> int:
        """Return `crf`, or the default for None; raise AnimateDiffV2VError if out of range."""
        if crf is None:
            return self.default_crf
        if not self.quality_option:
            raise AnimateDiffV2VError(
                f"crf is {crf}, but {self.name} has no quality to choose; leave crf out."
            )
        if isinstance(crf, bool) or not isinstance(crf, int) or not 0 <= crf <= self.highest_crf:
            raise AnimateDiffV2VError(
                f"crf is {crf!r}; for {self.name} give 0 (best) to {self.highest_crf} (smallest),"
                f" usually {self.default_crf}."
            )
        return crf


def _hardware(codec: str) -> tuple[HardwareEncoder, ...]:
    return (
        HardwareEncoder(
            encoder=f"{codec}_nvenc", quality=("-rc", "vbr", "-cq", "{crf}", "-b:v", "0")
        ),
        HardwareEncoder(encoder=f"{codec}_videotoolbox", quality=("-q:v", "{percent}")),
        HardwareEncoder(encoder=f"{codec}_qsv", quality=("-global_quality", "{crf}")),
    )


_MP4 = ("-movflags", "+faststart+use_metadata_tags")

_ALL = (
    OutputFormat(
        name="mp4-h264",
        extension=".mp4",
        content_type="video/mp4",
        codec="h264",
        encoder="libx264",
        hardware=_hardware("h264"),
        pixel_format="yuv420p",
        quality_option="-crf",
        default_crf=19,
        highest_crf=51,
        audio_encoder="aac",
        audio_options=("-b:a", "192k"),
        size_multiple=2,
        container_options=_MP4,
    ),
    OutputFormat(
        name="mp4-h265",
        extension=".mp4",
        content_type="video/mp4",
        codec="hevc",
        encoder="libx265",
        options=("-x265-params", "log-level=error"),
        hardware=_hardware("hevc"),
        pixel_format="yuv420p",
        quality_option="-crf",
        default_crf=22,
        highest_crf=51,
        audio_encoder="aac",
        audio_options=("-b:a", "192k"),
        size_multiple=2,
        # Apple's players need this tag.
        container_options=("-tag:v", "hvc1", *_MP4),
    ),
    OutputFormat(
        name="mp4-av1",
        extension=".mp4",
        content_type="video/mp4",
        codec="av1",
        encoder="libsvtav1",
        options=("-preset", "8"),
        hardware=_hardware("av1"),
        pixel_format="yuv420p",
        quality_option="-crf",
        default_crf=25,
        highest_crf=63,
        audio_encoder="aac",
        audio_options=("-b:a", "192k"),
        size_multiple=2,
        container_options=_MP4,
    ),
    OutputFormat(
        name="webm-vp9",
        extension=".webm",
        content_type="video/webm",
        codec="vp9",
        encoder="libvpx-vp9",
        options=("-b:v", "0", "-deadline", "good", "-cpu-used", "4", "-row-mt", "1"),
        pixel_format="yuv420p",
        alpha_pixel_format="yuva420p",
        alpha_options=("-auto-alt-ref", "0", "-metadata:s:v:0", "alpha_mode=1"),
        quality_option="-crf",
        default_crf=24,
        highest_crf=63,
        audio_encoder="libopus",
        audio_options=("-b:a", "160k"),
        audio_channels=(1, 2, 5, 6, 7, 8),
        size_multiple=2,
    ),
    OutputFormat(
        name="mov-prores",
        extension=".mov",
        content_type="video/quicktime",
        codec="prores",
        encoder="prores_ks",
        options=("-profile:v", "hq", "-vendor", "apl0"),
        pixel_format="yuv422p10le",
        alpha_pixel_format="yuva444p10le",
        alpha_options=("-profile:v", "4444", "-alpha_bits", "16"),
        audio_encoder="pcm_s16le",
        audio_channels=range(1, 65),
        size_multiple=2,
        container_options=_MP4,
    ),
    OutputFormat(
        name="mkv-ffv1",
        extension=".mkv",
        content_type="video/x-matroska",
        codec="ffv1",
        encoder="ffv1",
        options=("-level", "3", "-g", "1", "-slicecrc", "1"),
        pixel_format="bgr0",
        alpha_pixel_format="bgra",
        is_yuv=False,
        audio_encoder="flac",
    ),
    OutputFormat(
        name="gif",
        extension=".gif",
        content_type="image/gif",
        codec="gif",
        encoder="gif",
        pixel_format="pal8",
        alpha_pixel_format="pal8",
        is_yuv=False,
        # Durations are in hundredths of a second, and players treat less than two as ten.
        highest_frame_rate=50,
        loops_itself=True,
        holds_metadata=False,
    ),
    OutputFormat(
        name="webp",
        extension=".webp",
        content_type="image/webp",
        codec="webp",
        encoder="libwebp_anim",
        # libwebp converts the colours itself: its files are BT.601 by definition.
        pixel_format="bgra",
        alpha_pixel_format="bgra",
        is_yuv=False,
        quality_option="-quality",
        default_crf=15,
        highest_crf=100,
        loops_itself=True,
        add_metadata=add_webp_metadata,
    ),
    OutputFormat(
        name="png",
        extension="",
        content_type="image/png",
        codec="png",
        encoder="png",
        options=("-f", "image2", "-start_number", "1"),
        pixel_format="rgb24",
        alpha_pixel_format="rgba",
        is_yuv=False,
        add_metadata=add_png_metadata,
    ),
)

FORMATS: Mapping[str, OutputFormat] = {each.name: each for each in _ALL}


def suffixes() -> str:
    """Return the suffixes of all formats that are files, as a list for a sentence."""
    return ", ".join(dict.fromkeys(form.extension for form in _ALL if form.extension))


def format_by_suffix(path: Path) -> FormatName:
    """Return the default format for a suffix; png, a folder, for a name without a suffix.

    Raises:
        AnimateDiffV2VError: for an unknown suffix; lists the known ones.
    """
    suffix = path.suffix.lower()
    usual: dict[str, FormatName] = {}
    for form in _ALL:
        usual.setdefault(form.extension, form.name)
    if suffix not in usual:
        raise AnimateDiffV2VError(
            f"output is {path.name!r}, which ends in no format's suffix; give {suffixes()}, "
            "or a name without a suffix for a folder of pictures."
        )
    return usual[suffix]


def output_format(name: str) -> OutputFormat:
    """Return a format by its name; raise AnimateDiffV2VError, listing all, if it is unknown."""
    if not isinstance(name, str) or name not in FORMATS:
        raise AnimateDiffV2VError(f"format is {name!r}; give one of {', '.join(FORMATS)}.")
    return FORMATS[name]
