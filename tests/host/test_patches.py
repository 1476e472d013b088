"""ComfyUI patches that this pack does not apply are named on the node; ModelSampling applies.

A MODEL of ComfyUI's own loader is patched by ComfyUI's own nodes.
"""

from __future__ import annotations

import pytest

from .test_behaviour import failure, load_video, sampler

FREE_U = {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}
PATCHES = {
    "FreeU_V2": ("FreeU_V2", FREE_U),
    "RescaleCFG": ("RescaleCFG", {"multiplier": 0.7}),
    "PatchModelAddDownscale": (
        "PatchModelAddDownscale",
        {
            "block_number": 3,
            "downscale_factor": 2.0,
            "start_percent": 0.0,
            "end_percent": 0.35,
            "downscale_after_skip": True,
            "downscale_method": "bicubic",
            "upscale_method": "bicubic",
        },
    ),
    "LoraLoaderModelOnly": (
        "LoraLoaderModelOnly",
        {"lora_name": "miniature_outlined_native.safetensors", "strength_model": 0.5},
    ),
    "v_prediction": ("ModelSamplingDiscrete", {"sampling": "v_prediction", "zsnr": True}),
    "x0": ("ModelSamplingDiscrete", {"sampling": "x0", "zsnr": False}),
    "lcm": ("ModelSamplingDiscrete", {"sampling": "lcm", "zsnr": False}),
    "img_to_img": ("ModelSamplingDiscrete", {"sampling": "img_to_img", "zsnr": False}),
}
IGNORED = "The connected MODEL has patches that have no effect here: "
TAKEN = "Its LoRAs and merges are kept. Apply AnimateDiff with a KSampler applies such patches."
GUIDANCE = "guidance_scale, guidance_start and guidance_end of the Sampler"
# For each chain of nodes, the warning; "" where nothing is ignored.
SAID = {
    (): "",
    ("LoraLoaderModelOnly", "v_prediction"): "",
    ("x0",): "",
    ("FreeU_V2",): f"{IGNORED}output_block_patch. {TAKEN}",
    ("RescaleCFG",): f"{IGNORED}sampler_cfg_function. Use instead: {GUIDANCE}. {TAKEN}",
    ("FreeU_V2", "PatchModelAddDownscale", "RescaleCFG"): (
        f"{IGNORED}sampler_cfg_function, output_block_patch, input_block_patch_after_skip. "
        f"Use instead: {GUIDANCE}. {TAKEN}"
    ),
}
REFUSED = {"lcm": "LCM", "img_to_img": "IMG_TO_IMG"}


def model_with(*patches):
    """Return a graph with a chain of patches on the MODEL, before this pack."""
    nodes = {
        "checkpoint": {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": "miniature_native.safetensors"},
        }
    }
    last = "checkpoint"
    for name in patches:
        kind, values = PATCHES[name]
        nodes[name] = {"class_type": kind, "inputs": values | {"model": [last, 0]}}
        last = name
    inputs = {
        "model": [last, 0],
        "clip": ["checkpoint", 1],
        "vae": ["checkpoint", 2],
        "motion_module": "miniature_motion_native.safetensors",
    }
    return nodes | {"model": {"class_type": "ADV2V_ModelFromComfy", "inputs": inputs}}


def shown(node):
    return {"shown": {"class_type": "PreviewAny", "inputs": {"source": [node, 0]}}}


def said(server, prompt, node):
    """Return the texts below the widgets of a node after a run, and in the log."""
    before = len(server.log())
    with server.watched() as watcher:
        server.run(prompt, client=watcher.client)
        watcher.until(lambda: any(each["node"] is None for each in watcher.of("executing")))
    text = watcher.texts.get(node, "")
    assert all(line in server.log()[before:] for line in text.split("\n\n"))
    return text


@pytest.mark.parametrize("patches", SAID, ids=lambda each: "+".join(each) or "none")
def test_patches_without_effect_are_named(server, patches):
    assert said(server, model_with(*patches) | shown("model"), "model") == SAID[patches]


@pytest.mark.parametrize("sampling", REFUSED)
def test_a_way_of_sampling_that_is_not_here_is_refused(server, sampling):
    sentence = failure(server, model_with(sampling) | shown("model"))
    assert f"The connected MODEL is sampled as {REFUSED[sampling]}, which this pack" in sentence
    assert sentence.strip().count("\n") == 0


def test_what_a_conditioning_loses_is_named(server):
    """A LoRA hook on the positive prompt, a mask and an area on the negative one."""
    hook = {"lora_name": "miniature_outlined_native.safetensors"}
    hook |= {"strength_model": 1.0, "strength_clip": 0.0}
    texts = {
        name: {"class_type": "CLIPTextEncode", "inputs": {"text": "a wave", "clip": [clip, 0]}}
        for name, clip in (("positive", "hooked"), ("plain", "clip"))
    }
    prompt = model_with() | {
        "clip": {
            "class_type": "CLIPSetLastLayer",
            "inputs": {"clip": ["checkpoint", 1], "stop_at_clip_layer": -1},
        },
        "hook": {"class_type": "CreateHookLora", "inputs": hook},
        "hooked": {
            "class_type": "SetClipHooks",
            "inputs": {
                "clip": ["checkpoint", 1],
                "apply_to_conds": True,
                "schedule_clip": False,
                "hooks": ["hook", 0],
            },
        },
        **texts,
        "mask": {"class_type": "SolidMask", "inputs": {"value": 1.0, "width": 96, "height": 64}},
        "negative": {
            "class_type": "ConditioningSetMask",
            "inputs": {
                "conditioning": ["plain", 0],
                "mask": ["mask", 0],
                "strength": 1.0,
                "set_cond_area": "default",
            },
        },
        "load": load_video(frame_load_cap=2),
        "sample": sampler(
            steps=1,
            guidance_scale=2.0,
            positive_conditioning=["positive", 0],
            negative_conditioning=["negative", 0],
        ),
        **shown("sample"),
    }
    text = said(server, prompt, "sample")
    assert (
        "positive_conditioning carries hooks (WeightHook), which this sampler ignores. "
        "Use instead: a LoRA Stack, for the whole video." in text
    )
    assert "negative_conditioning carries mask, mask_strength, set_area_to_bounds, which" in text
    assert "Use instead: source_mask of the Sampler." in text
