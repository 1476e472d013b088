"""Flow on pictures whose motion is known."""

from __future__ import annotations

import math

import pytest
import torch
from animatediff_v2v.pipeline.frame_job import as_bytes
from animatediff_v2v.pipeline.restore.flow import dense_flow
from animatediff_v2v.pipeline.restore.warp import resized, warp

SIZE = 96


def texture(x, y):
    """A smooth pattern without an end, as a function of place: [3, height, width]."""
    waves = [torch.sin(x / a + y / b + c) for a, b, c in ((7, 11, 0), (-9, 5, 1), (13, -17, 2))]
    return torch.stack(waves) * 0.4 + 0.5


def grid(height=SIZE, width=SIZE):
    down, across = torch.meshgrid(
        torch.arange(height, dtype=torch.float32),
        torch.arange(width, dtype=torch.float32),
        indexing="ij",
    )
    return across, down


def moved_by(u, v):
    """A picture, another with its content moved by (u, v), and the flow from one to the other."""
    across, down = grid()
    u, v = u + 0 * across, v + 0 * down
    here, there = texture(across, down), texture(across - u, down - v)
    return here[None], there[None], torch.stack((u, v))[None]


def error(flow, true, margin=12):
    inner = slice(margin, -margin)
    return float((flow - true).norm(dim=1)[:, inner, inner].mean())


@pytest.mark.parametrize(
    ("u", "v", "most"),
    [(0, 0, 0.001), (1, 0, 0.05), (0.5, -0.25, 0.05), (5, -3, 0.05), (-9, 6, 0.1)],
)
def test_a_moved_texture_is_followed(u, v, most):
    here, there, true = moved_by(u, v)
    assert error(dense_flow(here, there), true) < most


def test_a_turned_and_enlarged_texture_is_followed():
    across, down = grid()
    x, y = across - SIZE / 2, down - SIZE / 2
    angle, scale = 0.06, 1.05
    flow = torch.stack((
        scale * (x * math.cos(angle) - y * math.sin(angle)) - x,
        scale * (x * math.sin(angle) + y * math.cos(angle)) - y,
    ))[None]  # fmt: skip
    # `there` shows at each place what `here` shows where the turn begins.
    back_x = (x * math.cos(angle) + y * math.sin(angle)) / scale
    back_y = (y * math.cos(angle) - x * math.sin(angle)) / scale
    here = texture(across, down)[None]
    there = texture(back_x + SIZE / 2, back_y + SIZE / 2)[None]
    assert error(dense_flow(here, there), flow) < 0.1


def square(left, *, colour, background):
    across, down = grid()
    picture = torch.tensor(background).view(3, 1, 1) * (0.8 + 0.4 * texture(across, down))
    painted = torch.tensor(colour).view(3, 1, 1) * (0.8 + 0.4 * texture(down, across - left))
    inside = slice(left, left + 32)
    picture[:, 30:62, inside] = painted[:, 30:62, inside]
    return picture[None]


@pytest.mark.parametrize(
    ("colour", "background"),
    [
        ((0.9, 0.1, 0.1), (0.1, 0.1, 0.1)),
        ((0.6, 0.2, 0.2), (0.2, 0.2, 0.6)),  # of equal brightness: the colours tell them apart
    ],
)
def test_an_object_moves_and_its_background_does_not(colour, background):
    here, there = (square(x, colour=colour, background=background) for x in (30, 38))
    flow = dense_flow(here, there)
    assert abs(float(flow[0, 0, 34:58, 34:58].mean()) - 8) < 1.5
    assert float(flow[0, :, :20].abs().mean()) < 1
    assert float(flow[0, :, :, 80:].abs().mean()) < 1


@pytest.mark.parametrize("size", [(8, 8), (8, 40), (17, 9), (1, 1)])
def test_pictures_of_any_size_have_a_flow(size):
    flow = dense_flow(torch.rand(2, 3, *size), torch.rand(2, 3, *size))
    assert flow.shape == (2, 2, *size)
    assert flow.isfinite().all()


@pytest.mark.parametrize("u", [-7, 0, 4])
@pytest.mark.parametrize("v", [-2, 0, 5])
@pytest.mark.parametrize("size", [(24, 40), (33, 17)])
def test_warping_by_whole_pixels_moves_them_unchanged(u, v, size):
    picture = torch.randint(0, 256, (1, 3, *size)) / 255
    flow = torch.tensor((u, v), dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, *size)
    across, down = grid(*size)
    x = (across + u).clamp(0, size[1] - 1).long()
    y = (down + v).clamp(0, size[0] - 1).long()
    assert (as_bytes(warp(picture, flow)) == as_bytes(picture[:, :, y, x])).all()


def test_a_resized_flow_has_vectors_in_its_own_pixels():
    flow = torch.tensor((2.0, 3.0)).view(1, 2, 1, 1).expand(1, 2, 10, 20)
    larger = resized(flow, (30, 40))
    assert larger.shape == (1, 2, 30, 40)
    assert larger[0, :, 15, 20].tolist() == [4.0, 9.0]
