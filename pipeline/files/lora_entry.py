"""One file of a stack of LoRAs, with its strengths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..choices import check_types
from ..ranges import LORA_STRENGTH


@dataclass(frozen=True)
class LoraEntry:
    """One file of a stack. Strengths are usually 0 to 1; 0 leaves that network unchanged."""

    path: Path
    model_strength: float = 1.0
    clip_strength: float = 1.0

    def __post_init__(self) -> None:
        """Check types; accept the path as text too."""
        check_types(self)
        for strength in (self.model_strength, self.clip_strength):
            LORA_STRENGTH.check(f"the strength of {self.path.name}", strength, hint="1 is usual")
