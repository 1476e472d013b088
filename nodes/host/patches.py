"""Patches and hooks of a ComfyUI MODEL."""

from __future__ import annotations

from typing import Any

from .native_unet import PATCHES, REPLACED

KEY = "animatediff_v2v"
_OPTIONS = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "sampler_calc_cond_batch_function",
    "model_function_wrapper",
    "denoise_mask_function",
)
# Object patches in place of the UNet's whole pass.
_WHOLE_PASSES = ("diffusion_model", "diffusion_model.forward", "diffusion_model._forward")


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


def is_compiled(model: Any) -> bool:
    """Return whether a MODEL would run its UNet as code that PyTorch compiles."""
    return "torch_compile_kwargs" in model.model_options or hasattr(
        model.object_patches.get("diffusion_model"), "_orig_mod"
    )


def patches_without_effect(model: Any) -> str | None:
    """Return a sentence that names each patch that cannot act where this pack runs the UNet."""
    transformer = model.model_options.get("transformer_options", {})
    found = [
        f"{name}{suffix}"
        for kind, known, suffix in (
            ("patches", PATCHES, ""),
            ("patches_replace", REPLACED, "_replace"),
        )
        for name, patches in transformer.get(kind, {}).items()
        if patches and name not in known
    ]
    found += [name for name in model.object_patches if name in _WHOLE_PASSES]
    found += ["torch.compile"] if is_compiled(model) else []
    if not found:
        return None
    return (
        f"The MODEL has patches that have no effect with a motion module: {', '.join(found)}. The "
        "motion module needs the layers of the UNet one by one."
    )


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
