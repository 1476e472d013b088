"""The contenders of `speed.py` that run in this Python.

Usage: python contenders.py NAME TASK

TASK is the JSON of a `work.Task`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers as stock
import numpy as np
import torch
from animatediff_v2v.pipeline.files import load_checkpoint
from animatediff_v2v.pipeline.frame_job import as_bytes
from animatediff_v2v.pipeline.models import load_models
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    ContextOptions,
    Guidance,
    SamplingSettings,
    SpeedOptions,
    sample_latents,
)
from loading import write_configs
from PIL import Image
from work import (
    WINDOW_LENGTH,
    WINDOW_OVERLAP,
    Clock,
    Made,
    Run,
    Task,
    drawn_frames,
    drawn_prompts,
    serve,
)

WINDOW = ContextOptions(length=WINDOW_LENGTH, overlap=WINDOW_OVERLAP)


def ours(task: Task, *, compiled: bool = False) -> Run:
    models = load_models(
        task.checkpoint,
        motion_module=task.motion_module,
        device=task.device,
        dtype=task.dtype,
    )
    work, clock = task.work, Clock(task.device)
    speed = SpeedOptions(compile=compiled)
    conditioning = Conditioning.of(*drawn_prompts(models.unet.unet.config.cross_attention_dim))
    frames = torch.from_numpy(drawn_frames(work))

    def run(steps: int) -> Made:
        clock.mark("encode")
        latents = models.codec.encode(frames)
        clock.mark("sample")
        sampled = sample_latents(
            models.unet,
            latents,
            conditioning,
            SamplingSettings(
                seed=1,
                steps=steps,
                guidance=Guidance(scale=work.guidance),
                denoise=1.0,
                context=WINDOW if work.is_windowed else None,
                speed=speed,
            ),
        )
        clock.mark("decode")
        decoded = [as_bytes(chunk) for chunk in models.codec.decode(sampled)]
        return Made(clock.phases(), torch.from_numpy(np.concatenate(decoded)), sampled)

    return run


def diffusers(task: Task, *, compiled: bool = False) -> Run:
    """Run the stock pipeline at its documented settings, with SDPA.

    On a GPU it runs with channels last, in half precision, and with a compiled UNet if `compiled`.
    With FreeNoise, which long videos need, it does not accept encoded prompts.
    """
    pipeline = stock_pipeline(task)
    work, clock = task.work, Clock(task.device)
    if task.device.type == "cuda":
        pipeline.to(task.device)
        for network in (pipeline.unet, pipeline.vae):
            network.to(memory_format=torch.channels_last)
    if compiled:
        pipeline.unet.compile()
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

    def run(steps: int) -> Made:
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
        decoded = torch.from_numpy(pictures * 255).round().to(torch.uint8)
        return Made(clock.phases(), decoded)

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


CONTENDERS: dict[str, Callable[[Task], Run]] = {
    "ours": ours,
    "diffusers": diffusers,
    "ours compiled": partial(ours, compiled=True),
    "diffusers compiled": partial(diffusers, compiled=True),
}

if __name__ == "__main__":
    serve(sys.argv[1], CONTENDERS[sys.argv[1]], Task.from_json(sys.argv[2]))
