"""ControlNets, IP-Adapters and CLIP's vision model as ComfyUI's memory manager has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ...pipeline import AnimateDiffV2VError
from .devices import Places
from .managed_models import Origin, WholeModelPatcher, patcher_of, ready_network
from .progress import raise_if_interrupted

Network = TypeVar("Network", bound=nn.Module)

# What CLIP's pictures are on average; to its vision model such a picture is all zeros.
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_SIZE = 224


@dataclass(frozen=True)
class Chain:
    """ControlNets, or IP-Adapters, in a row, and the patchers of their networks."""

    links: tuple[Any, ...] = ()
    patchers: tuple[WholeModelPatcher, ...] = ()

    def plus(self, link: Any, patcher: WholeModelPatcher) -> Chain:
        """The same with one more at its end."""
        return Chain((*self.links, link), (*self.patchers, patcher))

    def get_models(self) -> list[WholeModelPatcher]:
        """All patchers, for ComfyUI's accounting."""
        return list(self.patchers)

    def get_ram_usage(self) -> int:
        """Bytes that the networks take, for ComfyUI's cache."""
        return sum(patcher.model_size() for patcher in self.patchers)


def managed(
    origin: Origin, load: Callable[[], Network], places: Places
) -> tuple[Network, WholeModelPatcher]:
    """Give a network and its patcher: the ones that ComfyUI still has, or new ones."""
    network: Any = ready_network(origin)
    if network is None:
        network = load()
    return network, patcher_of(network, places.unet, places.waiting, origin)


class VisionEncoder:
    """ComfyUI's CLIP_VISION for IP-Adapters; it manages its memory itself."""

    def __init__(self, clip_vision: Any, *, as_tokens: bool) -> None:
        """Use a value of ComfyUI's CLIP_VISION type.

        as_tokens: give the tokens before its last layer, not the one embedding of an image.
        """
        self._clip_vision, self._as_tokens = clip_vision, as_tokens

    def encode(self, images: Tensor) -> Tensor:
        """Give [images, channels] or [images, tokens, channels], float32, on the CPU.

        images: [images, height, width, 3 or 4], float 0..1; the middle square counts.
        """
        return torch.cat([self._encoded(image[..., :3].unsqueeze(0)) for image in images])

    def empty(self) -> Tensor:
        """The same of no image, as IP-Adapters were trained: zeros, or a picture of zeros."""
        mean = getattr(self._clip_vision, "image_mean", _CLIP_MEAN)
        grey = torch.tensor(mean).expand(1, _CLIP_SIZE, _CLIP_SIZE, 3)
        encoded = self._encoded(grey)
        return encoded if self._as_tokens else torch.zeros_like(encoded)

    def _encoded(self, image: Tensor) -> Tensor:
        raise_if_interrupted()
        output = self._clip_vision.encode_image(image)
        name = "penultimate_hidden_states" if self._as_tokens else "image_embeds"
        encoded = getattr(output, name, None)
        if encoded is None:
            raise AnimateDiffV2VError(
                "The connected CLIP_VISION gives no image embedding: connect Load CLIP Vision with "
                "CLIP-ViT-H-14-laion2B-s32B-b79K."
            )
        result: Tensor = encoded.float().cpu()
        return result
