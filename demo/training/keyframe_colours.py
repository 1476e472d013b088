"""Teaching a SparseCtrl's encoder to know the colours of a keyframe in every frame."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from animatediff_v2v.pipeline.models.sparsectrl import SparseControlNetwork
from animatediff_v2v.pipeline.models.text_encoder import ClipTextModel
from torch import Tensor, nn

from .base_model import draw_batch
from .captions import encoded
from .diffusion import TRAINING_STEPS, surely
from .examples import Examples
from .keyframe_examples import (
    LENGTHS,
    at_half_size,
    captions_without_colours,
    keyframes_among,
    scenes_of,
    shown_keyframes,
)
from .scenes import FRAMES

ROWS = 32  # frames of all clips together
RIDGE = 1e-3  # for very few examples


class KnownColours(nn.Module):
    """A SparseCtrl with layers that read the keyframe's colours from its encoder's features.

    The layers stand beside the SparseCtrl's last ones and see what those see.
    """

    def __init__(self, sparsectrl: SparseControlNetwork, examples: Examples) -> None:
        """Add the layers, with random weights."""
        super().__init__()
        self.sparsectrl = sparsectrl
        self.colours = mean_colours(examples)
        network = sparsectrl.network
        last = (*network.controlnet_down_blocks, network.controlnet_mid_block)
        self.answers = nn.ModuleList(
            nn.Conv2d(each.in_channels, self.colours.shape[-1], 1) for each in last
        )
        self._features: dict[int, Tensor] = {}
        self._hooks = [
            layer.register_forward_pre_hook(partial(self._keep, index))
            for index, layer in enumerate(last)
        ]

    def _keep(self, index: int, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features[index] = inputs[0]

    def error(self, pairs: np.ndarray, frames: int, *, first: int = 0) -> Tensor:
        """Return the squared error of the answers to the last pass, at every pixel of all frames.

        Args:
            pairs: row and side of the example of each clip, int64 [clips, 2].
            frames: the frames of each clip.
            first: the first layer that counts.
        """
        rows, sides = pairs.T
        truth = self.colours[rows, sides].repeat_interleave(frames, 0)[:, :, None, None]
        errors = [
            (answer(self._features[index]) - truth).square().mean()
            for index, answer in enumerate(self.answers)
            if index >= first
        ]
        return torch.stack(errors).mean()

    def detach(self) -> None:
        """Leave the SparseCtrl alone again."""
        for hook in self._hooks:
            hook.remove()
        self._features.clear()


def loss_of_knowing(
    known: KnownColours,
    examples: Examples,
    text_encoder: ClipTextModel,
    rng: np.random.Generator,
) -> Tensor:
    """Return the loss of one step without a UNet, on latents of half the size."""
    frames = int(rng.choice((2, *LENGTHS)))
    batch = draw_batch(examples, rng, ROWS // frames)
    captions = captions_without_colours(scenes_of(examples, batch), rng)
    context = encoded(text_encoder, captions)
    chosen = np.sort(rng.choice(FRAMES, frames, replace=False))
    latents = at_half_size(batch.latents[:, chosen])
    shown = shown_keyframes(latents, keyframes_among(frames, rng))
    at = torch.tensor([int(rng.integers(TRAINING_STEPS))])
    known.sparsectrl(shown.flatten(0, 1), at, context, frames)
    return known.error(np.stack([batch.rows, batch.sides], axis=1), frames)


def mean_colours(examples: Examples) -> Tensor:
    """Return the mean latents of object and background, [examples, 2, 8], scaled to deviation 1."""
    colours = torch.cat(_mean_latents(examples), dim=-1)
    return (colours - colours.mean((0, 1))) / colours.std((0, 1))


def colour_units(examples: Examples) -> Tensor:
    """Return a matrix [4, 4] that errors of mean latents are multiplied with to compare colours.

    Backgrounds of one colour differ in brightness and texture, which moves their mean latents, too,
    and further than from orange to red. The matrix makes these differences equally wide in all
    directions, so that errors count most where they lead to another colour (linear discriminant
    analysis; Fisher, 1936). The squares of its elements add up to 4.
    """
    backgrounds = _mean_latents(examples)[1]
    alike: dict[str, list[Tensor]] = {}
    for row, side in examples.all:
        scene = examples.scenes[row][side]
        if scene.style is None:
            alike.setdefault(scene.background, []).append(backgrounds[row, side])
    groups = [torch.stack(each) for each in alike.values()]
    apart = torch.cat([group - group.mean(0) for group in groups])
    varied = apart.T @ apart + RIDGE * torch.eye(apart.shape[1])
    units: Tensor = torch.linalg.cholesky(torch.linalg.inv(varied))
    return units * 2 / units.norm()


def _mean_latents(examples: Examples) -> tuple[Tensor, Tensor]:
    """Return the mean latents of object and background, each [examples, 2, 4]."""
    latents, masks = examples.latents.float(), examples.masks.float().unsqueeze(1)

    def mean_over(pixels: Tensor) -> Tensor:
        total = pixels.sum((2, 4, 5)).clamp(min=1)
        return (latents * pixels).sum((2, 4, 5)) / total

    inside, outside = surely(masks)
    return mean_over(inside), mean_over(outside)
