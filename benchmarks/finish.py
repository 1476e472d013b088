"""Measure on the miniature what finishes a video: the source's colours, and a second pass.

Usage: python benchmarks/finish.py [--clips N]

Prints two tables. The clips are those of meaning.py, restyled with a prompt that names the colours
that they have, so that every change of them is a fault.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.pipeline import Conditioning, Guidance, SamplingSettings, sample_latents
from animatediff_v2v.pipeline.sampling.guided_model import GuidedModel
from animatediff_v2v.pipeline.sampling.sample import MakeGuided
from animatediff_v2v.pipeline.sampling.tiles import TiledModel, places, tile_size
from animatediff_v2v.pipeline.source_colours import SourceColours, colour_statistics
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))

from meaning import (
    CLIPS,
    SCHEDULER,
    STEPS,
    UNGUIDED,
    USUAL,
    Clip,
    decoded,
    held_out_clips,
    miniature,
    restyled,
)
from training import measures
from training.measures import Frames
from training.scenes import caption

STRENGTHS = (0.0, 0.5, 1.0)
TIMES = 2


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
    print(f"{len(clips)} clips in 2x2 tiles: at their edges, divided by elsewhere")
    seams(clips)
    print(f"{len(clips)} clips: lightness, tint and contrast off by, in hundredths; flicker")
    for name, way in WAYS.items():
        made = [way(clip) for clip in clips]
        for strength in STRENGTHS:
            print(f"{name:<22} {strength:<4}", _measured(clips, made, strength), flush=True)


def seams(clips: Sequence[Clip]) -> None:
    """Print how gradient and flicker at the edges of tiles compare with those elsewhere."""
    height, width = (TIMES * side for side in clips[0].latents.shape[-2:])
    tile = tile_size(2, height, width)
    columns = [column for _, column in places(tile, height, width)]
    ends = {8 * end for each in columns for end in (each.start, each.stop)} - {0, 8 * width}
    for name, make in (("whole", GuidedModel), ("tiles", partial(TiledModel, tile=tile))):
        videos = [second_pass(clip, make) for clip in clips]
        gradient, flicker = np.mean([_at_edges(each, sorted(ends)) for each in videos], axis=0)
        print(f"{name:<8} gradient {gradient:.3f}  flicker {flicker:.3f}", flush=True)


def second_pass(clip: Clip, make_guided: MakeGuided) -> Frames:
    """Enlarge a restyled clip, and denoise it again."""
    models, encode = miniature(), miniature().text_encoder.encode
    first = torch.from_numpy(restyled(clip, prompt=caption(clip.scene))).permute(0, 3, 1, 2)
    large = functional.interpolate(first, scale_factor=TIMES, mode="bicubic", antialias=True)
    sampled = sample_latents(
        models.unet,
        models.codec.encode(large.clamp(0, 1).permute(0, 2, 3, 1)),
        Conditioning.of(encode(caption(clip.scene)), encode("")),
        SamplingSettings(
            seed=1000 + clip.index, steps=STEPS, denoise=0.35, guidance=USUAL, scheduler=SCHEDULER
        ),
        make_guided=make_guided,
    )
    return decoded(models, sampled)


def _at_edges(frames: Frames, edges: Sequence[int]) -> tuple[float, float]:
    """Return gradient and flicker around columns, each divided by that elsewhere."""
    gradient = np.abs(np.diff(frames, axis=2)).mean(axis=(0, 1, 3))
    flicker = np.abs(np.diff(frames, n=2, axis=0)).mean(axis=(0, 1, 3))
    near = [column for edge in edges for column in range(edge - 4, edge + 4)]

    def ratio(values: Frames) -> float:
        return float(values[near].mean() / np.delete(values, near).mean())

    return ratio(gradient), ratio(flicker)


def _measured(clips: Sequence[Clip], made: Sequence[Frames], strength: float) -> str:
    results = [matched(f, c.frames, strength) for f, c in zip(made, clips, strict=True)]
    off = [differences(r, c.frames) for r, c in zip(results, clips, strict=True)]
    flicker = [measures.flicker(r, c.scene).mean() for r, c in zip(results, clips, strict=True)]
    return "  ".join(f"{value:6.3f}" for value in (*np.mean(off, axis=0), 100 * np.mean(flicker)))


if __name__ == "__main__":
    main()
