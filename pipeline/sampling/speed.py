"""Options that trade exactness, or compile time, for speed or memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..choices import check_types, in_range
from ..ranges import DEEP_CACHE_INTERVAL, SHARE
from .guidance import Guidance


@dataclass(frozen=True, kw_only=True)
class SpeedOptions:
    """Options that save time or memory; all are off by default.

    All but `compile` change the result.
    """

    deep_cache_interval: int = 1
    """All layers of the UNet run in every n-th call of the sampler; other calls reuse the deep
    features of the latest two whole ones (DeepCache). 1 is off; 2 and 3 suit 20 steps and more.
    Takes up to 4 GB of main memory."""
    guidance_start: float = 0.0
    """Share of the noise schedule before which the guidance scale is 1, which halves the time.
    Narrows the interval of `Guidance`."""
    guidance_end: float = 1.0
    """Share after which it is 1."""
    fp8_weights: bool = False
    """Store the UNet's weights in 8 bits and compute as before: half the memory of float16. Applies
    to networks that a job loads; `load_models` has an argument of the same name."""
    compile: bool = False
    """Run the UNet's layers as compiled code, equal up to rounding. A process's first job takes
    minutes more. For GPUs of AMD and Intel; slower on a CPU, and on NVIDIA's with Triton, whose
    layers are fused anyway. See compiled_layers."""
    reduced_precision: bool = False
    """Compute matrix products less exactly where the device is faster so: on NVIDIA cards with sums
    in float16, as ComfyUI's `--fast fp16_accumulation` does, and with `fp8_weights` in 8 bits, as
    `--fast fp8_matrix_mult` does, from compute capability 8.9 on; on CPUs with AVX512-BF16 or AMX
    in bfloat16, unless `ModelFiles.dtype` names another. Elsewhere it has no effect."""

    def __post_init__(self) -> None:
        """Refuse intervals out of range."""
        check_types(self)
        DEEP_CACHE_INTERVAL.check(
            "deep_cache_interval", self.deep_cache_interval, hint="1 is off, 2 and 3 are usual"
        )
        SHARE.check("guidance_start", self.guidance_start)
        in_range("guidance_end", self.guidance_end, self.guidance_start, 1)

    def narrowed(self, guidance: Guidance) -> Guidance:
        """Return guidance that acts only in the interval of both `guidance` and these options."""
        start = max(guidance.start, self.guidance_start)
        end = min(guidance.end, self.guidance_end)
        if start > end:
            return Guidance(scale=1.0)
        return replace(guidance, start=start, end=end)
