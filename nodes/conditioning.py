"""The prompts of a node, as text or as ComfyUI's CONDITIONING, for the pipeline."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from ..pipeline import AnimateDiffV2VError, Conditioning
from ..pipeline.models import TextEncoder
from ..pipeline.prompts import PromptSchedule, PromptTrack, encode_schedule
from ..pipeline.prompts.weights import check_prompt

logger = logging.getLogger(__name__)

# Extras of a conditioning that make no difference to this sampler.
HARMLESS = {"pooled_output", "guidance"}
# Extras that this sampler ignores, and what has the same effect here.
INSTEAD = {
    "hooks": "a LoRA Stack, for the whole video",
    "control": "ControlNet for AnimateDiff",
    "mask": "source_mask of the Sampler",
}


@dataclass(frozen=True)
class PromptInputs:
    """The prompts of a sampler; a CONDITIONING or a schedule takes precedence over the text."""

    positive: str
    negative: str
    positive_schedule: PromptSchedule | None = None
    positive_conditioning: list[list[Any]] | None = None
    negative_conditioning: list[list[Any]] | None = None
    source: str | None = None
    """A description of the source, for noise_type unsample."""

    def __post_init__(self) -> None:
        """Check that there is only one positive prompt, and that weights are in range."""
        for name in ("positive", "negative", "source"):
            check_prompt(getattr(self, name) or "", name=name)
        if self.positive_schedule is not None and self.positive_conditioning is not None:
            raise AnimateDiffV2VError(
                "positive_schedule and positive_conditioning are both connected; disconnect one."
            )

    @property
    def has_text(self) -> bool:
        """True when a text encoder is needed."""
        conditionings = (self.positive_conditioning, self.negative_conditioning)
        return self.source is not None or None in conditionings

    @property
    def needs_native(self) -> bool:
        """True if a CONDITIONING has parts or extras that only ComfyUI's own sampling has."""
        conditionings = (self.positive_conditioning, self.negative_conditioning)
        return any(len(each) > 1 or _extras(each) for each in conditionings if each)

    def encoded(
        self, text_encoder: TextEncoder, *, frames: int, channels: int, native: bool = False
    ) -> Conditioning:
        """Encode the prompts; see prompt_track for `frames`, `channels` and `native`."""
        track = partial(prompt_track, frames=frames, channels=channels, native=native)
        return Conditioning(
            self._positive(text_encoder, frames, track),
            self._negative(text_encoder, track),
            None if self.source is None else PromptTrack(text_encoder.encode(self.source)),
        )

    def native(
        self, encoded: Conditioning, frames: int
    ) -> list[tuple[PromptTrack, list[list[Any]]]]:
        """Return the CONDITIONING that each encoded prompt stands for, for ComfyUI's sampling."""
        given = [
            (encoded.positive, self.positive_conditioning),
            (encoded.negative, self.negative_conditioning),
        ]
        given += [(encoded.source, None)] if encoded.source else []
        return [(track, each or _conditioning(track, frames)) for track, each in given]

    def _positive(
        self, text_encoder: TextEncoder, frames: int, track: Callable[..., PromptTrack]
    ) -> PromptTrack:
        if self.positive_conditioning is not None:
            return track(self.positive_conditioning, name="positive_conditioning")
        if self.positive_schedule is None:
            return PromptTrack(text_encoder.encode(self.positive))
        keyframes = self.positive_schedule.keyframes(frames)
        return encode_schedule(keyframes, text_encoder.encode)

    def _negative(
        self, text_encoder: TextEncoder, track: Callable[..., PromptTrack]
    ) -> PromptTrack:
        if self.negative_conditioning is None:
            return PromptTrack(text_encoder.encode(self.negative))
        return track(self.negative_conditioning, name="negative_conditioning")


def prompt_track(
    conditioning: list[list[Any]], *, name: str, frames: int, channels: int, native: bool = False
) -> PromptTrack:
    """Turn a CONDITIONING into the tokens that the UNet attends to in each frame.

    Args:
        conditioning: one part, with one encoding for all frames or one for each.
        name: the input that it comes from, for error messages.
        frames: number of frames of the video.
        channels: width of a token that the UNet expects.
        native: True if ComfyUI samples, which honours extras and any number of parts; then the
            track holds the first part.

    Raises:
        AnimateDiffV2VError: for several parts, another number of frames, or another model's tokens.
    """
    if len(conditioning) != 1 and not (native and conditioning):
        raise AnimateDiffV2VError(
            f"{name} holds {len(conditioning)} parts, and this model takes one: join prompts "
            "with Conditioning (Concat) or (Average) instead of (Combine), or load the model with "
            "AnimateDiff Model from MODEL."
        )
    for part, _ in conditioning:
        _check_encodings(part, name=name, frames=frames, channels=channels)
    encodings, extras = conditioning[0]
    ignored = _extras(conditioning)
    if ignored and not native:
        use = "; ".join(INSTEAD[key] for key in ignored if key in INSTEAD)
        logger.warning(
            "%s carries %s, which the model of Load AnimateDiff Model ignores.%s With AnimateDiff "
            "Model from MODEL it acts.",
            name,
            ", ".join(_described(key, extras[key]) for key in ignored),
            f" Use instead: {use}." if use else "",
        )
    keyframes = tuple(range(len(encodings)))
    return PromptTrack(encodings.float().cpu(), keyframes)


def _extras(conditioning: list[list[Any]]) -> list[str]:
    """Return the names of extras that make a difference."""
    found = {
        key for _, extras in conditioning for key, value in extras.items() if value is not None
    }
    return sorted(found - HARMLESS)


def _conditioning(track: PromptTrack, frames: int) -> list[list[Any]]:
    """Return a CONDITIONING of encoded prompts, with a row for each frame if they change."""
    return [[track.encodings if track.is_constant else track.at(range(frames)), {}]]


def _described(key: str, value: Any) -> str:
    """Return the name of an extra of a conditioning; for hooks, with their kinds."""
    kinds = dict.fromkeys(type(each).__name__ for each in getattr(value, "hooks", ()))
    return f"{key} ({', '.join(kinds)})" if kinds else key


def _check_encodings(encodings: Tensor, *, name: str, frames: int, channels: int) -> None:
    if encodings.shape[-1] != channels:
        raise AnimateDiffV2VError(
            f"{name} has tokens with {encodings.shape[-1]} channels and was made for another "
            f"model: this one needs {channels}, from a CLIP of Stable Diffusion 1.5."
        )
    if len(encodings) not in (1, frames):
        raise AnimateDiffV2VError(
            f"{name} holds {len(encodings)} encodings for {frames} frames; "
            "it must hold 1, or one for each frame."
        )
