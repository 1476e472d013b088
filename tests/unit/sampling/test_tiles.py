"""Tiles of frames: where they lie, how they are blended, what each is shown."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from animatediff_v2v.pipeline.models.controlnet import ControlNetwork
from animatediff_v2v.pipeline.models.residuals import NO_RESIDUALS
from animatediff_v2v.pipeline.sampling import Conditioning, ContextOptions, Control, Guidance
from animatediff_v2v.pipeline.sampling.guided_model import GuidedModel
from animatediff_v2v.pipeline.sampling.noise_schedule import NoiseSchedule
from animatediff_v2v.pipeline.sampling.tiles import (
    OVERLAP,
    TiledModel,
    places,
    tile_size,
    tile_weights,
)

SCHEDULE = NoiseSchedule("sqrt_linear")


@pytest.mark.parametrize(
    ("count", "size", "tile", "tiles"),
    [
        (1, (64, 96), (64, 96), 1),
        (2, (64, 96), (40, 56), 4),
        (3, (64, 96), (32, 40), 9),
        (4, (128, 128), (40, 40), 16),
        (2, (16, 64), (16, 40), 2),  # a side that is no longer than the least multiple
        (4, (8, 8), (8, 8), 1),
    ],
)
def test_tiles_cover_the_frames_and_overlap(count, size, tile, tiles):
    assert tile_size(count, *size) == tile
    found = places(tile, *size)
    assert len(found) == tiles
    covered = torch.zeros(size)
    for rows, columns in found:
        assert (rows.stop - rows.start, columns.stop - columns.start) == tile
        covered[rows, columns] += tile_weights((rows, columns), *size)
    assert covered.min() > 0
    starts = sorted({rows.start for rows, _ in found})
    for before, after in pairwise(starts):
        assert before + tile[0] - after >= OVERLAP * tile[0] - 1


class PointByPoint:
    """Noise that depends on nothing but the point itself, with a part of its neighbour's."""

    device, dtype, motion = torch.device("cpu"), torch.float32, None

    def __init__(self, reach=0):
        self.reach, self.sizes = reach, []

    def __call__(self, sample, _timestep, context, _frames, **_others):
        self.sizes.append(tuple(sample.shape[-2:]))
        neighbour = torch.roll(sample, self.reach, dims=-1)
        return torch.sin(sample + 0.2 * neighbour) + context.mean()


def model(unet, kind=GuidedModel, shares=None, **options):
    shares = [] if shares is None else shares
    prompts = Conditioning.of(torch.full((1, 77, 2), 0.8), torch.full((1, 77, 2), -0.3))
    return kind(
        unet,
        schedule=SCHEDULE,
        conditioning=prompts,
        guidance=Guidance(scale=4.0),
        context=ContextOptions(length=4, overlap=2),
        on_passes=shares.append,
        **options,
    )


NOISY = torch.randn(6, 4, 24, 40, generator=torch.Generator().manual_seed(1))
SIGMA = torch.tensor(3.0)


def test_points_that_see_no_others_are_the_same_in_tiles():
    whole, shares, unet = model(PointByPoint()), [], PointByPoint()
    tiled = model(unet, TiledModel, shares, tile=(16, 24))
    for each in (whole, tiled):
        each.keep_unconditional()
    assert torch.allclose(tiled(NOISY, SIGMA, 0), whole(NOISY, SIGMA, 0), atol=1e-5)
    assert torch.allclose(tiled.unconditional(), whole.unconditional(), atol=1e-5)
    assert set(unet.sizes) == {(16, 24)}
    assert shares == sorted(shares) and shares[-1] == 1


def test_no_seam_is_sharper_than_the_picture_elsewhere():
    """Tiles see less of the picture at their edges, so their edges must be faded out."""
    noisy = torch.nn.functional.interpolate(NOISY[..., ::4, ::4], (24, 40), mode="bicubic")
    tiled = model(PointByPoint(reach=1), TiledModel, tile=(16, 24))
    whole = model(PointByPoint(reach=1))
    steps = [
        each(noisy, SIGMA, 0).diff(dim=-1).abs().mean(dim=(0, 1, 2)) for each in (tiled, whole)
    ]
    edges = [15, 16, 23, 24]  # around the edges of tiles, which lie at 16 and 24
    assert (steps[0][edges] / steps[1][edges]).max() < 1.05


class Watching(ControlNetwork):
    """Notes the size of the latents and the mean of the pictures that it is shown."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.name, self.seen = "a network", set()

    def forward(self, sample, _timestep, _context, pictures, _depth):
        self.seen.add((*sample.shape[-2:], *pictures.shape[-2:], round(pictures.mean().item(), 3)))
        return NO_RESIDUALS


def test_a_tile_is_shown_its_part_of_the_control_frames():
    frames = torch.zeros(1, 24 * 8, 40 * 8, 3)
    frames[:, :, 24 * 8 :] = 1.0
    network = Watching()
    control = Control(network=network, frames=frames)
    model(PointByPoint(), TiledModel, tile=(24, 24), controls=[control])(NOISY, SIGMA, 0)
    # The tiles lie at columns 0 and 16, and the second one's last two thirds are white.
    assert network.seen == {(24, 24, 192, 192, 0.0), (24, 24, 192, 192, 0.667)}
