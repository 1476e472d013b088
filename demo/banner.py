"""Draw the banner for the registry, 21:9: the demo's video above what the miniature makes of it.

Usage: python demo/banner.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from help_pictures import GROUND, INK, Frames, models, restyled, source
from PIL import Image, ImageDraw, ImageFont
from run import YELLOW

BANNER = Path(__file__).parents[1] / ".github" / "banner.png"
WIDTH, HEIGHT = 1260, 540
COLUMNS = 3
SIDE = HEIGHT // 2
MARGIN = 48
FAINT = "#9aa7b8"
TITLE, SUBTITLE, SMALL = 58, 27, 21


def main() -> None:
    banner(source(), restyled(YELLOW, networks=models(1.0))).save(BANNER, optimize=True)
    print(BANNER)


def banner(before: Frames, after: Frames) -> Image.Image:
    """Draw the name on the left, and frames of both videos at the same times on the right."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), GROUND)
    left = WIDTH - COLUMNS * SIDE
    for row, frames in enumerate((before, after)):
        times = np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int)
        for column, frame in enumerate(frames[times]):
            large = Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            picture.paste(large, (left + column * SIDE, row * SIDE))
    pen = ImageDraw.Draw(picture)
    for y, text, size, colour in (
        (150, "AnimateDiff", TITLE, INK),
        (214, "V2V", TITLE, INK),
        (306, "Video in, restyled video out", SUBTITLE, INK),
        (352, "Exact frames, any length, with sound", SMALL, FAINT),
    ):
        font = ImageFont.load_default(size)
        assert MARGIN + pen.textlength(text, font=font) < left, text
        pen.text((MARGIN, y), text, font=font, fill=colour)
    return picture


if __name__ == "__main__":
    main()
