"""Prompts: weights, chunks of tokens for CLIP, and schedules over the frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..on_demand import on_demand

if TYPE_CHECKING:
    from .embeddings import embedding_finder
    from .schedule import PromptSchedule, encode_schedule, parse_schedule
    from .track import PromptTrack

__all__ = ["PromptSchedule", "PromptTrack", "embedding_finder", "encode_schedule", "parse_schedule"]

on_demand(
    __name__,
    {
        "embeddings": ("embedding_finder",),
        "schedule": (
            "PromptSchedule",
            "encode_schedule",
            "parse_schedule",
        ),
        "track": ("PromptTrack",),
    },
)
