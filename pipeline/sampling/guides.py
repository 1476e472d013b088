"""ControlNets, IP-Adapters and the source itself as guides of sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import Tensor

from ..choices import check_types
from ..errors import AnimateDiffV2VError
from ..models.unet import MotionUNet
from ..models.vae import LatentCodec
from .keyframes import AnyControl, Keyframes
from .source_blend import SourceBlend
from .style import StyleImages
from .windows import ContextOptions, window_for


@dataclass(frozen=True, kw_only=True)
class Guides:
    """Guides of sampling besides the prompts; by default there are none.

    The networks of `controls` and `styles` must be on the UNet's device.
    """

    controls: tuple[AnyControl, ...] = ()
    """ControlNets with their frames, and keyframes. Their residuals add up."""
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

    def checked_window(
        self, unet: MotionUNet, latents: Tensor, context: ContextOptions | None
    ) -> ContextOptions:
        """Return the window options to sample with; see `window_for`.

        Raises:
            AnimateDiffV2VError: a network supports no windows of so many frames.
        """
        window = window_for(unet.max_frames, len(latents), context)
        length = min(len(latents), window.length)
        for keyframes in self._keyframes:
            limit = keyframes.network.max_frames
            if length > limit:
                raise AnimateDiffV2VError(
                    f"context length is {length}, but {keyframes.network.name} supports at most "
                    f"{limit} frames at once: use {limit} or less, 16 is usual."
                )
        return window

    def encoded(self, codec: LatentCodec, latents: Tensor) -> Guides:
        """Return the guides with keyframes encoded for these latents, where networks need that.

        Args:
            codec: The VAE, on the device to compute on.
            latents: [frames, 4, height / 8, width / 8].
        """
        height, width = (8 * side for side in latents.shape[-2:])
        return self._with(lambda each: each.placed(len(latents)).encoded(codec, width, height))

    def placed(self, num_frames: int) -> Guides:
        """Return the guides with the frames of keyframes counted from the first of a video."""
        return self._with(lambda each: each.placed(num_frames))

    @property
    def need_codec(self) -> bool:
        """True if keyframes are to be encoded."""
        return any(each.needs_codec for each in self._keyframes)

    @property
    def _keyframes(self) -> list[Keyframes]:
        return [each for each in self.controls if isinstance(each, Keyframes)]

    def _with(self, change: Callable[[Keyframes], Keyframes]) -> Guides:
        if not self._keyframes:
            return self
        changed = (change(each) if isinstance(each, Keyframes) else each for each in self.controls)
        return replace(self, controls=tuple(changed))


NO_GUIDES = Guides()
