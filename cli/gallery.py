"""`animatediff-v2v gallery`: a page of results of the user's own models."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..demo.install import DEMO_FOLDER
from ..pipeline.errors import AnimateDiffV2VError
from ..pipeline.job_files import check_files, check_kinds
from ..pipeline.presets import Preset, preset_defaults
from ..pipeline.progress import Progress
from ..pipeline.request import ModelFiles, Request
from ..pipeline.sampling import Guidance, SamplingSettings
from ..pipeline.video import FrameSelection
from . import parsing
from .console import progress_display, say
from .gallery_page import Picture, Row, page
from .options import PRESET_HELP, add_model_files
from .parsing import Help
from .run import model_files
from .signals import leaving_at_once

PAGE = "index.html"
# The same for everybody, so that galleries of different models can be compared.
PROMPTS = {
    "anime": "anime, clean lines, flat colours, detailed background",
    "watercolour": "watercolour painting, soft edges, paper texture",
    "oil": "oil painting, thick brush strokes, warm light",
    "ink": "black and white ink drawing, bold outlines",
    "clay": "figures of clay, stop motion, soft studio light",
    "night": "at night, rain, neon lights, film still",
}
SEED = 7
DENOISE = 0.6
EVERY_NTH = 2


@dataclass(frozen=True)
class Job:
    """A clip, one of the prompts by name, and the file to write."""

    clip: Path
    style: str
    output: Path


def add_command(commands: Any) -> None:
    """Add this subcommand to argparse's subparsers."""
    gallery = commands.add_parser(
        "gallery",
        help="show what your models make of a fixed set of prompts, as a page",
        formatter_class=Help,
        description="Restyle clips with a fixed set of prompts and write the videos into FOLDER, "
        f"with a page, {PAGE}, that opens in a browser without a server.",
    )
    gallery.set_defaults(command=_gallery)
    gallery.add_argument("folder", metavar="FOLDER", type=Path, help="folder to write, or to fill")
    gallery.add_argument(
        "--clip",
        action="append",
        type=Path,
        metavar="FILE",
        help="video to restyle instead of the demo's; repeat for several",
    )
    gallery.add_argument(
        "--frame-load-cap", type=int, default=16, help="maximum number of frames of each video"
    )
    gallery.add_argument("--preset", default="quality", help=PRESET_HELP)
    gallery.add_argument("--steps", type=int, help="denoising steps; by default the preset's")
    gallery.add_argument(
        "--overwrite", action="store_true", help="replace the gallery that is in FOLDER"
    )
    add_model_files(gallery.add_argument_group("model files"))


def reworded(sentence: str) -> str:
    """Replace the library's field names in a sentence by the options of `gallery`."""
    return re.sub(r"^(?:INPUT|input)(?=[: ])", "--clip", parsing.reworded(sentence))


def _gallery(parsed: argparse.Namespace) -> int:
    folder: Path = parsed.folder
    _check_folder(folder, overwrite=parsed.overwrite)
    clips = parsed.clip or [DEMO_FOLDER / "clip.mp4"]
    settings = _settings(parsed.preset, parsed.steps)
    files = model_files(parsed)
    jobs = list(_jobs(clips, folder))
    requests = [_request(job, settings, frames=parsed.frame_load_cap) for job in jobs]
    for request in requests[:: len(PROMPTS)]:
        check_files(request, files)
        check_kinds(request, files)
    folder.mkdir(parents=True, exist_ok=True)
    seconds = _restyle(requests, files)
    rows = [
        Row(_source(requests[first]), jobs[first].clip.name, _pictures(jobs, seconds, first))
        for first in range(0, len(jobs), len(PROMPTS))
    ]
    written = folder / PAGE
    written.write_text(page(rows, files=files, settings=settings), encoding="utf-8")
    say(str(written))
    return 0


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise AnimateDiffV2VError(f"{folder} is a file; give a folder for the gallery.")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / PAGE).is_file():
        raise AnimateDiffV2VError(
            f"{folder} holds other files; give a new folder for the gallery, or an empty one."
        )
    if not overwrite:
        raise AnimateDiffV2VError(
            f"{folder} holds a gallery already; add --overwrite to replace it."
        )


def _settings(preset: Preset, steps: int | None) -> SamplingSettings:
    defaults = preset_defaults(preset)
    return SamplingSettings(
        seed=SEED,
        steps=defaults.steps if steps is None else steps,
        guidance=Guidance(scale=defaults.guidance_scale),
        sampler=defaults.sampler,
        scheduler=defaults.scheduler,
        denoise=DENOISE,
        speed=defaults.speed,
    )


def _jobs(clips: Sequence[Path], folder: Path) -> Iterator[Job]:
    for number, clip in enumerate(clips, 1):
        name = re.sub(r"[^\w-]+", "_", clip.stem)
        for style in PROMPTS:
            yield Job(clip, style, folder / f"{number}-{name}-{style}.mp4")


def _request(job: Job, settings: SamplingSettings, *, frames: int) -> Request:
    return Request(
        input=job.clip,
        output=job.output,
        prompt=PROMPTS[job.style],
        sampling=settings,
        selection=FrameSelection(select_every_nth_frame=EVERY_NTH, frame_load_cap=frames),
        overwrite=True,
        audio=False,
    )


def _restyle(requests: Sequence[Request], files: ModelFiles) -> list[float]:
    """Write the videos, with one progress bar; return the seconds that each took."""
    reduced_precision = requests[0].sampling.speed.reduced_precision
    with progress_display() as display:
        display.begin("loading the models")
        with leaving_at_once():
            from ..pipeline.video_to_video import load_files, video_to_video  # noqa: PLC0415

        models, seconds = load_files(files, reduced_precision=reduced_precision), []
        for number, request in enumerate(requests):

            def show(progress: Progress, number: int = number) -> None:
                done = (number + progress.fraction) / len(requests)
                message = f"video {number + 1} of {len(requests)}: {progress.message}"
                display.show(replace(progress, fraction=done, message=message))

            result = video_to_video(request, models, progress=show)
            seconds.append(result.timings.total)
    return seconds


def _source(request: Request) -> str:
    """Write the frames that were restyled, as browsers can play them; return the file's name."""
    from ..pipeline.video import VideoReader, VideoWriter  # noqa: PLC0415 - loads a decoder

    name = request.output.name.rpartition("-")[0]
    path = request.output.with_name(f"{name}-source.mp4")
    with (
        VideoReader(request.input, selection=request.selection) as reader,
        VideoWriter(
            path,
            width=reader.width,
            height=reader.height,
            frame_rate=reader.frame_rate,
            overwrite=True,
        ) as writer,
    ):
        for frame in reader:
            writer.write(frame[None])
    return path.name


def _pictures(jobs: Sequence[Job], seconds: Sequence[float], first: int) -> list[Picture]:
    return [
        Picture(jobs[index].output.name, PROMPTS[jobs[index].style], seconds[index])
        for index in range(first, first + len(PROMPTS))
    ]
