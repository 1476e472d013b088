"""The training scenes: one coloured shape that moves over a coloured background."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

SIZE = 128
"""Width and height of a frame, pixels."""
FRAMES = 16
"""Number of frames that the motion module is trained on."""

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.14, 0.14),
    "orange": (0.96, 0.55, 0.12),
    "yellow": (0.95, 0.87, 0.22),
    "green": (0.18, 0.66, 0.27),
    "blue": (0.16, 0.33, 0.86),
    "purple": (0.58, 0.22, 0.74),
}
SHAPES = ("circle", "square", "triangle", "star")
TEXTURES = ("plain", "striped", "checkered", "dotted")
STYLES = ("outlined", "pastel", "night")
MOTIONS = ("linear", "bouncing", "circling", "turning", "growing")

TEXTURE_CONTRAST = 0.14
EDGE_SOFTNESS = 1.5
OUTLINE_WIDTH = 5.0

Picture = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """A scene to draw; lengths are in pixels, angles in radians, times from 0 to 1."""

    shape: str
    colour: str
    texture: str
    background: str
    background_texture: str
    style: str | None
    motion: str
    radius: float
    centre: tuple[float, float]
    travel: tuple[float, float]
    angle: float
    turn: float
    growth: float
    shade: float
    background_shade: float
    light_angle: float
    light_strength: float
    texture_angle: float
    texture_phase: float
    texture_period: float

    def position(self, time: float) -> tuple[float, float]:
        """Return the object's centre, across and down, at a time from 0 to 1."""
        (x, y), (dx, dy) = self.centre, self.travel
        if self.motion == "circling":
            reach = math.hypot(dx, dy) / 2
            start = math.atan2(dy, dx)
            turned = start + 2 * math.pi * time
            x += reach * (math.cos(turned) - math.cos(start))
            y += reach * (math.sin(turned) - math.sin(start))
        elif self.motion == "bouncing":
            x += dx * time
            y -= abs(math.sin(2 * math.pi * time)) * max(abs(dy), 24.0)
        else:
            x, y = x + dx * time, y + dy * time
        low, high = self.radius * 0.8, SIZE - self.radius * 0.8
        return _reflected(x, low, high), _reflected(y, low, high)

    def radius_at(self, time: float) -> float:
        """Return the object's radius at a time from 0 to 1."""
        return self.radius * (1 + self.growth * math.sin(math.pi * time))

    def recoloured(self, rng: np.random.Generator) -> Scene:
        """Return the same scene in other colours, textures and light."""
        other = random_scene(rng)
        return replace(
            self,
            colour=other.colour,
            texture=other.texture,
            background=other.background,
            background_texture=other.background_texture,
            style=other.style,
            shade=other.shade,
            background_shade=other.background_shade,
            light_angle=other.light_angle,
            light_strength=other.light_strength,
            texture_angle=other.texture_angle,
            texture_phase=other.texture_phase,
            texture_period=other.texture_period,
        )


def random_scene(rng: np.random.Generator) -> Scene:
    """Return a random scene, in which object and background have different colours."""
    colour, background = rng.choice(list(COLOURS), size=2, replace=False)
    motion = str(rng.choice(MOTIONS))
    direction = rng.uniform(0, 2 * math.pi)
    reach = rng.uniform(12, 28) if motion in ("turning", "growing") else rng.uniform(36, 72)
    return Scene(
        shape=str(rng.choice(SHAPES)),
        colour=str(colour),
        texture=str(rng.choice(TEXTURES, p=(0.7, 0.3, 0.0, 0.0))),
        background=str(background),
        background_texture=str(rng.choice(TEXTURES, p=(0.4, 0.2, 0.2, 0.2))),
        style=str(rng.choice(STYLES)) if rng.random() < 0.3 else None,
        motion=motion,
        radius=float(rng.uniform(25, 36)),
        centre=(float(rng.uniform(32, 96)), float(rng.uniform(32, 96))),
        travel=(float(reach * math.cos(direction)), float(reach * math.sin(direction))),
        angle=float(rng.uniform(0, 2 * math.pi)),
        turn=float(rng.choice((-1, 1)) * rng.uniform(1, 3)) if motion == "turning" else 0.0,
        growth=float(rng.uniform(0.2, 0.5)) if motion == "growing" else 0.0,
        shade=float(rng.uniform(0.85, 1.1)),
        background_shade=float(rng.uniform(0.8, 1.05)),
        light_angle=float(rng.uniform(0, 2 * math.pi)),
        light_strength=float(rng.uniform(0.0, 0.25)),
        texture_angle=float(rng.choice((0, 0.25, 0.5, 0.75)) * math.pi),
        texture_phase=float(rng.uniform(0, 1)),
        texture_period=float(rng.uniform(32, 48)),
    )


def caption(scene: Scene, *, style: bool = True) -> str:
    """Return a caption: "a red circle on a blue striped background, outlined"."""
    texture = "" if scene.texture == "plain" else f" {scene.texture}"
    behind = "" if scene.background_texture == "plain" else f" {scene.background_texture}"
    words = f"a {scene.colour}{texture} {scene.shape} on a {scene.background}{behind} background"
    return f"{words}, {scene.style}" if style and scene.style else words


def partial_caption(scene: Scene, rng: np.random.Generator) -> str:
    """Return mostly the whole caption, sometimes a part of it, and sometimes nothing."""
    kind = rng.random()
    if kind < 0.10:
        return ""
    if kind < 0.14:
        return f"a {scene.colour} {scene.shape}"
    if kind < 0.17:
        return f"a {scene.background} background"
    if kind < 0.20:
        return scene.colour
    return caption(scene)


def draw(scene: Scene, time: float) -> Picture:
    """Return the picture at a time from 0 to 1: float32 [SIZE, SIZE, 3], 0 to 1."""
    across, down = _grid()
    picture = _lit(scene, _painted(scene, scene.background, scene.background_shade))
    if scene.background_texture != "plain":
        picture = picture * _texture(scene, scene.background_texture, across, down)
    right, below = _object_grid(scene, time)
    distance = object_distance(scene, time)
    paint = _painted(scene, scene.colour, scene.shade)
    if scene.texture != "plain":
        paint = paint * _texture(scene, scene.texture, right, below)
    picture = _over(picture, paint, distance)
    if scene.style == "outlined":
        ring = np.abs(distance) - OUTLINE_WIDTH / 2
        picture = _over(picture, np.full(3, 0.05, np.float32), ring)
    if scene.style == "pastel":
        picture = 0.45 * picture + 0.55
    if scene.style == "night":
        picture = picture * np.array((0.35, 0.35, 0.5), np.float32)
    return np.clip(picture, 0, 1).astype(np.float32)


def object_mask(scene: Scene, time: float) -> Picture:
    """Return the object's coverage at a time from 0 to 1: float32 [SIZE, SIZE], 0 to 1."""
    return np.clip(0.5 - object_distance(scene, time) / EDGE_SOFTNESS, 0, 1).astype(np.float32)


def object_distance(scene: Scene, time: float) -> Picture:
    """Return the signed distance to the object's outline in pixels, [SIZE, SIZE]; < 0 inside."""
    right, below = _object_grid(scene, time)
    radius = scene.radius_at(time)
    return DISTANCES[scene.shape](right / radius, below / radius) * radius


def _object_grid(scene: Scene, time: float) -> tuple[Picture, Picture]:
    """Return the pixels' coordinates relative to the object's centre and rotation."""
    across, down = _grid()
    x, y = scene.position(time)
    angle = scene.angle + scene.turn * time
    right = (across - x) * math.cos(angle) + (down - y) * math.sin(angle)
    below = (down - y) * math.cos(angle) - (across - x) * math.sin(angle)
    return right, below


def frame_times(frames: int = FRAMES) -> NDArray[np.float64]:
    """Return the times of a video's frames, 0 to 1."""
    return np.linspace(0, 1, frames)


def _painted(scene: Scene, colour: str, shade: float) -> Picture:
    return np.clip(np.array(COLOURS[colour], np.float32) * shade, 0, 1)


def _lit(scene: Scene, paint: Picture) -> Picture:
    across, down = _grid()
    towards = across * math.cos(scene.light_angle) + down * math.sin(scene.light_angle)
    towards = (towards - towards.mean()) / SIZE
    return paint * (1 + scene.light_strength * towards)[..., np.newaxis]


def _texture(scene: Scene, kind: str, across: Picture, down: Picture) -> Picture:
    """Return a brightness that varies softly around 1: latents are too coarse for fine detail."""
    turned_x = across * math.cos(scene.texture_angle) + down * math.sin(scene.texture_angle)
    turned_y = down * math.cos(scene.texture_angle) - across * math.sin(scene.texture_angle)
    first, second = (
        np.sin(2 * math.pi * (place / scene.texture_period + scene.texture_phase))
        for place in (turned_x, turned_y)
    )
    if kind == "striped":
        wave = np.tanh(3 * first)
    elif kind == "checkered":
        wave = np.tanh(4 * first * second)
    else:
        wave = np.tanh(4 * (first * second - 0.4))
    return (1 + TEXTURE_CONTRAST * wave)[..., np.newaxis]


def _over(picture: Picture, paint: Picture, distance: Picture) -> Picture:
    cover = np.clip(0.5 - distance / EDGE_SOFTNESS, 0, 1)[..., np.newaxis]
    return cover * paint + (1 - cover) * picture


def _reflected(value: float, low: float, high: float) -> float:
    """Reflect a value at two bounds."""
    span = high - low
    folded = (value - low) % (2 * span)
    return low + (folded if folded <= span else 2 * span - folded)


@cache
def _grid() -> tuple[Picture, Picture]:
    down, across = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5
    return across, down


def _circle(x: Picture, y: Picture) -> Picture:
    return np.hypot(x, y) - 1


def _polygon(radii: tuple[float, ...]) -> Callable[[Picture, Picture], Picture]:
    """Return the signed distance to a polygon with corners at equal angles, at these radii."""
    turns = np.arange(len(radii)) * (2 * math.pi / len(radii)) - math.pi / 2
    corners = np.stack([np.cos(turns), np.sin(turns)], axis=1) * np.array(radii)[:, np.newaxis]

    def distance(x: Picture, y: Picture) -> Picture:
        nearest = np.full(x.shape, np.inf, np.float32)
        inside = np.zeros(x.shape, bool)
        for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            share = ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / (
                (x2 - x1) ** 2 + (y2 - y1) ** 2
            )
            share = np.clip(share, 0, 1)
            away = np.hypot(x - x1 - share * (x2 - x1), y - y1 - share * (y2 - y1))
            nearest = np.minimum(nearest, away)
            crosses = (y1 > y) != (y2 > y)
            if y1 != y2:
                inside ^= crosses & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
        return np.where(inside, -nearest, nearest)

    return distance


DISTANCES: dict[str, Callable[[Picture, Picture], Picture]] = {
    "circle": _circle,
    "square": _polygon((1.2,) * 4),
    "triangle": _polygon((1.35,) * 3),
    "star": _polygon((1.35, 0.62) * 5),
}
