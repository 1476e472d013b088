"""Recognition of files of AnimateDiff and its relatives."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from .kinds import Finding, Keys
from .lora_keys import split_key

MotionFamily = Literal["v1", "v2", "v3", "animatelcm", "long"]

FRAMES_WITHOUT_TABLE = 64  # AnimateLCM's files have no table; it is used with up to 64 frames

_OTHER_PACK = "This pack runs AnimateDiff's motion modules for Stable Diffusion 1.5 only."
_BLOCK = re.compile(r"(?:(?:down|up)_blocks\.\d+|mid_block)\.motion_modules\.\d+")
_FAMILY_NAMES: dict[MotionFamily, str] = {
    "v1": "an AnimateDiff v1 motion module",
    "v2": "an AnimateDiff v2 (or Lightning) motion module",
    "v3": "an AnimateDiff v3 motion module",
    "animatelcm": "an AnimateLCM motion module",
    "long": "a LongAnimateDiff motion module",
}


def motion_family(*, frames: int | None, has_mid_block: bool) -> MotionFamily:
    """Return the family, by the length of the positional encoding and the middle block."""
    if frames is None:
        return "animatelcm"
    if frames > 32:
        return "long"
    if has_mid_block:
        return "v2"
    return "v1" if frames <= 24 else "v3"


def _refused(phrase: str, base_model: str = "SD1.5", advice: str = _OTHER_PACK) -> Finding:
    return Finding("motion module", phrase, base_model=base_model, advice=advice)


def _motion_lora(keys: Keys) -> Finding | None:
    if not keys.has("motion_modules"):
        return None
    splits = [split for name in keys.shapes if (split := split_key(name))]
    layers = {module for module, parameter in splits if parameter != "weight"}
    in_motion = {layer for layer in layers if "motion_modules" in layer}
    if not in_motion:
        return None
    both = bool(layers - in_motion)
    return Finding(
        "motion LoRA",
        "a motion LoRA and a LoRA in one file" if both else "a motion LoRA",
        base_model="SD1.5",
        layout="original" if keys.has("temporal_transformer") else "diffusers",
        contents=f"{len(in_motion)} layers"
        + (f", and {len(layers - in_motion)} of a LoRA" if both else ""),
        usable=True,
        advice="Use it as a motion LoRA on a v2 motion module"
        + (", and as a LoRA for the rest of it." if both else "."),
        also=("LoRA",) if both else (),
    )


def _has_modules(keys: Keys) -> bool:
    return keys.has("motion_modules.")


# Files that resemble a motion module but cannot run here.
_RELATIVES: tuple[tuple[Callable[[Keys], bool], Finding], ...] = (
    (
        lambda keys: keys.has(".temporal_attentions.", "pos_encoder.positional_encoding"),
        _refused("a HotshotXL motion module", "SDXL"),
    ),
    (
        lambda keys: keys.has("qkv_merge", "pose_encoder", "encoder_down_attention_blocks"),
        _refused("a CameraCtrl model"),
    ),
    (
        lambda keys: _has_modules(keys) and keys.starts("img_encoder."),
        _refused(
            "an AnimateLCM-I2V motion module",
            advice="Use AnimateLCM's own motion module, and give it the picture as a keyframe: "
            "Keyframes with v3_sd15_sparsectrl_rgb.",
        ),
    ),
    (lambda keys: keys.has("FancyVideo"), _refused("a FancyVideo motion module")),
    (
        lambda keys: _has_modules(keys) and bool(keys.sizes("conv_in.weight", 1) - {4}),
        _refused(
            "a PIA motion module",
            advice="Use the v3 motion module, and give it the picture as a keyframe: Keyframes "
            "with v3_sd15_sparsectrl_rgb.",
        ),
    ),
)


def _sparsectrl(keys: Keys) -> Finding | None:
    if not (_has_modules(keys) and keys.has("controlnet_cond_embedding.")):
        return None
    takes_latents = keys.has("controlnet_cond_embedding.weight")
    beside = "a v3 motion module"
    if keys.starts("mid_block.motion_modules."):
        beside = "the motion module that it was trained with"
    return Finding(
        "SparseCtrl",
        f"a SparseCtrl model for {'pictures (RGB)' if takes_latents else 'scribbles'}",
        "SD1.5",
        "original" if keys.has(".temporal_transformer.") else "diffusers",
        usable=True,
        advice=f"Use it with Keyframes, beside {beside}.",
    )


def _relative(keys: Keys) -> Finding | None:
    return next((finding for is_it, finding in _RELATIVES if is_it(keys)), None)


def _motion_module(keys: Keys) -> Finding | None:
    blocks = {match[0] for match in map(_BLOCK.search, keys.shapes) if match}
    if not blocks:
        return None
    levels = {block.split(".")[1] for block in blocks if block.startswith("down_blocks.")}
    widths = keys.sizes("motion_modules.0.temporal_transformer.norm.weight", 0)
    widths |= keys.sizes("motion_modules.0.norm.weight", 0)
    if len(levels) == 3 and {320, 640, 1280} <= widths:
        return _refused("an AnimateDiff-SDXL motion module", "SDXL")
    tables = keys.sizes("pos_encoder.pe", 1) | keys.sizes("pos_embed.pe", 1)
    frames = min(tables) if tables else None
    middle = any(block.startswith("mid_block.") for block in blocks)
    parts = [f"{len(blocks)} modules", "middle block" if middle else "no middle block"]
    parts.append(f"{frames} frames" if frames else "no positional encoding")
    if any("motion_modules" not in name for name in keys.shapes):
        parts.append("a UNet beside them, which is ignored")
    return Finding(
        "motion module",
        _FAMILY_NAMES[motion_family(frames=frames, has_mid_block=middle)],
        base_model="SD1.5",
        layout="original" if keys.has(".temporal_transformer.") else "diffusers",
        contents=", ".join(parts),
        max_frames=frames or FRAMES_WITHOUT_TABLE,
        usable=True,
        advice="Use it as the motion module.",
    )


RULES = (_motion_lora, _sparsectrl, _relative, _motion_module)
