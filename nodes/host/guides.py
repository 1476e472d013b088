"""ControlNets, IP-Adapters and CLIP's vision model under ComfyUI's memory manager."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ...pipeline import AnimateDiffV2VError
from ...pipeline.models.vision_encoder import CLIP_MEAN
from .devices import Devices
from .managed_models import Origin, WholeModelPatcher, patcher_of, ready_network
from .progress import raise_if_interrupted

Network = TypeVar("Network", bound=nn.Module)

_CLIP_SIZE = 224


@dataclass(frozen=True)
class Chain:
    """A chain of ControlNets or of IP-Adapters, with the patchers of their networks."""

    links: tuple[Any, ...] = ()
    patchers: tuple[WholeModelPatcher, ...] = ()

    def plus(self, link: Any, patcher: WholeModelPatcher) -> Chain:
        """Return the chain with one more link at its end."""
        return Chain((*self.links, link), (*self.patchers, patcher))

    def get_models(self) -> list[WholeModelPatcher]:
        """Return all patchers; ComfyUI counts their memory."""
        return list(self.patchers)

    def get_ram_usage(self) -> int:
        """Return the size of the networks in bytes; ComfyUI's cache asks for it."""
        return sum(patcher.model_size() for patcher in self.patchers)


def managed(
    origin: Origin, load: Callable[[], Network], devices: Devices
) -> tuple[Network, WholeModelPatcher]:
    """Return a network and its patcher, reusing those that ComfyUI still holds."""
    network: Any = ready_network(origin)
    if network is None:
        network = load()
    return network, patcher_of(network, devices.unet, devices.offload, origin)


class VisionEncoder:
    """ComfyUI's CLIP_VISION for IP-Adapters; ComfyUI manages its memory."""

    def __init__(self, clip_vision: Any, *, as_tokens: bool) -> None:
        """Wrap a value of ComfyUI's CLIP_VISION type.

        Args:
            clip_vision: the CLIP_VISION.
            as_tokens: return the tokens before the last layer instead of one embedding per image.
        """
        self._clip_vision, self._as_tokens = clip_vision, as_tokens

    def encode(self, images: Tensor) -> Tensor:
        """Return [images, channels] or [images, tokens, channels], float32, on the CPU.

        Args:
            images: [images, height, width, 3 or 4], float 0..1; only the middle square is used.
        """
        return torch.cat([self._encoded(image[..., :3].unsqueeze(0)) for image in images])

    def empty(self) -> Tensor:
        """Return the encoding of "no image" used in training: zeros, or an encoded grey picture."""
        mean = getattr(self._clip_vision, "image_mean", CLIP_MEAN)
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
                "The connected CLIP_VISION returns no image embedding: connect Load CLIP Vision "
                "with CLIP-ViT-H-14-laion2B-s32B-b79K."
            )
        result: Tensor = encoded.float().cpu()
        return result
