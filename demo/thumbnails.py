"""Draw the templates' thumbnails: the demo's video, the result, and the nodes.

Usage: python demo/run.py && python demo/thumbnails.py [NAME ...]   (all if no name is given)
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import help_pictures
import numpy as np
import source_clip
import torch
from animatediff_v2v.pipeline.video import VideoReader
from help_pictures import Frames
from PIL import Image, ImageDraw, ImageFont

DEMO = Path(__file__).parent
TEMPLATES = DEMO.parent / "workflows"
# The template browser shows square thumbnails; they are drawn larger for smooth lines and text.
SIDE, DRAWN, EDGE = 512, 1024, 64
# It lays a badge over the upper left corner, a fifth of the height.
BADGE = 170
GROUND, INK, SOFT = "#1d2430", "#f2f4f8", "#9aa6b8"
# The colours of the groups in the templates.
COLOURS = {
    "clip": "#3f789e",
    "model": "#6b5b95",
    "prompts": "#5b7a95",
    "structure": "#a1309b",
    "restyle": "#6f9a6f",
    "result": "#b58b2a",
}
PROMPTS = {"red": "#dc4a3a", "yellow": "#f2d35b", "green": "#5fbf6a"}


@dataclass(frozen=True)
class Card:
    """The content of a thumbnail.

    Attributes:
        videos: a result of demo/run.py, shown below the source, or a function that makes all.
        nodes: names with groups.
    """

    title: str
    subtitle: str
    videos: str | Callable[[], Sequence[Frames]]
    nodes: Sequence[Sequence[tuple[str, str]]]
    frames: int = 4
    windows: int = 0
    prompts: bool = False


CARDS = {
    "01 Try it now": Card(
        "Try it now",
        "a miniature, no download, no GPU",
        "green",
        [[("Get the miniature", "result")], [("AnimateDiff Video to Video", "restyle")]],
    ),
    "03 Video to Video": Card(
        "Video to Video",
        "restyle a clip, keep its sound",
        "green",
        [
            [("Load Video", "clip"), ("Sampler", "restyle")],
            [("Load Model", "model"), ("Encode Video", "result")],
        ],
    ),
    "02 Video to Video (one node)": Card(
        "Video to Video",
        "in one node, from file to file",
        "yellow",
        [[("AnimateDiff Video to Video", "restyle")]],
    ),
    "09 LoRA Stack": Card(
        "LoRA Stack",
        "several LoRAs, their own strengths",
        "outlined",
        [
            [("LoRA 0.8", "model"), ("LoRA 0.7", "model")],
            [("Load Model", "model"), ("Sampler", "restyle")],
        ],
    ),
    "04 Turbo (few steps)": Card(
        "Turbo",
        "AnimateLCM: 8 steps, not 25",
        "4_steps",
        [[("AnimateLCM", "model"), ("8 steps, lcm", "restyle")], [("Encode Video", "result")]],
    ),
    "06 Long Video": Card(
        "Long Video",
        "windows that overlap, any length",
        "green",
        [[("Context Options", "prompts"), ("Sampler", "restyle")]],
        frames=8,
        windows=4,
    ),
    "05 Prompt Travel": Card(
        "Prompt Travel",
        "a prompt that changes on the way",
        lambda: [help_pictures.video(), *help_pictures.prompt_schedule().values()],
        [[("Prompt Schedule", "prompts"), ("Sampler", "restyle")]],
        prompts=True,
    ),
    "07 ControlNet": Card(
        "ControlNet",
        "new colours, the same outlines",
        lambda: [
            help_pictures.source(),
            help_pictures.control_frames()["canny"],
            [*help_pictures.controlnet().values()][-1],
        ],
        [
            [("Control Frames", "structure"), ("ControlNet", "structure")],
            [("Sampler", "restyle"), ("Encode Video", "result")],
        ],
        frames=6,
    ),
    "08 Style Image": Card(
        "Style Image",
        "the style of a picture, by IP-Adapter",
        lambda: [*help_pictures.ip_adapter().values()][:2],
        [
            [("Load Image", "clip"), ("IP-Adapter", "structure")],
            [("Load CLIP Vision", "model"), ("Sampler", "restyle")],
        ],
    ),
    "10 Native nodes": Card(
        "Native nodes",
        "MODEL, CLIP, VAE, VIDEO",
        "green",
        [
            [("Load Checkpoint", "model"), ("Load LoRA", "model")],
            [("Model from MODEL", "restyle"), ("Save Video", "result")],
        ],
    ),
    "11 Apply AnimateDiff (KSampler)": Card(
        "Apply AnimateDiff",
        "ComfyUI's own KSampler",
        "green",
        [
            [("Load Checkpoint", "model"), ("Apply AnimateDiff", "restyle")],
            [("KSampler", "restyle"), ("VAE Decode", "result")],
        ],
    ),
    "12 Batch of Videos": Card(
        "Batch of Videos",
        "a folder, clip by clip",
        lambda: [*help_pictures.batch().values()][:2],
        [[("AnimateDiff Batch of Videos", "restyle")]],
    ),
    "13 Every Frame Back": Card(
        "Every Frame Back",
        "restyle a few, restore the rest",
        lambda: [*help_pictures.restore_frames(6).values()],
        [
            [("Select Frames", "clip"), ("Sampler", "restyle")],
            [("Restore Frames", "restyle"), ("Match Source", "result")],
        ],
        frames=6,
    ),
    "14 SAM3 Mask": Card(
        "SAM3 Mask",
        "restyle what you name, nothing else",
        lambda: masked()[1:],
        [
            [("SAM3 Video Track", "structure"), ("SAM3 Track to Mask", "structure")],
            [("Sampler", "restyle")],
        ],
    ),
    "15 Depth and Pose": Card(
        "Depth and Pose",
        "Depth Anything 3, SDPose",
        lambda: [help_pictures.source(), [*help_pictures.controlnet().values()][-1]],
        [
            [("Depth Anything 3", "structure"), ("ControlNet", "structure")],
            [("SDPose", "structure"), ("ControlNet", "structure")],
        ],
    ),
    "16 Background Removal": Card(
        "Background Removal",
        "the foreground alone is restyled",
        lambda: masked()[::2],
        [[("Remove Background", "structure"), ("Sampler", "restyle")]],
    ),
    "17 Slow Motion": Card(
        "Slow Motion",
        "two frames for each one",
        lambda: [help_pictures.source(), help_pictures.restyled()],
        [[("Sampler", "restyle"), ("Frame Interpolation", "result")]],
        frames=8,
    ),
    "18 Long Memory": Card(
        "Long Memory",
        "later windows like the first one",
        lambda: [*help_pictures.long_memory().values()],
        [[("Context Options", "prompts"), ("Sampler", "restyle")]],
        frames=8,
        windows=4,
    ),
    "19 Keyframes": Card(
        "Keyframes",
        "repaint one frame, the rest follows",
        lambda: [help_pictures.source(), keyframed()],
        [
            [("Load Image", "clip"), ("Keyframes", "structure"), ("Sampler", "restyle")],
        ],
    ),
}


def main() -> None:
    for name in sys.argv[1:] or CARDS:
        picture = draw(CARDS[name]).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        picture.save(TEMPLATES / f"{name}.jpg", quality=88, optimize=True)
        print(TEMPLATES / f"{name}.jpg")


def draw(card: Card) -> Image.Image:
    picture = Image.new("RGB", (DRAWN, DRAWN), GROUND)
    pen = ImageDraw.Draw(picture)
    pen.text((EDGE, BADGE), card.title, font=letters(68), fill=INK)
    pen.text((EDGE, BADGE + 84), card.subtitle, font=letters(40), fill=SOFT)
    y = BADGE + 156
    for frames in shown(card):
        y += strip(picture, y, frames, card.frames) + 20
    y += 12
    for index in range(card.windows):
        share = (DRAWN - 2 * EDGE) / (card.windows + 1)
        x = EDGE + index * share
        pen.rounded_rectangle((x, y, x + 2 * share, y + 24), 10, fill=COLOURS["restyle"])
        y += 36
    if card.prompts:
        y += prompts(pen, y)
    nodes(pen, max(y + 8, 690), card.nodes)
    return picture


def shown(card: Card) -> Sequence[Frames]:
    """Return the videos of a card, from top to bottom."""
    if not isinstance(card.videos, str):
        return card.videos()
    with VideoReader(DEMO / "out" / f"{card.videos}.mp4") as reader:
        return [help_pictures.video(), np.stack(list(reader))]


@cache
def masked() -> Sequence[Frames]:
    """Return the demo's video, the mask of its red object, and the object alone restyled."""
    frames = help_pictures.source()
    mask = frames[..., 0] > frames[..., 2]
    made = help_pictures.restyled(mask=torch.from_numpy(mask).float())
    return frames, np.repeat(mask[..., None], 3, axis=-1).astype(np.uint8) * 255, made


def keyframed() -> Frames:
    """Return the repainted first frame, and the result behind it."""
    picture = source_clip.repainted_frame()[np.newaxis]
    return np.concatenate([picture, help_pictures.keyframed(picture)[1:]])


def strip(picture: Image.Image, y: int, frames: Frames, count: int) -> int:
    """Paste frames side by side, and return their height."""
    width = (DRAWN - 2 * EDGE - 16 * (count - 1)) // count
    for index in range(count):
        frame = frames[round(index * (len(frames) - 1) / (count - 1))]
        picture.paste(
            Image.fromarray(frame).resize((width, width)), (EDGE + index * (width + 16), y)
        )
    return width


def prompts(pen: ImageDraw.ImageDraw, y: int) -> int:
    width = (DRAWN - 2 * EDGE) // len(PROMPTS)
    for index, (name, colour) in enumerate(PROMPTS.items()):
        x = EDGE + index * width
        pen.rectangle((x, y, x + width, y + 64), fill=colour)
        middle = (x + width / 2, y + 32)
        pen.text(middle, name, font=letters(34), fill=GROUND, anchor="mm")
    return 64


def nodes(pen: ImageDraw.ImageDraw, y: int, rows: Sequence[Sequence[tuple[str, str]]]) -> None:
    for row in rows:
        x = EDGE
        for index, (name, group) in enumerate(row):
            width = int(pen.textlength(name, font=letters(36))) + 48
            if index:
                pen.line((x - 26, y + 40, x, y + 40), fill=SOFT, width=5)
            pen.rounded_rectangle((x, y, x + width, y + 80), 16, fill=COLOURS[group])
            pen.text((x + 24, y + 40), name, font=letters(36), fill=INK, anchor="lm")
            x += width + 26
        y += 108


def letters(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


if __name__ == "__main__":
    main()
