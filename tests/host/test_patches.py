"""Patches and hooks of ComfyUI act in the Sampler; what cannot act is named on the node.

A MODEL of ComfyUI's own loader is patched by ComfyUI's own nodes.
"""

from __future__ import annotations

import re

import pytest

from .test_behaviour import failure, load_model, load_video, sampler

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
    "ADV2V_ApplyMotion": (
        "ADV2V_ApplyMotion",
        {"motion_module": "miniature_motion_native.safetensors"},
    ),
    "v_prediction": ("ModelSamplingDiscrete", {"sampling": "v_prediction", "zsnr": True}),
    "lcm": ("ModelSamplingDiscrete", {"sampling": "lcm", "zsnr": False}),
    "img_to_img": ("ModelSamplingDiscrete", {"sampling": "img_to_img", "zsnr": False}),
}
APPLIED = (
    "The connected MODEL has a motion module already, which has no effect here, and no patches of "
    "it act: connect the MODEL from before Apply AnimateDiff."
)
# For each chain of nodes, the warning; "" where everything acts.
SAID = {
    (): "",
    ("LoraLoaderModelOnly", "v_prediction"): "",
    ("FreeU_V2", "PatchModelAddDownscale", "RescaleCFG"): "",
    ("FreeU_V2", "ADV2V_ApplyMotion"): APPLIED,
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
    """Return the warnings below the widgets of a node after a run, which are in the log, too."""
    before = len(server.log())
    with server.watched() as watcher:
        server.run(prompt, client=watcher.client)
        watcher.until(lambda: any(each["node"] is None for each in watcher.of("executing")))
    # The Sampler says before them how long it took.
    text = re.sub(r"^8 frames in \d+\.\d s(\n\n)?", "", watcher.texts.get(node, ""))
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


def conditionings(clip):
    """Return nodes of a LoRA hook on the positive prompt and a mask on the negative one."""
    hook = {"lora_name": "miniature_outlined_native.safetensors"}
    hook |= {"strength_model": 1.0, "strength_clip": 0.0}
    texts = {
        name: {"class_type": "CLIPTextEncode", "inputs": {"text": "a wave", "clip": each}}
        for name, each in (("positive", ["hooked", 0]), ("plain", clip))
    }
    return {
        "hook": {"class_type": "CreateHookLora", "inputs": hook},
        "hooked": {
            "class_type": "SetClipHooks",
            "inputs": {
                "clip": clip,
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
    }


CONDITIONED = sampler(
    steps=1,
    guidance_scale=2.0,
    positive_conditioning=["positive", 0],
    negative_conditioning=["negative", 0],
)


def test_a_conditioning_acts_as_a_whole_on_a_native_model(server):
    prompt = model_with("FreeU_V2") | conditionings(["checkpoint", 1])
    prompt |= {"load": load_video(frame_load_cap=8), "sample": CONDITIONED}
    assert said(server, prompt | shown("sample"), "sample") == ""


def test_what_a_conditioning_loses_is_named(server):
    prompt = model_with() | conditionings(["checkpoint", 1])
    prompt |= {"load": load_video(frame_load_cap=8), "sample": CONDITIONED}
    prompt["model"] = load_model(
        checkpoint="miniature_native.safetensors",
        motion_module="miniature_motion_native.safetensors",
    )
    text = said(server, prompt | shown("sample"), "sample")
    assert (
        "positive_conditioning carries hooks (WeightHook), which the model of Load AnimateDiff "
        "Model ignores. Use instead: a LoRA Stack, for the whole video. With AnimateDiff Model "
        "from MODEL it acts." in text
    )
    assert "negative_conditioning carries mask, mask_strength, set_area_to_bounds, which" in text
    assert "Use instead: source_mask of the Sampler." in text
