"""ffmpeg's arguments for one output file."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from .encoder import ffmpeg_executable, quiet_process_options
from .formats import OutputFormat

logger = logging.getLogger(__name__)

# File names in ffmpeg's working folder.
PALETTE_FILE = "palette.png"
METADATA_FILE = "metadata.txt"
PICTURE_FOLDER = "pictures"
PICTURE_NAME = "%05d.png"

BT709_TAGS = (
    *("-color_range", "tv", "-colorspace", "bt709"),
    *("-color_primaries", "bt709", "-color_trc", "bt709"),
)


@dataclass(frozen=True, kw_only=True)
class RawPictures:
    """The format of raw pictures that ffmpeg reads.

    Attributes:
        channels: 3 for RGB, 4 for RGBA, 8 bits each.
    """

    width: int
    height: int
    channels: int
    frame_rate: Fraction

    def arguments(self, source: str) -> list[str]:
        """Return ffmpeg's input arguments for a source, a file or `pipe:0`."""
        pixels = "rgb24" if self.channels == 3 else "rgba"
        size = f"{self.width}x{self.height}"
        raw = ["-f", "rawvideo", "-pix_fmt", pixels, "-video_size", size]
        return [*raw, "-framerate", str(self.frame_rate), "-i", source]


def output_name(form: OutputFormat) -> str:
    """Return the name of the unfinished file in ffmpeg's folder."""
    return f"video{form.extension}" if form.extension else PICTURE_FOLDER


def palette_arguments(pictures: RawPictures, *, source: str) -> list[str]:
    """Return arguments that compute a palette of 256 colours for a whole video."""
    return [*pictures.arguments(source), "-vf", "palettegen=stats_mode=full", PALETTE_FILE]


def encode_arguments(
    form: OutputFormat,
    *,
    pictures: RawPictures,
    crf: int,
    loop_count: int,
    has_metadata: bool,
    hardware: bool,
) -> list[str]:
    """Return arguments that encode pictures from standard input, without sound."""
    inputs = pictures.arguments("pipe:0")
    alpha = pictures.channels == 4 and form.has_alpha
    if form.has_palette:
        inputs += ["-i", PALETTE_FILE]
        outputs = ["-lavfi", "[0:v][1:v]paletteuse=dither=sierra2_4a:diff_mode=rectangle"]
    else:
        outputs = ["-map", "0:v", "-vf", _filters(form)]
        outputs += ["-pix_fmt", (alpha and form.alpha_pixel_format) or form.pixel_format]
    outputs += _encoder_arguments(form, crf=crf, alpha=alpha, hardware=hardware)
    outputs += [*(BT709_TAGS if form.is_yuv else ()), *form.container_options]
    if form.loops_itself:
        outputs += ["-loop", str(loop_count)]
    if has_metadata:
        inputs += ["-f", "ffmetadata", "-i", METADATA_FILE]
        outputs += ["-map_metadata", "1"]
    name = output_name(form)
    return [*inputs, *outputs, name if form.extension else f"{name}/{PICTURE_NAME}"]


def join_arguments(
    form: OutputFormat, *, sound: Sequence[str], duration_seconds: Fraction
) -> list[str]:
    """Return arguments that add sound to a finished video, with exactly its duration.

    The sound is added afterwards, because the duration is known only then; with ffmpeg's
    `-shortest`, the sound can be up to a second too long.
    """
    assert form.audio_encoder is not None
    codecs = ["-c:v", "copy", "-c:a", form.audio_encoder, *form.audio_options]
    arguments = ["-i", output_name(form), *sound, "-map", "0:v", "-map", "1:a", *codecs]
    arguments += ["-map_metadata", "0", *form.container_options]
    return [*arguments, "-t", f"{float(duration_seconds):.6f}", joined_name(form)]


def joined_name(form: OutputFormat) -> str:
    """Return the name of the unfinished file with sound in ffmpeg's folder."""
    return f"joined{form.extension}"


def _encoder_arguments(form: OutputFormat, *, crf: int, alpha: bool, hardware: bool) -> list[str]:
    if hardware:
        for each in form.hardware:
            if encoder_opens(each.encoder):
                percent = round(100 * (1 - crf / form.highest_crf))
                quality = [word.format(crf=crf, percent=percent) for word in each.quality]
                return ["-c:v", each.encoder, *quality]
        logger.info(
            "No hardware encoder for %s opens on this machine; %s is used.",
            form.codec,
            form.encoder,
        )
    arguments = ["-c:v", form.encoder, *form.options, *(form.alpha_options if alpha else ())]
    if form.quality_option == "-quality":
        # In WebP, 100 is the best quality.
        return [*arguments, "-quality", str(100 - crf)]
    return [*arguments, *([form.quality_option, str(crf)] if form.quality_option else [])]


@cache
def encoder_opens(encoder: str) -> bool:
    """Return whether an encoder works on this machine; being compiled in is not enough."""
    source = ["-f", "lavfi", "-i", "color=s=256x256:d=0.2:r=10", "-pix_fmt", "yuv420p"]
    done = subprocess.run(
        [ffmpeg_executable(), "-v", "quiet", *source, "-c:v", encoder, "-f", "null", "-"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        **quiet_process_options(),
    )
    return done.returncode == 0


def _filters(form: OutputFormat) -> str:
    if not form.is_yuv:
        return "null"
    # Convert and tag: with only one of the two, the colours would be wrong.
    return (
        "scale=flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
        ":in_range=full:out_color_matrix=bt709:out_range=limited,"
        "setparams=range=limited:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
    )


def metadata_text(metadata: Mapping[str, str]) -> str:
    """Format texts as ffmpeg metadata (https://ffmpeg.org/ffmpeg-formats.html#Metadata-2)."""
    special = str.maketrans({sign: f"\\{sign}" for sign in "=;#\\\n"})
    lines = [
        f"{key.translate(special)}={value.translate(special)}" for key, value in metadata.items()
    ]
    return "\n".join([";FFMETADATA1", *lines, ""])
