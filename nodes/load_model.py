"""Loads checkpoint, motion module and VAE, with LoRAs merged in."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..pipeline.ranges import CLIP_SKIP
from . import host
from .checks import CheckedNode, Problem
from .inputs import (
    LORA_STACK_TOOLTIP,
    MOTION_LORA_STACK_TOOLTIP,
    MOTION_MODULE_TOOLTIP,
    motion_effect_input,
    motion_mask_inputs,
    motion_masks,
    motion_scale_input,
)
from .loading import (
    NO_MOTION_MODULE,
    VAE_FROM_CHECKPOINT,
    MotionStack,
    load_managed,
    model_fingerprints,
    named,
)
from .lora_stack import LoraStackEntries
from .model_checks import file_problem
from .sockets import CATEGORY, LoraStackSocket, Model, MotionLoraStackSocket
from .strength_curve import strength_of


class LoadModel(CheckedNode):
    """Loads checkpoint, motion module, VAE and LoRAs as one model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_LoadModel",
            display_name="Load AnimateDiff Model",
            category=CATEGORY,
            description="Load a Stable Diffusion 1.5 checkpoint together with an AnimateDiff "
            "motion module, and merge LoRAs into it.",
            search_aliases=[
                "animatediff loader",
                "motion module",
                "load checkpoint",
                "animatelcm",
                "sd1.5",
                "ade",
                "evolved",
                "lightning",
            ],
            inputs=_load_inputs(),
            outputs=[
                Model.Output(
                    display_name="model",
                    tooltip="The networks, for the Sampler. ComfyUI manages their memory.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        *,
        checkpoint: str,
        motion_module: str,
        vae: str,
        lora_stack: LoraStackEntries | None = None,
        motion_scale: float = 1.0,
        clip_skip: int = 1,
        motion_lora_stack: MotionStack | None = None,
        motion_effect: float = 1.0,
        motion_scale_mask: Tensor | None = None,
        motion_effect_mask: Tensor | None = None,
    ) -> io.NodeOutput:
        """Load the files."""
        return io.NodeOutput(
            load_managed(
                checkpoint,
                motion_module=motion_module,
                vae=vae,
                lora_stack=lora_stack or (),
                motion_lora_stack=motion_lora_stack or (),
                motion_scale=strength_of("motion_scale", motion_scale),
                motion_effect=strength_of("motion_effect", motion_effect),
                clip_skip=clip_skip,
                masks=motion_masks(motion_scale_mask, motion_effect_mask),
            )
        )

    @classmethod
    def find_problem(
        cls,
        _node_id: str,
        *,
        checkpoint: str | None = None,
        motion_module: str | None = None,
        vae: str | None = None,
    ) -> Problem | None:
        """Find files that are missing or of the wrong kind."""
        return file_problem(
            checkpoint=("checkpoints", checkpoint),
            motion_module=(host.MOTION_MODULES, named(motion_module)),
            vae=("vae", named(vae)),
        )

    @classmethod
    def fingerprint_inputs(
        cls, checkpoint: str | None, motion_module: str | None, vae: str | None, **_others: object
    ) -> list[str]:
        """Load again when a file has changed."""
        return model_fingerprints(checkpoint, motion_module=motion_module, vae=vae)


def _load_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "checkpoint",
            options=host.model_names("checkpoints"),
            tooltip="A Stable Diffusion 1.5 checkpoint from models/checkpoints; it determines the "
            "look.",
        ),
        io.Combo.Input(
            "motion_module",
            options=[*host.model_names(host.MOTION_MODULES), NO_MOTION_MODULE],
            tooltip=MOTION_MODULE_TOOLTIP,
        ),
        io.Combo.Input(
            "vae",
            options=[VAE_FROM_CHECKPOINT, *host.vae_names()],
            default=VAE_FROM_CHECKPOINT,
            tooltip="Turns pictures into latents and back. Another one from models/vae can fix "
            "washed-out colours: vae-ft-mse-840000-ema-pruned. taesd_decoder, from "
            "models/vae_approx, decodes drafts in a fraction of the time.",
        ),
        LoraStackSocket.Input("lora_stack", optional=True, tooltip=LORA_STACK_TOOLTIP),
        motion_scale_input(),
        io.Int.Input(
            "clip_skip",
            optional=True,
            default=1,
            min=CLIP_SKIP.low,
            max=CLIP_SKIP.high,
            tooltip="Which layer of the text encoder is used: 1 is the last, 2 the one before it, "
            "which many anime checkpoints were trained with.",
        ),
        MotionLoraStackSocket.Input(
            "motion_lora_stack",
            optional=True,
            tooltip=MOTION_LORA_STACK_TOOLTIP,
        ),
        motion_effect_input(),
        *motion_mask_inputs(),
    ]
