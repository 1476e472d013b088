"""Frames between two kept ones, of scenes whose every frame is known."""

from __future__ import annotations

import pytest
import torch
from animatediff_v2v.pipeline.restore.between import Neighbour, restored

SIZE = 96
INK, PAPER = (0.9, 0.2, 0.2), (0.2, 0.3, 0.7)
NEW_INK, NEW_PAPER = (0.9, 0.9, 0.2), (0.1, 0.5, 0.2)


def scene(left, *, ink=INK, paper=PAPER, light=1.0, top=30, size=32):
    """A striped square on a checkered background, [1, 3, SIZE, SIZE]."""
    down, across = torch.meshgrid(*[torch.arange(SIZE, dtype=torch.float32)] * 2, indexing="ij")
    checks = 1 + 0.1 * torch.sin(across / 5) * torch.sin(down / 5)
    stripes = 1 + 0.1 * torch.sin((across - left) / 3)
    picture = torch.tensor(paper).view(3, 1, 1) * checks
    inside = (across >= left) & (across < left + size) & (down >= top) & (down < top + size)
    picture = torch.where(inside, torch.tensor(ink).view(3, 1, 1) * stripes, picture)
    return (picture * light).clamp(0, 1)[None]


def restyle(left, **given):
    return scene(left, ink=NEW_INK, paper=NEW_PAPER, **given)


def neighbour(left, **given):
    return Neighbour(scene(left, **given), restyle(left, **given))


def error(one, other):
    return float((one - other).abs().mean())


@pytest.mark.parametrize("position", [0.25, 0.5, 0.75])
def test_an_object_is_where_the_source_has_it_without_a_ghost(position):
    left = 20 + 16 * position
    picture, untrusted = restored(scene(left), neighbour(20), neighbour(36), position=position)
    wanted = restyle(left)
    assert error(picture, wanted) < 0.015
    # A ghost would be seen where the object was and will be, and not is.
    ghosts = (picture - wanted).abs().amax(1)
    for left_edge, right_edge in ((14, int(left) - 3), (int(left) + 36, 74)):
        assert float(ghosts[:, 34:58, left_edge:right_edge].mean()) < 0.03
    assert float(untrusted.mean()) < 0.1


@pytest.mark.parametrize("only", ["before", "after"])
def test_with_one_neighbour_it_is_moved_along(only):
    known = {"before": None, "after": None, only: neighbour(24)}
    picture, _ = restored(scene(30), **known, position=0.0)
    assert error(picture, restyle(30)) < 0.01
    assert error(picture, restyle(24)) > 0.02


def other_shot(left=30):
    return Neighbour(
        scene(left, ink=(0.2, 0.8, 0.3), paper=(0.9, 0.6, 0.3), top=10),
        scene(left, ink=(0.1, 0.1, 0.1), paper=(0.9, 0.9, 0.9), top=10),
    )


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_nothing_shows_from_beyond_a_cut(position):
    own, other = neighbour(30), other_shot()
    before, _ = restored(own.source, own, other, position=position)
    after, _ = restored(other.source, own, other, position=position)
    assert error(before, own.restyled) < 0.002
    assert error(after, other.restyled) < 0.002
    assert float((before - own.restyled).abs().max()) < 0.05


@pytest.mark.parametrize(("position", "nearer"), [(0.3, 0), (0.7, 1)])
def test_where_nothing_agrees_the_nearer_frame_is_taken_as_it_is(position, nearer):
    noise = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    known = neighbour(30), other_shot()
    picture, untrusted = restored(noise, *known, position=position)
    assert torch.equal(picture, known[nearer].restyled)
    assert torch.equal(untrusted, torch.ones_like(untrusted))


@pytest.mark.parametrize("light", [0.6, 0.8, 1.2])
def test_the_light_of_the_source_is_followed(light):
    known = neighbour(30), neighbour(30)
    picture, _ = restored(scene(30, light=light), *known, position=0.5)
    wanted = restyle(30, light=light)
    assert error(picture, wanted) < 0.02
    assert error(known[0].restyled, wanted) > 2 * error(picture, wanted)


def test_the_same_frames_give_the_same_bits():
    given = scene(26), neighbour(20), neighbour(36)
    one, two = (restored(*given, position=0.4) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
