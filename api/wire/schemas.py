"""What the hosted endpoints take and give, with the hosted names and defaults.

Where the hosted limits are not known, these are wider than any that was seen, so that no script
that ran there is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from ...pipeline.errors import AnimateDiffV2VError
from ...pipeline.prompts.weights import check_prompt
from ...pipeline.ranges import DRAWN_SEED, LORA_STRENGTH, NTH_FRAME, SEED
from ...pipeline.request import NEGATIVE_PROMPT

LONGEST_PROMPT = 10_000
LONGEST_REFERENCE = 4_096
LONGEST_URL = 8_192
"""Of video_url where it is no data URI; servers and proxies take no longer ones."""
MOST_LORAS = 16

Motion = Literal["zoom-out", "zoom-in", "pan-left", "pan-right", "tilt-up", "tilt-down"]


def _with_possible_weights(prompt: str, info: ValidationInfo) -> str:
    """Refuse weights that no prompt can have, which else would show in the request's turn."""
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
    scale: Finite = Field(
        1.0,
        ge=LORA_STRENGTH.low,
        le=LORA_STRENGTH.high,
        description="0 is without effect, 1 as trained.",
    )
    force: bool = Field(False, description="Taken and ignored, as LoRAs are always merged.")


class RestyleInput(BaseModel):
    """What all endpoints take."""

    video_url: str = Field(
        min_length=1, description="The video to restyle: an http(s) URL, a data URI or an upload."
    )

    @field_validator("video_url")
    @classmethod
    def _is_no_long_url(cls, value: str) -> str:
        """Refuse what could be no URL; a data URI is as long as its video."""
        if len(value) > LONGEST_URL and value[:5].lower() != "data:":
            raise PydanticCustomError(
                "string_too_long",
                "A URL has at most {max_length} characters; hand the video itself in as an upload "
                "or as a data URI",
                {"max_length": LONGEST_URL},
            )
        return value

    prompt: Prompt = Field(description="What the video shall show.")
    negative_prompt: Prompt = Field(NEGATIVE_PROMPT, description="What it shall not show.")
    seed: int | None = Field(
        None,
        ge=SEED.low,
        le=SEED.high,
        description="Chooses the noise; drawn if absent. Of one above 2^53 - 1 the remainder "
        "counts, which JavaScript can hold; the answer names it.",
    )

    @property
    def usable_seed(self) -> int | None:
        """The seed as the sampler takes it."""
        return None if self.seed is None else self.seed % (DRAWN_SEED.high + 1)


class AnimateDiffV2VInput(RestyleInput):
    """The input of fal-ai/animatediff-v2v."""

    model_config = ConfigDict(title="AnimatediffV2vInput")

    num_inference_steps: int = Field(25, ge=1, le=100, description="Denoising steps.")
    guidance_scale: Finite = Field(
        7.0, ge=0, le=30, description="How strongly the prompt is followed."
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


class AnimateDiffV2VTurboInput(AnimateDiffV2VInput):
    """The input of fal-ai/animatediff-v2v/turbo."""

    model_config = ConfigDict(title="AnimatediffV2vTurboInput")

    num_inference_steps: int = Field(8, ge=4, le=12, description="Denoising steps.")
    guidance_scale: Finite = Field(
        2.2, ge=1, le=30, description="How strongly the prompt is followed."
    )


class FastInput(RestyleInput):
    """The input of fal-ai/fast-animatediff/video-to-video."""

    model_config = ConfigDict(title="FastAnimatediffVideoToVideoInput")

    num_inference_steps: int = Field(25, ge=1, le=100, description="Denoising steps.")
    guidance_scale: Finite = Field(
        7.5, ge=0, le=30, description="How strongly the prompt is followed."
    )
    strength: Finite = Field(0.7, ge=0, le=1, description="How much is made new.")
    first_n_seconds: Finite = Field(
        3, gt=0, le=3600, description="How much of the video is restyled."
    )
    fps: Finite = Field(8, ge=1, le=120, description="Frames of it that are taken each second.")
    motions: list[Motion] = Field(
        default_factory=list, max_length=6, description="Camera moves, from motion LoRAs."
    )


class FastTurboInput(FastInput):
    """The input of fal-ai/fast-animatediff/turbo/video-to-video."""

    model_config = ConfigDict(title="FastAnimatediffTurboVideoToVideoInput")

    num_inference_steps: int = Field(12, ge=1, le=100, description="Denoising steps.")
    guidance_scale: Finite = Field(
        2.0, ge=0, le=30, description="How strongly the prompt is followed."
    )


class File(BaseModel):
    """A file that was made."""

    url: str = Field(description="Where it can be downloaded; byte ranges are answered.")
    content_type: str
    file_name: str
    file_size: int = Field(description="Bytes.")


class FastOutput(BaseModel):
    """What the endpoints of fast-animatediff give."""

    model_config = ConfigDict(title="FastAnimatediffOutput")

    video: File
    seed: int = Field(description="The seed that was used.")


class AnimateDiffV2VOutput(FastOutput):
    """What the endpoints of animatediff-v2v give."""

    model_config = ConfigDict(title="AnimatediffV2vOutput")

    timings: dict[str, float] = Field(
        description="Seconds of decode, encode, sample, decode_latents and write, which overlap, "
        "and of all together, total."
    )


@dataclass(frozen=True)
class Endpoint:
    """A model that can be called.

    endpoint_id: what is submitted to; its first two parts, `app_id`, are what is followed.
    """

    endpoint_id: str
    input: type[AnimateDiffV2VInput] | type[FastInput]
    output: type[FastOutput]
    summary: str

    @property
    def app_id(self) -> str:
        """Owner and alias, by which status, result and cancel name it."""
        return "/".join(self.endpoint_id.split("/")[:2])

    @property
    def is_turbo(self) -> bool:
        """Whether it is for a distilled motion module."""
        return "turbo" in self.endpoint_id.split("/")


ENDPOINTS = {
    each.endpoint_id: each
    for each in (
        Endpoint(
            "fal-ai/animatediff-v2v",
            AnimateDiffV2VInput,
            AnimateDiffV2VOutput,
            "Restyle a video",
        ),
        Endpoint(
            "fal-ai/animatediff-v2v/turbo",
            AnimateDiffV2VTurboInput,
            AnimateDiffV2VOutput,
            "Restyle a video in few steps",
        ),
        Endpoint(
            "fal-ai/fast-animatediff/video-to-video",
            FastInput,
            FastOutput,
            "Restyle the first seconds of a video",
        ),
        Endpoint(
            "fal-ai/fast-animatediff/turbo/video-to-video",
            FastTurboInput,
            FastOutput,
            "Restyle the first seconds of a video in few steps",
        ),
    )
}
APP_IDS = sorted({endpoint.app_id for endpoint in ENDPOINTS.values()})


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a model, its parts under #/components/schemas."""
    return model.model_json_schema(ref_template="#/components/schemas/{model}")
