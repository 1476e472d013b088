"""The noise that a source would come from: sampling backwards, so that its structure stays.

The inversion of Song et al. 2021 (arXiv 2010.02502, section 4.3): the sampler's own steps along
rising noise levels, without guidance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..prompts.track import PromptTrack
from .control import Control
from .denoise import Denoise
from .names import Sampler
from .noise_schedule import NoiseSchedule
from .samplers import SAMPLERS

# Samplers that draw noise, or ask for falling levels, go back by the nearest one that does not.
_BACKWARDS: dict[Sampler, Sampler] = {
    "euler_ancestral": "euler",
    "dpmpp_2m_sde": "dpmpp_2m",
    "dpmpp_sde": "heun",
    "uni_pc": "dpmpp_2m",
    "lcm": "euler",
    "tcd": "euler",
}
# In place of no noise, which samplers divide by: below what can be seen, above rounding.
_LOWEST = 1e-3
_VALUES_OF_A_WEIGHT = 16


def backwards(sampler: Sampler) -> Sampler:
    """The sampler that unsamples for `sampler`."""
    return _BACKWARDS.get(sampler, sampler)


def unsampled(
    latents: Tensor, model: Denoise, sigmas: Tensor, *, sampler: Sampler, schedule: NoiseSchedule
) -> Tensor:
    """Give the noisy latents at `sigmas[0]` that sampling would turn into `latents`.

    latents: [frames, 4, height, width], scaled, without noise. model: without guidance.
    sigmas: the falling levels of sampling, the last 0.
    """
    rising = torch.unique_consecutive(sigmas.flip(0)).clamp(min=_LOWEST)
    spec = SAMPLERS[backwards(sampler)]
    return spec.run(model, latents, rising, lambda _from, _to: torch.zeros(()), schedule)


def content_key(
    latents: Tensor, prompt: PromptTrack, controls: Sequence[Control], *settings: object
) -> str:
    """Digest everything that a result of unsampling depends on, but for the UNet."""
    digest = hashlib.sha256(repr((latents.shape, prompt.frames, settings)).encode())
    digest.update(_bytes(latents))
    digest.update(_bytes(prompt.encodings))
    for control in controls:
        described = (control.strength, control.span, control.frames.shape, control.repeat_last)
        digest.update(repr(described).encode())
        for frame in control.frames:
            digest.update(_bytes(frame))
        if control.mask is not None:
            digest.update(_bytes(control.mask))
        digest.update(_weights(control.network.parameters()))
    return digest.hexdigest()


def _weights(parameters: Iterable[nn.Parameter]) -> bytes:
    """A few numbers of each weight: no two networks that were trained apart share them."""
    samples = []
    for weight in parameters:
        flat = weight.detach().flatten()
        samples.append(flat[:: max(1, len(flat) // _VALUES_OF_A_WEIGHT)].float())
    return _bytes(torch.cat(samples))


def _bytes(tensor: Tensor) -> bytes:
    return np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes()
