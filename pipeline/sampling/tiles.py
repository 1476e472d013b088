"""Overlapping tiles of frames that are too large to be denoised at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ..errors import AnimateDiffV2VError
from ..models.feature_cache import FeatureCache
from ..models.unet import MotionUNet
from .denoise import Guided
from .guided_model import GuidedModel
from .keyframes import AnyControl

# Share of a tile's side that it has in common with the next one, at least.
OVERLAP = 0.25
# The UNet halves its input three times.
_MULTIPLE = 8

TileSize = tuple[int, int]
"""Height and width of a tile in latent pixels."""
Place = tuple[slice, slice]
"""The rows and columns of a tile."""


def tile_size(count: int, height: int, width: int) -> TileSize:
    """Return the size of tiles, `count` along each side, that overlap by a quarter or more.

    Args:
        count: 1 or more.
        height: Latent pixels of the frames.
        width: The same.
    """

    def side(whole: int) -> int:
        part = whole / (1 + (count - 1) * (1 - OVERLAP))
        return min(whole, math.ceil(part / _MULTIPLE) * _MULTIPLE)

    return side(height), side(width)


def places(tile: TileSize, height: int, width: int) -> list[Place]:
    """Return where tiles lie, from left to right and from top to bottom, evenly spread."""

    def spans(whole: int, part: int) -> list[slice]:
        if part >= whole:
            return [slice(0, whole)]
        last = math.ceil((whole - part) / (part * (1 - OVERLAP)))
        starts = [round(index * (whole - part) / last) for index in range(last + 1)]
        return [slice(start, start + part) for start in starts]

    return list(product(spans(height, tile[0]), spans(width, tile[1])))


def tile_weights(place: Place, height: int, width: int) -> Tensor:
    """Return the weights of a tile, [height, width], that fall towards its inner edges."""

    def weights(span: slice, whole: int) -> Tensor:
        part = span.stop - span.start
        distance = torch.arange(part) + 0.5
        before = distance if span.start else torch.full((part,), float(part))
        after = distance.flip(0) if span.stop < whole else torch.full((part,), float(part))
        share = (torch.minimum(before, after) / (part * OVERLAP)).clamp(max=1.0)
        smooth: Tensor = share**2 * (3 - 2 * share)  # without a corner at either end
        return smooth

    return weights(place[0], height)[:, None] * weights(place[1], width)[None, :]


class TiledModel:
    """A model that denoises each tile by itself, in all frames, and blends what it predicts.

    Tiles are blended in each call (MultiDiffusion, Bar-Tal et al. 2023, arXiv 2302.08113), so that
    each step begins with one picture.
    """

    def __init__(
        self,
        unet: MotionUNet,
        *,
        tile: TileSize,
        on_passes: Callable[[float], None],
        controls: Sequence[AnyControl] = (),
        cache: FeatureCache | None = None,
        **given: Any,
    ) -> None:
        """Bind the network to a job.

        Args:
            unet: The network.
            tile: Size of the tiles.
            on_passes: As for GuidedModel.
            controls: Their frames are cut like the latents.
            cache: Its settings are used for the features of each tile.
            **given: Further arguments of GuidedModel.
        """
        if unet.motion is not None and unet.motion.masks.given:
            raise AnimateDiffV2VError(
                "The motion module has masks, which cannot be cut into tiles: leave them out, or "
                "make the second pass smaller with refine."
            )
        self._make = partial(GuidedModel, unet, **given)
        self._tile, self._on_passes = tile, on_passes
        self._controls, self._cache = controls, cache or FeatureCache()
        self._models: list[tuple[Place, Guided]] = []
        self._keeps_unconditional = False
        self._unconditional: Tensor | None = None

    def keep_unconditional(self) -> None:
        """Predict for the negative prompt at any guidance scale, and keep that, from now on."""
        self._keeps_unconditional = True
        for _, model in self._models:
            model.keep_unconditional()

    def unconditional(self) -> Tensor:
        """Return the latest call's result for the negative prompt alone."""
        if self._unconditional is None:
            raise RuntimeError("The model has not been called, or keeps no such result.")
        return self._unconditional

    def __call__(self, noisy: Tensor, sigma: Tensor, step: int) -> Tensor:
        """Denoise [frames, 4, height, width] as GuidedModel does."""
        height, width = noisy.shape[-2:]
        self._models = self._models or self._models_for(height, width)
        result = torch.zeros_like(noisy)
        negative = torch.zeros_like(noisy) if self._keeps_unconditional else None
        total = torch.zeros(height, width, device=noisy.device)
        for place, model in self._models:
            rows, columns = place
            weights = tile_weights(place, height, width).to(noisy.device)
            tile = noisy[:, :, rows, columns].contiguous()
            result[:, :, rows, columns] += model(tile, sigma, step) * weights
            if negative is not None:
                negative[:, :, rows, columns] += model.unconditional() * weights
            total[rows, columns] += weights
        if negative is not None:
            self._unconditional = negative.div_(total)
        return result.div_(total)

    def _models_for(self, height: int, width: int) -> list[tuple[Place, Guided]]:
        found = places(self._tile, height, width)
        models: list[tuple[Place, Guided]] = []
        for index, place in enumerate(found):
            model = self._make(
                on_passes=partial(self._report, index, len(found)),
                controls=[_cut(control, place, height, width) for control in self._controls],
                cache=self._cache.fresh(len(found)),
            )
            if self._keeps_unconditional:
                model.keep_unconditional()
            models.append((place, model))
        return models

    def _report(self, index: int, count: int, share: float) -> None:
        self._on_passes((index + share) / count)


def _cut(control: AnyControl, place: Place, height: int, width: int) -> AnyControl:
    """Return a control with the part of its frames that a tile shows."""

    def part(pictures: Tensor) -> Tensor:
        down, across = pictures.shape[1] / height, pictures.shape[2] / width
        rows, columns = place
        return pictures[
            :,
            round(rows.start * down) : round(rows.stop * down),
            round(columns.start * across) : round(columns.stop * across),
        ]

    return control.cut(part)
