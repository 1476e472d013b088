"""The files that can be written: container, codecs, and how to drive the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import AnimateDiffV2VError

BT709_TAGS = (
    ("-color_range", "tv"),
    ("-colorspace", "bt709"),
    ("-color_primaries", "bt709"),
    ("-color_trc", "bt709"),
)


@dataclass(frozen=True, kw_only=True)
class OutputFormat:
    """One kind of output file.

    extension: with its dot; empty for a folder of pictures.
    encoder: ffmpeg's name of the (software) video encoder.
    hardware_encoders: encoders of the same codec that may be used instead when they open.
    pixel_format, alpha_pixel_format: what is stored; None where there is no alpha.
    quality_option: ffmpeg's option that takes `crf`; empty where the quality is fixed.
    default_crf, highest_crf: 0 is best; only where there is a quality option.
    audio_encoder: None for formats without sound.
    size_multiple: sides are padded up to a multiple of this.
    options: further ffmpeg options, in the order of the command line.
    """

    name: str
    extension: str
    content_type: str
    codec: str
    encoder: str
    pixel_format: str
    alpha_pixel_format: str | None = None
    hardware_encoders: tuple[str, ...] = ()
    quality_option: str = ""
    default_crf: int = 0
    highest_crf: int = 0
    audio_encoder: str | None = None
    audio_options: tuple[str, ...] = ()
    size_multiple: int = 1
    is_yuv: bool = True
    options: tuple[str, ...] = ()
    alpha_options: tuple[str, ...] = field(default=())

    @property
    def has_alpha(self) -> bool:
        """Whether the format can hold an alpha channel."""
        return self.alpha_pixel_format is not None

    def checked_crf(self, crf: int | None) -> int:
        """Return `crf`, or the default for None; raises AnimateDiffV2VError out of range."""
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


_MP4 = ("-movflags", "+faststart+use_metadata_tags")
_AAC = {"audio_encoder": "aac", "audio_options": ("-b:a", "192k")}
_OPUS = {"audio_encoder": "libopus", "audio_options": ("-b:a", "160k")}

_ALL = (
    OutputFormat(
        name="mp4-h264",
        extension=".mp4",
        content_type="video/mp4",
        codec="h264",
        encoder="libx264",
        hardware_encoders=("h264_nvenc", "h264_videotoolbox", "h264_qsv"),
        pixel_format="yuv420p",
        quality_option="-crf",
        default_crf=19,
        highest_crf=51,
        audio_encoder="aac",
        audio_options=("-b:a", "192k"),
        size_multiple=2,
        options=_MP4,
    ),
)

FORMATS: Mapping[str, OutputFormat] = {each.name: each for each in _ALL}


def output_format(name: str) -> OutputFormat:
    """Find a format by its name; raises AnimateDiffV2VError naming those there are."""
    if name not in FORMATS:
        raise AnimateDiffV2VError(f"format is {name!r}; give one of {', '.join(FORMATS)}.")
    return FORMATS[name]
