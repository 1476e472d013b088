"""The sampler node."""

from __future__ import annotations

from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from ..pipeline import (
    ContextOptions,
    FreeInit,
    Guidance,
    SamplingSettings,
    SpeedOptions,
    prompts,
    sampling,
)
from ..pipeline.presets import Defaults, Preset, with_preset
from ..pipeline.ranges import SHARE
from ..pipeline.sampling import BetaScheduleChoice, NoiseType, Scheduler
from ..pipeline.sampling import Sampler as SamplerName
from . import host
from .checks import CheckedNode, Problem, problem_of
from .free_init import free_init_input
from .inputs import (
    context_input,
    denoise_input,
    guidance_input,
    guidance_limit_input,
    guide_inputs,
    method_inputs,
    preset_input,
    prompt_inputs,
    seed_input,
    steps_input,
    steps_problem,
)
from .sockets import CATEGORY, Model, Schedule, SpeedSocket
from .speed import SPEED_TOOLTIP
from .strength_curve import strength_of


class Sampler(CheckedNode):
    """Encodes, restyles and decodes frames."""

    wider_than_widget = ("steps",)

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="ADV2V_Sampler",
            display_name="AnimateDiff V2V Sampler",
            category=CATEGORY,
            description="Restyle frames: encode them, add noise, denoise them together as one "
            "video, decode them.",
            search_aliases=[
                "animatediff",
                "video to video",
                "vid2vid",
                "ksampler",
                "restyle",
                "ade",
                "evolved",
                "sample settings",
                "noise layers",
                "freenoise",
            ],
            inputs=[*_inputs(), *_optional_inputs()],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The restyled frames."),
                io.Latent.Output(
                    display_name="latent",
                    tooltip="The restyled frames as latents of Stable Diffusion 1.5.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        *,
        model: host.ManagedModels,
        images: Tensor,
        positive: str,
        negative: str,
        steps: int,
        guidance_scale: float,
        sampler: SamplerName,
        scheduler: Scheduler,
        denoise: float,
        seed: int,
        context_options: ContextOptions | None = None,
        positive_schedule: prompts.PromptSchedule | None = None,
        positive_conditioning: list[list[Any]] | None = None,
        negative_conditioning: list[list[Any]] | None = None,
        clip: Any = None,
        vae: Any = None,
        noise_type: NoiseType = "default",
        beta_schedule: BetaScheduleChoice = "autoselect",
        guidance_start: float = 0.0,
        guidance_end: float = 1.0,
        preset: Preset = "quality",
        control: host.Chain | None = None,
        style: host.Chain | None = None,
        source_mask: Tensor | None = None,
        source_blend: float = 0.0,
        source_blend_end: float = 0.5,
        source_prompt: str = "",
        speed: SpeedOptions | None = None,
        sampler_object: Any = None,
        sigmas: Tensor | None = None,
        guidance_rescale: float = 0.0,
        guidance_parallel: float = 1.0,
        free_init: FreeInit | None = None,
    ) -> io.NodeOutput:
        """Restyle the frames."""
        from .conditioning import PromptInputs  # noqa: PLC0415 - both load the networks
        from .frames import cropped, restyle_images  # noqa: PLC0415

        custom = sampling.CustomSampling(
            sampler=None if sampler_object is None else host.HostSampler(sampler_object),
            sigmas=sigmas,
        )
        chosen = with_preset(
            preset,
            Defaults(
                steps=steps,
                guidance_scale=strength_of("guidance_scale", guidance_scale),
                sampler=sampler,
                scheduler=scheduler,
            ),
        )
        settings = SamplingSettings(
            seed=seed,
            steps=custom.steps or chosen.steps,
            guidance=Guidance(
                scale=chosen.guidance_scale,
                start=guidance_start,
                end=guidance_end,
                rescale=guidance_rescale,
                parallel=guidance_parallel,
            ),
            sampler=chosen.sampler,
            scheduler=chosen.scheduler,
            denoise=strength_of("denoise", denoise),
            beta_schedule=beta_schedule,
            noise_type=noise_type,
            context=context_options,
            speed=speed or chosen.speed,
            free_init=free_init,
        )
        texts = PromptInputs(
            positive,
            negative,
            positive_schedule,
            positive_conditioning,
            negative_conditioning,
            source=source_prompt if noise_type == "unsample" else None,
        )
        guides = sampling.Guides(
            controls=control.links if control else (),
            styles=style.links if style else (),
            source_blend=_source_blend(source_mask, source_blend, source_blend_end),
        )
        with host.warnings_on_node() as say:
            restyled, latents = restyle_images(
                model.with_fp8_weights() if settings.speed.fp8_weights else model,
                cropped(images),
                prompts=texts,
                settings=settings,
                guides=guides,
                guide_patchers=[
                    each for chain in (control, style) if chain for each in chain.patchers
                ],
                clip=clip,
                vae=vae,
                custom=custom,
                say=say,
            )
        return io.NodeOutput(host.as_result(restyled), {"samples": host.as_result(latents)})

    @classmethod
    def find_problem(
        cls,
        _node_id: str,
        *,
        steps: int | None = None,
        guidance_start: float | None = None,
        guidance_end: float | None = None,
    ) -> Problem | None:
        """Find a wrong number of steps, or guidance that ends before it starts."""
        found = steps_problem("steps", steps)
        if found or guidance_start is None or guidance_end is None:
            return found
        return problem_of(lambda: Guidance(start=guidance_start, end=guidance_end), "guidance_end")


def _source_blend(mask: Tensor | None, strength: float, end: float) -> sampling.SourceBlend:
    shaped = None if mask is None else mask.reshape(-1, *mask.shape[-2:]).cpu()
    return sampling.SourceBlend(mask=shaped, strength=strength, end=end)


def _inputs() -> list[io.Input]:
    return [
        Model.Input("model", tooltip="From Load AnimateDiff Model."),
        io.Image.Input(
            "images",
            tooltip="The frames to restyle, in order; cut to multiples of 8 pixels. 512 to 768 "
            "pixels suit Stable Diffusion 1.5.",
        ),
        *prompt_inputs("positive", "negative"),
        steps_input("steps"),
        guidance_input(),
        *method_inputs(),
        denoise_input(),
        seed_input(),
    ]


def _optional_inputs() -> list[io.Input]:
    return [
        context_input(),
        Schedule.Input(
            "positive_schedule",
            optional=True,
            tooltip="Prompts that change over the course of the video, instead of the positive "
            "prompt.",
        ),
        io.Conditioning.Input(
            "positive_conditioning",
            optional=True,
            tooltip="An encoded prompt from ComfyUI's own nodes, instead of the positive prompt.",
        ),
        io.Conditioning.Input(
            "negative_conditioning",
            optional=True,
            tooltip="An encoded prompt from ComfyUI's own nodes, instead of the negative prompt.",
        ),
        io.Clip.Input(
            "clip",
            optional=True,
            tooltip="A text encoder from ComfyUI's own nodes, instead of the checkpoint's.",
        ),
        io.Vae.Input(
            "vae",
            optional=True,
            tooltip="A VAE from ComfyUI's own nodes, instead of the model's.",
        ),
        io.Combo.Input(
            "noise_type",
            options=list(get_args(NoiseType)),
            default="default",
            optional=True,
            advanced=True,
            tooltip="default: different noise in each frame. constant: the same in all, for calmer "
            "pictures. repeated_context and FreeNoise repeat the first window's noise, which keeps "
            "long videos consistent. unsample: the noise that the source itself would come from, "
            "which keeps its structure and takes half as long again.",
        ),
        io.Combo.Input(
            "beta_schedule",
            options=list(get_args(BetaScheduleChoice)),
            default="autoselect",
            optional=True,
            advanced=True,
            tooltip="The noise schedule that the networks were trained on; autoselect takes the "
            "motion module's.",
        ),
        *(guidance_limit_input(name, default) for name, default in (("start", 0.0), ("end", 1.0))),
        preset_input(),
        *_guiding_inputs(),
    ]


def _guiding_inputs() -> list[io.Input]:
    return [
        *guide_inputs(),
        io.Mask.Input(
            "source_mask",
            optional=True,
            tooltip="What is restyled: white is restyled fully, black keeps the source. One for "
            "each frame, or one for all.",
        ),
        io.Float.Input(
            "source_blend",
            default=0.0,
            min=SHARE.low,
            max=SHARE.high,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip="How much of the source is blended into the result of each step, up to "
            "source_blend_end: 0 is none, 0.3 keeps shapes and colours, 1 is the source.",
        ),
        io.Float.Input(
            "source_blend_end",
            default=0.5,
            min=SHARE.low,
            max=SHARE.high,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip="Fraction of the noise schedule up to which source_blend acts; after that, "
            "details are free to change.",
        ),
        io.String.Input(
            "source_prompt",
            multiline=True,
            default="",
            optional=True,
            advanced=True,
            tooltip="For noise_type unsample: what the source shows. If empty, the video can "
            "change most.",
        ),
        SpeedSocket.Input("speed", optional=True, tooltip=SPEED_TOOLTIP),
        io.Sampler.Input(
            "sampler_object",
            optional=True,
            tooltip="A sampler of ComfyUI or another pack, such as KSamplerSelect's, instead of "
            "the sampler chosen here.",
        ),
        io.Sigmas.Input(
            "sigmas",
            optional=True,
            tooltip="Noise levels from a scheduler of ComfyUI or another pack, such as "
            "AlignYourStepsScheduler, instead of steps, scheduler and denoise.",
        ),
        *_guidance_inputs(),
        free_init_input(),
    ]


def _guidance_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "guidance_rescale",
            default=0.0,
            min=SHARE.low,
            max=SHARE.high,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip="Brings the contrast back to that of the prompt alone, as RescaleCFG does: 0 "
            "is off, 0.7 is usual where a high guidance scale makes pictures harsh.",
        ),
        io.Float.Input(
            "guidance_parallel",
            default=1.0,
            min=SHARE.low,
            max=SHARE.high,
            step=0.01,
            optional=True,
            advanced=True,
            tooltip="How much of the part of guidance that oversaturates colours is kept: 1 is "
            "usual guidance, 0 is adaptive projected guidance (APG), which stands higher scales "
            "and fewer steps.",
        ),
    ]
