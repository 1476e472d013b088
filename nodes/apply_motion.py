"""A motion module for ComfyUI's own samplers."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from ..pipeline import ContextOptions, FreeInit, files, models
from ..pipeline.ranges import SHARE
from ..pipeline.sampling import BetaScheduleChoice, Span
from . import host
from .checks import CheckedNode, Problem, problem_of
from .free_init import free_init_input
from .inputs import (
    MOTION_MODULE_TOOLTIP,
    context_input,
    motion_effect_input,
    motion_mask_inputs,
    motion_masks,
    motion_scale_input,
)
from .loading import MotionStack, model_fingerprint, motion_lora_entries
from .model_checks import file_problem
from .sockets import CATEGORY, ControlSocket, MotionLoraStackSocket
from .strength_curve import strength_of

USE_EXISTING = "use existing"


class ApplyMotion(CheckedNode):
    """Lets ComfyUI's own samplers denoise a batch as one video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_ApplyMotion",
            display_name="Apply AnimateDiff",
            category=CATEGORY,
            description="Add a motion module to a Stable Diffusion 1.5 MODEL, so that KSampler and "
            "ComfyUI's other samplers denoise a batch of latents as one video. ControlNets, "
            "IP-Adapters, LoRAs, masks and patches of ComfyUI and of other packs act.",
            search_aliases=[
                "ade use evolved sampling",
                "ade animatediff loader",
                "ksampler",
                "motion model",
                "text to video",
            ],
            inputs=_inputs(),
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="For KSampler and ComfyUI's other samplers. Each latent of a batch is "
                    "a frame.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        *,
        model: Any,
        motion_module: str,
        motion_lora_stack: MotionStack | None = None,
        context_options: ContextOptions | None = None,
        motion_scale: float = 1.0,
        beta_schedule: str = "autoselect",
        start: float = 0.0,
        end: float = 1.0,
        free_init: FreeInit | None = None,
        control: host.Chain | None = None,
        vae: Any = None,
        motion_effect: float = 1.0,
        motion_scale_mask: Tensor | None = None,
        motion_effect_mask: Tensor | None = None,
    ) -> io.NodeOutput:
        """Load the motion module and attach it to a copy of the MODEL."""
        Span(start, end)
        masks = motion_masks(motion_scale_mask, motion_effect_mask)
        config, _ = files.unet_of(host.unet_shapes(model), source="The connected MODEL")
        offload = host.Devices.of_comfyui().offload
        motion, family = models.load_motion(
            host.model_path(host.MOTION_MODULES, motion_module),
            config,
            motion_loras=motion_lora_entries(motion_lora_stack or ()),
            motion_scale=strength_of("motion_scale", motion_scale),
            motion_effect=strength_of("motion_effect", motion_effect),
            placement=models.Placement(offload, host.compute_dtype(model)),
        )
        motion.set_masks(masks)
        if beta_schedule != USE_EXISTING:
            model = host.with_beta_schedule(model, _beta_schedule(beta_schedule, family))
        guides = None
        if control and control.links:
            codec = host.HostCodec(vae) if vae else None
            guides = host.AppliedGuides.of(
                control.links, codec, config=config, motion=motion, family=family
            )
        applied = host.AppliedMotion(
            motion,
            spans_frames=family == "v1",
            context=context_options,
            start=start,
            end=end,
            free_init=free_init,
            guides=guides,
        )
        beside = control.patchers if control else ()
        return io.NodeOutput(applied.apply_to(model, offload, beside=beside))

    @classmethod
    def find_problem(
        cls,
        _node_id: str,
        *,
        motion_module: str | None = None,
        start: float | None = 0.0,
        end: float | None = 1.0,
    ) -> Problem | None:
        """Return a file that is missing or of the wrong kind, or a span that ends too early."""
        found = file_problem(motion_module=(host.MOTION_MODULES, motion_module))
        if found or start is None or end is None:
            return found
        return problem_of(lambda: Span(start, end), "end")

    @classmethod
    def fingerprint_inputs(cls, motion_module: str | None, **_others: object) -> list[str]:
        """Load again when the file has changed."""
        return model_fingerprint(host.MOTION_MODULES, motion_module)


def _beta_schedule(choice: str, family: files.MotionFamily) -> str:
    if choice != "autoselect":
        return choice
    return "lcm" if family == "animatelcm" else "sqrt_linear"


def _inputs() -> list[io.Input]:
    return [
        io.Model.Input(
            "model",
            tooltip="A Stable Diffusion 1.5 MODEL, with any LoRAs and patches. Those that come "
            "after this node act as well.",
        ),
        io.Combo.Input(
            "motion_module",
            options=host.model_names(host.MOTION_MODULES),
            tooltip=MOTION_MODULE_TOOLTIP,
        ),
        MotionLoraStackSocket.Input(
            "motion_lora_stack",
            optional=True,
            tooltip="Motion LoRAs to merge into the motion module.",
        ),
        context_input(),
        motion_scale_input(),
        io.Combo.Input(
            "beta_schedule",
            options=["autoselect", USE_EXISTING, *get_args(BetaScheduleChoice)[1:]],
            default="autoselect",
            optional=True,
            advanced=True,
            tooltip="The noise schedule that the networks were trained on; autoselect takes the "
            "motion module's, use existing leaves the MODEL's. What the MODEL predicts, such as "
            "v_prediction or lcm from ModelSamplingDiscrete, is kept.",
        ),
        _share("start", 0.0, "from which the motion module acts; before it"),
        _share("end", 1.0, "up to which the motion module acts; after it"),
        free_init_input(),
        ControlSocket.Input(
            "control",
            optional=True,
            tooltip="Keyframes from Keyframes for AnimateDiff, and ControlNets from ControlNet for "
            "AnimateDiff, which act on each window.",
        ),
        io.Vae.Input(
            "vae",
            optional=True,
            tooltip="The checkpoint's VAE, which encodes keyframes that are pictures.",
        ),
        motion_effect_input(),
        *motion_mask_inputs(),
    ]


def _share(name: str, default: float, acts: str) -> io.Input:
    return io.Float.Input(
        name,
        default=default,
        min=SHARE.low,
        max=SHARE.high,
        step=0.01,
        optional=True,
        advanced=True,
        tooltip=f"Fraction of the noise schedule {acts}, each frame is denoised by itself.",
    )
