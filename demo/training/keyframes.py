"""The stages that train a SparseCtrl, which gives all frames the colours of a keyframe.

Arxiv 2311.16933, with the UNet and its motion modules frozen. Colours reach the other frames only
through the SparseCtrl's own motion modules. A first stage, which is cheap because it runs no UNet,
teaches its encoder to know the keyframe's colours in every frame. The others find features that
lead the UNet to these colours, at first at half the size, where a step takes a third of the time.
There, the teacher is the UNet itself, told the colours by a caption: what it predicts varies less
than the noise of an example. The last stage goes beyond the teacher, which confuses neighbouring
colours at times: it aims at the examples themselves, from wherever sampling with the SparseCtrl
has led to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from animatediff_v2v.pipeline.models.motion_module import MotionModules
from animatediff_v2v.pipeline.models.residuals import NO_RESIDUALS, Residuals
from animatediff_v2v.pipeline.models.sparsectrl import SparseControlNetwork
from animatediff_v2v.pipeline.models.text_encoder import ClipTextModel
from animatediff_v2v.pipeline.models.unet import MotionUNet
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import Tensor

from .captions import encoded
from .decoded_colours import DecodedColours, trained_decoded_colours
from .diffusion import Noised, clean, colour_error, picture_error
from .examples import Examples
from .keyframe_colours import KnownColours, colour_units, loss_of_knowing
from .keyframe_examples import (
    Clips,
    drawn_clips,
    drawn_start,
    drawn_step,
    of_confused_colours,
    sigma_of,
)
from .loop import Plan, frozen, train
from .networks import new_sparsectrl

OUTPUTS = {"controlnet_down_blocks": 5.0, "controlnet_mid_block": 5.0}
COLOURS = Plan(steps=400, learning_rate=1.5e-3, faster=OUTPUTS)
HALF_SIZE = Plan(steps=1_000, learning_rate=1e-3, average_decay=0.99, faster=OUTPUTS)
KEYFRAMES = Plan(steps=1_500, learning_rate=8e-4, average_decay=0.985, faster=OUTPUTS)
IN_SAMPLING = Plan(
    steps=900, learning_rate=4e-4, average_decay=0.99, faster=OUTPUTS | {"answers": 5.0}
)
HALF_SIZE_ROWS, ROWS = 24, 16  # frames of all clips together
WITH_OUTLINES = 0.75  # of the steps at full size
TEACHER_GUIDANCE = 1.5
COLOUR_WEIGHT, DECODED_WEIGHT, KNOWING_WEIGHT, UNOUTLINED_WEIGHT = 4.0, 30.0, 0.1, 0.5
CONFUSED_SHARE = 0.5
SAMPLED_SHARES, SAMPLED_OUTLINES = (0.4, 0.25, 0.35), 0.9
TRAJECTORIES, AT_ONCE, GIVEN_UP = 32, 4, 0.06
LEAST_SIGMA = 0.5
# Above this sigma, most of the error of the picture is the UNet's own, and would drown the rest.
TRUSTED_SIGMA = 5.0
FIRST_INFORMED = 2  # layers before it do not know keyframes of other frames


def trained_sparsectrl(
    folder: Path,
    examples: Examples,
    unet: UNet2DConditionModel,
    *,
    vae: AutoencoderKL,
    text_encoder: ClipTextModel,
    modules: MotionModules,
    controlnet: ControlNetModel,
) -> SparseControlNetwork:
    """Train a SparseCtrl on videos, starting from copies of the UNet and of the motion modules.

    Args:
        folder: the folder of the stages' files.
        examples: whole videos.
        unet: the UNet, which is frozen like all others.
        vae: decodes latents, to know what colours they are decoded to.
        text_encoder: encodes captions, with colours for the teacher.
        modules: the motion modules of the UNet.
        controlnet: for outlines, with which keyframes are used at high denoise.
    """
    torch.manual_seed(9)
    for network in (unet, vae, text_encoder, modules, controlnet):
        frozen(network)
    sparsectrl = new_sparsectrl(unet, modules)
    known = KnownColours(sparsectrl, examples)
    stage = _Stages(
        examples,
        known,
        decoded=trained_decoded_colours(folder, examples, vae),
        unet=MotionUNet(unet, modules, family="v2"),
        controlnet=controlnet,
        text_encoder=text_encoder,
    )
    train("keyframe_colours", COLOURS, known, stage.loss_of_knowing, folder)
    train("keyframes_half_size", HALF_SIZE, sparsectrl, stage.loss_at_half_size, folder)
    train("keyframes", KEYFRAMES, sparsectrl, stage.loss, folder)
    train("keyframes_in_sampling", IN_SAMPLING, known, stage.loss_in_sampling, folder)
    known.detach()
    return sparsectrl


@dataclass(frozen=True)
class _Stages:
    """The examples and networks of all stages; all but the SparseCtrl are frozen."""

    examples: Examples
    known: KnownColours
    decoded: DecodedColours
    unet: MotionUNet
    controlnet: ControlNetModel
    text_encoder: ClipTextModel
    trajectories: list[tuple[Clips, Noised]] = field(default_factory=list)

    @cached_property
    def confused(self) -> np.ndarray:
        """Return the examples of easily confused colours; all, if there are none."""
        found = of_confused_colours(self.examples)
        return found if len(found) else self.examples.all

    @cached_property
    def colour_units(self) -> Tensor:
        """Return the units of errors of colours."""
        return colour_units(self.examples)

    def loss_of_knowing(
        self, rng: np.random.Generator, _generator: torch.Generator, _step: int
    ) -> Tensor:
        """Return the loss of one step without a UNet."""
        return loss_of_knowing(self.known, self.examples, self.text_encoder, rng)

    def loss_at_half_size(
        self, rng: np.random.Generator, generator: torch.Generator, _step: int
    ) -> Tensor:
        """Return the loss of one step on latents of half the size, without outlines."""
        drawn = drawn_clips(self.examples, rng, rows=HALF_SIZE_ROWS, is_half=True)
        return self._error_to_teacher(drawn, drawn.noised_at(drawn_step(rng), rng, generator))

    def loss(self, rng: np.random.Generator, generator: torch.Generator, _step: int) -> Tensor:
        """Return the loss of one step."""
        drawn = drawn_clips(self.examples, rng, rows=ROWS, with_outlines=WITH_OUTLINES)
        return self._error_to_teacher(drawn, drawn.noised_at(drawn_step(rng), rng, generator))

    def loss_in_sampling(
        self, rng: np.random.Generator, generator: torch.Generator, _step: int
    ) -> Tensor:
        """Return the mean loss of a step of sampling in a few of many clips, and take this step.

        A clip's next step, some time later, sees what this one led to, right or wrong. An
        interrupted run goes on with new clips.
        """
        while len(self.trajectories) < TRAJECTORIES:
            self.trajectories.append(self._new_trajectory(rng, generator))
        losses = []
        for index in rng.choice(TRAJECTORIES, AT_ONCE, replace=False):
            drawn, seen = self.trajectories[index]
            predicted = self._predicted(drawn, seen, self._outlines(drawn, seen))
            losses.append(self._error_to_example(drawn, seen, predicted))
            goes_on = sigma_of(seen) >= LEAST_SIGMA and rng.random() >= GIVEN_UP
            self.trajectories[index] = (
                (drawn, drawn.after(seen, predicted.detach(), rng))
                if goes_on
                else self._new_trajectory(rng, generator)
            )
        return torch.stack(losses).mean()

    def _new_trajectory(
        self, rng: np.random.Generator, generator: torch.Generator
    ) -> tuple[Clips, Noised]:
        among = self.confused if rng.random() < CONFUSED_SHARE else None
        drawn = drawn_clips(
            self.examples,
            rng,
            rows=ROWS,
            shares=SAMPLED_SHARES,
            with_outlines=SAMPLED_OUTLINES,
            among=among,
        )
        return drawn, drawn.noised_at(drawn_start(rng), rng, generator)

    def _error_to_example(self, drawn: Clips, seen: Noised, predicted: Tensor) -> Tensor:
        # No limit but this one: colours are decided where little else of the picture is left.
        weight = min(1.0, (TRUSTED_SIGMA / sigma_of(seen)) ** 2)
        if drawn.outlines is None:
            weight *= UNOUTLINED_WEIGHT
        error = picture_error(predicted, seen, drawn.masks, limit=math.inf)
        colours = colour_error(predicted, seen, drawn.masks, self.colour_units)
        left = clean(seen.sample, predicted, seen.alphas)
        error = error + COLOUR_WEIGHT * colours + DECODED_WEIGHT * self.decoded.error(left, drawn)
        unknown = self.known.error(drawn.pairs, drawn.frames, first=FIRST_INFORMED)
        return weight * error + KNOWING_WEIGHT * unknown

    def _error_to_teacher(self, drawn: Clips, seen: Noised) -> Tensor:
        outlines = self._outlines(drawn, seen)
        aimed = replace(seen, target=self._target(drawn, seen, outlines))
        predicted = self._predicted(drawn, seen, outlines)
        return picture_error(predicted, aimed, drawn.masks, limit=math.inf)

    def _predicted(self, drawn: Clips, seen: Noised, outlines: Residuals) -> Tensor:
        """Return the noise that the UNet predicts with the SparseCtrl, in the target's shape."""
        frames, at = drawn.frames, seen.timesteps[:1]
        context = encoded(self.text_encoder, drawn.captions_without_colours)
        shown = drawn.shown.flatten(0, 1)
        residuals = self.known.sparsectrl(shown, at, context, frames).plus(outlines)
        sample = seen.sample.flatten(0, 1)
        predicted: Tensor = self.unet(sample, at, context, frames, residuals=residuals)
        return predicted.view(seen.target.shape)

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
    def _outlines(self, drawn: Clips, seen: Noised) -> Residuals:
        """Return what the ControlNet adds; nothing without outlines."""
        if drawn.outlines is None:
            return NO_RESIDUALS
        context = encoded(self.text_encoder, drawn.captions_without_colours)
        skips, middle = self.controlnet(
            seen.sample.flatten(0, 1),
            seen.timesteps[:1],
            context.repeat_interleave(drawn.frames, 0),
            drawn.outlines,
            return_dict=False,
        )
        return Residuals(skips, middle)
