"""The stages that train a SparseCtrl, which gives all frames the colours of a keyframe.

Arxiv 2311.16933, with the UNet and its motion modules frozen. Colours reach the other frames only
through the SparseCtrl's own motion modules. A first stage, which is cheap because it runs no UNet,
teaches its encoder to know the keyframe's colours in every frame. The other two find features that
lead the UNet to these colours, at first at half the size, where a step takes a third of the time.
Their teacher is the UNet itself, told the colours by a caption: what it predicts varies less than
the noise of an example.
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
from torch.nn import functional

from .base_model import Batch, draw_batch
from .captions import encoded
from .control import OUTLINES
from .diffusion import TRAINING_STEPS, Noised, alphas_cumprod, noised, picture_error
from .examples import Examples
from .loop import Plan, frozen, train
from .networks import new_sparsectrl
from .scenes import FRAMES, Scene, caption, draw

OUTPUTS = {"controlnet_down_blocks": 5.0, "controlnet_mid_block": 5.0}
COLOURS = Plan(steps=400, learning_rate=1.5e-3, faster=OUTPUTS)
HALF_SIZE = Plan(steps=1_000, learning_rate=1e-3, average_decay=0.99, faster=OUTPUTS)
KEYFRAMES = Plan(steps=1_500, learning_rate=8e-4, average_decay=0.985, faster=OUTPUTS)
COLOUR_ROWS, HALF_SIZE_ROWS, ROWS = 32, 24, 16  # frames of all clips together
LENGTHS, SHARES = (4, 8, FRAMES), (0.2, 0.2, 0.6)
# Keyframes are often the first frame, and the last one is the hardest to reach from there.
FIRST_FRAME = 0.5
TWO_KEYFRAMES = 0.3
WITH_OUTLINES = 0.75  # of the steps at full size
# Keyframes are meant for high denoise: most of the steps are from this one on. There, the source
# still shows through the noise, more in later steps of the schedule.
NOISY, NOISY_SHARE, LEAST_NOISE = 600, 0.65, 200
SOURCE_SHARE, SOURCE_FADES = 0.7, 0.3
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
    half_size = _Stage(
        examples,
        sparsectrl,
        unet=MotionUNet(unet, modules, family="v2"),
        controlnet=controlnet,
        text_encoder=text_encoder,
        is_half=True,
    )
    train("keyframes_half_size", HALF_SIZE, sparsectrl, half_size.loss, folder)
    whole = replace(half_size, is_half=False)
    train("keyframes", KEYFRAMES, sparsectrl, whole.loss, folder)
    return sparsectrl


@dataclass(frozen=True)
class _Stage:
    """The examples and networks of a stage; all but the SparseCtrl are frozen."""

    examples: Examples
    sparsectrl: SparseControlNetwork
    unet: MotionUNet
    controlnet: ControlNetModel
    text_encoder: ClipTextModel
    is_half: bool
    """True for latents of half the size, without outlines."""

    def loss(self, rng: np.random.Generator, generator: torch.Generator, _step: int) -> Tensor:
        """Return the loss of one step."""
        frames = int(rng.choice(LENGTHS, p=SHARES))
        clips = (HALF_SIZE_ROWS if self.is_half else ROWS) // frames
        batch = draw_batch(self.examples, rng, clips)
        chosen = frames_in_order(frames, rng)
        keyframes = keyframes_among(frames, rng)
        latents, twins, masks = (
            _pooled(each[:, chosen]) if self.is_half else each[:, chosen]
            for each in (batch.latents, batch.twins, batch.masks)
        )
        at = drawn_step(rng)
        seen = noised(
            latents,
            twins,
            timesteps=at.expand(clips),
            alphas=alphas_cumprod("sqrt_linear")[at].expand(clips),
            generator=generator,
            share=_source_share(at, clips, rng),
        )
        outlines = None
        if not self.is_half and rng.random() < WITH_OUTLINES:
            outlines = _outlines(self.examples, batch, chosen, rng)
        seen = replace(seen, target=self._target(batch, seen, outlines, keyframes))
        captions = captions_without_colours(self.examples, batch, rng)
        context = encoded(self.text_encoder, captions)
        shown = _shown(latents, keyframes).flatten(0, 1)
        residuals = self.sparsectrl(shown, at, context, frames)
        predicted = self._predicted(seen, context, outlines, residuals)
        # No limit: colours are decided where little else of the picture is left.
        return picture_error(predicted, seen, masks, limit=math.inf)

    @torch.no_grad()
    def _target(
        self, batch: Batch, seen: Noised, outlines: Tensor | None, keyframes: list[int]
    ) -> Tensor:
        """Return the noise to predict: at keyframes the true one, elsewhere the teacher's."""
        scenes = [self.examples.scenes[row][side] for row, side in _pairs(batch)]
        named, unnamed = (
            self._predicted(seen, encoded(self.text_encoder, texts), outlines)
            for texts in ([caption(scene) for scene in scenes], [""] * len(scenes))
        )
        target = unnamed.lerp(named, TEACHER_GUIDANCE).view(seen.target.shape)
        target[:, keyframes] = seen.target[:, keyframes]
        return target

    def _predicted(
        self,
        seen: Noised,
        context: Tensor,
        outlines: Tensor | None,
        residuals: Residuals = NO_RESIDUALS,
    ) -> Tensor:
        """Return the noise that the UNet predicts, [rows, 4, height, width]."""
        sample, at = seen.sample.flatten(0, 1), seen.timesteps[:1]
        frames = seen.sample.shape[1]
        if outlines is not None:
            each_row = context.repeat_interleave(frames, 0)
            with torch.no_grad():
                skips, middle = self.controlnet(sample, at, each_row, outlines, return_dict=False)
            residuals = residuals.plus(Residuals(skips, middle))
        return self.unet(sample, at, context, frames, residuals=residuals)


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
        context = encoded(text_encoder, captions_without_colours(examples, batch, rng))
        chosen = np.sort(rng.choice(FRAMES, frames, replace=False))
        shown = _shown(_pooled(batch.latents[:, chosen]), keyframes_among(frames, rng))
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


def captions_without_colours(
    examples: Examples, batch: Batch, rng: np.random.Generator
) -> list[str]:
    """Return captions that leave the colours to the keyframe; some are empty."""

    def said(scene: Scene) -> str:
        texts = ("", f"a {scene.shape} on a background", f"a {scene.shape}", "a shape")
        return str(rng.choice(texts, p=(0.4, 0.3, 0.15, 0.15)))

    return [said(examples.scenes[row][side]) for row, side in _pairs(batch)]


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


def _shown(latents: Tensor, keyframes: list[int]) -> Tensor:
    """Return the network's input for videos [n, frames, 4, ...]: [n, frames, 5, ...]."""
    shown = latents.new_zeros(*latents.shape[:2], 5, *latents.shape[-2:])
    shown[:, keyframes, :-1] = latents[:, keyframes]
    shown[:, keyframes, -1] = 1
    return shown


def _pooled(values: Tensor) -> Tensor:
    """Return videos [n, frames, channels, height, width] at half the size."""
    return functional.avg_pool2d(values.flatten(0, 1), 2).unflatten(0, values.shape[:2])


def _pairs(batch: Batch) -> list[tuple[int, int]]:
    """Return row and side of each example of a batch."""
    return [(int(row), int(side)) for row, side in zip(batch.rows, batch.sides, strict=True)]


def _source_share(step: Tensor, clips: int, rng: np.random.Generator) -> Tensor:
    """Return the share of the twin in the signal, [clips]: sampling starts from the twin."""
    reach = ((step / TRAINING_STEPS - SOURCE_FADES) / 0.3).clamp(0, 1)
    return reach * torch.from_numpy(rng.random(clips) < SOURCE_SHARE)


def _outlines(
    examples: Examples, batch: Batch, frames: np.ndarray, rng: np.random.Generator
) -> Tensor:
    """Return control frames [n * frames, 3, height, width], 0 or 1, of either twin."""
    sides = rng.integers(0, 2, len(batch.rows))
    pictures = [
        OUTLINES.of((draw(examples.scenes[row][side], time) * 255).round().astype(np.uint8))
        for row, side in zip(batch.rows, sides, strict=True)
        for time in examples.times[row][frames]
    ]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
