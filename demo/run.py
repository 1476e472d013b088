"""The demo: restyle a video with the miniature in five ways, and show the results side by side.

Usage: python demo/run.py [FOLDER]   (demo/out if no folder is given)
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from animatediff_v2v.batch.report import page, played_pair
from animatediff_v2v.cli.main import main as animatediff_v2v
from animatediff_v2v.pipeline.video import FrameSelection, VideoReader, VideoWriter
from numpy.typing import NDArray
from PIL import Image, ImageDraw

DEMO = Path(__file__).parent
MODELS = DEMO / "models"
CLIP = DEMO / "clip.mp4"
LORAS = MODELS / "loras"
EVERY_NTH_FRAME = 2
FRAME_RATE = Fraction(8)  # the video has 16; every 2nd frame is kept
FEW_KEPT = 3  # of the 48 frames 16 are kept, as many as the motion module was trained on

GREEN = "a green square on a purple background"
YELLOW = "a yellow square on a green background"
FEW_STEPS = ["--lora", str(LORAS / "miniature_few_steps.safetensors"), "--steps", "4"]
FEW_STEPS += ["--guidance-scale", "1", "--sampler", "lcm", "--scheduler", "sgm_uniform"]
USUAL = ["--steps", "8", "--guidance-scale", "5", "--scheduler", "karras"]
RUNS = {
    "green": (GREEN, USUAL),
    "yellow": (YELLOW, USUAL),
    "outlined": (YELLOW, [*USUAL, "--lora", str(LORAS / "miniature_outlined.safetensors")]),
    "4 steps": (GREEN, FEW_STEPS),
}
COLUMNS = 6
LABEL_HEIGHT = 14

Frames = NDArray[np.uint8]


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEMO / "out"
    folder.mkdir(parents=True, exist_ok=True)
    results = {"source": CLIP}
    for name, (prompt, options) in RUNS.items():
        results[name] = folder / file_name(name)
        code = restyle(results[name], prompt, options)
        if code:
            return code
    videos = {
        name: read(path, 1 if path != CLIP else EVERY_NTH_FRAME) for name, path in results.items()
    }
    write_side_by_side(folder / "side_by_side.gif", videos, FRAME_RATE)
    write_contact_sheet(folder / "contact_sheet.png", videos)
    code = restore(folder)
    if code:
        return code
    write_page(folder, [*RUNS, "restored"])
    print(
        "\n".join(["", *(str(folder / name) for name in sorted(p.name for p in folder.iterdir()))])
    )
    return 0


def restore(folder: Path) -> int:
    """Restyle few frames and restore the others, and show both beside the source."""
    output = folder / "restored.mp4"
    code = restyle(output, GREEN, [*USUAL, "--restore-frames"], nth=FEW_KEPT)
    if code:
        return code
    restored = read(output, 1)
    stuttering = np.repeat(restored[::FEW_KEPT], FEW_KEPT, axis=0)[: len(restored)]
    videos = {"source": read(CLIP, 1), f"every {FEW_KEPT}rd": stuttering, "restored": restored}
    write_side_by_side(folder / "restored.gif", videos, EVERY_NTH_FRAME * FRAME_RATE)
    return 0


def restyle(output: Path, prompt: str, options: list[str], nth: int = EVERY_NTH_FRAME) -> int:
    """Print and run the command as a user would type it."""
    command = ["run", str(CLIP), str(output), "--prompt", prompt, *options]
    command += ["--checkpoint", str(MODELS / "checkpoints" / "miniature.safetensors")]
    command += ["--motion-module"]
    command += [str(MODELS / "animatediff_models" / "miniature_motion.safetensors")]
    command += ["--negative-prompt", "", "--denoise", "0.5", "--seed", "7", "--overwrite"]
    command += ["--select-every-nth-frame", str(nth)]
    print(shlex.join(["animatediff-v2v", *command]))
    return animatediff_v2v(command)


def write_page(folder: Path, names: Sequence[str]) -> None:
    """Write a page that plays the source beside each result, or over it with a divider."""
    source = Path(shutil.copy(CLIP, folder / "source.mp4"))
    sections = [
        f"<section>\n<h2>{name}</h2>\n"
        f"{played_pair(Path(source.name), Path(file_name(name)))}\n</section>"
        for name in names
    ]
    (folder / "index.html").write_text(
        page("AnimateDiff V2V: the demo", "Source and results", sections), encoding="utf-8"
    )


def file_name(name: str) -> str:
    """Return the name of a result's file."""
    return f"{name.replace(' ', '_')}.mp4"


def read(path: Path, nth: int) -> Frames:
    """Read the frames of a video: uint8 [frames, height, width, 3]."""
    with VideoReader(path, selection=FrameSelection(select_every_nth_frame=nth)) as reader:
        return np.stack(list(reader))


def write_side_by_side(path: Path, videos: dict[str, Frames], frame_rate: Fraction) -> None:
    """Write all videos side by side, below their names."""
    heads = np.concatenate([label(name, video.shape[2]) for name, video in videos.items()], axis=1)
    body = np.concatenate(list(videos.values()), axis=2)
    frames = np.concatenate([np.repeat(heads[np.newaxis], len(body), axis=0), body], axis=1)
    height, width = frames.shape[1:3]
    with VideoWriter(
        path, format="gif", width=width, height=height, frame_rate=frame_rate, overwrite=True
    ) as writer:
        writer.write(frames)


def write_contact_sheet(path: Path, videos: dict[str, Frames]) -> None:
    """Write a picture with one row per video, all at the same times."""
    rows = []
    for name, video in videos.items():
        chosen = video[np.linspace(0, len(video) - 1, COLUMNS).round().astype(int)]
        strip = np.concatenate(list(chosen), axis=1)
        rows += [label(name, strip.shape[1]), strip]
    iio.imwrite(path, np.concatenate(rows))


def label(text: str, width: int) -> Frames:
    """Draw a line of text on white."""
    picture = Image.new("RGB", (width, LABEL_HEIGHT), "white")
    ImageDraw.Draw(picture).text((3, 1), text, fill="black")
    return np.asarray(picture)


if __name__ == "__main__":
    sys.exit(main())
