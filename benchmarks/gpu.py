"""Check and measure each change for speed on this machine's device; see gpu.sh.

Usage: python benchmarks/gpu.py [--device auto] [--out FOLDER] [--seconds 20]

Networks have full size and random weights on an accelerator, and are tiny on a CPU, where only the
script itself is tried. Exits 1, before anything is measured, if fused and plain layers differ.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import torch
from animatediff_v2v.pipeline.bench.networks import SD15, Sizes, meta_unet, with_random_weights
from animatediff_v2v.pipeline.bench.peaks import seconds_of
from animatediff_v2v.pipeline.bench.report import bench
from animatediff_v2v.pipeline.memory.devices import resolve_device, resolve_dtype
from animatediff_v2v.pipeline.models.ops.select import EAGER_OPS, default_ops
from animatediff_v2v.pipeline.models.unet import MotionUNet
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    Guidance,
    SamplingSettings,
    SpeedOptions,
    sample,
    sample_latents,
)
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

TINY = Sizes(channels=(64,) * 4, vae_channels=(32,) * 4, layers=1, text_channels=32, heads=2)
# In float16 both differ from float32 by 1.5e-3, and by 2.0e-3 from each other (H200).
MOST_APART = 4e-3
PAIRS_AT_MOST = 7
BACKENDS = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH")


@dataclass(frozen=True)
class Setup:
    """The networks and the size of the work."""

    unet: MotionUNet
    device: torch.device
    frames: int
    side: int
    """Latent pixels of a side."""
    text_channels: int
    seconds: float

    def step(self, *, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Return sample, time step and prompts of a guided pass."""
        torch.manual_seed(seed)
        rows, dtype = 2 * self.frames, self.unet.dtype
        sample = torch.randn(rows, 4, self.side, self.side).to(self.device, dtype)
        prompt = torch.randn(2, 77, self.text_channels).to(self.device, dtype)
        return sample, torch.tensor([500], device=self.device), prompt

    def sampled(self, *, steps: int, guidance: float, speed: SpeedOptions) -> Tensor:
        """Sample latents as a job does."""
        torch.manual_seed(1)
        latents = torch.randn(self.frames, 4, self.side, self.side)
        prompts = torch.randn(2, 1, 77, self.text_channels)
        settings = SamplingSettings(
            seed=1, steps=steps, guidance=Guidance(scale=guidance), denoise=1.0, speed=speed
        )
        return sample_latents(self.unet, latents, Conditioning.of(*prompts), settings)


def prepared(device: torch.device, seconds: float) -> Setup:
    is_tiny = device.type == "cpu"
    sizes, frames, side = (TINY, 2, 8) if is_tiny else (SD15, 16, 64)
    unet = with_random_weights(meta_unet(sizes), device, resolve_dtype("auto", device))
    return Setup(unet, device, frames, side, sizes.text_channels, seconds)


def apart(one: Tensor, other: Tensor) -> float:
    """Return the relative difference of two tensors."""
    return float((one.float() - other.float()).norm() / other.float().norm())


@torch.inference_mode()
def differences(setup: Setup) -> dict[str, float]:
    """Return the relative differences between fused and plain passes, and between two fused."""
    given = (*setup.step(), setup.frames)
    ops = default_ops(setup.device, setup.unet.dtype)
    plain, fused, again = (setup.unet(*given, ops=each) for each in (EAGER_OPS, ops, ops))
    return {"fused to plain": apart(fused, plain), "twice the same": apart(again, fused)}


def compared(setup: Setup, before: Callable[[], Any], after: Callable[[], Any]) -> dict[str, float]:
    """Run two states in turn; return the medians of their seconds and how they relate."""
    runs: list[tuple[float, float]] = []
    for run in (before, after):
        seconds_of(run, setup.device)  # makes primitives, or builds kernels
    started = time.perf_counter()
    while len(runs) < PAIRS_AT_MOST and (not runs or time.perf_counter() - started < setup.seconds):
        runs.append((seconds_of(before, setup.device), seconds_of(after, setup.device)))
    old, new = (median(each) for each in zip(*runs, strict=True))
    return {"before_seconds": old, "after_seconds": new, "times_as_fast": old / new}


@contextmanager
def latents_on_the_cpu() -> Iterator[None]:
    """Copy latents to the CPU after each pass, as before."""
    runs = sample._Run
    chosen = runs._sampling_device
    runs._sampling_device = lambda *_: torch.device("cpu")
    try:
        yield
    finally:
        runs._sampling_device = chosen


def changes(setup: Setup) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each change with the seconds before and after it."""
    given, unet, exact = (*setup.step(), setup.frames), setup.unet, SpeedOptions()
    ops = default_ops(setup.device, unet.dtype)

    def job(steps: int, guidance: float, speed: SpeedOptions = exact) -> Tensor:
        return setup.sampled(steps=steps, guidance=guidance, speed=speed)

    def with_copies(steps: int, guidance: float) -> Tensor:
        with latents_on_the_cpu():
            return job(steps, guidance)

    yield (
        "fused layers, a step",
        compared(setup, lambda: unet(*given, ops=EAGER_OPS), lambda: unet(*given, ops=ops)),
    )
    for steps, guidance in ((4, 1.0), (25, 7.0)):
        found = compared(setup, lambda: with_copies(steps, guidance), lambda: job(steps, guidance))  # noqa: B023
        found["difference"] = apart(job(steps, guidance), with_copies(steps, guidance))
        yield f"latents on the device, {steps} steps", found
    options = {
        "reduced precision": replace(exact, reduced_precision=True),
        "DeepCache 2": replace(exact, deep_cache_interval=2),
        "preset fast": replace(exact, deep_cache_interval=2, reduced_precision=True),
        "guidance to 0.8": replace(exact, guidance_end=0.8),
    }
    for name, speed in options.items():
        found = compared(setup, lambda: job(25, 7.0), lambda: job(25, 7.0, speed))  # noqa: B023
        found["difference"] = apart(job(25, 7.0, speed), job(25, 7.0))
        yield f"{name}, 25 steps", found


@torch.inference_mode()
def attention(setup: Setup) -> Iterator[tuple[str, dict[str, float | str]]]:
    """Yield the seconds of each attention kernel for the self-attentions of the UNet."""
    rows, dtype = 2 * setup.frames, setup.unet.dtype
    for level, size in enumerate((40, 80, 160)):
        tokens = (setup.side >> level) ** 2
        query = torch.randn(rows, 8, tokens, size).to(setup.device, dtype)
        found: dict[str, float | str] = {}
        for name in BACKENDS:
            backend = getattr(SDPBackend, name, None)
            if backend is None or (name == "MATH" and setup.device.type != "cpu"):
                continue  # its scores would take 17 GB

            def run(chosen: Any = backend, heads: Tensor = query) -> None:
                with sdpa_kernel(chosen):
                    functional.scaled_dot_product_attention(heads, heads, heads)

            try:
                run()
            except RuntimeError as error:
                found[name] = str(error).partition("\n")[0]
            else:
                found[name] = min(seconds_of(run, setup.device) for _ in range(5))
        yield f"{tokens} tokens, heads of {size}", found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "records")
    parser.add_argument("--seconds", type=float, default=20, help="time for each measurement")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    setup = prepared(device, arguments.seconds)
    record: dict[str, Any] = {"differences": differences(setup)}
    for name, difference in record["differences"].items():
        print(f"{name}: {difference:.1e}", flush=True)
    if record["differences"]["fused to plain"] > MOST_APART:
        print("The fused layers differ from the plain ones: nothing is measured.")
        return 1
    for name, measure in (("changes", changes), ("attention", attention)):
        record[name] = {}
        with torch.inference_mode():
            for label, found in measure(setup):
                record[name][label] = found
                print(f"{label}: {json.dumps(found)}", flush=True)
    sizes, small = (TINY, {"width": 64, "height": 64, "frames": 2})
    more = {"sizes": sizes, **small} if device.type == "cpu" else {}
    record["bench"] = bench(device, setup.unet.dtype, **more).as_json()
    now = datetime.now(timezone.utc)
    record["taken"] = now.isoformat(timespec="seconds")
    card = re.sub(r"\W+", "-", record["bench"]["machine"]["name"]).strip("-").lower()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{card}-{now:%Y-%m-%d-%H%M}.json"
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    print(f"kept in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
