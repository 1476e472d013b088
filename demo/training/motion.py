"""The stage that trains the motion module on videos with frozen spatial layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.pipeline.models.motion_module import MotionModules
from animatediff_v2v.pipeline.models.text_encoder import ClipTextModel
from animatediff_v2v.pipeline.models.unet import MotionUNet
from diffusers import UNet2DConditionModel
from torch import Tensor

from .base_model import draw_batch
from .captions import encoded
from .diffusion import alphas_cumprod, noised, picture_error, timesteps
from .examples import Examples
from .loop import Plan, frozen, train
from .networks import new_motion_modules
from .scenes import FRAMES

MOTION = Plan(steps=1_000, learning_rate=1e-3, average_decay=0.998)
REFINEMENT = Plan(steps=500, learning_rate=6e-4, average_decay=0.995, refines=True)
VIDEOS_PER_STEP = 2


def trained_motion_modules(
    folder: Path,
    examples: Examples,
    unet: UNet2DConditionModel,
    text_encoder: ClipTextModel,
) -> MotionModules:
    """Train motion modules on AnimateDiff's noise schedule."""
    torch.manual_seed(4)
    modules = new_motion_modules()
    _train(modules, MOTION, examples, unet, text_encoder, folder=folder)
    return modules


def refined_motion_modules(
    folder: Path,
    examples: Examples,
    unet: UNet2DConditionModel,
    text_encoder: ClipTextModel,
    modules: MotionModules,
) -> MotionModules:
    """Continue training in place, with more of the noise levels that video-to-video uses."""
    _train(modules, REFINEMENT, examples, unet, text_encoder, folder=folder)
    return modules


def _train(
    modules: MotionModules,
    plan: Plan,
    examples: Examples,
    unet: UNet2DConditionModel,
    text_encoder: ClipTextModel,
    *,
    folder: Path,
) -> None:
    modules.requires_grad_(True)
    network = MotionUNet(frozen(unet), modules, family="v2")
    frozen(text_encoder)
    alphas = alphas_cumprod("sqrt_linear")

    def loss_of(rng: np.random.Generator, generator: torch.Generator, step: int) -> Tensor:
        batch = draw_batch(examples, rng, VIDEOS_PER_STEP)
        steps = timesteps(VIDEOS_PER_STEP, generator, refine=plan.refines)
        seen = noised(
            batch.latents,
            batch.twins,
            timesteps=steps,
            alphas=alphas[steps],
            generator=generator,
        )
        context = encoded(text_encoder, batch.captions).repeat_interleave(FRAMES, 0)
        predicted = network(
            seen.sample.flatten(0, 1), steps.repeat_interleave(FRAMES), context, FRAMES
        )
        return picture_error(predicted, seen, batch.masks)

    train("motion_refined" if plan.refines else "motion", plan, modules, loss_of, folder)
