"""Model files: recognition by keys, reading, and merging of LoRAs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..on_demand import on_demand

if TYPE_CHECKING:
    from .checkpoint import CheckpointWeights, load_checkpoint, load_text_encoder, load_vae, unet_of
    from .controlnet import ControlWeights, load_control
    from .guidance_kinds import IpAdapterFamily
    from .ip_adapter import IpAdapterSizes, IpAdapterWeights, load_ip_adapter
    from .kinds import Kind
    from .lora import LoraReport, merge_loras, merge_motion_loras
    from .lora_entry import LoraEntry
    from .lora_layers import layered_loras
    from .lora_reference import find_lora
    from .motion_kinds import MotionFamily
    from .motion_module import MotionModuleWeights, load_motion_module
    from .reading import Weights, read_weights
    from .recognition import FileReport, identify
    from .sparsectrl import SparseCtrlWeights, load_sparsectrl
    from .tiny_decoder import load_tiny_decoder

__all__ = [
    "CheckpointWeights",
    "ControlWeights",
    "FileReport",
    "IpAdapterFamily",
    "IpAdapterSizes",
    "IpAdapterWeights",
    "Kind",
    "LoraEntry",
    "LoraReport",
    "MotionFamily",
    "MotionModuleWeights",
    "SparseCtrlWeights",
    "Weights",
    "find_lora",
    "identify",
    "layered_loras",
    "load_checkpoint",
    "load_control",
    "load_ip_adapter",
    "load_motion_module",
    "load_sparsectrl",
    "load_text_encoder",
    "load_tiny_decoder",
    "load_vae",
    "merge_loras",
    "merge_motion_loras",
    "read_weights",
    "unet_of",
]

on_demand(
    __name__,
    {
        "checkpoint": (
            "CheckpointWeights",
            "load_checkpoint",
            "load_text_encoder",
            "load_vae",
            "unet_of",
        ),
        "controlnet": (
            "ControlWeights",
            "load_control",
        ),
        "guidance_kinds": ("IpAdapterFamily",),
        "ip_adapter": (
            "IpAdapterSizes",
            "IpAdapterWeights",
            "load_ip_adapter",
        ),
        "kinds": ("Kind",),
        "lora_entry": ("LoraEntry",),
        "lora_layers": ("layered_loras",),
        "lora": (
            "LoraReport",
            "merge_loras",
            "merge_motion_loras",
        ),
        "lora_reference": ("find_lora",),
        "motion_kinds": ("MotionFamily",),
        "motion_module": (
            "MotionModuleWeights",
            "load_motion_module",
        ),
        "reading": (
            "Weights",
            "read_weights",
        ),
        "recognition": (
            "FileReport",
            "identify",
        ),
        "sparsectrl": (
            "SparseCtrlWeights",
            "load_sparsectrl",
        ),
        "tiny_decoder": ("load_tiny_decoder",),
    },
)
