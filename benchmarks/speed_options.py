"""Measure what the speed options bring, and what they cost.

Usage: python benchmarks/speed_options.py [--clips N] [--rounds N] [--only loss speed]

`loss` restyles clips that the miniature was never trained on, with each option and without, and
prints how far the results are apart and whether they still do what the prompt says. `speed` runs
short jobs on networks of full size with random weights, in turn, and prints the median ratio of
their CPU times; what DeepCache leaves to do at 512x512 is counted. One thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import median

import meaning
import numpy as np
import torch
from animatediff_v2v.pipeline.models import Models
from animatediff_v2v.pipeline.models.feature_cache import DeepFeatures
from animatediff_v2v.pipeline.models.fp8_weights import copy_in_fp8
from animatediff_v2v.pipeline.models.motion_module import MotionModules
from animatediff_v2v.pipeline.models.unet import MotionUNet
from animatediff_v2v.pipeline.sampling import Conditioning, Guidance, SpeedOptions, sample_latents
from diffusers import UNet2DConditionModel
from meaning import Clip, Frames
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from training import measures

LOSS_STEPS = 25
# Guidance for the first 60 % of what a denoise of 0.5 leaves of the schedule, and for the last.
EARLY, LATE = SpeedOptions(guidance_end=0.8), SpeedOptions(guidance_start=0.7)
OPTIONS = {
    "DeepCache, every 2nd step whole": SpeedOptions(deep_cache_interval=2),
    "DeepCache, every 3rd step whole": SpeedOptions(deep_cache_interval=3),
    "guidance from 0 to 0.8": EARLY,
    "guidance from 0.7 to 1": LATE,
    "fp8 weights": SpeedOptions(fp8_weights=True),
}
FEW_STEPS = 8

# Full size, at a small picture: 128x128.
FRAMES, SIDE, SPEED_STEPS = 2, 16, 6
SPEED_DENOISE = 0.5


@dataclass(frozen=True)
class Loss:
    """A line of the first table."""

    name: str
    psnr: float
    score: float
    path: float


def losses(clips: Sequence[Clip]) -> Iterator[Loss]:
    """What each option does to the clips."""
    for steps, options in (
        (LOSS_STEPS, {"exact": SpeedOptions()} | OPTIONS),
        (FEW_STEPS, {"exact": SpeedOptions(), **_first(OPTIONS)}),
    ):
        exact = [restyled(clip, SpeedOptions(), steps) for clip in clips]
        for name, speed in options.items():
            results = exact
            if speed != SpeedOptions():
                results = [restyled(clip, speed, steps) for clip in clips]
            yield _loss(f"{name}, {steps} steps", clips, exact, results)


def _first(options: dict[str, SpeedOptions]) -> dict[str, SpeedOptions]:
    return dict(list(options.items())[:1])


def _loss(
    name: str, clips: Sequence[Clip], exact: Sequence[Frames], results: Sequence[Frames]
) -> Loss:
    pairs = list(zip(results, exact, strict=True))
    psnr = [np.inf if a is b else measures.psnr(a, b) for a, b in pairs]
    seen = [[measures.look(frame) for frame in frames] for frames in results]
    paths = [measures.path_correlation(c.seen, s) for c, s in zip(clips, seen, strict=True)]
    score = np.mean([clip.score(frames) for clip, frames in zip(clips, results, strict=True)])
    return Loss(name, float(np.mean(psnr)), float(score), float(np.median(paths)))


def restyled(clip: Clip, speed: SpeedOptions, steps: int) -> Frames:
    models = miniature_in_fp8() if speed.fp8_weights else meaning.miniature()
    return meaning.restyled(clip, models, speed=speed, steps=steps)


@cache
def miniature_in_fp8() -> Models:
    models = meaning.miniature()
    return replace(models, unet=copy_in_fp8(models.unet))


def full_size() -> MotionUNet:
    """Stable Diffusion 1.5's UNet with v2-shaped motion modules; weights as they are drawn."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    motion = MotionModules(
        block_channels=unet.config.block_out_channels, layers_per_block=2, max_frames=32, mid=True
    )
    for table in motion.buffers():
        nn.init.zeros_(table)
    return MotionUNet(unet, motion, family="v2").eval().requires_grad_(False)


def speeds(rounds: int) -> Iterator[str]:
    """How often faster a job is with each option, and what the weights take."""
    exact = full_size()
    stored = copy_in_fp8(exact)
    options = {"exact": SpeedOptions()} | OPTIONS
    seconds: dict[str, list[float]] = {name: [] for name in options}
    for _ in range(rounds):
        for name, speed in options.items():
            seconds[name].append(job_seconds(stored if speed.fp8_weights else exact, speed))
    for name in OPTIONS:
        ratios = [one / other for one, other in zip(seconds["exact"], seconds[name], strict=True)]
        yield f"{name:<34} {median(ratios):5.2f} times as fast"
    yield f"weights in float16: {weight_bytes(exact, 2) / 1e9:.2f} GB, in fp8: " + (
        f"{weight_bytes(stored, 2) / 1e9:.2f} GB"
    )


def job_seconds(unet: MotionUNet, speed: SpeedOptions) -> float:
    """CPU time of sampling a short clip."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(FRAMES, 4, SIDE, SIDE, generator=generator)
    prompts = [torch.randn(1, 77, 768, generator=generator) for _ in range(2)]
    started = time.process_time()
    sample_latents(
        unet,
        latents,
        conditioning=Conditioning.of(*prompts),
        seed=0,
        steps=SPEED_STEPS,
        denoise=SPEED_DENOISE,
        guidance=Guidance(scale=7.0),
        speed=speed,
    )
    return time.process_time() - started


def weight_bytes(unet: MotionUNet, itemsize: int) -> int:
    """Bytes of a network's weights, those that are not stored in 8 bits taken at `itemsize`."""
    return sum(each.numel() * min(each.itemsize, itemsize) for each in unet.parameters())


def share_of_a_reused_step() -> float:
    """The arithmetic of a step that reuses deep features, over that of a whole one, at 512x512."""
    with torch.device("meta"):
        unet = full_size()
        arguments = (
            torch.empty(1, 4, 64, 64), torch.empty(1), torch.empty(1, 77, 768), 1
        )  # fmt: skip
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
    parser.add_argument("--only", nargs="*", choices=("loss", "speed"), default=("loss", "speed"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if "loss" in arguments.only:
        print(f"{'':<44} {'PSNR, dB':>8} {'prompt':>7} {'path':>6}")
        for row in losses(meaning.held_out_clips(arguments.clips)):
            print(f"{row.name:<44} {row.psnr:8.1f} {row.score:7.3f} {row.path:6.3f}", flush=True)
    if "speed" in arguments.only:
        share = share_of_a_reused_step()
        print(f"a reused step at 512x512: {share:.3f} of a whole one's arithmetic")
        for interval in (2, 3):
            print(f"  every {interval}: {interval / (1 + (interval - 1) * share):.2f} times less")
        for line in speeds(arguments.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
