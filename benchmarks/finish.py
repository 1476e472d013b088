"""Measure on the miniature what finishes a video: the source's colours.

Usage: python benchmarks/finish.py [--clips N]

Prints a table. The clips are those of meaning.py, restyled with a prompt that names the colours
that they have, so that every change of them is a fault.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.pipeline import Guidance
from animatediff_v2v.pipeline.source_colours import SourceColours, colour_statistics

sys.path.insert(0, str(Path(__file__).parent))

from meaning import CLIPS, UNGUIDED, Clip, decoded, held_out_clips, miniature, restyled
from training import measures
from training.measures import Frames
from training.scenes import caption

STRENGTHS = (0.0, 0.5, 1.0)


def few_steps(clip: Clip) -> Frames:
    """Restyle a clip in 4 steps of LCM."""
    return restyled(
        clip,
        miniature("few_steps"),
        prompt=caption(clip.scene),
        steps=4,
        guidance=UNGUIDED,
        sampler="lcm",
        scheduler="sgm_uniform",
    )


WAYS: dict[str, Callable[[Clip], Frames]] = {
    "VAE alone": lambda clip: decoded(miniature(), clip.latents),
    "8 steps, guidance 5": lambda clip: restyled(clip, prompt=caption(clip.scene)),
    "8 steps, guidance 12": lambda clip: restyled(
        clip, prompt=caption(clip.scene), guidance=Guidance(scale=12.0)
    ),
    "LCM, 4 steps": few_steps,
}


def matched(frames: Frames, source: Frames, strength: float) -> Frames:
    """Hold the colours of a result to those of its source."""
    colours = SourceColours(strength)
    colours.add(torch.from_numpy(source).float())
    return torch.cat(list(colours.matched([torch.from_numpy(frames)]))).numpy()


def differences(frames: Frames, source: Frames) -> tuple[float, float, float]:
    """Return mean differences of lightness, of the tint, and of contrast in Oklab, times 100."""
    made, wanted = (
        torch.stack([colour_statistics(torch.from_numpy(f).float()) for f in each])
        for each in (frames, source)
    )
    gap = made - wanted
    lightness, tint = gap[:, 0, 0].abs().mean(), gap[:, 0, 1:].norm(dim=1).mean()
    return tuple(100 * float(each) for each in (lightness, tint, gap[:, 1, 0].abs().mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=CLIPS, metavar="N")
    clips = held_out_clips(parser.parse_args().clips)
    print(f"{len(clips)} clips: lightness, tint and contrast off by, in hundredths; flicker")
    for name, way in WAYS.items():
        made = [way(clip) for clip in clips]
        for strength in STRENGTHS:
            print(f"{name:<22} {strength:<4}", _measured(clips, made, strength), flush=True)


def _measured(clips: Sequence[Clip], made: Sequence[Frames], strength: float) -> str:
    results = [matched(f, c.frames, strength) for f, c in zip(made, clips, strict=True)]
    off = [differences(r, c.frames) for r, c in zip(results, clips, strict=True)]
    flicker = [measures.flicker(r, c.scene).mean() for r, c in zip(results, clips, strict=True)]
    return "  ".join(f"{value:6.3f}" for value in (*np.mean(off, axis=0), 100 * np.mean(flicker)))


if __name__ == "__main__":
    main()
