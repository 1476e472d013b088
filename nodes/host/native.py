"""Adapters from ComfyUI's MODEL, CLIP, VAE and VIDEO values to the pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import comfy.lora
import comfy.model_management as memory
import comfy.model_sampling
import torch
from comfy_api.latest import InputImpl
from torch import Tensor

from ...pipeline import AnimateDiffV2VError
from ...pipeline.files.prediction import Prediction
from ...pipeline.models import LatentCodec, TextEncoder
from ...pipeline.models.unet import Parameterization
from ...pipeline.models.vae import check_decoded, check_encoded
from ...pipeline.prompts.weights import check_prompt

# Schedules that keep some signal end at 14.6, those with zero terminal SNR at 4,519.
HIGHEST_SIGMA = 1000.0
_SAMPLING_METHODS = frozenset(("calculate_input", "calculate_denoised", "noise_scaling"))


def trim_window(video: Any) -> tuple[float, float]:
    """Return start and duration of a VIDEO in seconds of its file; duration 0 means to the end."""
    if hasattr(video, "get_active_trim_window"):
        start, duration = video.get_active_trim_window()
        return float(start), float(duration)
    # ComfyUI before 0.23 has no public way to ask for the trimmed range.
    start = getattr(video, "_VideoFromFile__start_time", 0.0)
    duration = getattr(video, "_VideoFromFile__duration", 0.0)
    if start < 0:  # counted from the end
        whole = InputImpl.VideoFromFile(video.get_stream_source())
        start = max(0.0, whole.get_duration() + start)
    return float(start), float(duration)


def unet_weights(model: Any, *, merged: bool = True) -> dict[str, Tensor]:
    """Return the UNet weights of a MODEL under checkpoint names.

    Args:
        model: The MODEL.
        merged: Apply LoRAs and merges, which copies the weights that they change.
    """
    prefix = "diffusion_model."
    found = {}
    with without_injections(model):
        stored_patches = model.get_key_patches(prefix)
    for name, (stored, *patches) in stored_patches.items():
        weight, convert = stored
        weight = convert(weight.cpu(), inplace=False)
        if patches and merged:
            patched = weight.to(torch.float32, copy=True)
            weight = comfy.lora.calculate_weight(patches, patched, name).to(weight.dtype)
        found[f"model.{name}"] = weight
    return found


@contextmanager
def without_injections(model: Any) -> Iterator[None]:
    """Take networks that other packs have put into that of a MODEL out of it, for a block of code.

    They stay there after sampling, and every other MODEL with the same network sees them.
    """
    with ExitStack() as stack:
        for entry in list(memory.current_loaded_models):
            if entry.model is not None and entry.model.model is model.model:
                stack.enter_context(entry.model.use_ejected())
        yield


def parameterization(model: Any) -> Parameterization:
    """Return what the UNet of a MODEL predicts, as set by ModelSamplingDiscrete or its loader.

    Raises:
        AnimateDiffV2VError: for a kind of sampling that this pack does not support.
    """
    sampling = model.get_model_object("model_sampling")
    kinds = comfy.model_sampling
    known: dict[type | None, Prediction] = {
        kinds.EPS: "epsilon",
        kinds.V_PREDICTION: "v_prediction",
        kinds.X0: "sample",
    }
    # Take the nearest ancestor: all of these classes derive from EPS.
    nearest = next((each for each in type(sampling).__mro__ if _is_kind(each)), None)
    prediction = known.get(nearest)
    if not isinstance(sampling, kinds.ModelSamplingDiscrete) or prediction is None:
        name = getattr(nearest, "__name__", type(sampling).__name__)
        raise AnimateDiffV2VError(
            f"The connected MODEL is sampled as {name}, which this pack does not support: connect "
            "a MODEL of Stable Diffusion 1.5, and remove ModelSampling nodes other than eps, "
            "v_prediction and x0; for lcm, set beta_schedule on the Sampler."
        )
    has_no_signal = float(sampling.sigma_max) > HIGHEST_SIGMA
    return Parameterization(prediction, has_no_signal)


def _is_kind(kind: type) -> bool:
    """Return whether a class itself defines the UNet's input or output scaling."""
    return not _SAMPLING_METHODS.isdisjoint(vars(kind))


def has_weight_patches(model: Any) -> bool:
    """Return whether a MODEL has LoRAs or other weight patches."""
    return bool(model.patches)


class HostTextEncoder(TextEncoder):
    """ComfyUI's CLIP as the pipeline's text encoder; it manages its memory itself."""

    def __init__(self, clip: Any) -> None:
        """Wrap a value of ComfyUI's CLIP type."""
        self._clip = clip

    def encode(self, prompt: str) -> Tensor:
        """Return [1, 77 * chunks, channels], float32, on the CPU."""
        check_prompt(prompt)
        encoded: Tensor = self._clip.encode_from_tokens(self._clip.tokenize(prompt))
        return encoded.float().cpu()


class HostCodec(LatentCodec):
    """ComfyUI's VAE as the pipeline's latent codec; it manages its memory itself."""

    FRAMES_AT_ONCE = 8
    # ComfyUI itself loads no other sizes.
    is_smaller_than_sd15 = False

    def __init__(self, vae: Any) -> None:
        """Wrap a value of ComfyUI's VAE type.

        Raises:
            AnimateDiffV2VError: when the VAE belongs to another base model.
        """
        channels = vae.latent_channels
        if channels != 4 or vae.latent_dim != 2:
            raise AnimateDiffV2VError(
                f"The connected VAE makes latents with {channels} channels; AnimateDiff needs one "
                "for Stable Diffusion 1.5, with 4, such as vae-ft-mse-840000-ema-pruned."
            )
        self._vae = vae

    def encode(self, frames: Tensor) -> Tensor:
        """Return latents [n, 4, height / 8, width / 8], float32, on the CPU, unscaled.

        frames: [n, height, width, 3], uint8 or float in 0..1.
        """
        return torch.cat([self._encoded(part) for part in self._parts(frames)])

    def _encoded(self, frames: Tensor) -> Tensor:
        pixels = frames.float() / 255 if frames.dtype == torch.uint8 else frames
        # ComfyUI's VAE samples from its posterior with the global generator.
        devices = [self._vae.device] if self._vae.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)
            latents: Tensor = self._vae.encode(pixels)
        return check_encoded(latents.float().cpu())

    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Yield the frames of `latents` as chunks [n, height, width, 3], float32, 0..1."""
        for part in self._parts(latents):
            yield check_decoded(self._vae.decode(part).float().cpu())

    def _parts(self, rows: Tensor) -> Sequence[Tensor]:
        return torch.split(rows, self.FRAMES_AT_ONCE)
