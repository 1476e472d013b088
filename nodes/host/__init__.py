"""The only package that uses ComfyUI's internals, one module for each topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...pipeline.on_demand import on_demand

if TYPE_CHECKING:
    from .applied_guides import AppliedGuides
    from .applied_motion import AppliedMotion
    from .custom_sampler import HostSampler
    from .devices import Devices, unet_device
    from .folders import (
        IP_ADAPTERS,
        MOTION_LORAS,
        MOTION_MODULES,
        OutputFile,
        batch_file,
        batch_folder,
        clips_path,
        data_folder,
        embedding_folders,
        input_folder,
        input_path,
        input_videos,
        lora_folders,
        model_folders,
        model_names,
        model_path,
        models_folder,
        output_file,
        path_in_folders,
        register_model_folders,
        temporary_folder,
        uploaded_path,
        vae_names,
        workflow_metadata,
    )
    from .guides import Chain, VisionEncoder, managed
    from .managed_models import ManagedModels, Origins, WholeModelPatcher, as_result, ready_networks
    from .native import (
        HostCodec,
        HostTextEncoder,
        has_weight_patches,
        parameterization,
        trim_window,
        unet_weights,
    )
    from .native_model import compute_dtype, unet_shapes, with_beta_schedule
    from .native_sampling import NativeSampling
    from .optical_flow import RaftFlow
    from .patches import has_patches, ignored_patches
    from .progress import Interrupted, NodeProgress, is_interrupted, raise_if_interrupted
    from .queue import PromptQueue
    from .routes import add_get_route, add_route, application
    from .submitted import current_node_id, remember_submitted_prompts, submitted_prompt
    from .warnings import warnings_on_node

__all__ = [
    "IP_ADAPTERS",
    "MOTION_LORAS",
    "MOTION_MODULES",
    "AppliedGuides",
    "AppliedMotion",
    "Chain",
    "Devices",
    "HostCodec",
    "HostSampler",
    "HostTextEncoder",
    "Interrupted",
    "ManagedModels",
    "NativeSampling",
    "NodeProgress",
    "Origins",
    "OutputFile",
    "PromptQueue",
    "RaftFlow",
    "VisionEncoder",
    "WholeModelPatcher",
    "add_get_route",
    "add_route",
    "application",
    "as_result",
    "batch_file",
    "batch_folder",
    "clips_path",
    "compute_dtype",
    "current_node_id",
    "data_folder",
    "embedding_folders",
    "has_patches",
    "has_weight_patches",
    "ignored_patches",
    "input_folder",
    "input_path",
    "input_videos",
    "is_interrupted",
    "lora_folders",
    "managed",
    "model_folders",
    "model_names",
    "model_path",
    "models_folder",
    "output_file",
    "parameterization",
    "path_in_folders",
    "raise_if_interrupted",
    "ready_networks",
    "register_model_folders",
    "remember_submitted_prompts",
    "submitted_prompt",
    "temporary_folder",
    "trim_window",
    "unet_device",
    "unet_shapes",
    "unet_weights",
    "uploaded_path",
    "vae_names",
    "warnings_on_node",
    "with_beta_schedule",
    "workflow_metadata",
]

on_demand(
    __name__,
    {
        "applied_guides": ("AppliedGuides",),
        "applied_motion": ("AppliedMotion",),
        "custom_sampler": ("HostSampler",),
        "devices": (
            "Devices",
            "unet_device",
        ),
        "folders": (
            "IP_ADAPTERS",
            "MOTION_LORAS",
            "MOTION_MODULES",
            "OutputFile",
            "batch_file",
            "batch_folder",
            "clips_path",
            "data_folder",
            "embedding_folders",
            "input_folder",
            "input_path",
            "input_videos",
            "lora_folders",
            "model_folders",
            "model_names",
            "model_path",
            "models_folder",
            "output_file",
            "path_in_folders",
            "register_model_folders",
            "temporary_folder",
            "uploaded_path",
            "vae_names",
            "workflow_metadata",
        ),
        "guides": (
            "Chain",
            "VisionEncoder",
            "managed",
        ),
        "managed_models": (
            "ManagedModels",
            "Origins",
            "WholeModelPatcher",
            "as_result",
            "ready_networks",
        ),
        "native": (
            "HostCodec",
            "HostTextEncoder",
            "has_weight_patches",
            "parameterization",
            "trim_window",
            "unet_weights",
        ),
        "native_model": (
            "compute_dtype",
            "unet_shapes",
            "with_beta_schedule",
        ),
        "native_sampling": ("NativeSampling",),
        "optical_flow": ("RaftFlow",),
        "patches": ("has_patches", "ignored_patches"),
        "progress": (
            "Interrupted",
            "NodeProgress",
            "is_interrupted",
            "raise_if_interrupted",
        ),
        "queue": ("PromptQueue",),
        "routes": (
            "add_get_route",
            "add_route",
            "application",
        ),
        "submitted": (
            "current_node_id",
            "remember_submitted_prompts",
            "submitted_prompt",
        ),
        "warnings": ("warnings_on_node",),
    },
)
