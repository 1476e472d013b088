"""Training data of UNet and motion module: latents of scenes, each with a recoloured twin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from .loop import stacked
from .networks import LATENT_SCALE
from .scenes import COLOURS, FRAMES, Scene, draw, frame_times, object_mask, random_scene

STILLS = 5_000
VIDEOS, MORE_VIDEOS, VIDEOS_OF_NEIGHBOURS, VIDEOS_OF_YELLOW = 200, 100, 64, 64
# Colours that are easily confused when they lie side by side.
NEIGHBOURS = (("red", "orange"), ("red", "yellow"), ("orange", "yellow"), ("yellow", "green"))
# Beside blue, yellow is taken for orange, and orange and red for each other.
BESIDE_BLUE = (("yellow", "blue"), ("orange", "blue"), ("red", "blue"))
BESIDE_YELLOW = tuple(colour for colour in COLOURS if colour != "yellow")
ENCODED_AT_ONCE = 16


@dataclass(frozen=True)
class Examples:
    """Latents of scenes: float16 [examples, 2, frames, 4, 16, 16], the second being the twin.

    Attributes:
        masks: coverage of the object in each latent, float16 [examples, frames, 1, 16, 16].
        times: the times of the frames of each example, from 0 to 1.
    """

    scenes: list[tuple[Scene, Scene]]
    latents: Tensor
    masks: Tensor
    times: list[np.ndarray]

    @cached_property
    def all(self) -> np.ndarray:
        """Return row and side (0 or 1) of every example, int64 [2 * examples, 2]."""
        return np.array([(row, side) for row in range(len(self.scenes)) for side in (0, 1)])

    def of_style(self, style: str) -> np.ndarray:
        """Return the examples of a style, in the format of `all`."""
        return np.array([at for at in self.all if self.scenes[at[0]][at[1]].style == style])


def stills(folder: Path, vae: AutoencoderKL) -> Examples:
    """Return single frames of many scenes, at random times of their motion."""
    return _kept(folder / "stills.pt", vae, _twins(STILLS, 11), frames=1, seed=11)


def videos(folder: Path, vae: AutoencoderKL) -> Examples:
    """Return whole videos."""
    return _kept(folder / "clips.pt", vae, _twins(VIDEOS, 12), frames=FRAMES, seed=12)


def videos_for_keyframes(folder: Path, vae: AutoencoderKL) -> Examples:
    """Return the whole videos, and more, many of them in colours that are easily confused."""
    more = _kept(folder / "more_clips.pt", vae, _twins(MORE_VIDEOS, 13), frames=FRAMES, seed=13)
    neighbours = _kept(
        folder / "neighbours.pt",
        vae,
        _of_neighbours(VIDEOS_OF_NEIGHBOURS, 14),
        frames=FRAMES,
        seed=14,
    )
    yellow = _kept(
        folder / "yellow.pt", vae, _of_yellow(VIDEOS_OF_YELLOW, 16), frames=FRAMES, seed=16
    )
    return joined([videos(folder, vae), more, neighbours, yellow])


def joined(parts: Sequence[Examples]) -> Examples:
    """Return the examples of all parts, one part after another."""
    return Examples(
        [pair for part in parts for pair in part.scenes],
        torch.cat([part.latents for part in parts]),
        torch.cat([part.masks for part in parts]),
        [times for part in parts for times in part.times],
    )


def _kept(
    path: Path, vae: AutoencoderKL, twins: Iterator[tuple[Scene, Scene]], *, frames: int, seed: int
) -> Examples:
    scenes = list(twins)
    times = [_times(index, frames, seed) for index in range(len(scenes))]
    if path.exists():
        kept = torch.load(path, weights_only=True)
    else:
        kept = {"latents": _latents(vae, scenes, times), "masks": _masks(scenes, times)}
        torch.save(kept, path)
    return Examples(scenes, kept["latents"], kept["masks"], times)


def _twins(count: int, seed: int) -> Iterator[tuple[Scene, Scene]]:
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        scene = random_scene(rng)
        yield scene, scene.recoloured(rng)


def _of_neighbours(count: int, seed: int) -> Iterator[tuple[Scene, Scene]]:
    either_way = [pair for each in NEIGHBOURS for pair in (each, each[::-1])]
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        scene = replace(random_scene(rng), style=None)
        first, second = (
            replace(scene, colour=colour, background=background)
            for colour, background in rng.choice(either_way, 2, replace=False).tolist()
        )
        yield first, second


def _of_yellow(count: int, seed: int) -> Iterator[tuple[Scene, Scene]]:
    """Return yellow objects beside each colour; of the twins, some are orange or on yellow."""
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        made = random_scene(rng)
        beside = BESIDE_YELLOW[index % len(BESIDE_YELLOW)]
        other = str(rng.choice(BESIDE_YELLOW))
        beside_orange = "purple" if other == "orange" else other
        twins = (("yellow", other), (other, "yellow"), ("yellow", other), ("orange", beside_orange))
        first, second = (
            replace(made.recoloured(rng), style=None, colour=colour, background=background)
            for colour, background in (("yellow", beside), twins[index % len(twins)])
        )
        yield first, second


def _times(index: int, frames: int, seed: int) -> np.ndarray:
    if frames > 1:
        return frame_times(frames)
    return np.random.default_rng((seed, index, 1)).uniform(0, 1, 1)


@torch.no_grad()
def _latents(
    vae: AutoencoderKL, scenes: list[tuple[Scene, Scene]], times: list[np.ndarray]
) -> Tensor:
    pictures = [
        (scene, time)
        for pair, at in zip(scenes, times, strict=True)
        for scene in pair
        for time in at
    ]
    found = []
    for start in tqdm(range(0, len(pictures), ENCODED_AT_ONCE), "latents", mininterval=10):
        batch = pictures[start : start + ENCODED_AT_ONCE]
        pixels = stacked(draw(scene, time) for scene, time in batch)
        found.append((vae.encode(pixels).latent_dist.mean * LATENT_SCALE).half())
    size = found[0].shape[1:]
    return torch.cat(found).view(len(scenes), 2, -1, *size)


def _masks(scenes: list[tuple[Scene, Scene]], times: list[np.ndarray]) -> Tensor:
    masks = [
        [object_mask(scene, time) for time in at]
        for (scene, _), at in zip(scenes, times, strict=True)
    ]
    return functional.avg_pool2d(torch.from_numpy(np.array(masks)), 8).unsqueeze(2).half()
