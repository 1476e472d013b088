"""The stages that train a SparseCtrl, which gives all frames the colours of a keyframe.

Arxiv 2311.16933, with the UNet and its motion modules frozen. Colours reach the other frames only
through the SparseCtrl's own motion modules. A first stage, which is cheap because it runs no UNet,
teaches its encoder to know the keyframe's colours in every frame. The others find features that
lead the UNet to these colours, at first at half the size, where a step takes a third of the time,
at last in what sampling with it leads to. Their teacher is the UNet itself, told the colours by a
caption: what it predicts varies less than the noise of an example.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.pipeline.models.motion_module import MotionModules
from animatediff_v2v.pipeline.models.residuals import NO_RESIDUALS, Residuals
from animatediff_v2v.pipeline.models.sparsectrl import SparseControlNetwork
from animatediff_v2v.pipeline.models.text_encoder import ClipTextModel
from animatediff_v2v.pipeline.models.unet import MotionUNet
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from .base_model import draw_batch
from .captions import encoded
from .diffusion import TRAINING_STEPS, Noised, colour_error, picture_error
from .examples import Examples
from .keyframe_examples import (
    LENGTHS,
    Clips,
    at_half_size,
    captions_without_colours,
    drawn_clips,
    drawn_sampling_step,
    drawn_step,
    keyframes_among,
    scenes_of,
    shown_keyframes,
)
from .loop import Plan, frozen, train
from .networks import new_sparsectrl
from .scenes import FRAMES

OUTPUTS = {"controlnet_down_blocks": 5.0, "controlnet_mid_block": 5.0}
COLOURS = Plan(steps=400, learning_rate=1.5e-3, faster=OUTPUTS)
HALF_SIZE = Plan(steps=1_000, learning_rate=1e-3, average_decay=0.99, faster=OUTPUTS)
KEYFRAMES = Plan(steps=1_500, learning_rate=8e-4, average_decay=0.985, faster=OUTPUTS)
IN_SAMPLING = Plan(steps=520, learning_rate=8e-4, average_decay=0.985, faster=OUTPUTS)
COLOUR_ROWS, HALF_SIZE_ROWS, ROWS = 32, 24, 16  # frames of all clips together
WITH_OUTLINES = 0.75  # of the steps at full size
PARTS, STEPS_IN_A_ROW, SAMPLED_OUTLINES = 2, 2, 0.85
SAMPLED_SHARES = (0.35, 0.25, 0.4)
COLOUR_WEIGHT = 2.0
TEACHER_GUIDANCE = 1.5
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
        text_encoder: encodes captions, with colours for the teacher.
        modules: the motion modules of the UNet.
        controlnet: for outlines, with which keyframes are used at high denoise.
    """
    torch.manual_seed(9)
    for network in (unet, text_encoder, modules, controlnet):
        frozen(network)
    sparsectrl = new_sparsectrl(unet, modules)
    _train_to_know_colours(sparsectrl, examples, text_encoder, folder)
    stage = _Stage(
        examples,
        sparsectrl,
        unet=MotionUNet(unet, modules, family="v2"),
        controlnet=controlnet,
        text_encoder=text_encoder,
    )
    train("keyframes_half_size", HALF_SIZE, sparsectrl, stage.loss_at_half_size, folder)
    train("keyframes", KEYFRAMES, sparsectrl, stage.loss, folder)
    train("keyframes_in_sampling", IN_SAMPLING, sparsectrl, stage.loss_in_sampling, folder)
    return sparsectrl


@dataclass(frozen=True)
class _Stage:
    """The examples and networks of a stage; all but the SparseCtrl are frozen."""

    examples: Examples
    sparsectrl: SparseControlNetwork
    unet: MotionUNet
    controlnet: ControlNetModel
    text_encoder: ClipTextModel

    def loss_at_half_size(
        self, rng: np.random.Generator, generator: torch.Generator, _step: int
    ) -> Tensor:
        """Return the loss of one step on latents of half the size, without outlines."""
        drawn = drawn_clips(self.examples, rng, rows=HALF_SIZE_ROWS, is_half=True)
        seen = drawn.noised_at(drawn_step(rng), rng, generator)
        return self._error(drawn, seen)[0]

    def loss(self, rng: np.random.Generator, generator: torch.Generator, _step: int) -> Tensor:
        """Return the loss of one step."""
        drawn = drawn_clips(self.examples, rng, rows=ROWS, with_outlines=WITH_OUTLINES)
        seen = drawn.noised_at(drawn_step(rng), rng, generator)
        return self._error(drawn, seen)[0]

    def loss_in_sampling(
        self, rng: np.random.Generator, generator: torch.Generator, _step: int
    ) -> Tensor:
        """Return the mean loss of two steps of sampling in a row, of different clips each.

        What the second step sees is what the first one led to, right or wrong. The colours of
        object and background count on top of all pixels.
        """
        losses = []
        for _ in range(PARTS):
            drawn = drawn_clips(
                self.examples, rng, rows=ROWS, shares=SAMPLED_SHARES, with_outlines=SAMPLED_OUTLINES
            )
            seen = drawn.noised_at(drawn_sampling_step(rng), rng, generator)
            for _ in range(STEPS_IN_A_ROW):
                error, colours, predicted = self._error(drawn, seen)
                losses.append(error + COLOUR_WEIGHT * colours)
                seen = drawn.after(seen, predicted.detach(), rng)
        return torch.stack(losses).mean()

    def _error(self, drawn: Clips, seen: Noised) -> tuple[Tensor, Tensor, Tensor]:
        """Return the errors of the picture and of its colours, and the predicted noise."""
        frames, at = drawn.frames, seen.timesteps[:1]
        context = encoded(self.text_encoder, drawn.captions_without_colours)
        outlines = self._outlines(drawn, seen, context)
        aimed = replace(seen, target=self._target(drawn, seen, outlines))
        residuals = self.sparsectrl(drawn.shown.flatten(0, 1), at, context, frames).plus(outlines)
        predicted = self.unet(
            seen.sample.flatten(0, 1), at, context, frames, residuals=residuals
        ).view(seen.target.shape)
        # No limit: colours are decided where little else of the picture is left.
        error = picture_error(predicted, aimed, drawn.masks, limit=math.inf)
        return error, colour_error(predicted, aimed, drawn.masks), predicted

    @torch.no_grad()
    def _target(self, drawn: Clips, seen: Noised, outlines: Residuals) -> Tensor:
        """Return the noise to predict: at keyframes the true one, elsewhere the teacher's."""
        sample, at = seen.sample.flatten(0, 1), seen.timesteps[:1]
        named, unnamed = (
            self.unet(
                sample,
                at,
                encoded(self.text_encoder, texts),
                drawn.frames,
                residuals=outlines,
            )
            for texts in (drawn.captions, [""] * len(drawn.captions))
        )
        target = unnamed.lerp(named, TEACHER_GUIDANCE).view(seen.target.shape)
        target[:, drawn.keyframes] = seen.target[:, drawn.keyframes]
        return target

    @torch.no_grad()
    def _outlines(self, drawn: Clips, seen: Noised, context: Tensor) -> Residuals:
        """Return what the ControlNet adds; nothing without outlines."""
        if drawn.outlines is None:
            return NO_RESIDUALS
        each_row = context.repeat_interleave(drawn.frames, 0)
        skips, middle = self.controlnet(
            seen.sample.flatten(0, 1),
            seen.timesteps[:1],
            each_row,
            drawn.outlines,
            return_dict=False,
        )
        return Residuals(skips, middle)


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
        frames = int(rng.choice((2, *LENGTHS)))
        batch = draw_batch(examples, rng, COLOUR_ROWS // frames)
        captions = captions_without_colours(scenes_of(examples, batch), rng)
        context = encoded(text_encoder, captions)
        chosen = np.sort(rng.choice(FRAMES, frames, replace=False))
        latents = at_half_size(batch.latents[:, chosen])
        shown = shown_keyframes(latents, keyframes_among(frames, rng))
        at = torch.tensor([int(rng.integers(TRAINING_STEPS))])
        told = sparsectrl(shown.flatten(0, 1), at, context, frames)
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
