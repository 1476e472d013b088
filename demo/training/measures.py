"""Measures of a video: position, colour and shape of the object, and flicker."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .scenes import COLOURS, SIZE, Scene, frame_times, object_distance

Frames = NDArray[np.float32]
"""[frames, height, width, 3], from 0 to 1."""

BACKGROUND_MARGIN = 4
RAYS = 72
# Shapes are recognised by how often the radius rises and falls along the outline: three times for a
# triangle, four for a square, five for a star, and not at all for a circle.
TURNS = {"triangle": 3, "square": 4, "star": 5}
ROUND_BELOW = 0.045
NAME_SOFTNESS = 0.15


@dataclass(frozen=True)
class Seen:
    """The object found in one frame: its mask, or nothing."""

    mask: NDArray[np.bool_]
    object_colour: NDArray[np.float32]
    background_colour: NDArray[np.float32]

    @property
    def centre(self) -> tuple[float, float]:
        """Return the centre, across and down, in pixels."""
        down, across = np.nonzero(self.mask)
        return float(across.mean()), float(down.mean())

    @property
    def is_whole(self) -> bool:
        """True if the object does not touch the frame's border."""
        edges = (self.mask[0], self.mask[-1], self.mask[:, 0], self.mask[:, -1])
        return not any(edge.any() for edge in edges)


def look(frame: Frames) -> Seen:
    """Find the object: the largest region whose hue differs from that of most of the frame."""
    hues = _without_brightness(frame)
    background = np.median(hues.reshape(-1, 3), axis=0)
    distance = ndimage.gaussian_filter(np.linalg.norm(hues - background, axis=-1), 1.5)
    mask = distance > _threshold(distance)
    labels, count = ndimage.label(mask)
    if count:
        sizes = ndimage.sum_labels(mask, labels, range(1, count + 1))
        mask = ndimage.binary_fill_holes(labels == 1 + int(np.argmax(sizes)))
    else:
        mask = np.ones(mask.shape, bool)
    inside = ndimage.binary_erosion(mask, iterations=3)
    inside = inside if inside.any() else mask
    outside = ~ndimage.binary_dilation(mask, iterations=BACKGROUND_MARGIN)
    outside = outside if outside.any() else ~mask
    return Seen(mask, np.median(frame[inside], axis=0), np.median(frame[outside], axis=0))


def colour_likeness(colour: NDArray[np.float32], name: str) -> float:
    """Return how much closer a colour [3] is to the named one than to the others, 0 to 1."""
    names = list(COLOURS)
    known = _without_brightness(np.array([COLOURS[n] for n in names], np.float32))
    distance = np.linalg.norm(known - _without_brightness(colour), axis=-1)
    likeness = np.exp(-distance / NAME_SOFTNESS)
    return float(likeness[names.index(name)] / likeness.sum())


def colour_name(colour: NDArray[np.float32]) -> str:
    """Return the name of the nearest colour, regardless of brightness."""
    return max(COLOURS, key=lambda name: colour_likeness(colour, name))


def prompt_score(seen: list[Seen], *, colour: str, background: str) -> float:
    """Return how well the colours match those of a prompt, 0 to 1."""
    scores = [
        (
            colour_likeness(frame.object_colour, colour)
            + colour_likeness(frame.background_colour, background)
        )
        / 2
        for frame in seen
    ]
    return float(np.mean(scores))


def path_correlation(first: list[Seen], second: list[Seen]) -> float:
    """Return the correlation of the paths of the objects in two videos, -1 to 1."""
    paths = [np.array([frame.centre for frame in seen]) for seen in (first, second)]
    one, other = (path - path.mean(axis=0) for path in paths)
    spread = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / spread) if spread > 0 else 0.0


def shape_name(seen: list[Seen]) -> str:
    """Return the shape of the object by the harmonics of its outline, preferring whole ones."""
    whole = [frame for frame in seen if frame.is_whole] or seen
    strength = np.median([_harmonics(frame.mask) for frame in whole], axis=0)
    turns = max(TURNS.values(), key=lambda k: strength[k])
    if strength[turns] < ROUND_BELOW:
        return "circle"
    return next(name for name, count in TURNS.items() if count == turns)


def flicker(frames: Frames, scene: Scene) -> NDArray[np.float64]:
    """Return the mean difference of neighbouring frames without the scene's motion, [frames - 1].

    The object is compared with itself at its next position, and the background with itself; pixels
    near the object's outline are ignored.
    """
    times = frame_times(len(frames))
    changes = []
    for index in range(len(frames) - 1):
        here, there = times[index], times[index + 1]
        moved_back = followed(frames[index + 1], scene, here, there)
        inside = object_distance(scene, here) < -5
        outside = np.minimum(object_distance(scene, here), object_distance(scene, there)) > 5
        moved = np.abs(moved_back - frames[index]).mean(-1)[inside]
        still = np.abs(frames[index + 1] - frames[index]).mean(-1)[outside]
        changes.append(np.concatenate([moved, still]).mean())
    return np.array(changes)


def edge_energy(frames: Frames) -> float:
    """Return the mean gradient of the brightness, per pixel."""
    grey = frames.mean(axis=-1)
    down, across = np.gradient(grey, axis=(1, 2))
    return float(np.hypot(down, across).mean())


def redness(frames: Frames) -> float:
    """Return how much red exceeds green and blue, on average."""
    return float((frames[..., 0] - frames[..., 1:].mean(axis=-1)).mean())


def psnr(first: Frames, second: Frames) -> float:
    """Return the PSNR of two videos in decibels, for a peak of 1."""
    return float(-10 * np.log10(np.square(first - second).mean()))


def _without_brightness(colours: Frames) -> Frames:
    brightest = colours.max(axis=-1, keepdims=True)
    return colours / np.maximum(brightest, 0.05)


def _threshold(values: NDArray[np.float64]) -> float:
    """Return Otsu's threshold, which splits a histogram into the two most different parts."""
    counts, edges = np.histogram(values, bins=128)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = sums / below - (sums[-1] - sums) / above
    return float(centres[np.nanargmax(np.nan_to_num(below * above * gap**2))])


def _harmonics(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    down, across = np.nonzero(mask)
    y, x = down - down.mean(), across - across.mean()
    ray = ((np.arctan2(y, x) / (2 * np.pi) + 1) * RAYS).astype(int) % RAYS
    radius = np.zeros(RAYS)
    np.maximum.at(radius, ray, np.hypot(x, y))
    strength = np.abs(np.fft.rfft(radius))
    return strength / max(strength[0], 1e-9)


def followed(frame: Frames, scene: Scene, here: float, there: float) -> Frames:
    """Move the object of a frame to its position at another time."""
    (x0, y0), (x1, y1) = scene.position(here), scene.position(there)
    turned = scene.turn * (there - here)
    grown = scene.radius_at(there) / scene.radius_at(here)
    down, across = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    x, y = (across - x0) * grown, (down - y0) * grown
    from_x = x * np.cos(turned) - y * np.sin(turned) + x1 - 0.5
    from_y = x * np.sin(turned) + y * np.cos(turned) + y1 - 0.5
    channels = [
        ndimage.map_coordinates(frame[..., c], (from_y, from_x), order=1, mode="nearest")
        for c in range(3)
    ]
    return np.stack(channels, axis=-1)
