"""The endpoints, with their inputs and outputs."""

from __future__ import annotations

from dataclasses import dataclass

from .schemas import (
    AnimateDiffV2VInput,
    AnimateDiffV2VOutput,
    AnimateDiffV2VTurboInput,
    FastInput,
    FastOutput,
    FastTurboInput,
)


@dataclass(frozen=True)
class Endpoint:
    """A model that can be called.

    endpoint_id: the path for submissions; status and result use its first two parts, `app_id`.
    """

    endpoint_id: str
    input: type[AnimateDiffV2VInput] | type[FastInput]
    output: type[FastOutput]
    summary: str

    @property
    def app_id(self) -> str:
        """Owner and alias, the path for status, result and cancel."""
        return "/".join(self.endpoint_id.split("/")[:2])

    @property
    def is_turbo(self) -> bool:
        """True for the endpoints that need a distilled motion module."""
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
