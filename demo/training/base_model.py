"""The stage that trains UNet and text encoder on single frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.pipeline.models.text_encoder import ClipTextModel
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from .captions import encoded
from .diffusion import Noised, alphas_cumprod, noised, picture_error, timesteps
from .examples import Examples
from .loop import Plan, train
from .networks import new_unet
from .scenes import partial_caption

BASE = Plan(steps=4_000, learning_rate=8e-4, average_decay=0.9995)
REFINEMENT = Plan(steps=2_000, learning_rate=4e-4, average_decay=0.998, refines=True)
BATCH = 16


@dataclass(frozen=True)
class Batch:
    """Rows of examples: latents and twins [rows, frames, 4, 16, 16], masks, captions.

    Attributes:
        rows: indices among the examples.
        sides: which of each pair is the example, 0 or 1.
    """

    latents: Tensor
    twins: Tensor
    masks: Tensor
    captions: list[str]
    rows: np.ndarray
    sides: np.ndarray


def draw_batch(
    examples: Examples,
    rng: np.random.Generator,
    size: int,
    *,
    among: np.ndarray | None = None,
) -> Batch:
    """Draw examples; either of a pair can be the example, the other one is its twin.

    Args:
        examples: all examples.
        rng: the random generator.
        size: the number of rows.
        among: the examples to draw from, in the format of `examples.all`; None is all.
    """
    chosen = examples.all if among is None else among
    rows, which = chosen[rng.integers(0, len(chosen), size)].T
    return Batch(
        latents=examples.latents[rows, which].float(),
        twins=examples.latents[rows, 1 - which].float(),
        masks=examples.masks[rows].float(),
        captions=[
            partial_caption(examples.scenes[row][side], rng)
            for row, side in zip(rows, which, strict=True)
        ],
        rows=rows,
        sides=which,
    )


def noised_stills(batch: Batch, steps: Tensor, generator: torch.Generator) -> Noised:
    """Add noise to the first frames of a batch, at the training steps [rows].

    The sampler uses Stable Diffusion's schedule without a motion module, and AnimateDiff's with
    one, so half of the rows get noise of each.
    """
    halves = torch.stack([alphas_cumprod("linear"), alphas_cumprod("sqrt_linear")])
    return noised(
        batch.latents[:, 0],
        batch.twins[:, 0],
        timesteps=steps,
        alphas=halves[torch.arange(len(steps)) % 2, steps],
        generator=generator,
    )


def trained_base(
    folder: Path, examples: Examples, text_encoder: ClipTextModel
) -> UNet2DConditionModel:
    """Train a UNet, and the text encoder with it, in place."""
    torch.manual_seed(3)
    unet = new_unet()
    _train(unet, BASE, examples, text_encoder, folder=folder)
    return unet


def refined_base(
    folder: Path, examples: Examples, unet: UNet2DConditionModel, text_encoder: ClipTextModel
) -> UNet2DConditionModel:
    """Continue training in place, with more of the noise levels that video-to-video uses."""
    _train(unet, REFINEMENT, examples, text_encoder, folder=folder)
    return unet


def _train(
    unet: UNet2DConditionModel,
    plan: Plan,
    examples: Examples,
    text_encoder: ClipTextModel,
    *,
    folder: Path,
) -> None:
    networks = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}).requires_grad_(True)

    def loss_of(rng: np.random.Generator, generator: torch.Generator, step: int) -> Tensor:
        batch = draw_batch(examples, rng, BATCH)
        steps = timesteps(BATCH, generator, refine=plan.refines)
        seen = noised_stills(batch, steps, generator)
        context = encoded(text_encoder, batch.captions)
        predicted = unet(seen.sample, seen.timesteps, context, return_dict=False)[0]
        return picture_error(predicted, seen, batch.masks[:, 0])

    train("base_refined" if plan.refines else "base", plan, networks, loss_of, folder)
