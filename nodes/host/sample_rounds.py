"""FreeInit in ComfyUI's own sampling: the sampler runs several times."""

from __future__ import annotations

from typing import Any

from comfy.sample import prepare_noise
from torch import Tensor

from ...pipeline.sampling import FreeInit
from ...pipeline.sampling.free_init import round_seed


def sample_in_rounds(
    free_init: FreeInit, execute: Any, noise: Tensor, latents: Tensor, *others: Any, **named: Any
) -> Tensor:
    """Take the place of a guider's `outer_sample`: run it as often as FreeInit says.

    Args:
        free_init: The rounds.
        execute: The rest of ComfyUI's call.
        noise: Noise of the sampler's seed, [frames, 4, height, width].
        latents: Unscaled latents of the same shape, which each round begins with.
        others: More arguments of `outer_sample`; the sixth is the seed.
        named: More of them by name.
    """
    model = execute.class_obj.model_patcher
    levels = model.get_model_object("model_sampling").sigmas
    sigma_max = float(levels[-1]) / float(model.model.latent_format.scale_factor)
    seed = named.get("seed", others[5] if len(others) > 5 else None)
    result: Tensor = execute(noise, latents, *others, **named)
    for index in range(1, free_init.iterations):
        fresh = prepare_noise(latents, round_seed(int(seed or 0), index))
        noise = free_init.renewed(result.float().cpu(), noise.cpu(), fresh, sigma_max)
        result = execute(noise, latents, *others, **named)
    return result
