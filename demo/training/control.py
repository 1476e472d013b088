"""The stage that trains a ControlNet on the outlines of the drawn scenes, the UNet frozen."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.pipeline.models.text_encoder import ClipTextModel
from animatediff_v2v.pipeline.video import ControlFrameOptions
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from .base_model import Batch, draw_batch, noised_stills
from .captions import encoded
from .diffusion import picture_error, timesteps
from .examples import Examples
from .loop import Plan, frozen, train
from .networks import new_controlnet
from .scenes import draw

CANNY = Plan(steps=2_000, learning_rate=1e-3, average_decay=0.99)
REFINEMENT = Plan(steps=600, learning_rate=4e-4, average_decay=0.99)
BATCH = 16
OUTLINES = ControlFrameOptions(preprocessor="canny")


def trained_controlnet(
    folder: Path,
    examples: Examples,
    unet: UNet2DConditionModel,
    text_encoder: ClipTextModel,
    earlier: ControlNetModel | None = None,
) -> ControlNetModel:
    """Train a ControlNet, starting from a copy of the UNet's down blocks with zero outputs.

    As in arXiv 2302.05543, on single frames and both noise schedules, like the UNet.

    `earlier` is a ControlNet trained for earlier weights of the UNet, to start from instead.
    """
    torch.manual_seed(7)
    frozen(unet)
    frozen(text_encoder)
    controlnet = earlier or new_controlnet(unet)
    plan = REFINEMENT if earlier else CANNY

    def loss_of(rng: np.random.Generator, generator: torch.Generator, step: int) -> Tensor:
        batch = draw_batch(examples, rng, BATCH)
        seen = noised_stills(batch, timesteps(BATCH, generator), generator)
        context = encoded(text_encoder, batch.captions)
        skips, middle = controlnet(
            seen.sample, seen.timesteps, context, outlines(examples, batch), return_dict=False
        )
        predicted = unet(
            seen.sample,
            seen.timesteps,
            context,
            down_block_additional_residuals=skips,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        # No limit: outlines matter most where little else of the picture is left.
        return picture_error(predicted, seen, batch.masks[:, 0], limit=math.inf)

    train("canny", plan, controlnet, loss_of, folder)
    return controlnet


def outlines(examples: Examples, batch: Batch) -> Tensor:
    """Return control frames of a batch's first frames, [rows, 3, height, width], 0 or 1."""
    frames = []
    for row, side in zip(batch.rows, batch.sides, strict=True):
        picture = draw(examples.scenes[row][side], examples.times[row][0])
        frames.append(OUTLINES.of((picture * 255).round().astype(np.uint8)))
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) / 255
