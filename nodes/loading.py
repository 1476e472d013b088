"""Loads the networks that combos name, for ComfyUI to manage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from .. import pipeline
from ..pipeline import LoraEntry, models, prompts
from ..pipeline.curve import Curve, Strength
from ..pipeline.files import find_lora
from . import host
from .fingerprint import file_fingerprint
from .lora_stack import LoraStackEntries, without_idle

MotionStack = Sequence[tuple[str, float]]
NO_MOTION_MODULE = "None (each frame by itself)"
VAE_FROM_CHECKPOINT = "from checkpoint"


def load_managed(
    checkpoint: str,
    *,
    motion_module: str,
    vae: str = VAE_FROM_CHECKPOINT,
    lora_stack: LoraStackEntries = (),
    motion_lora_stack: MotionStack = (),
    motion_scale: Strength = 1.0,
    motion_effect: Strength = 1.0,
    clip_skip: int = 1,
    fp8_weights: bool = False,
    masks: models.MotionMasks | None = None,
) -> host.ManagedModels:
    """Load the networks that combos name into main memory, for ComfyUI to move."""
    files = model_files(
        checkpoint,
        motion_module=motion_module,
        vae=vae,
        lora_stack=lora_stack,
        motion_lora_stack=motion_lora_stack,
        motion_scale=motion_scale,
        motion_effect=motion_effect,
        clip_skip=clip_skip,
    )
    return load_managed_files(files, checkpoint=checkpoint, fp8_weights=fp8_weights, masks=masks)


def model_files(
    checkpoint: str,
    *,
    motion_module: str,
    vae: str = VAE_FROM_CHECKPOINT,
    lora_stack: LoraStackEntries = (),
    motion_lora_stack: MotionStack = (),
    motion_scale: Strength = 1.0,
    motion_effect: Strength = 1.0,
    clip_skip: int = 1,
) -> pipeline.ModelFiles:
    """Return the files that combos name; raise AnimateDiffV2VError when one is missing."""
    return pipeline.ModelFiles(
        checkpoint=host.model_path("checkpoints", checkpoint),
        motion_module=optional_path(host.MOTION_MODULES, motion_module),
        vae=optional_path("vae", vae),
        loras=_lora_entries(lora_stack),
        motion_loras=motion_lora_entries(motion_lora_stack),
        motion_scale=motion_scale,
        motion_effect=motion_effect,
        clip_skip=clip_skip,
    )


def load_managed_files(
    files: pipeline.ModelFiles,
    *,
    checkpoint: str,
    fp8_weights: bool = False,
    masks: models.MotionMasks | None = None,
) -> host.ManagedModels:
    """Load networks into main memory, for ComfyUI to move.

    Args:
        files: The files; their device and dtype are ComfyUI's.
        checkpoint: The name of the checkpoint, by which run times are remembered.
        fp8_weights: Store the weights of the UNet in 8 bits.
        masks: Those of the motion module.
    """
    devices = host.Devices.of_comfyui()
    masks = masks or models.NO_MASKS
    fp8_weights = fp8_weights or devices.fp8_weights
    origins = _origins(files, masks)
    if fp8_weights:
        origins = origins.with_fp8_weights()
    networks = models.load_networks(
        files,
        models.Placement(devices.offload, devices.unet_dtype),
        fp8_weights=fp8_weights,
        ready=host.ready_networks(origins),
    )
    loaded = models.Models.of(networks, files, find_embedding=_find_embedding)
    if loaded.unet.motion is not None:
        loaded.unet.motion.set_masks(masks)
    return host.ManagedModels(loaded, devices, origins=origins, checkpoint=checkpoint)


def _lora_entries(stack: LoraStackEntries) -> tuple[LoraEntry, ...]:
    folders = host.lora_folders()
    return tuple(
        LoraEntry(find_lora(name, folders=folders), _strength(model_strength), clip_strength)
        for name, model_strength, clip_strength in without_idle(stack)
    )


def _strength(value: Strength | str) -> Strength:
    """Return a number or a curve; in the JSON of API requests, a curve is its text."""
    return Curve(value) if isinstance(value, str) else value


def _origins(files: pipeline.ModelFiles, masks: models.MotionMasks) -> host.Origins:
    """Return what identifies each network: the content of its files, and settings."""
    checkpoint = file_fingerprint(files.checkpoint)
    module = files.motion_module and file_fingerprint(files.motion_module)
    motion = (module, files.motion_scale, files.motion_effect, *masks.digests)
    loras = [(file_fingerprint(lora.path), lora) for lora in files.loras]
    motion_loras = [(file_fingerprint(lora.path), lora) for lora in files.motion_loras]
    return host.Origins(
        unet=(
            "unet",
            checkpoint,
            motion,
            *((content, lora.model_strength) for content, lora in loras),
            *((content, lora.model_strength) for content, lora in motion_loras),
        ),
        text_encoder=(
            "text encoder",
            checkpoint,
            *((content, lora.clip_strength) for content, lora in loras if lora.clip_strength),
        ),
        vae=("vae", file_fingerprint(files.vae) if files.vae else checkpoint),
    )


def model_fingerprints(
    checkpoint: str | None, *, motion_module: str | None, vae: str | None = None
) -> list[str]:
    """Return the fingerprints of the chosen files; None is a combo that is linked."""
    chosen = {
        "checkpoints": checkpoint,
        host.MOTION_MODULES: motion_module,
        "vae": vae,
    }
    return [each for folder, name in chosen.items() for each in model_fingerprint(folder, name)]


def model_fingerprint(folder: str, name: str | None) -> list[str]:
    """Return the fingerprint of the chosen file, or an empty list if no file is chosen."""
    file = named(name)
    return [] if file is None else [file_fingerprint(host.model_path(folder, file))]


def motion_lora_entries(stack: MotionStack) -> tuple[LoraEntry, ...]:
    """Find the files of a motion LoRA stack; raise AnimateDiffV2VError when one is missing."""
    return tuple(
        LoraEntry(host.model_path(host.MOTION_LORAS, name), scale) for name, scale in stack
    )


def optional_path(folder: str, name: str) -> Path | None:
    """Return the path of the file that a combo names, or None if it names none."""
    file = named(name)
    return None if file is None else host.model_path(folder, file)


def named(choice: str | None) -> str | None:
    """Return the file that a combo names, or None if its choice is not a file."""
    return None if choice in (NO_MOTION_MODULE, VAE_FROM_CHECKPOINT) else choice


def _find_embedding(name: str) -> Tensor | None:
    finders = map(prompts.embedding_finder, host.embedding_folders())
    return next((found for find in finders if (found := find(name)) is not None), None)
