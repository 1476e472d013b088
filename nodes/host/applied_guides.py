"""This pack's ControlNets and keyframes behind Apply AnimateDiff, for ComfyUI's own samplers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from ...pipeline import AnimateDiffV2VError, ContextOptions
from ...pipeline.files import MotionFamily
from ...pipeline.models import LatentCodec
from ...pipeline.models.motion_module import MotionModules
from ...pipeline.models.spatial_unet import SpatialUNet, UNetSizes
from ...pipeline.models.unet import MotionUNet
from ...pipeline.sampling import AnyControl, Guides
from ...pipeline.sampling.noise_schedule import NoiseSchedule
from .window_guides import WindowGuides


@dataclass(frozen=True)
class AppliedGuides:
    """ControlNets and keyframes for each run of a sampler, whatever the size of its latents."""

    guides: Guides
    unet: MotionUNet
    """The sizes of the network that they guide."""
    codec: LatentCodec | None
    """Encodes keyframes."""

    @classmethod
    def of(
        cls,
        links: Sequence[AnyControl],
        codec: LatentCodec | None,
        *,
        config: Mapping[str, Any],
        motion: MotionModules,
        family: MotionFamily,
    ) -> AppliedGuides:
        """Return the guides of a chain.

        Args:
            links: ControlNets and keyframes.
            codec: The VAE, or None.
            config: The sizes of the MODEL's UNet, as arguments of UNetSizes.
            motion: The motion modules.
            family: Their family.

        Raises:
            AnimateDiffV2VError: keyframes are to be encoded, and there is no VAE.
        """
        with torch.device("meta"):
            sizes = SpatialUNet(UNetSizes(**config))
        guides = Guides(controls=tuple(links))
        if guides.need_codec and codec is None:
            raise AnimateDiffV2VError(
                "Keyframes for pictures (RGB) are encoded by a VAE: connect the checkpoint's VAE "
                "to vae of Apply AnimateDiff."
            )
        return cls(guides, MotionUNet(sizes, motion, family=family), codec)

    def prepared(self, model: Any, shape: Sequence[int], context: ContextOptions) -> WindowGuides:
        """Return the guides for latents.

        Args:
            model: The MODEL, for its noise levels.
            shape: That of the latents, [frames, 4, height / 8, width / 8].
            context: The windows.

        Raises:
            AnimateDiffV2VError: a guide does not fit the MODEL or the latents.
        """
        latents = torch.empty(*shape, device="meta")
        guides = self.guides
        if self.codec is not None:
            guides = guides.encoded(self.codec, latents)
        guides = guides.placed(len(latents))
        guides.check_fits(self.unet, latents)
        guides.checked_window(self.unet, latents, context)
        levels = cast(NoiseSchedule, _Levels(model.get_model_object("model_sampling")))
        return WindowGuides(levels, guides.controls, (), lambda _share: None)


@dataclass(frozen=True)
class _Levels:
    """The noise levels of a MODEL."""

    sampling: Any
    """ComfyUI's model_sampling."""

    def sigma_at(self, share: float) -> float:
        """Return the noise level at a share of the schedule, as ComfyUI's own ControlNets do."""
        return float(self.sampling.percent_to_sigma(share))
