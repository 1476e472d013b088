"""Measure the gain and the loss of quality of each speed option.

Usage: python benchmarks/speed_options.py [--clips N] [--rounds N]
       [--only presets|25|20|10|8|speed ...]

The numbers restyle clips that the miniature was never trained on, in that many steps, with and
without each option, and print how much the results differ and how well they follow the prompt.
`presets` does so for the presets fast and draft as wholes, beside exact.
`speed` runs a frame through a network of full size in turn: with all layers, with reused deep
features, and with weights in 8 bits; it prints the median ratios of the CPU times. The arithmetic
that remains at 512x512 is counted. Everything runs in one thread.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import median
from typing import Any

import meaning
import numpy as np
import torch
from animatediff_v2v.pipeline.bench.networks import meta_unet
from animatediff_v2v.pipeline.models import Models
from animatediff_v2v.pipeline.models.feature_cache import DeepFeatures
from animatediff_v2v.pipeline.models.fp8_weights import copy_in_fp8
from animatediff_v2v.pipeline.models.ops import fp8_product
from animatediff_v2v.pipeline.models.unet import MotionUNet
from animatediff_v2v.pipeline.presets import PRESETS, Preset
from animatediff_v2v.pipeline.sampling import Guidance, SpeedOptions
from meaning import Clip, Frames
from torch.utils.flop_counter import FlopCounterMode
from training import measures

EVERY_2ND, EVERY_3RD = ({"speed": SpeedOptions(deep_cache_interval=n)} for n in (2, 3))
# Guidance in the first 60 % of the part of the schedule that a denoise of 0.5 uses.
EARLY = {"speed": SpeedOptions(guidance_end=0.8)}
FP8 = {"speed": SpeedOptions(fp8_weights=True)}
FP8_PRODUCTS = {"speed": SpeedOptions(fp8_weights=True, reduced_precision=True)}
BFLOAT16 = {"dtype": torch.bfloat16}
RESCALED = {"guidance": replace(meaning.USUAL, rescale=0.7)}
PROJECTED = {"guidance": replace(meaning.USUAL, parallel=0.0)}
ALIGNED = {"scheduler": "align_your_steps"}


def preset(name: Preset) -> dict[str, Any]:
    """Return the settings of a preset."""
    values = PRESETS[name]
    return {
        "steps": values.steps,
        "guidance": Guidance(scale=values.guidance_scale),
        "sampler": values.sampler,
        "scheduler": values.scheduler,
        "speed": values.speed,
    }


DRAFT = preset("draft")
# By the exact settings that they change: those of a preset, or so many steps.
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "presets": {"fast": preset("fast"), "draft": DRAFT},
    "25": {
        "DeepCache, every 2nd step whole": EVERY_2ND,
        "DeepCache, every 3rd step whole": EVERY_3RD,
    },
    "20": {
        "DeepCache, every 2nd step whole": EVERY_2ND,
        "DeepCache, every 3rd step whole": EVERY_3RD,
        "guidance from 0 to 0.8": EARLY,
    },
    "10": {"align_your_steps": ALIGNED},
    "8": {
        "DeepCache, every 2nd step whole": EVERY_2ND,
        "fp8 weights": FP8,
        "fp8 weights and products": FP8_PRODUCTS,
        "bfloat16": BFLOAT16,
        "guidance rescale 0.7": RESCALED,
        "guidance parallel 0 (APG)": PROJECTED,
    },
}
SIDE = 16  # latent pixels: 128x128


@dataclass(frozen=True)
class Loss:
    """A line of the first table."""

    name: str
    psnr: float
    score: float
    path: float


def losses(clips: Sequence[Clip], group: str) -> Iterator[Loss]:
    """Yield the differences that each option of a group makes to the videos."""
    usual = preset("exact") if group == "presets" else {"steps": int(group)}
    exact = [restyled(clip, usual) for clip in clips]
    yield _loss("exact", clips, exact, exact)
    for name, settings in OPTIONS[group].items():
        made = [restyled(clip, settings, usual) for clip in clips]
        yield _loss(name, clips, exact, made)


def _loss(
    name: str, clips: Sequence[Clip], exact: Sequence[Frames], results: Sequence[Frames]
) -> Loss:
    pairs = list(zip(results, exact, strict=True))
    psnr = [np.inf if a is b else measures.psnr(a, b) for a, b in pairs]
    seen = [[measures.look(frame) for frame in frames] for frames in results]
    paths = [measures.path_correlation(c.seen, s) for c, s in zip(clips, seen, strict=True)]
    score = np.mean([clip.score(frames) for clip, frames in zip(clips, results, strict=True)])
    return Loss(name, float(np.mean(psnr)), float(score), float(np.median(paths)))


def restyled(clip: Clip, settings: dict[str, Any], usual: dict[str, Any] | None = None) -> Frames:
    models, chosen = meaning.miniature(), (usual or {}) | settings
    if settings is FP8 or settings is FP8_PRODUCTS:
        models = miniature_in_fp8()
    elif settings is DRAFT:
        models = meaning.miniature("few_steps")
    elif dtype := chosen.pop("dtype", None):
        models = replace(models, unet=copy.deepcopy(models.unet).to(dtype))
    return meaning.restyled(clip, models, **chosen)


@cache
def miniature_in_fp8() -> Models:
    models = meaning.miniature()
    return replace(models, unet=copy_in_fp8(models.unet))


def full_size(device: str) -> MotionUNet:
    """Return Stable Diffusion 1.5's UNet with v2-shaped motion modules; all weights are equal."""
    network = meta_unet()
    if device != "meta":
        network.to_empty(device=device)
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.fill_(0.01)
    return network


def speeds(rounds: int) -> Iterator[str]:
    """Return the times of a pass with reused features and of one in 8 bits, over a whole one's."""
    exact = full_size("cpu")
    stored = copy_in_fp8(exact)
    found = DeepFeatures()
    pass_seconds(exact, found)
    reused: list[float] = []
    widened: list[float] = []
    for _ in range(rounds):
        whole = pass_seconds(exact, DeepFeatures())
        reused.append(pass_seconds(exact, DeepFeatures(found.features)) / whole)
        widened.append(pass_seconds(stored, DeepFeatures()) / whole)
    yield f"a pass at 128x128 that reuses deep features: {median(reused):.3f} of a whole one's time"
    yield f"a whole pass with fp8 weights: {median(widened):.3f} of one without"
    yield f"weights in float16: {weight_bytes(exact, 2) / 1e9:.2f} GB, in fp8: " + (
        f"{weight_bytes(stored, 2) / 1e9:.2f} GB"
    )


def pass_seconds(unet: MotionUNet, deep: DeepFeatures) -> float:
    """Return the CPU time of a frame's pass through the network."""
    sample, context = torch.full((1, 4, SIDE, SIDE), 0.5), torch.full((1, 77, 768), 0.5)
    started = time.process_time()
    unet(sample, torch.tensor([500]), context, 1, deep=deep)
    return time.process_time() - started


def weight_bytes(unet: MotionUNet, itemsize: int) -> int:
    """Return the bytes of a network's weights; those not in 8 bits take `itemsize` bytes each."""
    return sum(each.numel() * min(each.itemsize, itemsize) for each in unet.parameters())


def share_of_a_reused_step() -> float:
    """Return the arithmetic of a step that reuses features, relative to a whole one, at 512x512."""
    unet = full_size("meta")
    with torch.device("meta"):
        sample, context = torch.empty(1, 4, 64, 64), torch.empty(1, 77, 768)
        arguments = (sample, torch.empty(1), context, 1)
    found = DeepFeatures()
    whole = _operations(unet, *arguments, deep=found)
    return _operations(unet, *arguments, deep=DeepFeatures(found.features)) / whole


def _operations(unet: MotionUNet, *arguments: object, deep: DeepFeatures) -> int:
    with FlopCounterMode(display=False) as counter:
        unet(*arguments, deep=deep)
    return int(counter.get_total_flops())


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=4, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    choices = [*OPTIONS, "speed"]
    parser.add_argument("--only", nargs="*", choices=choices, default=choices)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    # PyTorch multiplies in 8 bits on a CPU as well, slowly: enough to see what it costs.
    fp8_product.has_fp8_products = lambda _device: True
    for group in OPTIONS:
        if group in arguments.only:
            title = group if group == "presets" else f"{group} steps"
            print(f"{title:<34} {'PSNR, dB':>8} {'prompt':>7} {'path':>6}", flush=True)
            for row in losses(meaning.held_out_clips(arguments.clips), group):
                print(
                    f"{row.name:<34} {row.psnr:8.1f} {row.score:7.3f} {row.path:6.3f}", flush=True
                )
    if "speed" in arguments.only:
        print(f"a reused pass at 512x512: {share_of_a_reused_step():.3f} of the arithmetic")
        for line in speeds(arguments.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
