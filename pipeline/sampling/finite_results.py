"""Checks that stop a job whose latents overflow, since its frames would be black."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import AnimateDiffV2VError
from ..files.finite import is_finite
from .denoise import Denoise
from .guided_model import Conditioning


def check_inputs(latents: Tensor, conditioning: Conditioning) -> None:
    """Raise AnimateDiffV2VError unless latents and encoded prompts are finite."""
    if not is_finite(latents):
        raise AnimateDiffV2VError(
            "The latents to restyle hold numbers that are not finite (NaN or infinite): check "
            "their source, the frames or a VAE in float16."
        )
    for track in (conditioning.positive, conditioning.negative, conditioning.source):
        if track is not None and not is_finite(track.encodings):
            raise AnimateDiffV2VError(
                "The encoded prompt holds numbers that are not finite (NaN or infinite): check "
                "the text encoder, its LoRAs and embeddings, and the weights in the prompt."
            )


def stopping(model: Denoise, *, dtype: torch.dtype, guidance_scale: float) -> Denoise:
    """Return `model`, raising AnimateDiffV2VError as soon as a result is not finite.

    A result on an accelerator is checked in the next call, when it is there without waiting; the
    last one is left to `check_result`.

    Args:
        model: The model.
        dtype: Dtype that the UNet computes in, for the sentence.
        guidance_scale: Guidance scale in use, for the sentence.
    """
    before: tuple[Tensor, int] | None = None

    def call(noisy: Tensor, sigma: Tensor, step: int) -> Tensor:
        nonlocal before
        result = model(noisy, sigma, step)
        if result.device.type == "cpu":
            check_result(result, step, dtype=dtype, guidance_scale=guidance_scale)
            return result
        if before is not None and not before[0]:
            raise _not_finite(before[1], dtype, guidance_scale)
        before = result.isfinite().all(), step
        return result

    return call


def check_result(result: Tensor, step: int, *, dtype: torch.dtype, guidance_scale: float) -> Tensor:
    """Return the result of a step; raise AnimateDiffV2VError unless it is finite."""
    if not is_finite(result):
        raise _not_finite(step, dtype, guidance_scale)
    return result


def _not_finite(step: int, dtype: torch.dtype, guidance_scale: float) -> AnimateDiffV2VError:
    return AnimateDiffV2VError(
        f"Step {step + 1} gives latents that are not finite (NaN or infinite), which "
        f"would only give black frames. {_causes(dtype, guidance_scale)}"
    )


def _causes(dtype: torch.dtype, guidance_scale: float) -> str:
    """Return a sentence with the possible causes, the most likely first."""
    precision = (
        "The networks compute in float16, which overflows: try --dtype float32 or bfloat16 "
        "(ComfyUI: --fp32-unet or --bf16-unet). Else a"
    )
    return (
        f"{precision if dtype == torch.float16 else 'Most likely a'} LoRA is too strong or does "
        f"not suit the checkpoint, another strength is too high, or the guidance scale "
        f"({guidance_scale:g}) is: lower them."
    )
