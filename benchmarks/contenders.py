"""Ways to restyle a clip that `speed.py` compares, each run in a process of its own.

A contender loads its networks and gives a function that runs so many steps and returns the seconds
of each phase. In go frames of 8 bits, out come frames of 8 bits; prompts are encoded beforehand.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers as stock
import numpy as np
import torch
from animatediff_v2v.pipeline.files import load_checkpoint
from animatediff_v2v.pipeline.models import load_models
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    ContextOptions,
    Guidance,
    SpeedOptions,
    sample_latents,
)
from loading import write_configs
from PIL import Image

WINDOW = ContextOptions(length=16, overlap=4)
Phases = dict[str, float]
Run = Callable[[int], Phases]


@dataclass(frozen=True, kw_only=True)
class Work:
    """One row of the comparison."""

    width: int
    height: int
    frames: int
    steps: int
    guidance: float

    @property
    def is_windowed(self) -> bool:
        """Whether the clip is longer than a window."""
        return self.frames > WINDOW.length


@dataclass(frozen=True)
class Task:
    """What a contender is given."""

    work: Work
    checkpoint: Path
    motion_module: Path
    folder: Path
    device: torch.device
    dtype: torch.dtype
    compiled: bool


class Clock:
    """Seconds between marks, with the device's work done."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: dict[str, float] = {}

    def mark(self, phase: str) -> None:
        """Begin a phase; the last mark of a name counts."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._marks.pop(phase, None)
        self._marks[phase] = time.perf_counter()

    def phases(self) -> Phases:
        self.mark("end")
        names, marks = list(self._marks), list(self._marks.values())
        self._marks.clear()
        return {name: marks[i + 1] - marks[i] for i, name in enumerate(names[:-1])}


def ours(task: Task) -> Run:
    models = load_models(
        task.checkpoint,
        motion_module=task.motion_module,
        device=task.device,
        dtype=task.dtype,
    )
    work, clock = task.work, Clock(task.device)
    speed = SpeedOptions(compile=task.compiled)
    conditioning = Conditioning.of(*drawn_prompts(models.unet.unet.config.cross_attention_dim))
    frames = torch.from_numpy(drawn_frames(work))

    def run(steps: int) -> Phases:
        clock.mark("encode")
        latents = models.codec.encode(frames)
        clock.mark("sample")
        sampled = sample_latents(
            models.unet,
            latents,
            conditioning=conditioning,
            seed=1,
            steps=steps,
            guidance=Guidance(scale=work.guidance),
            context=WINDOW if work.is_windowed else None,
            speed=speed,
        )
        clock.mark("decode")
        chunks = [(chunk * 255).round().to(torch.uint8) for chunk in models.codec.decode(sampled)]
        assert sum(map(len, chunks)) == work.frames
        return clock.phases()

    return run


def diffusers(task: Task) -> Run:
    """The stock pipeline at its documented settings: SDPA; on a GPU channels last, half precision
    and if `compiled` a compiled UNet; FreeNoise, with windows as far apart as ours, for long clips.
    """
    pipeline = stock_pipeline(task)
    work, clock = task.work, Clock(task.device)
    if task.device.type == "cuda":
        pipeline.to(task.device)
        for network in (pipeline.unet, pipeline.vae):
            network.to(memory_format=torch.channels_last)
    if task.compiled:
        pipeline.unet.compile()
    if work.is_windowed:
        stride = WINDOW.length - WINDOW.overlap
        pipeline.enable_free_noise(context_length=WINDOW.length, context_stride=stride)
    pipeline.vae.encoder.register_forward_hook(lambda *_: clock.mark("sample"))
    began: list[bool] = []

    def decoding(*_: Any) -> None:
        if not began:
            clock.mark("decode")
        began.append(True)

    pipeline.vae.decoder.register_forward_pre_hook(decoding)
    width = pipeline.unet.config.cross_attention_dim
    prompts = [prompt.to(task.device, task.dtype) for prompt in drawn_prompts(width)]
    frames = [Image.fromarray(frame) for frame in drawn_frames(work)]

    def run(steps: int) -> Phases:
        began.clear()
        clock.mark("encode")
        pictures = pipeline(
            video=frames,
            width=work.width,
            height=work.height,
            num_inference_steps=steps,
            strength=1.0,
            guidance_scale=work.guidance,
            prompt_embeds=prompts[0],
            negative_prompt_embeds=prompts[1],
            generator=torch.Generator().manual_seed(1),
            output_type="np",
        ).frames[0]
        assert len((pictures * 255).round().astype(np.uint8)) == work.frames
        return clock.phases()

    return run


def stock_pipeline(task: Task) -> Any:
    config, dtype = task.folder / "config", {"torch_dtype": task.dtype}
    write_configs(load_checkpoint(task.checkpoint), config)
    base = stock.StableDiffusionPipeline.from_single_file(
        str(task.checkpoint), config=str(config), tokenizer=None, **dtype
    )
    adapter = stock.MotionAdapter.from_single_file(
        str(task.motion_module), config=str(config / "motion"), **dtype
    )
    parts = {**base.components, "unet": stock.UNetMotionModel.from_unet2d(base.unet, adapter)}
    for unused in ("safety_checker", "requires_safety_checker"):
        parts.pop(unused, None)
    return stock.AnimateDiffVideoToVideoPipeline(**parts, motion_adapter=adapter)


CONTENDERS: dict[str, Callable[[Task], Run]] = {"ours": ours, "diffusers": diffusers}


def drawn_prompts(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    positive, negative = torch.randn(2, 1, 77, channels, generator=generator)
    return positive, negative


def drawn_frames(work: Work) -> np.ndarray:
    random = np.random.default_rng(3)
    size = (work.frames, work.height, work.width, 3)
    return random.integers(0, 256, size, dtype=np.uint8)


def serve(task: Task, name: str) -> None:
    """Load a contender, then run it whenever a line with a number of steps comes in.

    Writes a line of JSON for the loading and for each run.
    """
    answers = os.fdopen(os.dup(1), "w")
    with redirect_stdout(sys.stderr):
        run = CONTENDERS[name](task)
        answer = {"peak_GB": peak_gigabytes(task.device, running=False)}
        while True:
            print(json.dumps(answer), file=answers, flush=True)
            line = sys.stdin.readline()
            if not line:
                return
            begin, busy = time.perf_counter(), time.process_time()
            phases = run(int(line))
            seconds = time.perf_counter() - begin
            answer = {
                "seconds": seconds,
                "cpu_seconds": time.process_time() - busy,
                **phases,
                "peak_GB": peak_gigabytes(task.device, running=True),
            }


def peak_gigabytes(device: torch.device, *, running: bool) -> float:
    """The peak so far; while loading and while running are counted apart where that can be."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak / 1e9
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # macOS counts bytes
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    if not running:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    return int(lines["VmHWM"].split()[0]) * 1024 / 1e9
