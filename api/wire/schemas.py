"""Inputs and outputs of the hosted endpoints, with the hosted names and defaults.

Where the hosted limits are unknown, these are wider than any value seen, so that every script
that ran there runs here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from ...pipeline.curve import Strength
from ...pipeline.errors import AnimateDiffV2VError
from ...pipeline.prompts.weights import check_prompt
from ...pipeline.ranges import (
    CONTROL_STRENGTH,
    DRAWN_SEED,
    LORA_STRENGTH,
    NTH_FRAME,
    REFINE,
    SEED,
    SHARE,
    Range,
)
from ...pipeline.request import NEGATIVE_PROMPT, RefineUpscale
from ...pipeline.sampling.windows import ContextMemory
from .curves import NumberOrCurve

LONGEST_PROMPT = 10_000
LONGEST_REFERENCE = 4_096
LONGEST_URL = 8_192
"""Of a video_url that is not a data URI; servers and proxies accept no longer ones."""
MOST_LORAS, MOST_KEYFRAMES = 16, 16
GUIDANCE, TURBO_GUIDANCE = Range(0.0, 30.0), Range(1.0, 30.0)

SpeedPreset = Literal["exact", "fast"]
Motion = Literal["zoom-out", "zoom-in", "pan-left", "pan-right", "tilt-up", "tilt-down"]


def _with_possible_weights(prompt: str, info: ValidationInfo) -> str:
    """Refuse invalid weights at submission rather than when the request runs."""
    try:
        check_prompt(prompt, name=info.field_name or "prompt")
    except AnimateDiffV2VError as error:
        raise PydanticCustomError("value_error", "{sentence}", {"sentence": str(error)}) from error
    return prompt


Prompt = Annotated[str, Field(max_length=LONGEST_PROMPT), AfterValidator(_with_possible_weights)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class LoraWeight(BaseModel):
    """A LoRA and its strength."""

    model_config = ConfigDict(title="LoraWeight")

    path: str = Field(
        min_length=1,
        max_length=LONGEST_REFERENCE,
        description="A name in models/loras, an upload, a URL, or a Hugging Face repository.",
    )
    scale: Annotated[Strength, NumberOrCurve(LORA_STRENGTH)] = Field(
        1.0,
        description="0 has no effect, 1 is as trained. A curve leaves the text encoder unchanged.",
    )
    force: bool = Field(
        False, description="Accepted and ignored: LoRAs are always merged, if scale is a number."
    )


class KeyframeImage(BaseModel):
    """A picture that a frame of the output shows."""

    model_config = ConfigDict(title="KeyframeImage")

    image_url: str = Field(
        min_length=1, max_length=LONGEST_URL, description="An http(s) URL or an upload."
    )
    frame: int = Field(
        0,
        ge=-999_999,
        le=999_999,
        description="The frame of the output that it shows, without those that restore_frames "
        "adds; -1 is the last one.",
    )


class RestyleInput(BaseModel):
    """The input that all endpoints share."""

    video_url: str = Field(
        min_length=1, description="The video to restyle: an http(s) URL, a data URI or an upload."
    )

    @field_validator("video_url")
    @classmethod
    def _is_no_long_url(cls, value: str) -> str:
        """Limit the length of URLs; a data URI is as long as its video."""
        if len(value) > LONGEST_URL and value[:5].lower() != "data:":
            raise PydanticCustomError(
                "string_too_long",
                "A URL has at most {max_length} characters; send the video itself as an upload or "
                "as a data URI",
                {"max_length": LONGEST_URL},
            )
        return value

    prompt: Prompt = Field(description="What the video should show.")
    negative_prompt: Prompt = Field(NEGATIVE_PROMPT, description="What the video should not show.")
    seed: int | None = Field(
        None,
        ge=SEED.low,
        le=SEED.high,
        description="Chooses the noise; random if absent. A seed above 2^53 - 1 is reduced modulo "
        "2^53, so that JavaScript can represent it; the output has the reduced one.",
    )

    match_source: Finite = Field(
        0,
        ge=SHARE.low,
        le=SHARE.high,
        description="Beyond the hosted model: how far brightness and colour of each frame are held "
        "to those of the source; 0 leaves them as they are.",
    )

    restore_frames: bool = Field(
        False,
        description="Beyond the hosted model: make the frames between the kept ones too, from the "
        "motion of the source, so that the result has the frame rate of the source.",
    )

    preset: SpeedPreset = Field(
        "exact",
        description="Beyond the hosted model: fast takes less time for a result that is not "
        "quite the same (DeepCache and reduced precision). For 20 steps and more.",
    )
    refine: Finite = Field(
        1,
        ge=REFINE.low,
        le=REFINE.high,
        description="Beyond the hosted model: how many times larger a second pass makes the "
        "frames; 1 leaves it out.",
    )
    refine_denoise: Finite = Field(
        0.35,
        ge=SHARE.low,
        le=SHARE.high,
        description="Beyond the hosted model: how much the second pass changes.",
    )
    refine_upscale: RefineUpscale = Field(
        "image",
        description="Beyond the hosted model: what the second pass enlarges, the decoded frames or "
        "their latents.",
    )

    keyframes: list[KeyframeImage] = Field(
        default_factory=list,
        max_length=MOST_KEYFRAMES,
        description="Beyond the hosted model: pictures of some frames, by which SparseCtrl guides "
        "the others. They need the v3 motion module.",
    )
    keyframe_strength: Finite = Field(
        1,
        ge=CONTROL_STRENGTH.low,
        le=CONTROL_STRENGTH.high,
        description="Beyond the hosted model: how strictly keyframes are followed.",
    )

    context_memory: ContextMemory = Field(
        "none",
        description="Beyond the hosted model: what keeps later context windows like the first one. "
        "ContextRef: they also see its frames. NaiveReuse: they begin as it does; for a strength "
        "of 1. FeatureBank: their features are drawn towards those of all windows before.",
    )
    context_memory_end: Finite = Field(
        1,
        ge=SHARE.low,
        le=SHARE.high,
        description="Beyond the hosted model: the fraction of the noise schedule at which the "
        "memory ends.",
    )

    @property
    def usable_seed(self) -> int | None:
        """The seed for the sampler, from 0 to 2^53 - 1."""
        return None if self.seed is None else self.seed % (DRAWN_SEED.high + 1)

    @property
    def strengths(self) -> list[tuple[tuple[str | int, ...], Strength]]:
        """The numbers that can be curves, with the paths of their fields."""
        return []


class AnimateDiffV2VInput(RestyleInput):
    """The input of fal-ai/animatediff-v2v."""

    model_config = ConfigDict(title="AnimatediffV2vInput")

    num_inference_steps: int = Field(25, ge=1, le=100, description="Denoising steps.")
    guidance_scale: Annotated[Strength, NumberOrCurve(GUIDANCE)] = Field(
        7.0, description="How strictly the prompt is followed."
    )
    base_model: str = Field(
        "cardosAnimev20",
        min_length=1,
        max_length=LONGEST_REFERENCE,
        description="The checkpoint: cardosAnimev20, darkSushiMixMix_colorful or another one that "
        "is installed.",
    )
    loras: list[LoraWeight] = Field(
        default_factory=list, max_length=MOST_LORAS, description="LoRAs to merge, in order."
    )
    select_every_nth_frame: int = Field(
        2,
        ge=NTH_FRAME.low,
        le=NTH_FRAME.high,
        description="2 keeps every second frame; the duration stays.",
    )

    @property
    def strengths(self) -> list[tuple[tuple[str | int, ...], Strength]]:
        """The numbers that can be curves, with the paths of their fields."""
        loras = [(("loras", index, "scale"), each.scale) for index, each in enumerate(self.loras)]
        return [(("guidance_scale",), self.guidance_scale), *loras]


class AnimateDiffV2VTurboInput(AnimateDiffV2VInput):
    """The input of fal-ai/animatediff-v2v/turbo."""

    model_config = ConfigDict(title="AnimatediffV2vTurboInput")

    num_inference_steps: int = Field(8, ge=4, le=12, description="Denoising steps.")
    guidance_scale: Annotated[Strength, NumberOrCurve(TURBO_GUIDANCE)] = Field(
        2.2, description="How strictly the prompt is followed."
    )


class FastInput(RestyleInput):
    """The input of fal-ai/fast-animatediff/video-to-video."""

    model_config = ConfigDict(title="FastAnimatediffVideoToVideoInput")

    num_inference_steps: int = Field(25, ge=1, le=100, description="Denoising steps.")
    guidance_scale: Annotated[Strength, NumberOrCurve(GUIDANCE)] = Field(
        7.5, description="How strictly the prompt is followed."
    )
    strength: Annotated[Strength, NumberOrCurve(SHARE, over_steps=False)] = Field(
        0.7, description="Share of the video that is made new: 0 keeps it, 1 replaces it."
    )
    first_n_seconds: Finite = Field(
        3, gt=0, le=3600, description="Seconds of the video to restyle."
    )
    fps: Finite = Field(8, ge=1, le=120, description="Frames per second to take from the video.")
    motions: list[Motion] = Field(
        default_factory=list, max_length=6, description="Camera moves, from motion LoRAs."
    )

    @property
    def strengths(self) -> list[tuple[tuple[str | int, ...], Strength]]:
        """The numbers that can be curves, with the paths of their fields."""
        return [(("guidance_scale",), self.guidance_scale), (("strength",), self.strength)]


class FastTurboInput(FastInput):
    """The input of fal-ai/fast-animatediff/turbo/video-to-video."""

    model_config = ConfigDict(title="FastAnimatediffTurboVideoToVideoInput")

    num_inference_steps: int = Field(12, ge=1, le=100, description="Denoising steps.")
    guidance_scale: Annotated[Strength, NumberOrCurve(GUIDANCE)] = Field(
        2.0, description="How strictly the prompt is followed."
    )


class File(BaseModel):
    """A file that a request made."""

    url: str = Field(description="URL for download, with support for byte ranges.")
    content_type: str
    file_name: str
    file_size: int = Field(description="Bytes.")


class FastOutput(BaseModel):
    """The output of the fast-animatediff endpoints."""

    model_config = ConfigDict(title="FastAnimatediffOutput")

    video: File
    seed: int = Field(description="The seed that was used.")


class AnimateDiffV2VOutput(FastOutput):
    """The output of the animatediff-v2v endpoints."""

    model_config = ConfigDict(title="AnimatediffV2vOutput")

    timings: dict[str, float] = Field(
        description="Seconds of decode, encode, sample, decode_latents and write, which overlap, "
        "and their total."
    )


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a model, with references to #/components/schemas."""
    return model.model_json_schema(ref_template="#/components/schemas/{model}")
