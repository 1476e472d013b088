"""Patches and hooks of a ComfyUI MODEL."""

from __future__ import annotations

from typing import Any

from .applied_motion import KEY

_OPTIONS = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "sampler_calc_cond_batch_function",
    "model_function_wrapper",
    "denoise_mask_function",
)


def ignored_patches(model: Any) -> str | None:
    """Return a sentence if no patch of a MODEL can act, because of what another node did to it."""
    if model.get_additional_models_with_key(KEY):
        return (
            "The connected MODEL has a motion module already, which has no effect here, and no "
            "patches of it act: connect the MODEL from before Apply AnimateDiff."
        )
    injections = getattr(model, "injections", {})
    if injections:
        return (
            f"Another pack has put networks into the connected MODEL ({', '.join(injections)}): "
            "they have no effect here, and no patches of it act. Connect the MODEL from before "
            "that pack's node."
        )
    return None


def has_patches(model: Any) -> bool:
    """Return whether a MODEL has patches besides those of weights and of model_sampling."""
    options = model.model_options
    transformer = options.get("transformer_options", {})
    object_patches = getattr(model, "object_patches", {}).keys() - {"model_sampling"}
    groups = [
        *(transformer.get(name, {}) for name in ("patches", "patches_replace")),
        *(getattr(model, name, {}) for name in ("wrappers", "callbacks")),
        *(transformer.get(name, {}) for name in ("wrappers", "callbacks")),
    ]
    return (
        any(options.get(name) for name in _OPTIONS)
        or any(any(group.values()) for group in groups)
        or bool(transformer.get("optimized_attention_override"))
        or bool(object_patches)
        or bool(getattr(model, "hook_patches", None))
    )
