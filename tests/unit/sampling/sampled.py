"""Calls of `sample_latents` whose settings are given one by one."""

from __future__ import annotations

from animatediff_v2v.pipeline.sampling import Guides, SamplingSettings, sample_latents

_GUIDES = ("controls", "styles", "source_blend")
_CALL = ("custom", "chunks", "unsampled_latents", "progress", "is_cancelled")


def sample(unet, latents, conditioning, **options):
    """Sample all frames together, from pure noise, unless the options say otherwise."""
    guides = {name: options.pop(name) for name in _GUIDES if name in options}
    call = {name: options.pop(name) for name in _CALL if name in options}
    settings = SamplingSettings(
        **{"seed": 5, "steps": 2, "denoise": 1.0, "context": None} | options
    )
    return sample_latents(unet, latents, conditioning, settings, guides=Guides(**guides), **call)
