"""Tone mapping of HDR pictures to SDR, which Stable Diffusion was trained on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

# AVColorTransferCharacteristic (libavutil/pixfmt.h).
PQ, HLG = 16, 18
HDR_TRANSFERS = {PQ, HLG}

# Nits: diffuse white of HDR (ITU-R BT.2408), and the peak that most videos are mastered for.
WHITE_NITS = 203.0
PEAK_NITS = 1000.0
# BT.2020 to BT.709 primaries, linear light (ITU-R BT.2087, inverse of its matrix).
TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    dtype=np.float32,
)
BT2020_LUMINANCE = np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)


def tone_map(picture: NDArray[Any], *, transfer: int) -> NDArray[np.uint8]:
    """Tone-map a BT.2020 picture, PQ or HLG, to BT.709 for an SDR display.

    All three channels are scaled equally to keep hues; values below 87 nits are unchanged.

    Args:
        picture: uint16 [height, width, 3], full range.
        transfer: 16 for PQ, 18 for HLG.

    Returns:
        uint8 [height, width, 3], for a display of gamma 2.4 (ITU-R BT.1886).
    """
    nits = pq_nits_table()[picture] if transfer == PQ else hlg_nits(picture)
    brightest = nits.max(axis=-1)
    levels, gains = _gain_table()
    nits *= np.interp(brightest, levels, gains).astype(np.float32)[..., None]
    linear = np.clip((nits / np.float32(WHITE_NITS)) @ TO_BT709.T, 0, 1)
    shown: NDArray[np.uint8] = _gamma_table()[(linear * 65535 + 0.5).astype(np.uint16)]
    return shown


def pq_to_nits(signal: NDArray[Any]) -> NDArray[np.float64]:
    """Decode PQ signals, 0..1, into nits (SMPTE ST 2084, equation 4.1)."""
    root = np.asarray(signal, np.float64) ** (1 / 78.84375)
    ratio = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
    return 10000 * ratio ** (1 / 0.1593017578125)


def nits_to_pq(nits: NDArray[Any] | float) -> NDArray[np.float64]:
    """Encode nits as PQ signals, 0..1 (SMPTE ST 2084, equation 5.2)."""
    power = (np.asarray(nits, np.float64) / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg_nits(picture: NDArray[np.uint16]) -> Floats:
    """Decode HLG for a display of 1000 nits (ITU-R BT.2100, inverse OETF and OOTF, gamma 1.2)."""
    scene = _hlg_scene_table()[picture]
    luminance = np.maximum(scene @ BT2020_LUMINANCE, 1e-6)
    nits: Floats = scene * (luminance ** np.float32(0.2) * np.float32(PEAK_NITS))[..., None]
    return nits


def eetf(nits: NDArray[Any]) -> NDArray[np.float64]:
    """Roll bright values off into 0..203 nits (ITU-R BT.2390-10, section 5.4.1, black level 0)."""
    source_peak = nits_to_pq(PEAK_NITS)
    signal = np.minimum(nits_to_pq(nits) / source_peak, 1)
    top = nits_to_pq(WHITE_NITS) / source_peak
    knee = 1.5 * top - 0.5
    t = np.maximum(signal - knee, 0) / (1 - knee)
    rolled = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * top
    )
    return pq_to_nits(np.where(signal < knee, signal, rolled) * source_peak)


def _table(function: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> Floats:
    return function(np.arange(65536) / 65535).astype(np.float32)


@cache
def pq_nits_table() -> Floats:
    """Return the nits of each 16-bit PQ value."""
    return _table(pq_to_nits)


@cache
def _hlg_scene_table() -> Floats:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return _table(lambda x: np.where(x <= 0.5, x**2 / 3, (np.exp((x - c) / a) + b) / 12))


@cache
def _gain_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    levels = pq_to_nits(np.linspace(0.001, 1, 1024))
    return levels, eetf(levels) / levels


@cache
def _gamma_table() -> NDArray[np.uint8]:
    table: NDArray[np.uint8] = np.rint(255 * (np.arange(65536) / 65535) ** (1 / 2.4)).astype(
        np.uint8
    )
    return table
