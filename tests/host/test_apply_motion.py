"""KSampler through Apply AnimateDiff gives what this pack's sampler gives with the same tiny files.

A motion module that changes nothing shows that patches, prompts and hooks of ComfyUI act as they do
without it: each patch is sampled with and without the node.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from animatediff_v2v.pipeline import Curve, LoraEntry
from animatediff_v2v.pipeline.files import load_checkpoint
from animatediff_v2v.pipeline.models import MotionMasks, Placement, build_motion_unet
from animatediff_v2v.pipeline.models.controlnet import load_control_network
from animatediff_v2v.pipeline.prompts.track import PromptTrack
from animatediff_v2v.pipeline.sampling import (
    Conditioning,
    ContextOptions,
    Control,
    Guidance,
    Guides,
    SamplingSettings,
    SourceBlend,
    sample_latents,
)
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from ..unit.files.miniatures import IMAGE_CHANNELS, adapter_to_original, ip_adapter
from .conftest import PATHS

SCRIPT = Path(__file__).with_name("applied_sampling.py")
FRAMES, SIZE, TEXT = 6, 8, 64
LIMIT = 1e-4
MOVING, STILL = "motion_module.safetensors", "still.safetensors"
WINDOW = {"length": 4, "overlap": 2}


def case(**values):
    defaults = {"motion": MOVING, "patches": [], "options": {}, "window": {}, "prompts": ""}
    defaults |= {
        "by_our_sampler": False,
        "sampler_options": {},
        "guides": [],
        "idle_patch": "",
        "frames": 4,
        "masked": False,
        "motion_masks": False,
        "curves": {},
        "denoise": 1.0,
        "cfg": 5.0,
        "steps": 3,
    }
    return defaults | {"sampler": "euler", "scheduler": "normal"} | values


def patch(name, *more, **inputs):
    return case(motion=STILL, patches=[(name, inputs), *more])


# Against this pack's own sampler.
OURS = {
    "whole": case(),
    "dpmpp_2m": case(sampler="dpmpp_2m", scheduler="karras", denoise=0.7),
    "without_negative": case(cfg=1.0),
    "static": case(frames=6, window=WINDOW),
    "uniform": case(frames=6, window=WINDOW | {"schedule": "standard_uniform", "stride": 2}),
    "looped": case(
        frames=6,
        window=WINDOW | {"schedule": "looped_uniform", "closed_loop": True, "fuse": "flat"},
        sampler="heun",
    ),
    "memory": case(frames=6, window=WINDOW | {"memory": "ContextRef"}),
    "memory_patched": case(
        frames=6, window=WINDOW | {"memory": "ContextRef"}, idle_patch="attention"
    ),
    "bank": case(frames=6, window=WINDOW | {"memory": "FeatureBank"}),
    "bank_patched": case(
        frames=6, window=WINDOW | {"memory": "FeatureBank"}, idle_patch="attention"
    ),
    "each_frame": case(frames=6, prompts="each frame", window=WINDOW),
    "control": case(frames=6, prompts="control", window=WINDOW),
    "masked": case(masked=True, denoise=0.8),
    "motion_scale": case(options={"motion_scale": 1.4}),
    "motion_masks": case(motion_masks=True, options={"motion_scale": 1.4}),
    "motion_masks_windows": case(motion_masks=True, frames=6, window=WINDOW),
    "scale_over_steps": case(curves={"motion_scale": "0%: 1.5, 70%: 0.6"}, steps=4),
    "effect_over_steps": case(curves={"motion_effect": "0%: 0.2, 50%: 1 ease"}, sampler="heun"),
    "over_steps_windows": case(
        curves={"motion_scale": "0%: 1.4, 40%: 0.7 hold", "motion_effect": "20%: 1, 80%: 0.3"},
        frames=6,
        window=WINDOW,
        steps=4,
    ),
    "over_steps_lcm": case(
        curves={"motion_scale": "0%: 1.4, 60%: 0.7", "motion_effect": "0%: 1, 50%: 0.4 hold"},
        options={"beta_schedule": "lcm"},
        sampler="lcm",
        scheduler="sgm_uniform",
        cfg=1.0,
    ),
    "motion_lora": case(options={"motion_lora_stack": [["motion_lora.safetensors", 0.7]]}),
    "v1": case(motion="v1.safetensors", frames=6, window=WINDOW),
    "linear": case(options={"beta_schedule": "linear"}),
    "lcm": case(options={"beta_schedule": "lcm"}, sampler="lcm", scheduler="sgm_uniform", cfg=1.0),
}
PAG = ("PerturbedAttentionGuidance", {"scale": 3.0})
EASY_CACHE = {"reuse_threshold": 0.3, "start_percent": 0.0, "end_percent": 1.0, "verbose": False}
FREE_U = {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}
# Against ComfyUI's own sampling of each frame by itself.
PATCHES = {
    "still": case(motion=STILL),
    "free_u": patch("FreeU_V2", **FREE_U),
    "pag": patch("PerturbedAttentionGuidance", scale=3.0),
    "free_u_and_pag": patch("FreeU_V2", PAG, **FREE_U),
    "sag": patch("SelfAttentionGuidance", scale=0.5, blur_sigma=2.0),
    "hyper_tile": patch("HyperTile", tile_size=32, swap_size=2, max_depth=0, scale_depth=False),
    "tome": patch("TomePatchModel", ratio=0.3),
    "deep_shrink": patch(
        "PatchModelAddDownscale",
        block_number=1,
        downscale_factor=2.0,
        start_percent=0.0,
        end_percent=0.35,
        downscale_after_skip=True,
        downscale_method="bicubic",
        upscale_method="bicubic",
    ),
    "seg": patch("SmoothedEnergyGuidance", scale=3.0),
    "easy_cache": case(
        motion=STILL,
        patches=[("EasyCache", EASY_CACHE)],
        steps=6,
        denoise=0.6,
    ),
    "rescale_cfg": patch("RescaleCFG", multiplier=0.7),
    "attention_multiply": patch("UNetSelfAttentionMultiply", q=1.2, k=0.9, v=1.0, out=1.1),
    "lora": patch("LoraLoaderModelOnly", lora_name="lora.safetensors", strength_model=0.8),
    "v": patch("ModelSamplingDiscrete", sampling="v_prediction", zsnr=True),
    "area": case(motion=STILL, prompts="area"),
    "mask": case(motion=STILL, prompts="mask"),
    "time": case(motion=STILL, prompts="time", steps=4),
    "hooks": case(motion=STILL, prompts="hooks"),
    "differential": case(
        motion=STILL, patches=[("DifferentialDiffusion", {})], masked=True, denoise=0.8
    ),
}
for each in PATCHES.values():
    each["options"] = {"beta_schedule": "use existing"}
# The same in windows, where a frame by itself gives the same again.
WINDOWED = {
    f"{name}_windows": PATCHES[name] | {"frames": 6, "window": WINDOW}
    for name in (
        "still",
        "free_u",
        "pag",
        "seg",
        "easy_cache",
        "area",
        "mask",
        "hooks",
        "attention_multiply",
    )
}
# Replaced self-attentions beside a memory of the first window.
REMEMBERING = {
    f"{name}_memory": PATCHES[name] | {"frames": 6, "window": WINDOW | {"memory": "ContextRef"}}
    for name in ("pag", "seg")
}
# This pack's own Sampler with the patched MODEL.
OUR_SAMPLER = {
    f"{name}_our_sampler": (PATCHES | WINDOWED | REMEMBERING)[name] | {"by_our_sampler": True}
    for name in (
        "free_u", "pag_windows", "sag", "hyper_tile", "rescale_cfg", "attention_multiply_windows",
        "area", "mask_windows", "time", "hooks", "hooks_windows", "differential",
        "easy_cache_windows", *REMEMBERING,
    )
}  # fmt: skip
GUIDES = {
    "controls": {"guides": ["controlnet", "t2i_adapter"]},
    "style": {"guides": ["ip_adapter", "controlnet"]},
    "unsample": {"sampler_options": {"noise_type": "unsample"}, "denoise": 0.6},
    "cfg_pp": {"sampler": "euler_cfg_pp", "cfg": 1.4},
    "limits": {"sampler_options": {"guidance_end": 0.6, "source_blend": 0.4}, "sampler": "heun"},
}
GUIDED = {
    f"{name}_{patch or 'plain'}": case(
        motion=MOVING,
        frames=6,
        window=WINDOW,
        steps=2,
        by_our_sampler=True,
        idle_patch=patch,
        **values,
    )
    for name, values in GUIDES.items()
    for patch in ("", *(("attention",) if values.get("guides") else ()), "guidance")
}
CASES = OURS | PATCHES | WINDOWED | REMEMBERING | OUR_SAMPLER | GUIDED
# Steps from a noise level of 4,519 leave few digits.
LIMITS = {"v": 5e-4}


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, random_weights):
    folder = tmp_path_factory.mktemp("applied")
    random_weights.write_weights(folder)
    motion = load_file(folder / MOVING)
    still = {n: t * 0 if "proj_out" in n else t for n, t in motion.items()}
    save_file(still, folder / STILL)
    v1 = {n: t[:, :24].clone() if n.endswith(".pe") else t for n, t in motion.items()}
    v1 = {n: t for n, t in v1.items() if not n.startswith("mid_block.")}
    save_file(v1, folder / "v1.safetensors")
    lora = {
        f"diffusion_model.input_blocks.1.1.transformer_blocks.0.{part}.lora_{side}.weight": tensor
        for part in ("attn1.to_v", "ff.net.2")
        for side, tensor in (
            ("up", draw(64, 4, seed=8)),
            ("down", draw(4, 64 if part == "attn1.to_v" else 256, seed=9)),
        )
    }
    save_file(lora, folder / "lora.safetensors")
    side = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0"
    side += ".attention_blocks.0.processor.to_v_lora"
    motion_lora = {f"{side}.up.weight": draw(64, 4, seed=10)}
    motion_lora[f"{side}.down.weight"] = draw(4, 64, seed=11)
    save_file(motion_lora, folder / "motion_lora.safetensors")
    unet = UNet2DConditionModel(**load_checkpoint(folder / "checkpoint.safetensors").unet_config)
    save_file(ip_adapter("base", unet, text=TEXT), folder / "ip_adapter.safetensors")
    channels = unet.config.block_out_channels
    save_file(adapter_to_original(channels), folder / "t2i_adapter.safetensors")
    pixels = SIZE * 8
    inputs = {
        "latents": draw(FRAMES, 4, SIZE, SIZE, seed=1),
        "positive": draw(1, 77, TEXT, seed=2),
        "negative": draw(1, 77, TEXT, seed=3),
        "each": draw(FRAMES, 77, TEXT, seed=4),
        "masks": draw(FRAMES, pixels, pixels, seed=6).sigmoid(),
        "frames": draw(FRAMES, pixels, pixels, 3, seed=5).sigmoid(),
        "embeddings": draw(2, IMAGE_CHANNELS, seed=7),
    }
    save_file(inputs, folder / "inputs.safetensors")
    return folder


@pytest.fixture(scope="module", params=PATHS or [None], ids=lambda path: Path(path or "none").name)
def sampled(request, folder, tmp_path_factory):
    """Return KSampler's latents for each case, and those expected of ComfyUI itself."""
    if request.param is None:
        pytest.skip("COMFYUI_PATH names no ComfyUI")
    cases = tmp_path_factory.mktemp("cases") / "cases.json"
    cases.write_text(json.dumps(CASES))
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    command = [python, str(SCRIPT), str(cases), str(folder)]
    done = subprocess.run(command, cwd=request.param, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {name: load_file(folder / "results" / f"{name}.safetensors") for name in CASES}
    return found | {"said": json.loads((folder / "results" / "said.json").read_text())}


def ours(case, folder):
    inputs = load_file(folder / "inputs.safetensors")
    place = {"device": torch.device("cpu"), "dtype": torch.float32}
    weights, frames = load_checkpoint(folder / "checkpoint.safetensors"), case["frames"]
    curves = {name: Curve(text) for name, text in case["curves"].items()}
    unet = build_motion_unet(
        weights.unet_config,
        weights.unet,
        motion_module=folder / case["motion"],
        motion_loras=[
            LoraEntry(folder / name, scale)
            for name, scale in case["options"].get("motion_lora_stack", ())
        ],
        motion_scale=curves.get("motion_scale", case["options"].get("motion_scale", 1.0)),
        motion_effect=curves.get("motion_effect", 1.0),
        placement=Placement(**place),
    )
    if case["motion_masks"]:
        masks = inputs["masks"][:frames]
        unet.motion.set_masks(MotionMasks.of(masks, masks[:1]))
    each = case["prompts"] == "each frame"
    positive = PromptTrack(inputs["positive"])
    if each:
        positive = PromptTrack(inputs["each"][:frames], tuple(range(frames)))
    controls = []
    if case["prompts"] == "control":
        network = load_control_network(folder / "controlnet.safetensors", **place)
        controls = [Control(network=network, frames=inputs["frames"][:frames], strength=0.8)]
    mask = inputs["masks"][:frames] if case["masked"] else None
    return sample_latents(
        unet,
        inputs["latents"][:frames],
        Conditioning(positive, PromptTrack(inputs["negative"])),
        SamplingSettings(
            seed=7,
            steps=case["steps"],
            guidance=Guidance(scale=case["cfg"]),
            sampler=case["sampler"],
            scheduler=case["scheduler"],
            denoise=case["denoise"],
            beta_schedule=case["options"].get("beta_schedule", "autoselect"),
            context=ContextOptions(**case["window"]) if case["window"] else None,
        ),
        guides=Guides(controls=controls, source_blend=SourceBlend(mask=mask)),
    )


def error_of(result, expected):
    return float((result - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", OURS)
def test_equals_our_sampler(name, sampled, folder):
    error = error_of(sampled[name]["samples"], ours(OURS[name], folder))
    print(f"{name}: relative error {error:.1e}")
    assert error < LIMIT


@pytest.mark.parametrize("name", PATCHES | WINDOWED)
def test_patches_act_as_without_a_motion_module(name, sampled):
    found = sampled[name]
    error = error_of(found["samples"], found["expected"])
    print(f"{name}: relative error {error:.1e}")
    assert error < LIMITS.get(name, LIMIT)
    if name.removesuffix("_windows") != "still":
        plain = sampled["still_windows" if name.endswith("_windows") else "still"]["samples"]
        assert error_of(found["samples"], plain) > 0.001, "the patch does nothing"


@pytest.mark.parametrize("name", REMEMBERING)
def test_the_memory_acts_beside_replaced_attention(name, sampled):
    without = sampled["pag_windows"]["samples"]
    assert error_of(sampled[name]["samples"], without) > 0.001


@pytest.mark.parametrize("name", OUR_SAMPLER)
def test_our_sampler_honours_patches_and_hooks(name, sampled):
    error = error_of(
        sampled[name]["samples"], sampled[name.removesuffix("_our_sampler")]["samples"]
    )
    print(f"{name}: relative error {error:.1e}")
    assert error < LIMIT


@pytest.mark.parametrize("name", [name for name in GUIDED if not name.endswith("_plain")])
def test_our_sampler_is_the_same_on_a_patched_model(name, sampled):
    plain = sampled[f"{name.rpartition('_')[0]}_plain"]["samples"]
    error = error_of(sampled[name]["samples"], plain)
    print(f"{name}: relative error {error:.1e}")
    assert error < LIMIT


SAID = {
    "applied twice": "The connected MODEL has a motion module already: connect the MODEL from "
    "before the other Apply AnimateDiff.",
    "gligen": "GLIGEN cannot be used with a motion module: remove GLIGEN Textbox Apply, and use "
    "Conditioning (Set Area) instead.",
    "not SD1.5: Flux": "The connected MODEL is a Flux: Apply AnimateDiff needs a Stable Diffusion "
    "1.5 MODEL, for example from Load Checkpoint.",
    "not SD1.5: SDXL": "The connected MODEL is an SDXL checkpoint. This pack runs Stable Diffusion "
    "1.5 only.",
    "not SD1.5: SD20": "The connected MODEL is a Stable Diffusion 2 checkpoint. This pack runs "
    "Stable Diffusion 1.5 only.",
    "not SD1.5: inpainting": "The connected MODEL is an inpainting checkpoint of Stable Diffusion "
    "1.5. Its UNet takes 9 channels; this pack needs one that takes 4.",
    "unknown patch": [
        "The MODEL has patches that have no effect with a motion module: double_block_patch. The "
        "motion module needs the layers of the UNet one by one."
    ],
    "masks of another count": "motion_effect_mask has 3 masks for 8 frames: give one for each "
    "frame, or one for all.",
    # Passes of a layer, in 2 steps, if the first one presses Cancel.
    "stopped after": 1,
    # A window of 4 frames, and the first window's beside it.
    "room with ContextRef": [6],
    "room with FeatureBank": [6],
    # Layers of a block while another pack's network is in it, and after Apply AnimateDiff.
    "beside injected": [3, 2],
}
# What the public means of ComfyUI are, and do with 8 frames in windows of 4.
MEANS = {
    "wrappers": ["diffusion_model", "prepare_sampling"],
    "object_patches": ["model_sampling"],
    "other_means": [],
    "motion_is_loaded": True,
    "highest_level": 25.146,
    "rows": [4],
    "frames_to_make_room_for": [4],
}


@pytest.mark.parametrize("name", SAID)
def test_sentences(name, sampled):
    assert sampled["said"][name] == SAID[name]


@pytest.mark.parametrize("name", MEANS)
def test_public_means(name, sampled):
    assert sampled["said"]["means"][name] == MEANS[name]
