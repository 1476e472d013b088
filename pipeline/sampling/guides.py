"""ControlNets, IP-Adapters and the source itself as guides of sampling."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..choices import check_types
from ..models.unet import MotionUNet
from .control import Control
from .source_blend import SourceBlend
from .style import StyleImages


@dataclass(frozen=True, kw_only=True)
class Guides:
    """Guides of sampling besides the prompts; by default there are none.

    The networks of `controls` and `styles` must be on the UNet's device.
    """

    controls: tuple[Control, ...] = ()
    """ControlNets with their frames. Their residuals add up."""
    styles: tuple[StyleImages, ...] = ()
    """IP-Adapters with their images. Their attention adds up."""
    source_blend: SourceBlend = field(default_factory=SourceBlend)
    """A mask and a strength with which the source is kept."""

    def __post_init__(self) -> None:
        """Refuse values of other types; take lists for tuples."""
        check_types(self)

    def check_fits(self, unet: MotionUNet, latents: Tensor) -> None:
        """Raise AnimateDiffV2VError unless every guide fits the UNet and the latents.

        Args:
            unet: The network that will sample.
            latents: [frames, 4, height / 8, width / 8].
        """
        for control in self.controls:
            control.check_fits(unet, latents)
        for style in self.styles:
            style.check_fits(unet)
        self.source_blend.check_fits(latents)


NO_GUIDES = Guides()
