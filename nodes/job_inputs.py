"""The inputs that the nodes for a whole job share, and the request and files they stand for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from comfy_api.latest import io

from ..pipeline import (
    ContextOptions,
    FrameSelection,
    Guidance,
    ModelFiles,
    Request,
    SamplingSettings,
    SpeedOptions,
)
from ..pipeline.choices import checked
from ..pipeline.presets import Defaults, Preset, with_preset
from ..pipeline.ranges import REFINE, SHARE
from ..pipeline.request import Dtype, RefineUpscale
from ..pipeline.sampling import Sampler, Scheduler
from ..pipeline.video import FORMATS, exact_rate
from . import host
from .inputs import (
    LORA_STACK_TOOLTIP,
    MOTION_LORA_STACK_TOOLTIP,
    MOTION_MODULE_TOOLTIP,
    denoise_input,
    duration_input,
    frame_cap_input,
    guidance_input,
    match_source_input,
    method_inputs,
    nth_input,
    preset_input,
    prompt_inputs,
    rate_input,
    size_input,
    steps_input,
)
from .loading import MotionStack, model_files
from .lora_stack import LoraStackEntries
from .selection import SELECTION_INPUTS
from .sockets import Context, LoraStackSocket, MotionLoraStackSocket, SpeedSocket
from .speed import SPEED_TOOLTIP
from .strength_curve import strength_of
from .wording import naming_inputs

FORMAT = FORMATS["mp4-h264"]
# The checkpoint that the defaults were chosen for.
FAVOURITE_CHECKPOINT = "cardosanimev20"


@dataclass(frozen=True, kw_only=True)
class JobInputs:
    """The values of the inputs, by their names."""

    prompt: str
    negative_prompt: str
    num_inference_steps: int
    guidance_scale: float
    base_model: str
    motion_module: str
    select_every_nth_frame: int
    seed: int
    lora_stack: LoraStackEntries | None = None
    preset: Preset = "quality"
    motion_lora_stack: MotionStack | None = None
    sampler: Sampler = "euler"
    scheduler: Scheduler = "normal"
    denoise: float = 0.7
    force_rate: float = 0.0
    duration: float = 0.0
    speed: SpeedOptions | None = None
    context_options: ContextOptions | None = None
    width: int = 0
    height: int = 0
    frame_load_cap: int = 0
    match_source: float = 0.0
    restore_frames: bool = False
    refine: float = 1.0
    refine_denoise: float = 0.35
    refine_upscale: RefineUpscale = "image"

    def request(self, source: Path, output: Path, metadata: dict[str, str]) -> Request:
        """Return the request to restyle a video into an mp4.

        Raises:
            AnimateDiffV2VError: a value is wrong; it is named as the nodes name it.
        """
        return Request(
            input=source,
            output=output,
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            sampling=self._sampling(),
            selection=self.selection(),
            width=self.width,
            height=self.height,
            match_source=self.match_source,
            refine=self.refine,
            refine_denoise=self.refine_denoise,
            refine_upscale=self.refine_upscale,
            format=FORMAT.name,
            restore_frames=self.restore_frames,
            metadata=metadata,
        )

    @naming_inputs(**SELECTION_INPUTS)
    def selection(self) -> FrameSelection:
        """Return the frames to read."""
        return FrameSelection(
            select_every_nth_frame=self.select_every_nth_frame,
            force_rate=exact_rate(self.force_rate, name="force_rate"),
            duration_seconds=self.duration,
            frame_load_cap=self.frame_load_cap,
        )

    @naming_inputs(steps="num_inference_steps")
    def _sampling(self) -> SamplingSettings:
        own = Defaults(
            steps=self.num_inference_steps,
            guidance_scale=strength_of("guidance_scale", self.guidance_scale),
            sampler=self.sampler,
            scheduler=self.scheduler,
        )
        chosen = with_preset(self.preset, own)
        return SamplingSettings(
            seed=self.seed,
            steps=chosen.steps,
            guidance=Guidance(scale=chosen.guidance_scale),
            sampler=chosen.sampler,
            scheduler=chosen.scheduler,
            denoise=strength_of("denoise", self.denoise),
            context=self.context_options or ContextOptions(),
            speed=self.speed or chosen.speed,
        )

    def files(self) -> ModelFiles:
        """Return the model files, with the dtype that ComfyUI computes in.

        Raises:
            AnimateDiffV2VError: one is missing.
        """
        files = model_files(
            self.base_model,
            motion_module=self.motion_module,
            lora_stack=self.lora_stack or (),
            motion_lora_stack=self.motion_lora_stack or (),
        )
        dtype = host.Devices.of_comfyui().unet_dtype
        return replace(files, dtype=checked("dtype", str(dtype).removeprefix("torch."), Dtype))


def setting_inputs(seed: io.Input) -> list[io.Input]:
    """Return the required inputs, with the one of the seed that a node wants."""
    return [
        *prompt_inputs("prompt", "negative_prompt"),
        steps_input("num_inference_steps"),
        guidance_input(),
        io.Combo.Input(
            "base_model",
            options=favourite_first(host.model_names("checkpoints")),
            tooltip="A Stable Diffusion 1.5 checkpoint from models/checkpoints; it determines the "
            "look.",
        ),
        io.Combo.Input(
            "motion_module",
            options=host.model_names(host.MOTION_MODULES),
            tooltip=MOTION_MODULE_TOOLTIP,
        ),
        nth_input(),
        seed,
        LoraStackSocket.Input("lora_stack", optional=True, tooltip=LORA_STACK_TOOLTIP),
        preset_input(),
        MotionLoraStackSocket.Input(
            "motion_lora_stack", optional=True, tooltip=MOTION_LORA_STACK_TOOLTIP
        ),
        *method_inputs(optional=True, advanced=True),
        denoise_input(optional=True),
        rate_input(optional=True, advanced=True),
        duration_input(),
    ]


def speed_socket() -> io.Input:
    """Return the socket of Speed Options."""
    return SpeedSocket.Input("speed", optional=True, tooltip=SPEED_TOOLTIP)


def frame_inputs() -> list[io.Input]:
    """Return the windows, the size and the number of frames, and what is done to them after."""
    return [
        Context.Input(
            "context_options",
            optional=True,
            tooltip="How the video is cut into windows. If nothing is connected, they are of 16 "
            "frames and overlap by 4.",
        ),
        # Graphs saved before these are completed by web/js/older_graphs.js.
        *(
            size_input(name, otherwise="the edges are cut off", optional=True)
            for name in ("width", "height")
        ),
        frame_cap_input("Maximum number of frames to keep; 0 keeps all.", optional=True),
        match_source_input("match_source", optional=True, advanced=True),
        io.Boolean.Input(
            "restore_frames",
            default=False,
            optional=True,
            tooltip="Make the frames between the kept ones too, from these and the motion of the "
            "source: the result has the frame rate of the source.",
        ),
        *_refining_inputs(),
    ]


def _refining_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "refine",
            default=1.0,
            min=REFINE.low,
            max=REFINE.high,
            step=0.25,
            optional=True,
            advanced=True,
            tooltip="A second pass: the frames are enlarged so many times and denoised again at "
            "that size, in tiles if memory is too small. 1 leaves it out; at 1.5 it has 2.25 times "
            "as many pixels.",
        ),
        io.Float.Input(
            "refine_denoise",
            default=0.35,
            min=SHARE.low,
            max=SHARE.high,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="How much the second pass changes: 0.2 sharpens, 0.5 draws new details. Has no "
            "effect if refine is 1.",
        ),
        io.Combo.Input(
            "refine_upscale",
            options=list(get_args(RefineUpscale)),
            default="image",
            optional=True,
            advanced=True,
            tooltip="What the second pass enlarges: the decoded frames, or their latents, which "
            "saves decoding and encoding, and needs a refine_denoise of about 0.5 to be sharp. Has "
            "no effect if refine is 1.",
        ),
    ]


def favourite_first(names: list[str]) -> list[str]:
    """Put checkpoints called cardosAnimev20, in any spelling, before the others."""
    return sorted(names, key=lambda name: FAVOURITE_CHECKPOINT not in _letters(name))


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
