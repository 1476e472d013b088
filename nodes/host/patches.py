"""What a MODEL of ComfyUI carries beside its weights, and this pack's sampler does not run."""

from __future__ import annotations

from typing import Any

# Kind of patch -> what does the same here; "" where nothing does.
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
    """Name each patch of a MODEL that has no effect here and what to use instead, in a sentence.

    None where there is none. Patches of weights and model_sampling are taken along.
    """
    kinds = _kinds(model)
    if not kinds:
        return None
    advice = dict.fromkeys(filter(None, map(_instead, kinds)))
    use = f" Use instead: {'; '.join(advice)}." if advice else ""
    return (
        f"The connected MODEL carries patches without effect here: {', '.join(kinds)}.{use} Its "
        "LoRAs and merges are taken along."
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
    for place in ("wrappers", "callbacks"):
        for group in (getattr(model, place, {}), transformer.get(place, {})):
            found += [f"{place[:-1]} {kind}" for kind, each in group.items() if any(each.values())]
    found += [name for name in getattr(model, "object_patches", {}) if name != "model_sampling"]
    found += [f"injection {name}" for name in getattr(model, "injections", {})]
    found += ["hook_patches"] if getattr(model, "hook_patches", None) else []
    return list(dict.fromkeys(found))


def _instead(kind: str) -> str:
    return next((text for name, text in _INSTEAD.items() if kind.startswith(name)), "")
