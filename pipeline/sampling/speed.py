"""What trades some of the result, or time at the beginning, for speed or memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..choices import check_types, in_range
from ..ranges import DEEP_CACHE_INTERVAL, SHARE
from .guidance import Guidance


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """Ways to need less time or memory; as they stand here, none is on.

    All but `compile` change the result.
    """

    deep_cache_interval: int = 1
    """Every how many calls of the sampler all layers of the UNet run; between, the deep ones are
    those of the latest whole call (DeepCache). 1 runs all always; 2 and 3 suit 20 steps and more.
    Takes up to 2 GB of main memory."""
    guidance_start: float = 0.0
    """Share of the noise schedule before which the guidance scale is 1, which takes half the time;
    narrows the interval that `Guidance` has of its own."""
    guidance_end: float = 1.0
    """Share after which it is 1."""
    fp8_weights: bool = False
    """Store the UNet's weights in 8 bits and compute as before: half the memory of float16. Of the
    networks that a job loads; `load_models` has an argument of the same name."""
    compile: bool = False
    """Run the UNet's layers as compiled code, equal to rounding. The first job of a process takes
    minutes more. For GPUs of AMD and Intel: slower on NVIDIA's with Triton, whose layers are fused
    anyway, and on a CPU. See compiled_layers."""

    def __post_init__(self) -> None:
        """Refuse what is no interval."""
        check_types(self)
        DEEP_CACHE_INTERVAL.check(
            "deep_cache_interval", self.deep_cache_interval, hint="1 is off, 2 and 3 are usual"
        )
        SHARE.check("guidance_start", self.guidance_start)
        in_range("guidance_end", self.guidance_end, self.guidance_start, 1)

    def narrowed(self, guidance: Guidance) -> Guidance:
        """Guidance only where both it and these options have it act."""
        start = max(guidance.start, self.guidance_start)
        end = min(guidance.end, self.guidance_end)
        if start > end:
            return Guidance(scale=1.0)
        return replace(guidance, start=start, end=end)
