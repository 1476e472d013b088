"""Takes ComfyUI's own MODEL, CLIP and VAE as this pack's model."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..pipeline import files, models
from . import host
from .checks import CheckedNode, Problem
from .inputs import (
    MOTION_MODULE_TOOLTIP,
    motion_effect_input,
    motion_mask_inputs,
    motion_masks,
    motion_scale_input,
)
from .loading import (
    NO_MOTION_MODULE,
    MotionStack,
    model_fingerprint,
    motion_lora_entries,
    named,
    optional_path,
)
from .model_checks import file_problem
from .sockets import CATEGORY, Model, MotionLoraStackSocket
from .strength_curve import strength_of

logger = logging.getLogger(__name__)


class ModelFromComfy(CheckedNode):
    """Combines a native MODEL, CLIP and VAE with a motion module."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_ModelFromComfy",
            display_name="AnimateDiff Model from MODEL",
            category=CATEGORY,
            description="Add a motion module to a Stable Diffusion 1.5 MODEL from ComfyUI's own "
            "loaders, keeping the LoRAs and other weight patches that are already in it.",
            search_aliases=[
                "apply animatediff model",
                "use evolved sampling",
                "native model",
                "ade",
                "evolved",
                "gen2",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A Stable Diffusion 1.5 MODEL, with its LoRAs, merges and patches.",
                ),
                io.Clip.Input(
                    "clip",
                    tooltip="Its text encoder, which encodes the prompts; LoRAs and CLIP Set Last "
                    "Layer are kept.",
                ),
                io.Vae.Input(
                    "vae",
                    tooltip="A VAE for Stable Diffusion 1.5, which turns pictures into latents and "
                    "back. Another one can fix washed-out colours.",
                ),
                io.Combo.Input(
                    "motion_module",
                    options=[*host.model_names(host.MOTION_MODULES), NO_MOTION_MODULE],
                    tooltip=MOTION_MODULE_TOOLTIP,
                ),
                MotionLoraStackSocket.Input(
                    "motion_lora_stack",
                    optional=True,
                    tooltip="Motion LoRAs to merge into the motion module.",
                ),
                motion_scale_input(),
                motion_effect_input(),
                *motion_mask_inputs(),
            ],
            outputs=[Model.Output(display_name="model", tooltip="For the Sampler.")],
        )

    @classmethod
    def execute(
        cls,
        *,
        model: Any,
        clip: Any,
        vae: Any,
        motion_module: str,
        motion_lora_stack: MotionStack | None = None,
        motion_scale: float = 1.0,
        motion_effect: float = 1.0,
        motion_scale_mask: Tensor | None = None,
        motion_effect_mask: Tensor | None = None,
    ) -> io.NodeOutput:
        """Build the network from the weights of the MODEL."""
        ignored = host.ignored_patches(model)
        if ignored:
            with host.warnings_on_node():
                logger.warning("%s", ignored)
        is_patched = not ignored and host.has_patches(model)
        devices = host.Devices.of_comfyui()
        # A patched MODEL runs by itself: no copy of its weights with LoRAs is needed.
        weights = host.unet_weights(model, merged=not is_patched)
        config, tensors = files.unet_of(weights, source="The connected MODEL")
        unet = models.build_motion_unet(
            config,
            tensors,
            motion_module=optional_path(host.MOTION_MODULES, motion_module),
            motion_loras=motion_lora_entries(motion_lora_stack or ()),
            motion_scale=strength_of("motion_scale", motion_scale),
            motion_effect=strength_of("motion_effect", motion_effect),
            placement=models.Placement(
                devices.offload, host.compute_dtype(model) if is_patched else devices.unet_dtype
            ),
            fp8_weights=devices.fp8_weights and not is_patched,
            parameterization=host.parameterization(model),
        )
        if unet.motion is not None:
            unet.motion.set_masks(motion_masks(motion_scale_mask, motion_effect_mask))
        networks = models.Models(
            unet=unet,
            text_encoder=host.HostTextEncoder(clip),
            codec=host.HostCodec(vae),
            has_loras=host.has_weight_patches(model),
        )
        return io.NodeOutput(
            host.ManagedModels(
                networks, devices, native=None if ignored else model, is_patched=is_patched
            )
        )

    @classmethod
    def find_problem(cls, _node_id: str, *, motion_module: str | None = None) -> Problem | None:
        """Find a file that is missing or of the wrong kind."""
        return file_problem(motion_module=(host.MOTION_MODULES, named(motion_module)))

    @classmethod
    def fingerprint_inputs(cls, motion_module: str | None, **_others: object) -> list[str]:
        """Load again when the file has changed."""
        return model_fingerprint(host.MOTION_MODULES, motion_module)
