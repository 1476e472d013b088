"""Examples to train a SparseCtrl on: clips, their keyframes, captions and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .base_model import Batch, draw_batch
from .control import OUTLINES
from .diffusion import TRAINING_STEPS, Noised, alphas_cumprod, clean, noised
from .examples import BESIDE_BLUE, NEIGHBOURS, Examples
from .scenes import FRAMES, Scene, caption, draw

ALPHAS = alphas_cumprod("sqrt_linear")
SIGMAS = ((1 - ALPHAS) / ALPHAS).sqrt()
LENGTHS, SHARES = (4, 8, FRAMES), (0.2, 0.2, 0.6)
# Keyframes are often the first frame, and the last one is the hardest to reach from there.
FIRST_FRAME = 0.5
TWO_KEYFRAMES = 0.3
# Keyframes are meant for high denoise: most of the steps are from this one on. There, the source
# still shows through the noise, more in later steps of the schedule.
NOISY, NOISY_SHARE, LEAST_NOISE = 600, 0.65, 200
SOURCE_SHARE, SOURCE_FADES = 0.7, 0.3
FROM_THE_START, START_SIGMAS = 0.6, (0.6, 14.0)
SIGMA_RATIOS = (0.45, 0.7)


@dataclass(frozen=True)
class Clips:
    """Clips to train on, [clips, frames, channels, height, width], and what is said of them.

    Attributes:
        latents: the clips, scaled.
        twins: the same clips in other colours.
        masks: coverage of the object.
        keyframes: indices of the keyframes among the frames.
        captions: all that there is to say of each clip.
        captions_without_colours: captions that leave the colours to the keyframe.
        pairs: row and side of the example of each clip, int64 [clips, 2].
        outlines: control frames [clips * frames, 3, 8 * height, 8 * width], 0 or 1, or None.
    """

    latents: Tensor
    twins: Tensor
    masks: Tensor
    keyframes: list[int]
    captions: list[str]
    captions_without_colours: list[str]
    pairs: np.ndarray
    outlines: Tensor | None

    @property
    def frames(self) -> int:
        """Return the number of frames of each clip."""
        return self.latents.shape[1]

    @property
    def shown(self) -> Tensor:
        """Return what the SparseCtrl sees, [clips, frames, 5, height, width]."""
        return shown_keyframes(self.latents, self.keyframes)

    def noised_at(
        self, step: Tensor, rng: np.random.Generator, generator: torch.Generator
    ) -> Noised:
        """Add the noise of a training step, int64 [1]; in many clips, the signal is the twin's."""
        clips = len(self.latents)
        return noised(
            self.latents,
            self.twins,
            timesteps=step.expand(clips),
            alphas=ALPHAS[step].expand(clips),
            generator=generator,
            share=_source_share(step, clips, rng),
        )

    def after(self, seen: Noised, predicted: Tensor, rng: np.random.Generator) -> Noised:
        """Return what a step of Euler's method leads to, with 0.45 to 0.7 of the noise."""
        sigma = sigma_of(seen) * float(rng.uniform(*SIGMA_RATIOS))
        step = _step_of(sigma).expand(len(self.latents))
        alpha = ALPHAS[step].view(-1, *[1] * (self.latents.ndim - 1))
        sample = alpha.sqrt() * clean(seen.sample, predicted, seen.alphas)
        sample = sample + (1 - alpha).sqrt() * predicted
        target = (sample - alpha.sqrt() * self.latents) / (1 - alpha).sqrt()
        return Noised(sample, step, target, alpha)


def drawn_clips(
    examples: Examples,
    rng: np.random.Generator,
    *,
    rows: int,
    shares: tuple[float, ...] = SHARES,
    is_half: bool = False,
    with_outlines: float = 0.0,
    among: np.ndarray | None = None,
) -> Clips:
    """Draw clips of the same length.

    Args:
        examples: whole videos.
        rng: the random generator.
        rows: the frames of all clips together.
        shares: how often clips have each of the lengths.
        is_half: True for latents of half the size.
        with_outlines: how often there are outlines, 0 to 1.
        among: as for draw_batch.
    """
    frames = int(rng.choice(LENGTHS, p=shares))
    batch = draw_batch(examples, rng, rows // frames, among=among)
    chosen = frames_in_order(frames, rng)
    latents, twins, masks = (
        at_half_size(each[:, chosen]) if is_half else each[:, chosen]
        for each in (batch.latents, batch.twins, batch.masks)
    )
    scenes = scenes_of(examples, batch)
    return Clips(
        latents=latents,
        twins=twins,
        masks=masks,
        keyframes=keyframes_among(frames, rng),
        captions=[caption(scene) for scene in scenes],
        captions_without_colours=captions_without_colours(scenes, rng),
        pairs=np.stack([batch.rows, batch.sides], axis=1),
        outlines=_outlines(examples, batch, chosen, rng) if rng.random() < with_outlines else None,
    )


def of_confused_colours(examples: Examples) -> np.ndarray:
    """Return the examples whose colours are confused most easily, in the format of `all`.

    Yellow objects turn orange beside any colour.
    """
    confused = [set(pair) for pair in (*NEIGHBOURS, *BESIDE_BLUE)]
    chosen = []
    for row, side in examples.all:
        scene = examples.scenes[row][side]
        is_confused = scene.colour == "yellow" or {scene.colour, scene.background} in confused
        if scene.style is None and is_confused:
            chosen.append((row, side))
    return np.array(chosen, np.int64).reshape(-1, 2)


def captions_without_colours(scenes: Sequence[Scene], rng: np.random.Generator) -> list[str]:
    """Return captions that leave the colours to the keyframe; some are empty."""

    def said(scene: Scene) -> str:
        texts = ("", f"a {scene.shape} on a background", f"a {scene.shape}", "a shape")
        return str(rng.choice(texts, p=(0.4, 0.3, 0.15, 0.15)))

    return [said(scene) for scene in scenes]


def frames_in_order(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return every nth frame of a video, from a random one on, int64 [count]."""
    nth = int(rng.integers(1, (FRAMES - 1) // (count - 1) + 1))
    first = int(rng.integers(FRAMES - nth * (count - 1)))
    return first + nth * np.arange(count)


def keyframes_among(frames: int, rng: np.random.Generator) -> list[int]:
    """Return one of so many frames, often the first, sometimes two, as keyframes."""
    if rng.random() < FIRST_FRAME:
        return [0]
    count = 2 if rng.random() < TWO_KEYFRAMES else 1
    return [int(frame) for frame in rng.choice(frames, count, replace=False)]


def drawn_step(rng: np.random.Generator) -> Tensor:
    """Draw a training step, int64 [1]."""
    is_noisy = rng.random() < NOISY_SHARE
    bounds = (NOISY, TRAINING_STEPS) if is_noisy else (LEAST_NOISE, NOISY)
    return torch.tensor([int(rng.integers(*bounds))])


def drawn_start(rng: np.random.Generator) -> Tensor:
    """Draw a training step for sampling to start from, int64 [1]; mostly the very first."""
    if rng.random() < FROM_THE_START:
        return torch.tensor([TRAINING_STEPS - 1])
    return _step_of(float(np.exp(rng.uniform(*np.log(START_SIGMAS)))))


def sigma_of(seen: Noised) -> float:
    """Return the deviation of the noise beside a signal of deviation 1, of the first clip."""
    return float(SIGMAS[seen.timesteps[0]])


def _step_of(sigma: float) -> Tensor:
    return torch.searchsorted(SIGMAS, torch.tensor([sigma])).clamp(max=TRAINING_STEPS - 1)


def shown_keyframes(latents: Tensor, keyframes: list[int]) -> Tensor:
    """Return the network's input for videos [n, frames, 4, ...]: [n, frames, 5, ...]."""
    shown = latents.new_zeros(*latents.shape[:2], 5, *latents.shape[-2:])
    shown[:, keyframes, :-1] = latents[:, keyframes]
    shown[:, keyframes, -1] = 1
    return shown


def at_half_size(values: Tensor) -> Tensor:
    """Return videos [n, frames, channels, height, width] at half the size."""
    return functional.avg_pool2d(values.flatten(0, 1), 2).unflatten(0, values.shape[:2])


def scenes_of(examples: Examples, batch: Batch) -> list[Scene]:
    """Return the scene of each example of a batch."""
    return [examples.scenes[row][side] for row, side in zip(batch.rows, batch.sides, strict=True)]


def _source_share(step: Tensor, clips: int, rng: np.random.Generator) -> Tensor:
    """Return the share of the twin in the signal, [clips]: sampling starts from the twin."""
    reach = ((step / TRAINING_STEPS - SOURCE_FADES) / 0.3).clamp(0, 1)
    return reach * torch.from_numpy(rng.random(clips) < SOURCE_SHARE)


def _outlines(
    examples: Examples, batch: Batch, frames: np.ndarray, rng: np.random.Generator
) -> Tensor:
    """Return control frames of either twin."""
    sides = rng.integers(0, 2, len(batch.rows))
    pictures = [
        OUTLINES.of((draw(examples.scenes[row][side], time) * 255).round().astype(np.uint8))
        for row, side in zip(batch.rows, sides, strict=True)
        for time in examples.times[row][frames]
    ]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
