"""A picture that shows frames of a video in rows."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

MOST_FRAMES, COLUMNS = 16, 4
# Pixels; frames are fitted into a square.
SIDE, GAP = 256, 4


def contact_sheet(images: Tensor) -> Tensor:
    """Return up to 16 frames, evenly spread from the first to the last, as one picture.

    Args:
        images: IMAGE frames [n, height, width, 3 or 4], float 0..1.

    Returns:
        [height, width, 3], float 0..1.
    """
    count = min(MOST_FRAMES, len(images))
    chosen = torch.linspace(0, len(images) - 1, count).round().long()
    small = [_small(images[index]) for index in chosen.tolist()]
    width, height = small[0].size
    columns = min(COLUMNS, count)
    sheet = Image.new(
        "RGB",
        (
            columns * (width + GAP) - GAP,
            math.ceil(count / columns) * (height + GAP) - GAP,
        ),
    )
    for place, picture in enumerate(small):
        row, column = divmod(place, columns)
        sheet.paste(picture, (column * (width + GAP), row * (height + GAP)))
    return torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8).reshape(
        sheet.height, sheet.width, 3
    ) / torch.tensor(255.0)


def sheet_path(video: Path) -> Path:
    """Return the path of the picture beside a video, or beside a folder of pictures."""
    name = video.name if video.is_dir() else video.stem
    return video.with_name(f"{name}_contact_sheet.png")


def _small(image: Tensor) -> Image.Image:
    eight_bit = (image[..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return ImageOps.contain(Image.fromarray(eight_bit), (SIDE, SIDE))
