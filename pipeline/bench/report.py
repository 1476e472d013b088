"""A report on the speed of this machine: measured, and predicted for usual jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from ..memory.tracer import live_bytes, weight_bytes
from ..models.batching import PASSES_AT_ONCE, ChunkSizes
from .findings import FAST, Finding, find
from .machine import Machine, this_machine
from .networks import SD15, Sizes, meta_unet, meta_vae
from .passes import TOKENS, PassTimes, time_passes
from .peaks import copy_peak, matrix_peak

# Time to spend on the UNet's layers.
_SECONDS = 16.0
# Of the processor's time; threads wait for each other a little on any machine.
_QUIET = 0.7
# Times from here on are told in minutes, and in hours.
_LONG_SECONDS, _LONG_MINUTES = 120, 120
# The text encoder's weights.
_TEXT_ENCODER = 123_060_480
# Of the presets quality, turbo and lightning.
JOBS = ((25, 7.0), (8, 2.2), (4, 1.0))


@dataclass(frozen=True)
class Job:
    """A job and its predicted time, without loading the models."""

    steps: int
    guidance_scale: float
    seconds: float
    share_of_peak: float


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The speed of a machine."""

    machine: Machine
    width: int
    height: int
    frames: int
    matrix_tflops: float
    """10^12 operations a second."""
    copy_gb: float
    """10^9 bytes a second, read and written."""
    step_seconds: float
    """A step with guidance."""
    step_share_of_peak: float
    vae_seconds: float
    """Encoding and decoding of all frames."""
    memory_gb: float
    """The weights and the tensors of a job at the peak, counted, in 10^9 bytes."""
    jobs: tuple[Job, ...]
    findings: tuple[Finding, ...]

    @property
    def best(self) -> Finding:
        """The setting that helps most."""
        return max([*self.findings, FAST], key=lambda finding: finding.gain)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self) | {"best_setting": self.best.setting}


def bench(
    device: torch.device,
    dtype: torch.dtype,
    *,
    width: int = 512,
    height: int = 512,
    frames: int = 16,
    report: Callable[[str], None] = lambda _message: None,
    sizes: Sizes = SD15,
) -> Bench:
    """Measure the speed of a machine, and predict that of jobs.

    Args:
        device: The device.
        dtype: The dtype to compute in.
        width: Pixels of the video, a multiple of 8.
        height: As `width`.
        frames: Frames of the video, at most those of a context window.
        report: Called with what is measured next.
        sizes: The networks' sizes.
    """
    report("matrix products and copies")
    peak, copies = matrix_peak(device, dtype), copy_peak(device)
    report("layers of the UNet and the VAE")
    begun = time.perf_counter(), time.process_time()
    times = time_passes(
        device, dtype, width=width, height=height, frames=frames, peak=peak, seconds=_SECONDS,
        sizes=sizes,
    )  # fmt: skip
    elapsed, computed = time.perf_counter() - begun[0], time.process_time() - begun[1]
    report("what is missing")
    findings = list(find(device, dtype, peak=peak))
    if device.type == "cpu":
        findings += _busy(computed / torch.get_num_threads() / elapsed)
    needed = memory_of_a_job(device, dtype, width=width, height=height, frames=frames, sizes=sizes)
    machine = this_machine(device, dtype)
    too_little = _too_little(machine, needed / 1e9)
    if too_little is not None:
        findings.append(too_little)

    vae = frames * (times.encode_seconds + times.decode_seconds)
    step = partial(step_seconds, times, device, frames, width * height)
    return Bench(
        machine=machine,
        width=width,
        height=height,
        frames=frames,
        matrix_tflops=peak,
        copy_gb=copies,
        step_seconds=step(7.0),
        step_share_of_peak=2 * frames * times.unet_operations / step(7.0) / (peak * 1e12),
        vae_seconds=vae,
        memory_gb=needed / 1e9,
        jobs=tuple(_job(times, step, frames, peak, each) for each in JOBS),
        findings=tuple(findings),
    )


def _job(
    times: PassTimes,
    step: Callable[[float], float],
    frames: int,
    peak: float,
    settings: tuple[int, float],
) -> Job:
    """Return a job of a number of steps and a guidance scale, with the time that it will take."""
    steps, guidance = settings
    vae = frames * (times.encode_seconds + times.decode_seconds)
    vae_operations = frames * (times.encode_operations + times.decode_operations)
    seconds = steps * step(guidance) + vae
    passes = steps * (1 if guidance == 1 else 2)
    operations = passes * frames * times.unet_operations + vae_operations
    return Job(steps, guidance, seconds, operations / seconds / (peak * 1e12))


def step_seconds(
    times: PassTimes, device: torch.device, frames: int, pixels: int, guidance: float
) -> float:
    """Return the seconds of a step, in as many passes as `ChunkSizes` makes of it."""
    passes = 1 if guidance == 1 else 2
    chunks = ChunkSizes.default(device, pixels=frames * pixels // 64)
    together = min(passes, chunks.passes)
    return passes // together * times.unet_seconds.at(together * frames)


def memory_of_a_job(
    device: torch.device, dtype: torch.dtype, *, width: int, height: int, frames: int, sizes: Sizes
) -> int:
    """Count the bytes of the weights and of the tensors of a step with guidance at its peak."""
    unet = meta_unet(sizes).to(dtype)
    vae_weights: int = sum(each.numel() for each in meta_vae(sizes).parameters()) * dtype.itemsize
    chunks = ChunkSizes.default(device, pixels=frames * width * height // 64)
    rows = min(chunks.passes, PASSES_AT_ONCE) * frames
    with torch.device("meta"):
        sample = torch.empty(rows, 4, height // 8, width // 8, dtype=dtype)
        prompt = torch.empty(rows // frames, TOKENS, sizes.text_channels, dtype=dtype)
        timestep = torch.empty(1)
    with torch.inference_mode(), live_bytes() as counted:
        unet(sample, timestep, prompt, frames, chunks=chunks)
    # On a CPU the UNet's and the text encoder's weights stay in the 16 bits of their files.
    stored = 2 if device.type == "cpu" else dtype.itemsize
    weights = weight_bytes(unet) * stored // dtype.itemsize + _TEXT_ENCODER * stored
    return weights + vae_weights + counted.peak


def _busy(share: float) -> list[Finding]:
    """Return the finding that other programs leave only a share of the processor."""
    if share >= _QUIET:
        return []
    return [
        Finding(
            f"Other programs use the processor and leave {share:.0%} of it: all times here are too "
            "long, so close them and measure again.",
            "a quiet machine",
            1 / share,
        )
    ]


def _too_little(machine: Machine, needed_gb: float) -> Finding | None:
    if not machine.free_gb or needed_gb <= machine.free_gb:
        return None
    remedy = (
        "close other programs, or take fewer pixels"
        if machine.device == "cpu"
        else f"give --max-memory {machine.free_gb:.1f}, which moves idle networks to main memory"
    )
    return Finding(
        f"A job needs {needed_gb:.1f} GB and {machine.free_gb:.1f} GB are free: {remedy}.",
        "--max-memory" if machine.device != "cpu" else "more free memory",
        2.0,
    )


def in_units(seconds: float) -> str:
    """Return a time as a number of nine characters and its unit: seconds, minutes or hours."""
    if seconds < _LONG_SECONDS:
        return f"{seconds:9.2f} s"
    minutes = seconds / 60
    return f"{minutes:9.1f} min" if minutes < _LONG_MINUTES else f"{minutes / 60:9.1f} h"


def described(bench: Bench) -> list[str]:
    """Return the report as lines of text, the last ones for a bug report."""
    machine = bench.machine
    lines = [
        f"{machine.name}, {machine.dtype}: {bench.frames} frames of {bench.width}x{bench.height}",
        f"  matrix products    {bench.matrix_tflops:9.3f} TFLOP/s",
        f"  copies             {bench.copy_gb:9.1f} GB/s",
        f"  a step             {in_units(bench.step_seconds)} with guidance, "
        f"{bench.step_share_of_peak:.0%} of the speed of matrix products",
        f"  encode and decode  {in_units(bench.vae_seconds)}",
        f"  memory             {bench.memory_gb:9.1f} GB needed, "
        f"{machine.free_gb:.1f} of {machine.memory_gb:.1f} GB free",
        "",
        "Predicted, without loading the models:",
    ]
    lines += [
        f"  {job.steps:3} steps, guidance {job.guidance_scale:<3g} {in_units(job.seconds)}, "
        f"{job.share_of_peak:.0%} of the speed of matrix products"
        for job in bench.jobs
    ]
    lines += ["", *([finding.sentence for finding in bench.findings] or ["Nothing is missing."])]
    if bench.best is FAST:
        lines.append(FAST.sentence)
    lines.append(f"Helps most: {bench.best.setting}.")
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return [
        *lines,
        "",
        "For bug reports:",
        f"  {versions}",
        f"  Python {machine.python}, {machine.system}",
        f"  {machine.device}: {machine.name}, {machine.cores} cores, {machine.threads} threads",
    ]
