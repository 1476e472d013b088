"""Measure on the miniature how long videos drift from their first window to their last.

Usage: python benchmarks/drift.py [--clips N] [--frames N] [--only METHOD ...] [--sheet FOLDER]

Makes videos from noise alone: denoise 1, prompts such as "on a blue background", which leave the
object open, 4 steps with the few-step LoRA. Prints a line for each method: in how many videos the
first and the last window have the object's colour, its shape and the background's colour in common,
how far neighbouring frames differ, and the CPU seconds of a video. The same for the two halves of
the first window say how well a window holds its object by itself. Seeds are always the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    ContextOptions,
    SamplingSettings,
    sample_latents,
)
from meaning import UNGUIDED, Frames, colour_of, decoded, measures, miniature
from PIL import Image

CLIPS, FRAMES, WINDOW, OVERLAP, SIDE = 32, 96, 16, 4, 16
SHOWN_EVERY = 8
"""Frames between those of the sheet."""
METHODS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "none": ({}, {}),
    "FreeNoise": ({}, {"noise_type": "FreeNoise"}),
    "overlap 8": ({"overlap": 8}, {}),
    "ContextRef": ({"memory": "ContextRef"}, {}),
    "ContextRef to 0.25": ({"memory": "ContextRef", "memory_end": 0.25}, {}),
    "FeatureBank": ({"memory": "FeatureBank"}, {}),
    "NaiveReuse": ({"memory": "NaiveReuse"}, {}),
    "NaiveReuse to 0.5": ({"memory": "NaiveReuse", "memory_end": 0.5}, {}),
    "NaiveReuse to 0.15": ({"memory": "NaiveReuse", "memory_end": 0.15}, {}),
}
"""Options of the windows and settings, by the name of a method."""


@dataclass(frozen=True)
class Drift:
    """What two parts of a video have in common."""

    colour: bool
    shape: bool
    background: bool

    @classmethod
    def between(cls, first: Frames, last: Frames) -> Drift:
        seen = [[measures.look(frame) for frame in frames] for frames in (first, last)]
        colour, last_colour = (colour_of(each, "object") for each in seen)
        background, last_background = (colour_of(each, "background") for each in seen)
        shape, last_shape = map(measures.shape_name, seen)
        return cls(colour == last_colour, shape == last_shape, background == last_background)


def sampled(index: int, method: str, frames: int) -> torch.Tensor:
    context, settings = METHODS[method]
    models = miniature("few_steps")
    colour = list(measures.COLOURS)[index % len(measures.COLOURS)]
    encode = models.text_encoder.encode
    return sample_latents(
        models.unet,
        torch.zeros(frames, 4, SIDE, SIDE),
        Conditioning.of(encode(f"on a {colour} background"), encode("")),
        SamplingSettings(
            seed=1000 + index,
            denoise=1.0,
            steps=4,
            guidance=UNGUIDED,
            sampler="lcm",
            scheduler="sgm_uniform",
            context=ContextOptions(**{"length": WINDOW, "overlap": OVERLAP} | context),
            **settings,
        ),
    )


def row(method: str, clips: int, frames: int) -> list[Frames]:
    """Print the lines of a method, and return some frames of each video."""
    windows, halves, shown, changes, seconds = [], [], [], [], 0.0
    for index in range(clips):
        began = time.process_time()
        latents = sampled(index, method, frames)
        seconds += time.process_time() - began
        first, last = (decoded(miniature(), part) for part in (latents[:WINDOW], latents[-WINDOW:]))
        windows.append(Drift.between(first, last))
        halves.append(Drift.between(first[: WINDOW // 2], first[WINDOW // 2 :]))
        changes += [np.abs(np.diff(each, axis=0)).mean() for each in (first, last)]
        shown.append(np.concatenate(list(decoded(miniature(), latents[::SHOWN_EVERY])), axis=1))
    print(f"{method:<20} {shares(windows)}; {np.mean(changes):.4f}; {seconds / clips:.1f} s")
    print(f"{'  within a window':<20} {shares(halves)}", flush=True)
    return shown


def shares(found: Sequence[Drift]) -> str:
    table = {
        "colour": [each.colour for each in found],
        "shape": [each.shape for each in found],
        "background": [each.background for each in found],
        "all": [each.colour and each.shape and each.background for each in found],
    }
    return ", ".join(f"{name} {np.mean(values):.0%}" for name, values in table.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=CLIPS, metavar="N")
    parser.add_argument("--frames", type=int, default=FRAMES, metavar="N")
    parser.add_argument("--only", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sheet", type=Path, help="folder for a picture of each method")
    arguments = parser.parse_args()
    for method in arguments.only:
        shown = row(method, arguments.clips, arguments.frames)
        if arguments.sheet is not None:
            pixels = (np.concatenate(shown).clip(0, 1) * 255).astype(np.uint8)
            Image.fromarray(pixels).save(arguments.sheet / f"{method}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
