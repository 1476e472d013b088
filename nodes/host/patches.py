"""Patches of a ComfyUI MODEL that this pack's sampler does not apply."""

from __future__ import annotations

from typing import Any

# Kind of patch -> what has the same effect here; "" where nothing does.
_INSTEAD = {
    "attn2": "IP-Adapter for AnimateDiff, for style images",
    "sampler_cfg_function": "guidance_scale, guidance_start and guidance_end of the Sampler",
    "sampler_pre_cfg_function": "guidance_scale, guidance_start and guidance_end of the Sampler",
    "sampler_post_cfg_function": "guidance_scale, guidance_start and guidance_end of the Sampler",
    "model_function_wrapper": "Speed Options, for caches and compiled layers",
    "denoise_mask_function": "source_mask of the Sampler",
    "hook_patches": "a LoRA Stack, or LoRA loaders in front of this node",
}
_OPTIONS = (
    "sampler_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_post_cfg_function",
    "sampler_calc_cond_batch_function",
    "model_function_wrapper",
    "denoise_mask_function",
)


def ignored_patches(model: Any) -> str | None:
    """Return a sentence that names each patch without effect here and what to use instead.

    None when there is none. Weight patches and model_sampling do have an effect.
    """
    kinds = _kinds(model)
    if not kinds:
        return None
    advice = dict.fromkeys(filter(None, map(_instead, kinds)))
    use = f" Use instead: {'; '.join(advice)}." if advice else ""
    return (
        f"The connected MODEL has patches that have no effect here: {', '.join(kinds)}.{use} Its "
        "LoRAs and merges are kept. Apply AnimateDiff with a KSampler applies such patches."
    )


def _kinds(model: Any) -> list[str]:
    options = model.model_options
    transformer = options.get("transformer_options", {})
    found = [name for name in _OPTIONS if options.get(name)]
    found += [name for name, patches in transformer.get("patches", {}).items() if patches]
    found += [
        f"{name}_replace"
        for name, patches in transformer.get("patches_replace", {}).items()
        if patches
    ]
    found += [name for name in ("optimized_attention_override",) if transformer.get(name)]
    for name in ("wrappers", "callbacks"):
        for group in (getattr(model, name, {}), transformer.get(name, {})):
            found += [f"{name[:-1]} {kind}" for kind, each in group.items() if any(each.values())]
    found += [name for name in getattr(model, "object_patches", {}) if name != "model_sampling"]
    found += [f"injection {name}" for name in getattr(model, "injections", {})]
    found += ["hook_patches"] if getattr(model, "hook_patches", None) else []
    return list(dict.fromkeys(found))


def _instead(kind: str) -> str:
    return next((text for name, text in _INSTEAD.items() if kind.startswith(name)), "")
