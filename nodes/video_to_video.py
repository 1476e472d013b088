"""The whole job in one node, streamed from file to file."""

from __future__ import annotations

import json

from comfy_api.latest import InputImpl, io

from ..pipeline import (
    ContextOptions,
    FrameSelection,
    Guidance,
    Request,
    SamplingSettings,
    SpeedOptions,
)
from ..pipeline import video as videos
from ..pipeline.presets import Defaults, Preset, with_preset
from ..pipeline.sampling import Sampler, Scheduler
from ..pipeline.video import FORMATS, exact_rate
from . import host
from .checks import CheckedNode, Problem
from .encode_video import shown
from .fingerprint import file_fingerprint
from .inputs import (
    LORA_STACK_TOOLTIP,
    MOTION_LORA_STACK_TOOLTIP,
    MOTION_MODULE_TOOLTIP,
    denoise_input,
    duration_input,
    frame_cap_input,
    guidance_input,
    guide_inputs,
    match_source_input,
    method_inputs,
    nth_input,
    prefix_input,
    preset_input,
    prompt_inputs,
    rate_input,
    seed_input,
    size_input,
    steps_input,
    steps_problem,
    video_input,
)
from .loading import MotionStack, load_managed, model_fingerprints, named
from .lora_stack import LoraStackEntries
from .model_checks import file_problem
from .selection import SELECTION_INPUTS, selection_problem
from .sockets import CATEGORY, Context, LoraStackSocket, MotionLoraStackSocket, SpeedSocket
from .speed import SPEED_TOOLTIP
from .wording import naming_inputs

FORMAT = FORMATS["mp4-h264"]
FILENAME_PREFIX = "video/AnimateDiffV2V"
# The checkpoint that the defaults were chosen for.
FAVOURITE_CHECKPOINT = "cardosanimev20"


class VideoToVideo(CheckedNode):
    """Restyles a video file."""

    wider_than_widget = ("num_inference_steps",)

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_VideoToVideo",
            display_name="AnimateDiff Video to Video",
            category=CATEGORY,
            description="Restyle a whole video in one node. Frames are streamed from file to file, "
            "so longer videos do not need more memory.",
            search_aliases=[
                "animatediff",
                "vid2vid",
                "restyle video",
                "video style transfer",
                "vhs",
                "evolved",
                "v2v",
            ],
            is_output_node=True,
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            inputs=_inputs(),
            outputs=[
                io.Video.Output(display_name="video", tooltip="The restyled video, mp4."),
                io.Int.Output(display_name="seed", tooltip="The seed that was used."),
                io.String.Output(
                    display_name="timings",
                    tooltip="Seconds of each phase as JSON: decode, encode, sample, "
                    "decode_latents, write, total.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        *,
        video: str,
        prompt: str,
        negative_prompt: str,
        num_inference_steps: int,
        guidance_scale: float,
        base_model: str,
        motion_module: str,
        select_every_nth_frame: int,
        seed: int,
        lora_stack: LoraStackEntries | None = None,
        preset: Preset = "quality",
        motion_lora_stack: MotionStack | None = None,
        sampler: Sampler = "euler",
        scheduler: Scheduler = "normal",
        denoise: float = 0.7,
        force_rate: float = 0.0,
        duration: float = 0.0,
        filename_prefix: str = FILENAME_PREFIX,
        speed: SpeedOptions | None = None,
        control: host.Chain | None = None,
        style: host.Chain | None = None,
        context_options: ContextOptions | None = None,
        width: int = 0,
        height: int = 0,
        frame_load_cap: int = 0,
        match_source: float = 0.0,
        restore_frames: bool = False,
    ) -> io.NodeOutput:
        """Load the networks, restyle the video and write the result."""
        from .frames import FrameSize, restyle_file  # noqa: PLC0415 - loads the networks

        path = host.input_path(video)
        with naming_inputs(**SELECTION_INPUTS):
            selection = FrameSelection(
                select_every_nth_frame=select_every_nth_frame,
                force_rate=exact_rate(force_rate, name="force_rate"),
                duration_seconds=duration,
                frame_load_cap=frame_load_cap,
            )
        chosen = Defaults(
            steps=num_inference_steps,
            guidance_scale=guidance_scale,
            sampler=sampler,
            scheduler=scheduler,
            speed=speed or SpeedOptions(),
        )
        settings = _settings(
            with_preset(preset, chosen),
            seed=seed,
            denoise=denoise,
            context=context_options or ContextOptions(),
        )
        with videos.VideoReader(path, selection=selection, width=width, height=height) as reader:
            size = FrameSize(reader.width, reader.height)
        target = host.output_file(filename_prefix, FORMAT.extension, **size._asdict())
        request = Request(
            input=path,
            output=target.path,
            prompt=prompt,
            negative_prompt=negative_prompt,
            sampling=settings,
            selection=selection,
            width=width,
            height=height,
            match_source=match_source,
            format=FORMAT.name,
            restore_frames=restore_frames,
            metadata=host.workflow_metadata(cls.hidden.prompt, cls.hidden.extra_pnginfo),
        )
        model = load_managed(
            base_model,
            motion_module=motion_module,
            lora_stack=lora_stack or (),
            motion_lora_stack=motion_lora_stack or (),
            fp8_weights=settings.speed.fp8_weights,
        )
        with host.warnings_on_node():
            result = restyle_file(
                request,
                model,
                size=size,
                control=control or host.Chain(),
                style=style or host.Chain(),
            )
        timings = result.as_json()["timings"]
        return io.NodeOutput(
            InputImpl.VideoFromFile(str(result.path)),
            result.seed,
            json.dumps(timings),
            ui=shown([target], FORMAT, path=target.path) | {"timings": (timings,)},
        )

    @classmethod
    def find_problem(
        cls,
        _node_id: str,
        *,
        num_inference_steps: int | None = None,
        video: str | None = None,
        base_model: str | None = None,
        motion_module: str | None = None,
    ) -> Problem | None:
        """Find a wrong number of steps, and files that are missing or of the wrong kind."""
        return (
            selection_problem(video)
            or steps_problem("num_inference_steps", num_inference_steps)
            or file_problem(
                base_model=("checkpoints", base_model),
                motion_module=(host.MOTION_MODULES, named(motion_module)),
            )
        )

    @classmethod
    def fingerprint_inputs(
        cls, video: str | None, base_model: str | None, motion_module: str | None, **_others: object
    ) -> list[str]:
        """Run again when a file has changed."""
        models = model_fingerprints(base_model, motion_module=motion_module)
        source = [] if video is None else [file_fingerprint(host.input_path(video))]
        return [*source, *models]


def _inputs() -> list[io.Input]:
    return [
        video_input(),
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
        seed_input(),
        LoraStackSocket.Input("lora_stack", optional=True, tooltip=LORA_STACK_TOOLTIP),
        preset_input(),
        MotionLoraStackSocket.Input(
            "motion_lora_stack", optional=True, tooltip=MOTION_LORA_STACK_TOOLTIP
        ),
        *method_inputs(optional=True, advanced=True),
        denoise_input(optional=True),
        rate_input(optional=True, advanced=True),
        duration_input(),
        prefix_input(optional=True, advanced=True),
        SpeedSocket.Input("speed", optional=True, tooltip=SPEED_TOOLTIP),
        *guide_inputs(),
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
    ]


@naming_inputs(steps="num_inference_steps")
def _settings(
    chosen: Defaults, *, seed: int, denoise: float, context: ContextOptions
) -> SamplingSettings:
    return SamplingSettings(
        seed=seed,
        steps=chosen.steps,
        guidance=Guidance(scale=chosen.guidance_scale),
        sampler=chosen.sampler,
        scheduler=chosen.scheduler,
        denoise=denoise,
        context=context,
        speed=chosen.speed,
    )


def favourite_first(names: list[str]) -> list[str]:
    """Put checkpoints called cardosAnimev20, in any spelling, before the others."""
    return sorted(names, key=lambda name: FAVOURITE_CHECKPOINT not in _letters(name))


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
