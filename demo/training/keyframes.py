"""The stages that train a SparseCtrl, which gives all frames the colours of a keyframe.

Arxiv 2311.16933, with the UNet and its motion modules frozen. Colours reach the other frames only
through the SparseCtrl's own motion modules. A first stage, which is cheap because it runs no UNet,
teaches its encoder to know the keyframe's colours in every frame; the second stage then only has to
find features that lead the UNet to these colours.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.pipeline.models.motion_module import MotionModules
from animatediff_v2v.pipeline.models.residuals import Residuals
from animatediff_v2v.pipeline.models.sparsectrl import SparseControlNetwork
from animatediff_v2v.pipeline.models.text_encoder import ClipTextModel
from animatediff_v2v.pipeline.models.unet import MotionUNet
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from .base_model import Batch, draw_batch
from .captions import encoded
from .control import OUTLINES
from .diffusion import TRAINING_STEPS, alphas_cumprod, noised, picture_error
from .examples import Examples
from .loop import Plan, frozen, train
from .networks import new_sparsectrl
from .scenes import FRAMES, Scene, draw

OUTPUTS = {"controlnet_down_blocks": 5.0, "controlnet_mid_block": 5.0}
COLOURS = Plan(steps=400, learning_rate=1.5e-3, faster=OUTPUTS)
KEYFRAMES = Plan(steps=800, learning_rate=1e-3, average_decay=0.985, faster=OUTPUTS)
ROWS = 32  # of the first stage
CLIPS, FRAMES_EACH = 4, 3  # of the second one
TWO_KEYFRAMES = 0.15
WITH_OUTLINES = 0.6
# Keyframes are meant for high denoise: most of the steps are from this one on. There, the source
# still shows through the noise, more in later steps of the schedule.
NOISY, NOISY_SHARE, LEAST_NOISE = 600, 0.8, 250
SOURCE_SHARE = 0.6
# The share of steps whose encoder sees latents of half the size, in a quarter of the time.
HALF_SIZE = 0.85
SURELY_OBJECT, SURELY_BACKGROUND = 0.95, 0.02


def trained_sparsectrl(
    folder: Path,
    examples: Examples,
    unet: UNet2DConditionModel,
    *,
    text_encoder: ClipTextModel,
    modules: MotionModules,
    controlnet: ControlNetModel,
) -> SparseControlNetwork:
    """Train a SparseCtrl on videos, starting from copies of the UNet and of the motion modules.

    Args:
        folder: the folder of the stages' files.
        examples: whole videos.
        unet: the UNet, which is frozen like all others.
        text_encoder: encodes captions without colours.
        modules: the motion modules of the UNet.
        controlnet: for outlines, with which keyframes are used at high denoise.
    """
    torch.manual_seed(9)
    for network in (unet, text_encoder, modules, controlnet):
        frozen(network)
    sparsectrl = new_sparsectrl(unet, modules)
    _train_to_know_colours(sparsectrl, examples, text_encoder, folder)
    moving = MotionUNet(unet, modules, family="v2")
    alphas = alphas_cumprod("sqrt_linear")

    def loss_of(rng: np.random.Generator, generator: torch.Generator, step: int) -> Tensor:
        batch = draw_batch(examples, rng, CLIPS)
        context = encoded(text_encoder, captions_without_colours(examples, batch, rng))
        chosen = np.sort(rng.choice(FRAMES, FRAMES_EACH, replace=False))
        shown = _shown(batch.latents, keyframes_among(chosen, rng))
        at = drawn_step(rng)
        is_half = step < HALF_SIZE * KEYFRAMES.steps
        pictures = _halved(shown, rng) if is_half else shown.flatten(0, 1)
        told = sparsectrl(pictures, at, context, FRAMES)
        residuals = _of_frames(told, chosen, enlarged=is_half)
        seen = noised(
            batch.latents[:, chosen],
            batch.twins[:, chosen],
            timesteps=at.expand(CLIPS),
            alphas=alphas[at].expand(CLIPS),
            generator=generator,
            share=_source_share(at, rng),
        )
        sample = seen.sample.flatten(0, 1)
        if rng.random() < WITH_OUTLINES:
            outlines = _outlines(examples, batch, chosen, rng)
            each_row = context.repeat_interleave(FRAMES_EACH, 0)
            skips, middle = controlnet(sample, at, each_row, outlines, return_dict=False)
            residuals = residuals.plus(Residuals(skips, middle))
        predicted = moving(sample, at, context, FRAMES_EACH, residuals=residuals)
        # No limit: colours are decided where little else of the picture is left.
        return picture_error(predicted, seen, batch.masks[:, chosen], limit=math.inf)

    train("keyframes", KEYFRAMES, sparsectrl, loss_of, folder)
    return sparsectrl


def _train_to_know_colours(
    sparsectrl: SparseControlNetwork, examples: Examples, text_encoder: ClipTextModel, folder: Path
) -> None:
    """Train all layers but the last to know the keyframe's colours, at every pixel of all frames.

    Layers that answer with these colours stand in place of the last ones.
    """
    network = sparsectrl.network
    colours = mean_colours(examples)
    last = network.controlnet_down_blocks, network.controlnet_mid_block
    answers = [nn.Conv2d(each.in_channels, colours.shape[-1], 1) for each in (*last[0], last[1])]
    network.controlnet_down_blocks = nn.ModuleList(answers[:-1])
    network.controlnet_mid_block = answers[-1]

    def loss_of(rng: np.random.Generator, generator: torch.Generator, step: int) -> Tensor:
        frames = int(rng.choice((2, 4, 8, FRAMES)))
        batch = draw_batch(examples, rng, ROWS // frames)
        context = encoded(text_encoder, captions_without_colours(examples, batch, rng))
        chosen = np.sort(rng.choice(FRAMES, frames, replace=False))
        shown = _shown(batch.latents, keyframes_among(chosen, rng))[:, chosen]
        at = torch.tensor([int(rng.integers(TRAINING_STEPS))])
        told = sparsectrl(_halved(shown, rng), at, context, frames)
        truth = colours[batch.rows, batch.sides].repeat_interleave(frames, 0)[:, :, None, None]
        errors = [(each - truth).square().mean() for each in (*told.skips, told.middle)]
        return torch.stack(errors).mean()

    train("keyframe_colours", COLOURS, sparsectrl, loss_of, folder)
    network.controlnet_down_blocks, network.controlnet_mid_block = last


def mean_colours(examples: Examples) -> Tensor:
    """Return the mean latents of object and background, [examples, 2, 8], scaled to deviation 1."""
    latents, masks = examples.latents.float(), examples.masks.float().unsqueeze(1)

    def mean_over(pixels: Tensor) -> Tensor:
        total = pixels.sum((2, 4, 5)).clamp(min=1)
        return (latents * pixels).sum((2, 4, 5)) / total

    inside, outside = masks > SURELY_OBJECT, masks < SURELY_BACKGROUND
    colours = torch.cat([mean_over(inside.float()), mean_over(outside.float())], dim=-1)
    return (colours - colours.mean((0, 1))) / colours.std((0, 1))


def captions_without_colours(
    examples: Examples, batch: Batch, rng: np.random.Generator
) -> list[str]:
    """Return captions that leave the colours to the keyframe; some are empty."""

    def said(scene: Scene) -> str:
        texts = ("", f"a {scene.shape} on a background", f"a {scene.shape}", "a shape")
        return str(rng.choice(texts, p=(0.4, 0.3, 0.15, 0.15)))

    pairs = zip(batch.rows, batch.sides, strict=True)
    return [said(examples.scenes[row][side]) for row, side in pairs]


def keyframes_among(frames: np.ndarray, rng: np.random.Generator) -> list[int]:
    """Return one of these frames, sometimes two, as keyframes."""
    count = 2 if rng.random() < TWO_KEYFRAMES else 1
    return [int(frame) for frame in rng.choice(frames, count, replace=False)]


def drawn_step(rng: np.random.Generator) -> Tensor:
    """Draw a training step, int64 [1]."""
    is_noisy = rng.random() < NOISY_SHARE
    bounds = (NOISY, TRAINING_STEPS) if is_noisy else (LEAST_NOISE, NOISY)
    return torch.tensor([int(rng.integers(*bounds))])


def _shown(latents: Tensor, keyframes: list[int]) -> Tensor:
    """Return the network's input for videos [n, frames, 4, ...]: [n, frames, 5, ...]."""
    shown = latents.new_zeros(*latents.shape[:2], 5, *latents.shape[-2:])
    shown[:, keyframes, :-1] = latents[:, keyframes]
    shown[:, keyframes, -1] = 1
    return shown


def _halved(shown: Tensor, rng: np.random.Generator) -> Tensor:
    """Return every second row and column of the network's input, as [n * frames, 5, ...]."""
    down, across = rng.integers(0, 2, 2)
    return shown[..., down::2, across::2].flatten(0, 1)


def _of_frames(residuals: Residuals, frames: np.ndarray, *, enlarged: bool) -> Residuals:
    """Return the residuals of some frames, perhaps at twice the size."""

    def part(features: Tensor) -> Tensor:
        chosen = features.unflatten(0, (-1, FRAMES))[:, frames].flatten(0, 1)
        if enlarged:
            chosen = chosen.repeat_interleave(2, -1).repeat_interleave(2, -2)
        return chosen

    assert residuals.middle is not None
    return Residuals([part(each) for each in residuals.skips], part(residuals.middle))


def _source_share(step: Tensor, rng: np.random.Generator) -> Tensor:
    """Return the share of the twin in the signal, [CLIPS]: sampling starts from the twin."""
    reach = ((step / TRAINING_STEPS - 0.6) / 0.3).clamp(0, 1)
    return reach * torch.from_numpy(rng.random(CLIPS) < SOURCE_SHARE)


def _outlines(
    examples: Examples, batch: Batch, frames: np.ndarray, rng: np.random.Generator
) -> Tensor:
    """Return control frames [CLIPS * frames, 3, height, width], 0 or 1, of either twin."""
    sides = rng.integers(0, 2, len(batch.rows))
    pictures = [
        OUTLINES.of((draw(examples.scenes[row][side], time) * 255).round().astype(np.uint8))
        for row, side in zip(batch.rows, sides, strict=True)
        for time in examples.times[row][frames]
    ]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
