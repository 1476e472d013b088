"""One file of a stack of LoRAs, with its strengths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..choices import check_types
from ..curve import Curve, Strength, check_strength
from ..ranges import LORA_STRENGTH


@dataclass(frozen=True)
class LoraEntry:
    """One file of a stack. Strengths are usually 0 to 1; 0 leaves that network unchanged."""

    path: Path
    model_strength: Strength = 1.0
    """A curve changes the UNet from frame to frame or from step to step, between its start and end
    in the noise schedule."""
    clip_strength: float = 1.0
    """For the text encoder, which encodes the prompt once for all frames."""

    def __post_init__(self) -> None:
        """Check types; accept the path as text too."""
        check_types(self)
        for strength in (self.model_strength, self.clip_strength):
            name = f"the strength of {self.path.name}"
            check_strength(LORA_STRENGTH, name, strength, hint="1 is usual", whole=False)

    @property
    def merged_strength(self) -> float:
        """The strength with which the UNet's weights are changed; 0 with a curve."""
        return 0.0 if isinstance(self.model_strength, Curve) else self.model_strength
